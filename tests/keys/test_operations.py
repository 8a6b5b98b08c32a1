"""What is done to jobs from outside, where they have a key: whatever state they are in, the others of the key go on,
one at a time and in order, and nobody waits for ever."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from support import PATIENCE, execute

from pq import PQ, LeasedJob, LeaseLost, Limit, Queue

Sql = Callable[..., list[tuple[Any, ...]]]

#: Seconds within which a job comes, although nobody tells that it can.
SOON = 2.0


class Line(NamedTuple):
    """The jobs of a key: the one that something is done to, and the others.

    :ivar id: the id of that one.
    :ivar running: it, where it is running.
    """

    pq: PQ
    queue: Queue
    id: int
    running: LeasedJob | None


def put(queue: Queue, *data: Any) -> int:
    """Put jobs, and return the id of the last."""
    return [queue.put(each, key="k") for each in data][-1]


def lease(queue: Queue, timeout: float = PATIENCE) -> LeasedJob | None:
    job: Any = queue.get(lease="1h", timeout=timeout)
    return job


def ready(queue: Queue) -> LeasedJob | None:
    put(queue, "it", 1, 2, 3)
    return None


def held(queue: Queue) -> LeasedJob | None:
    put(queue, 0, "it", 1, 2, 3)
    return None


def running(queue: Queue) -> LeasedJob | None:
    put(queue, "it", 1, 2, 3)
    return lease(queue)


def expired(queue: Queue) -> LeasedJob | None:
    put(queue, "it")
    job = lease(queue)
    assert job is not None
    queue._table.execute(f"update {queue.table} set due_at = clock_timestamp() where id = {job.id}")
    put(queue, 1, 2, 3)
    return None


def retrying(queue: Queue) -> LeasedJob | None:
    put(queue, "it")
    job = lease(queue)
    assert job is not None
    job.retry("1h")
    put(queue, 1, 2, 3)
    return None


def scheduled(queue: Queue) -> LeasedJob | None:
    queue.put("it", key="k", schedule_at="1h")
    put(queue, 1, 2, 3)
    return None


def dead(queue: Queue) -> LeasedJob | None:
    put(queue, "it")
    job = lease(queue)
    assert job is not None
    job.fail("no good")
    put(queue, 1, 2, 3)
    return None


STATES = [ready, held, running, expired, retrying, scheduled, dead]


@pytest.fixture(params=[None, 0], ids=["kept", "retain=0"])
def queue(pq: PQ, request: pytest.FixtureRequest) -> Queue:
    if request.param == 0:
        pq.create(retain=0)
    return pq["a"]


@pytest.fixture
def line(pq: PQ, queue: Queue, request: pytest.FixtureRequest) -> Line:
    job = request.param(queue)
    ((id,),) = queue._table.execute(f"select id from {queue.table} where data::text = '\"it\"'")
    return Line(pq, queue, id, job)


every_state = pytest.mark.parametrize("line", STATES, indirect=True, ids=lambda state: state.__name__)


def drained(queue: Queue) -> list[Any]:
    """What is taken and done, one after the other: no two at a time, and none after long."""
    found = []
    while (counts := queue.counts())["ready"] + counts["held"] and (job := lease(queue, SOON)) is not None:
        assert lease(queue, 0) is None, "two at a time"
        found.append(job.data)
        job.done()
    return found


def check(line: Line, *possible: list[Any]) -> None:
    """What is left is taken in one of these orders, and then the line is empty, and goes on with what is put."""
    found = drained(line.queue)
    assert found in possible, found
    put(line.queue, 4, 5)
    assert drained(line.queue) == [4, 5]
    assert line.queue.counts()["held"] == 0


def others(line: Line) -> list[Any]:
    state = line.queue._table.execute(f"select data from {line.queue.table} where data::text = '0'")
    return [0, 1, 2, 3] if state else [1, 2, 3]


def with_it(line: Line) -> list[Any]:
    found = others(line)
    found.insert(found.index(1), "it")
    return found


# -- that it goes


@every_state
def test_cancel(line: Line) -> None:
    left = others(line)
    line.queue.cancel(line.id)
    if line.running:
        with pytest.raises(LeaseLost):
            line.running.done()
    check(line, left)


@every_state
@pytest.mark.parametrize("statement", ["delete from queue", "update queue set dequeued_at = now(), due_at = null"])
def test_plain_sql_ends_it(line: Line, sql: Sql, statement: str) -> None:
    """The update is a take, which may not pass over others: it does nothing then."""
    left = others(line)
    state = line.queue.find(line.id).state  # type: ignore[union-attr]
    sql(f"{statement} where id = %s", (line.id,))
    gone = not sql("select 1 from queue where id = %s and (dequeued_at is null or due_at is not null)", (line.id,))
    assert gone == (statement.startswith("delete") or state != "held")
    check(line, left if gone else with_it(line))


@every_state
def test_move(line: Line, pq: PQ) -> None:
    """It is ready in the other queue, unless others of its key are there; and theirs go on."""
    left, job = others(line), line.queue.find(line.id)
    assert job is not None
    other = pq["b"]
    other.put("there", key="k")
    moved = line.queue.move(line.id, "b")
    assert moved == (job.state not in ("running", "dead"))
    if line.running:
        line.running.done()
    check(line, left)
    if job.state == "scheduled" and job.attempts:
        assert drained(other) == []  # it keeps its place until its retry
        other.cancel(line.id)
    here = moved and job.state != "scheduled"
    assert drained(other) in ([["there", "it"], ["it", "there"]] if here else [["there"]])


@every_state
def test_reschedule_to_later(line: Line) -> None:
    left, state = others(line), line.queue.find(line.id).state  # type: ignore[union-attr]
    changed = line.queue.reschedule(line.id, schedule_at="1h")
    assert changed == (state not in ("running", "dead"))
    if line.running:
        line.running.done()
    if changed and line.queue.find(line.id).attempts:  # type: ignore[union-attr]
        assert drained(line.queue) == []  # it keeps its place until its retry
        line.queue.cancel(line.id)
    check(line, left)


@every_state
@pytest.mark.parametrize("times", [{"schedule_at": None}, {"expected_at": "0s"}])
def test_reschedule_to_now_or_first(line: Line, times: dict[str, Any]) -> None:
    left, all_, state = others(line), with_it(line), line.queue.find(line.id).state  # type: ignore[union-attr]
    first = ["it", *left]
    line.queue.reschedule(line.id, **times)
    if line.running:
        line.running.done()
    if state in ("running", "dead") or (state == "scheduled" and "schedule_at" not in times):
        if state == "scheduled" and line.queue.find(line.id).attempts:  # type: ignore[union-attr]
            assert drained(line.queue) == []
            line.queue.cancel(line.id)
        check(line, left)
    else:
        check(line, all_, first, [left[0], "it", *left[1:]])


@every_state
def test_clear(line: Line) -> None:
    """Nobody is left; whoever is running finds that the job is gone."""
    line.queue.clear()
    if line.running:
        with pytest.raises(LeaseLost):
            line.running.done()
    check(line, [])


@every_state
def test_reset(line: Line) -> None:
    line.pq.limits["a"] = Limit(per_key=1)
    line.pq.reset(force=True)
    assert line.pq.limits["a"].per_key == 1
    check(line, [])


@every_state
def test_prune_takes_nobody_of_the_line(line: Line, sql: Sql) -> None:
    line.pq.create(retain="1m", retain_dead="1m")
    sql("update queue set enqueued_at = now() - interval '1 day'")
    all_, left, state = with_it(line), others(line), line.queue.find(line.id).state  # type: ignore[union-attr]
    line.pq.prune()
    if state in ("running", "dead"):
        check_running(line)
        check(line, left)
    elif state == "scheduled":
        if line.queue.find(line.id).attempts:  # type: ignore[union-attr]
            line.queue.cancel(line.id)
        check(line, left)
    else:
        check(line, all_)


def check_running(line: Line) -> None:
    if line.running:
        assert lease(line.queue, 0) is None
        line.running.done()


# -- a pause


@every_state
def test_pause(line: Line) -> None:
    all_, left, state = with_it(line), others(line), line.queue.find(line.id).state  # type: ignore[union-attr]
    line.queue.pause()
    if line.running:
        line.running.done()  # which makes the next one ready, for later
    assert lease(line.queue, 0) is None
    line.queue.resume()
    if state in ("running", "dead"):
        check(line, left)
    elif state == "scheduled":
        if line.queue.find(line.id).attempts:  # type: ignore[union-attr]
            line.queue.cancel(line.id)
        check(line, left)
    else:
        check(line, all_)


# -- dead jobs


@pytest.mark.parametrize("line", [dead], indirect=True, ids=[""])
@pytest.mark.parametrize("on_dead", ["next", "stop"])
@pytest.mark.parametrize("how", ["retry", "retry all", "discard", "discard all", "cancel", "delete", "prune", "get"])
def test_a_dead_job(line: Line, on_dead: Any, how: str, sql: Sql) -> None:
    pq, queue = line.pq, line.queue
    pq.limits["a"] = Limit(on_dead=on_dead)
    if on_dead == "stop":
        queue.cancel([job.id for job in queue.list() if job.state != "dead"])
        put(queue, 1, 2, 3)
        assert drained(queue) == []
    if how == "get":
        queue.dead.get(line.id).retry()
    elif how == "retry":
        assert queue.dead.retry(line.id)
    elif how == "retry all":
        assert queue.dead.retry(all=True) == 1
    elif how == "discard":
        queue.dead.discard(line.id)
    elif how == "discard all":
        assert queue.dead.discard(all=True) == 1
    elif how == "cancel":
        queue.cancel(line.id)
    elif how == "delete":
        sql("delete from queue where id = %s", (line.id,))
    else:
        pq.create(retain_dead="1m")
        sql("update queue set dequeued_at = now() - interval '1 day' where id = %s", (line.id,))
        assert pq.prune() >= 1
    if how.startswith("retry") or how == "get":
        check(line, ["it", 1, 2, 3], [1, "it", 2, 3])
    else:
        check(line, [1, 2, 3])


@pytest.mark.parametrize("how", ["reschedule", "dead", "move"])
def test_who_has_left_the_line_does_not_go_on_as_if_it_had_not(pq: PQ, how: str) -> None:
    """A job that the end of the one before has made ready may run without a look at the others, but only as long as it
    stays where it is; and a dead one in whose place another one runs does not make a further one ready."""
    queue = pq["a"]
    put(queue, 0, 1, 2)
    first = lease(queue)
    assert first is not None
    if how == "reschedule":
        second = queue.list(state="held")[0].id
        first.done()
        assert queue.reschedule(second, schedule_at="50ms")
        running = lease(queue)
        assert running is not None
        assert running.data == 2
        assert lease(queue, 0.3) is None
        running.done()
        assert drained(queue) == [1]
    elif how == "dead":
        first.fail("no good")
        running = lease(queue)
        assert running is not None
        pq.limits["a"] = Limit(on_dead="stop")
        queue.dead.discard(first.id)
        assert lease(queue, 0.3) is None
        running.done()
        assert drained(queue) == [2]
    else:
        first.done()
        (second,) = [job.id for job in queue.list(state="ready")]
        assert queue.move(second, "b")
        assert pq["b"].find(second).state == "ready"  # type: ignore[union-attr]
        ((alone,),) = queue._table.execute(f"select is_alone from queue where id = {second}")
        assert alone is None


def test_a_limit_that_no_longer_stops_lets_the_line_go_on(pq: PQ) -> None:
    queue = pq["a"]
    pq.limits["a"] = Limit(on_dead="stop")
    put(queue, "it")
    job = lease(queue)
    assert job is not None
    job.fail("no good")
    put(queue, 1, 2, 3)
    assert drained(queue) == []
    pq.limits["a"] = Limit(on_dead="next")
    assert drained(queue) == [1, 2, 3]


# -- the table


def test_the_state_of_a_key_goes_with_a_reset_and_stays_with_a_clear(pq: PQ, dsn: str) -> None:
    queue = pq["a"]
    for end, left in ((queue.clear, {"n": 1}), (lambda: pq.reset(force=True), {})):
        pq.key_state("a", "k", {"n": 1})
        put(queue, 1)
        end()
        assert pq.key_state("a", "k") == left
    assert execute(dsn, "select * from queue_checks") == []
