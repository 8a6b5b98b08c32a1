"""Jobs that are cancelled, given another time, or moved: what becomes of them, and of who has them just then."""

from __future__ import annotations

import datetime as dt
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from support import PATIENCE, Background, wait_until

from pq import PQ, JobNotFound, LeasedJob, LeaseLost, Queue
from pq import tasks as pq_tasks
from pq._queue.browse import STATES
from pq.tasks import Worker, current

Sql = Callable[..., list[tuple[Any, ...]]]
HOUR = dt.timedelta(hours=1)
ROWS = "select ctid::text, xmin::text, * from queue order by id"


def take(queue: Queue, lease: str = "1h") -> LeasedJob:
    job = queue.get(block=False, lease=lease)
    assert isinstance(job, LeasedJob)
    return job


def make(queue: Queue, state: str) -> int:
    """A job in that state, and nothing else that is ready."""
    if state == "scheduled":
        return queue.put(state, "1h")
    id = queue.put(state)
    if state == "running":
        take(queue)
    elif state == "dead":
        take(queue).fail("why")
    elif state == "retry":
        take(queue).retry("1h", "why")
    elif state == "expired":
        take(queue, "1s").extend("0s")
    elif state == "finished":
        queue.get()
    return id


# -- cancelling


@pytest.mark.parametrize("state", ["ready", "scheduled", "retry", "running", "expired"])
@pytest.mark.parametrize("kept", [True, False], ids=["kept", "not kept"])
def test_a_cancelled_job_is_finished(dsn: str, sql: Sql, state: str, kept: bool) -> None:
    with PQ(dsn) as pq:
        pq.create(retain="7d" if kept else 0)
        queue = pq["a"]
        id = make(queue, state)
        assert queue.cancel(id) == 1
        assert queue.count() == len(queue) == 0
        assert queue.get(block=False, lease="1h") is None
        if kept or state in ("running", "expired"):  # whoever runs it is to learn of it
            job = queue[id]
            assert (job.state, job.cancelled, job.error, job.first_failed_at) == ("finished", True, None, None)
            assert sql("select now() - dequeued_at < interval '1 minute', due_at is null from queue") == [(True, True)]
        else:
            assert sql("select from queue") == []
        assert queue.cancel(id) == 0


def test_what_is_left_of_a_cancelled_job_is_pruned(pq: PQ, sql: Sql) -> None:
    pq.create(retain=0)
    make(pq["a"], "running")
    assert pq["a"].cancel(1) == 1
    assert pq.prune() == 0
    sql("update queue set dequeued_at = dequeued_at - interval '2 minutes'")
    assert pq.prune() == 1


def test_a_dead_job_is_deleted(pq: PQ) -> None:
    queue = pq["a"]
    id = make(queue, "dead")
    assert queue.cancel(id) == 1
    assert (queue.find(id), len(queue.dead)) == (None, 0)


def test_jobs_that_are_finished_or_of_other_queues_are_passed_over(pq: PQ, sql: Sql) -> None:
    others = [make(pq["b"], state) for state in ("ready", "scheduled", "running", "dead", "finished")]
    others.append(make(pq["a"], "finished"))
    before = sql(ROWS)
    assert pq["a"].cancel([*others, 0, -1, 2**62, 2**63, -(10**30)]) == 0
    assert pq["a"].cancel([]) == 0
    assert sql(ROWS) == before


def test_several_are_cancelled_and_counted_once(pq: PQ) -> None:
    queue = pq["a"]
    ids = [make(queue, state) for state in ("dead", "running", "retry", "scheduled", "ready")]
    kept = queue.put("kept")
    assert queue.cancel(iter([*ids, *ids])) == 5
    assert [job.id for job in queue.list()] == [kept]


@pytest.mark.parametrize("wrong", ["1", b"1", None, True, 1.0, [1, "2"]])
def test_ids_are_ints(pq: PQ, wrong: Any) -> None:
    queue = pq["a"]
    queue.put(1)
    for act in (queue.cancel, lambda ids: queue.move(ids, "b"), lambda ids: queue.reschedule(ids, "1h")):
        with pytest.raises(TypeError, match="a job id must be an int"):
            act(wrong)
    assert len(queue) == 1


@pytest.mark.parametrize("commit", [True, False])
def test_in_a_transaction_it_is_part_of_it(pq: PQ, commit: bool) -> None:
    queue = pq["a"]
    ids = [make(queue, "scheduled"), make(queue, "dead")]
    with suppress(ZeroDivisionError), queue:
        assert queue.cancel(ids) == 2
        assert queue.count() == 0
        assert Background(queue.count).result() == 2
        if not commit:
            1 / 0  # noqa: B018
    assert queue.count() == (0 if commit else 2)


# -- who has it just then


def test_a_job_in_a_transaction_is_neither_cancelled_nor_waited_for(pq: PQ) -> None:
    queue = pq["a"]
    held, free = queue.put_many([1, 2])
    with queue:
        assert queue.get(block=False) is not None
        assert Background(queue.cancel, [held, free]).result() == 1
        assert not Background(queue.reschedule, held, "1h").result()
        assert not Background(queue.move, held, "b").result()
    assert (queue[held].state, queue[held].cancelled) == ("finished", False)


def test_a_row_that_is_locked_for_a_moment_is_waited_for(
    pq: PQ, connect: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by a claim that promotes it, or a heartbeat."""
    monkeypatch.setattr("pq._queue.control.PAUSES", (0.01,) * 3000)
    id = pq["a"].put(1)
    conn = connect()
    conn.cursor().execute("update queue set due_at = null")
    cancel = Background(pq["a"].cancel, id)
    cancel.join(0.1)
    assert cancel.is_alive()
    conn.commit()
    assert cancel.result() == 1


ENDS: dict[str, Callable[[LeasedJob], Any]] = {
    "done": lambda job: job.done(),
    "retry": lambda job: job.retry("1h"),
    "fail": lambda job: job.fail("why"),
    "release": lambda job: job.release(),
    "extend": lambda job: job.extend(),
    "progress": lambda job: job.progress(1),
    "batch": lambda job: job.queue.done([job]),
}


@pytest.mark.parametrize("end", list(ENDS))
@pytest.mark.parametrize("retain", ["7d", 0])
def test_whoever_runs_a_cancelled_job_is_fenced_out_and_told(pq: PQ, sql: Sql, end: str, retain: Any) -> None:
    pq.create(retain=retain)
    queue = pq["a"]
    id = queue.put(1)
    job = take(queue)
    assert queue.cancel(id) == 1
    before = sql(ROWS)
    assert not job.cancelled
    with pytest.raises(LeaseLost):
        ENDS[end](job)
    assert job.cancelled
    assert sql(ROWS) == before


def test_a_lease_that_was_lost_otherwise_was_not_cancelled(pq: PQ) -> None:
    for again in (False, True):
        pq["a"].put(1)
        job = take(pq["a"])
        job.extend("0s")
        other = take(pq["a"])
        if again:
            other.fail("why")
        with pytest.raises(LeaseLost):
            job.extend()
        assert not job.cancelled
        with suppress(LeaseLost):
            other.done()


def test_the_effects_of_a_cancelled_job_are_rolled_back_with_its_end(pq: PQ, sql: Sql) -> None:
    queue = pq["a"]
    sql("create table effects (id bigint)")
    id = queue.put(1)
    job = take(queue)
    with pytest.raises(LeaseLost), queue as cursor:
        cursor.execute("insert into effects values (1)")
        assert Background(queue.cancel, id).result() == 1
        job.done()
    assert sql("select from effects") == []


def race(*calls: Callable[[], Any]) -> list[Any]:
    """What each returns, begun at once."""
    start = threading.Barrier(len(calls))

    def run(call: Callable[[], Any]) -> Any:
        start.wait(PATIENCE)
        return call()

    return [thread.result() for thread in [Background(run, call) for call in calls]]


def test_a_cancel_against_a_get_has_one_winner(pq: PQ) -> None:
    queue = pq["a"]
    won = {True: 0, False: 0}
    for n in range(60):
        id = queue.put(n, random.choice([None, dt.timedelta(seconds=-1)]))
        cancelled, job = race(lambda id=id: queue.cancel(id), lambda: queue.get(block=False))  # type: ignore[misc]
        if job is None and not cancelled:  # each found it locked by the other
            continue
        assert cancelled + (job is not None) == 1
        assert queue[id].cancelled is bool(cancelled)
        won[bool(cancelled)] += 1
    assert sum(won.values()) >= 30


def test_two_cancels_at_once_cancel_a_job_once(pq: PQ) -> None:
    queue = pq["a"]
    for state in ("ready", "running", "dead", "scheduled") * 8:
        id = make(queue, state)
        counts = race(*[lambda id=id: queue.cancel(id)] * 3)  # type: ignore[misc]
        assert sum(counts) == 1


@pytest.mark.parametrize("end", ["done", "retry", "fail", "release"])
def test_a_cancel_against_the_end_of_a_lease_has_one_winner(pq: PQ, end: str) -> None:
    queue = pq["a"]

    def settle(job: LeasedJob) -> bool:
        try:
            ENDS[end](job)
            return True
        except LeaseLost:
            return False

    for n in range(25):
        id = queue.put(n)
        job = take(queue)
        cancelled, settled = race(lambda id=id: queue.cancel(id), lambda job=job: settle(job))  # type: ignore[misc]
        if end == "done":
            assert cancelled + settled == 1
        else:  # what was settled can be cancelled after that
            assert cancelled or settled
        if cancelled and end == "fail" and settled:
            assert queue.find(id) is None
        elif cancelled:
            assert queue[id].cancelled
        if not settled:
            assert job.cancelled
        queue.clear()


def test_cancels_against_a_heartbeat_always_win(pq: PQ, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its lock on the row is no transaction that somebody has open."""
    monkeypatch.setattr("pq._queue.control.PAUSES", (0.01,) * 100)  # on a machine that stands still at times
    queue = pq["a"]
    over = threading.Event()
    ids = queue.put_many(range(30))
    jobs = queue.get_many(30, lease="1h")

    def beat() -> None:
        for job in jobs * 100:
            if over.is_set():
                return
            with suppress(LeaseLost):
                job.extend()

    beats = [Background(beat) for _ in range(3)]
    try:
        assert [queue.cancel(id) for id in ids] == [1] * 30
    finally:
        over.set()
        for each in beats:
            each.result()


# -- a worker


@pytest.fixture
def tasks(dsn: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[pq_tasks.PQ]:
    monkeypatch.setattr(pq_tasks.Queue, "handler_registry", {})
    with pq_tasks.PQ(dsn, timeout=0.05) as made:
        yield made


@pytest.mark.parametrize("retain", ["7d", 0])
def test_a_handler_sees_at_the_next_heartbeat_that_its_job_was_cancelled(tasks: pq_tasks.PQ, retain: Any) -> None:
    tasks.create(retain=retain)
    queue = tasks["a"]
    began = threading.Event()
    ended = []

    @queue.task()
    def endless(job_id: int) -> None:
        began.set()
        wait_until(lambda: current().cancelled, "the cancellation")
        ended.append(job_id)

    id = endless()
    worker = Worker(tasks, lease="300ms", max_jobs=1)
    told = []
    worker.on("cancelled", told.append)
    running = Background(worker.run)
    assert began.wait(PATIENCE)
    assert queue.cancel(id) == 1
    running.result()
    assert ended == [id]
    assert [(event.name, event.job.id) for event in told] == [("cancelled", id)]
    assert worker.status()["counts"] == {"start": 1, "done": 0, "retry": 0, "dead": 0, "lost": 0, "cancelled": 1}
    assert queue[id].cancelled


@pytest.mark.parametrize("transactional", [False, True])
def test_a_job_that_was_cancelled_while_it_ran_is_not_done(
    tasks: pq_tasks.PQ, sql: Sql, transactional: bool
) -> None:
    """Before a heartbeat has told."""
    queue = tasks["a"]
    sql("create table effects (id bigint)")

    @queue.task(transactional=transactional)
    def effect(job_id: int) -> None:
        if transactional:
            current().cursor.execute("insert into effects values (1)")
        assert Background(queue.cancel, job_id).result() == 1

    id = effect()
    worker = Worker(tasks)
    worker.run_once()
    assert worker.status()["counts"] == {"start": 1, "done": 0, "retry": 0, "dead": 0, "lost": 0, "cancelled": 1}
    assert queue[id].cancelled
    assert sql("select from effects") == []


def test_cancels_against_workers_each_job_ends_one_way(tasks: pq_tasks.PQ) -> None:
    queue = tasks["a"]
    done = []

    @queue.task()
    def work(job_id: int) -> None:
        done.append(job_id)

    ids = [work() for _ in range(150)]
    worker = Worker(tasks, threads=2, burst=True)
    running = Background(worker.run)
    cancelled = [id for id in random.sample(ids, 60) if queue.cancel(id)]
    running.result()
    assert queue.counts() == dict.fromkeys(STATES, 0) | {"finished": 150}
    assert {job.id for job in queue.list("finished", 200) if job.cancelled} == set(cancelled)
    counts = worker.status()["counts"]
    assert counts["done"] == 150 - len(cancelled)
    assert counts["lost"] == 0
    assert len(done) == len(set(done)) == counts["done"] + counts["cancelled"]


# -- another time, another queue


def test_a_job_is_given_another_time(pq: PQ, sql: Sql) -> None:
    queue = pq["a"]
    state = "select due_at is not distinct from schedule_at, schedule_at - now() > interval '59 min' from queue"
    id = queue.put(1, expected_at="3h")
    before = queue[id].expected_at
    assert queue.reschedule(id, "1h")
    assert sql(state) == [(True, True)]
    assert queue[id].state == "scheduled"
    assert queue.reschedule(id, dt.datetime(2000, 1, 1))
    assert sql(state) == [(True, False)]
    assert queue[id].state == "ready"
    assert queue.reschedule(id, schedule_at="2h")
    assert queue.reschedule(id, schedule_at=None)
    assert sql("select schedule_at, due_at from queue") == [(None, None)]
    assert queue[id].expected_at == before
    assert queue.get(block=False) is not None


def test_a_job_is_given_another_priority(pq: PQ) -> None:
    queue = pq["a"]
    first, second, third = queue.put("first", None, "1h"), queue.put("second"), queue.put("third", "1h")
    assert queue.reschedule(second, expected_at=dt.timedelta(seconds=-1))
    assert queue.reschedule(first, expected_at=None)
    assert queue.reschedule(third, expected_at="2h")
    assert [job.id for job in queue.list()] == [second, first, third]
    assert queue[third].state == "scheduled"


def test_a_promoted_job_is_scheduled_again_even_for_the_same_time(pq: PQ) -> None:
    queue = pq["a"]
    at = dt.datetime(2000, 1, 1)
    id = queue.put(1, at)
    with suppress(ZeroDivisionError), queue:
        queue.get()
        1 / 0  # noqa: B018
    assert queue.reschedule(id, at)
    assert queue.get(block=False) is not None


@pytest.mark.parametrize("state", ["running", "dead", "finished"])
def test_only_jobs_that_wait_are_rescheduled_or_moved(pq: PQ, sql: Sql, state: str) -> None:
    queue = pq["a"]
    other = make(pq["b"], "ready")
    id = make(queue, state)
    before = sql(ROWS)
    for each in (id, other, 0, 2**63):
        assert not queue.reschedule(each, "1h")
        assert not queue.move(each, "c")
    assert sql(ROWS) == before


def test_wrong_times_and_names_are_refused(pq: PQ, sql: Sql) -> None:
    queue = pq["a"]
    id = queue.put(1)
    before = sql(ROWS)
    for call, error in [
        (lambda: queue.reschedule(id), TypeError),
        (lambda: queue.reschedule(id, [5]), TypeError),  # type: ignore[arg-type]
        (lambda: queue.reschedule(id, expected_at="5"), ValueError),
        (lambda: queue.move(id, 5), TypeError),  # type: ignore[arg-type]
        (lambda: queue.move(id, ""), ValueError),
        (lambda: queue.move(id, "nul\0"), ValueError),
    ]:
        with pytest.raises(error):
            call()
    assert sql(ROWS) == before


@pytest.mark.parametrize("how", ["move", "at once", "later", "priority"])
def test_a_job_whose_lease_has_expired_is_rescheduled_and_moved_as_a_ready_one(pq: PQ, sql: Sql, how: str) -> None:
    queue = pq["a"]
    id = queue.put(1)
    held = take(queue, "1s")
    held.extend("0s")
    assert queue[id].state == "ready"
    if how == "move":
        assert queue.move(id, "b")
    else:
        times = {"at once": {"schedule_at": None}, "later": {"schedule_at": "1h"}, "priority": {"expected_at": "0s"}}
        assert queue.reschedule(id, **times[how])
    with pytest.raises(LeaseLost):
        held.done()
    queue = pq["b" if how == "move" else "a"]
    assert queue[id].state == ("scheduled" if how == "later" else "ready")
    assert sql("select dequeued_at, expiries, attempts from queue") == [(None, 1, 1)]
    if how != "later":
        assert (take(queue).id, queue[id].attempts) == (id, 2)


@pytest.mark.parametrize("state", ["ready", "scheduled"])
def test_a_job_is_moved(pq: PQ, sql: Sql, state: str) -> None:
    id = make(pq["a"], state)
    ((*before,),) = sql("select data::text, schedule_at, expected_at, due_at, enqueued_at from queue")
    assert pq["a"].move(id, "b")
    with pytest.raises(JobNotFound):
        pq["a"][id]
    assert pq["b"][id].state == state
    assert sql("select data::text, schedule_at, expected_at, due_at, enqueued_at from queue") == [tuple(before)]
    assert pq["b"].move(id, "b")
    assert pq["b"].move(id, "c/pickle")
    assert pq["c"].find(id) is not None


@pytest.mark.parametrize("how", ["move", "reschedule", "sooner"])
def test_who_waits_is_woken_by_a_job_that_is_moved_or_made_ready(
    dsn: str, sql: Sql, how: str
) -> None:
    """A waiter that looks by itself only once in an hour."""
    with PQ(dsn) as pq, PQ(dsn, poll_interval=3600) as waiting:
        id = pq["a" if how == "move" else "b"].put(1, None if how == "move" else "1h")
        waiter = Background(waiting["b"].get, timeout=PATIENCE)
        wait_until(lambda: sql("select from pg_locks where locktype = 'advisory'"), "the waiter")
        wait_until(lambda: waiting._table._room.queues["b"].sure, "that it is sure")
        if how == "move":
            assert pq["a"].move(id, "b")
        else:
            assert pq["b"].reschedule(id, None if how == "reschedule" else "1s")
        job = waiter.result()
        assert job is not None
        assert job.id == id


def test_a_job_is_moved_from_and_to_queues_at_once_by_one_only(pq: PQ) -> None:
    queue = pq["a"]
    for n in range(30):
        id = queue.put(n)
        moved = race(lambda id=id: queue.move(id, "b"), lambda id=id: queue.move(id, "c"))  # type: ignore[misc]
        assert sum(moved) == 1
    assert pq["b"].count() + pq["c"].count() == 30
