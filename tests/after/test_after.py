"""Jobs that run after others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from support import PATIENCE, Background, take, wait_until
from support.kinds import ALL, make_pq

from pq import PQ, After, JobNotFound, LeasedJob, NewJob, Queue, RowsDropped

Sql = Callable[..., list[tuple[Any, ...]]]


def state(queue: Queue, id: int) -> str:
    return queue[id].state


# -- done


def test_it_is_held_until_all_that_it_follows_are_done(parts: Queue, then: Queue) -> None:
    ids = [parts.put(number) for number in range(3)]
    id = then.put("all", after=ids)
    for left in (3, 2, 1):
        assert (state(then, id), len(then), then.get(block=False)) == ("held", 0, None)
        assert (then[id].waits_for, then[id].parents) == (left, 3)
        take(parts).done()
    assert (state(then, id), len(then)) == ("ready", 1)
    assert (then[id].waits_for, then[id].parents, then[id].schedule_at) == (None, None, None)
    assert take(then).data == "all"


def end(queue: Queue, how: str, connect: Any) -> None:
    """Have the next job done."""
    if how == "get":
        queue.get(timeout=PATIENCE)
    elif how == "lease":
        take(queue).done()
    elif how == "item":
        with queue.item() as job:
            assert job is not None
    elif how == "block":
        with queue:
            queue.get(timeout=PATIENCE)
    elif how == "conn":
        conn = connect()
        queue.get(timeout=PATIENCE, conn=conn)
        conn.commit()
    else:
        queue.done(queue.get_many(10, lease="1h", timeout=PATIENCE))


@pytest.mark.parametrize("retain", ["7d", 0])
@pytest.mark.parametrize("how", ["get", "lease", "item", "block", "conn", "batch"])
def test_whichever_way_they_are_taken(pq: PQ, parts: Queue, then: Queue, connect: Any, how: str, retain: Any) -> None:
    pq.create(retain=retain)
    ids = parts.put_many([1, 2])
    id = then.put("all", after=ids)
    for _ in range(1 if how == "batch" else 2):
        assert state(then, id) == "held"
        end(parts, how, connect)
    assert state(then, id) == "ready"


def test_many_that_are_settled_by_one_statement(parts: Queue, then: Queue) -> None:
    ids = parts.put_many(range(300))
    followers = [then.put(number, after=ids[number * 3 : number * 3 + 3]) for number in range(100)]
    parts.done(parts.get_many(299, lease="1h", timeout=PATIENCE))
    assert len(then) == 99
    take(parts).done()
    assert sorted(job.id for job in then.get_many(200, lease="1h", timeout=PATIENCE)) == followers


def test_chains(pq: PQ) -> None:
    queue = pq["a"]
    first = queue.put(1)
    second = queue.put(2, after=first)
    third = queue.put(3, after=[second])
    for expected in (first, second, third):
        job = take(queue)
        assert (job.id, queue.get(block=False)) == (expected, None)
        job.done()
    assert queue.counts()["finished"] == 3


def test_one_that_is_tried_again_has_not_ended(parts: Queue, then: Queue) -> None:
    id = then.put("all", after=parts.put(1))
    job = take(parts)
    job.retry("0s")
    assert state(then, id) == "held"
    take(parts).release()
    assert state(then, id) == "held"
    take(parts).done()
    assert state(then, id) == "ready"


def test_a_waiting_consumer_is_woken(parts: Queue, then: Queue, dsn: str, sql: Sql) -> None:
    then.put("all", after=parts.put(1))
    with PQ(dsn, poll_interval=30) as other:
        waiting = Background(lambda: other["then"].get(timeout=20))
        wait_until(lambda: sql("select from pg_locks where locktype = 'advisory'"))
        take(parts).done()
        job = waiting.result()
        assert job is not None
        assert job.data == "all"


# -- what has ended before


def test_those_that_have_ended_count_as_over(parts: Queue, then: Queue) -> None:
    done = parts.put(1)
    take(parts).done()
    id = then.put("all", after=done)
    assert state(then, id) == "ready"
    open = parts.put(2)
    id = then.put("all", after=[done, open, open])
    assert (state(then, id), then[id].waits_for, then[id].parents) == ("held", 1, 2)
    take(parts).done()
    assert state(then, id) == "ready"
    assert state(then, then.put("none", after=[])) == "ready"


@pytest.mark.parametrize("on_failed, expected", [("hold", "held"), ("run", "ready"), ("cancel", "finished")])
@pytest.mark.parametrize("how", ["dead", "cancelled"])
def test_those_that_have_failed_before(
    pq: PQ, parts: Queue, then: Queue, how: str, on_failed: Any, expected: str
) -> None:
    id = parts.put(1)
    if how == "dead":
        take(parts).fail("no")
    else:
        parts.cancel(id)
    follower = then.put("all", after=After(id, on_failed=on_failed))
    heal(pq)
    assert state(then, follower) == expected
    assert then[follower].cancelled is (expected == "finished")


def heal(pq: PQ) -> None:
    """Make all checks, and those that these leave behind."""
    for _ in range(3):
        pq._table.execute("update queue_checks set check_at = '-infinity' where true")
        pq._table._memory.healed_at = -1e9
        pq._table.heal()


# -- bad input


def test_there_is_no_such_job(pq: PQ, parts: Queue, then: Queue, sql: Sql) -> None:
    id = parts.put(1)
    for ids in ([id, 999], [2**70], [-1]):
        with pytest.raises(JobNotFound, match=f"There is no job {ids[-1]}"):
            then.put("all", after=ids)
    assert sql("select count(*), max(follower) from queue") == [(1, None)]


def test_a_job_has_one_follower(parts: Queue, then: Queue, sql: Sql) -> None:
    ids = parts.put_many([1, 2])
    first = then.put("all", after=ids[1])
    with pytest.raises(ValueError, match=f"job {ids[1]} has a follower already"):
        then.put("all", after=ids)
    assert sql("select id, follower from queue order by 1") == [(ids[0], None), (ids[1], first), (first, None)]
    take(parts).done()
    take(parts).done()
    assert state(then, then.put("late", after=ids)) == "ready"


@pytest.mark.parametrize(
    "after, error, text",
    [
        ("7", TypeError, "a job id must be an int, not str: '7'"),
        ([1.5], TypeError, "a job id must be an int, not float"),
        ([True], TypeError, "a job id must be an int, not bool"),
        ([None], TypeError, "a job id must be an int"),
        (object(), TypeError, "a job id must be an int"),
    ],
)
def test_bad_ids(then: Queue, sql: Sql, after: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        then.put(1, after=after)
    assert sql("select count(*) from queue") == [(0,)]


def test_what_cannot_be_combined(parts: Queue, then: Queue, sql: Sql) -> None:
    id = parts.put(1)
    with pytest.raises(ValueError, match="schedule_at can't be combined with after"):
        then.put(1, "1h", after=id)
    with pytest.raises(ValueError, match="unique can't be combined with after"):
        then.put(1, unique="u", after=id)
    with pytest.raises(ValueError, match="on_failed must be one of 'hold', 'run', 'cancel', not 'stop'"):
        After([id], on_failed="stop")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="on_failed must be a str"):
        After([id], on_failed=None)  # type: ignore[arg-type]
    assert sql("select count(*) from queue") == [(1,)]


def test_a_trigger_that_drops_the_row(parts: Queue, then: Queue, sql: Sql) -> None:
    sql("create function drop_it() returns trigger language plpgsql as 'begin return null; end'")
    id = parts.put(1)
    sql("create trigger drop_it before insert on queue for each row execute function drop_it()")
    with pytest.raises(RowsDropped):
        then.put(1, after=id)
    assert sql("select id, follower from queue") == [(id, None)]


# -- with the rest


def test_the_priority_counts_among_those_that_are_ready(parts: Queue, then: Queue) -> None:
    id = parts.put(1)
    then.put("plain")
    then.put("urgent", expected_at="0s", after=id)
    take(parts).done()
    assert [take(then).data for _ in range(2)] == ["urgent", "plain"]


def test_a_follower_with_a_key_stands_in_no_line_until_it_is_ready(parts: Queue, then: Queue) -> None:
    id = parts.put(1)
    follower = then.put("follower", key="k", after=id)
    then.put("first", key="k")
    second = then.put("second", key="k")
    assert (state(then, follower), state(then, second)) == ("held", "held")
    first = take(then)
    assert first.data == "first"
    first.done()
    assert (state(then, follower), state(then, second)) == ("held", "ready")
    take(parts).done()
    assert (state(then, follower), then[follower].waits_for) == ("held", None)  # behind the second one of its key
    take(then).done()
    assert state(then, follower) == "ready"
    job = take(then)
    assert (job.id, job.key) == (follower, "k")
    job.done()


def test_parents_with_a_key(parts: Queue, then: Queue) -> None:
    ids = [parts.put(number, key="k") for number in range(3)]
    id = then.put("all", after=ids)
    for number in range(3):
        assert state(then, id) == "held"
        job = take(parts)
        assert job.data == number
        job.done()
    assert state(then, id) == "ready"


@pytest.mark.parametrize("kind", ALL)
def test_with_any_connection(dsn: str, kind: str) -> None:
    with make_pq(kind, dsn) as pq:
        id = pq["then"].put("all", after=[pq["parts"].put(1)])
        take(pq["parts"]).done()
        assert take(pq["then"]).id == id


def test_in_a_transaction_of_the_application(pq: PQ, parts: Queue, then: Queue, connect: Any) -> None:
    conn = connect()
    id = parts.put(1, conn=conn)
    follower = then.put("all", after=id, conn=conn)
    assert then.find(follower) is None
    conn.rollback()
    id = parts.put(1, conn=conn)
    follower = then.put("all", after=id, conn=conn)
    conn.commit()
    assert state(then, follower) == "held"
    take(parts).done(conn=conn)
    assert state(then, follower) == "held"
    conn.rollback()
    assert state(then, follower) == "held"


def test_a_new_job_of_a_pickle_queue(pq: PQ, parts: Queue) -> None:
    queue = pq["a/pickle"]
    queue.put({1: {2}}, after=parts.put(1))
    take(parts).done()
    assert take(queue).data == {1: {2}}


def test_it_does_not_count_for_max_ready(dsn: str) -> None:
    with PQ(dsn, max_ready=1) as pq:
        id = pq["a"].put(1)
        pq["a"].put(2, after=id)
        assert len(pq["a"]) == 1


# -- from outside


def test_moving(pq: PQ, parts: Queue, then: Queue) -> None:
    id = parts.put(1)
    for key in (None, "k"):
        follower = then.put("all", key=key, after=id)
        assert parts.move(id, "elsewhere")
        assert then.move(follower, "later")
        assert state(pq["later"], follower) == "held"
        job = take(pq["elsewhere"])
        assert state(pq["later"], follower) == "held"
        job.done()
        assert state(pq["later"], follower) == "ready"
        take(pq["later"]).done()
        id = parts.put(2)


@pytest.mark.parametrize("key", [None, "k"])
def test_a_person_can_make_it_ready_or_cancel_it(parts: Queue, then: Queue, key: str | None) -> None:
    ids = parts.put_many([1, 2, 3])
    followers = [then.put(id, key=key, after=id) for id in ids]
    assert then.reschedule(followers[0], None)
    assert (state(then, followers[0]), then[followers[0]].waits_for) == ("ready", None)
    assert then.reschedule(followers[1], "1h")
    assert state(then, followers[1]) == "scheduled"
    assert then.cancel(followers[2]) == 1
    for _ in ids:
        take(parts).done()
    assert [state(then, id) for id in followers] == ["ready", "scheduled", "finished"]
    job = take(then)
    assert job.id == followers[0]


def test_changes_of_the_priority_or_the_data_leave_it_held(parts: Queue, then: Queue) -> None:
    id = then.put(1, after=parts.put(1))
    assert then.reschedule(id, expected_at="0s")
    then.update(id, 2)
    assert (state(then, id), then[id].waits_for) == ("held", 1)
    take(parts).done()
    assert take(then).data == 2


def test_pause_and_clear(parts: Queue, then: Queue, sql: Sql) -> None:
    id = then.put(1, after=parts.put(1))
    then.pause()
    take(parts).done()
    assert then.get(block=False) is None
    then.resume()
    assert take(then).id == id
    parts.put(1)
    then.put(2, after=parts.put(2))
    then.clear()
    take(parts).done()
    take(parts).done()
    assert sql("select count(*) from queue where q_name = 'then'") == [(0,)]


# -- groups


def test_a_group(pq: PQ, parts: Queue, then: Queue) -> None:
    with parts.group(then=(then, {"all": 1})) as group:
        ids = [group.put(1), *group.put_many([2, NewJob(3, key="k")]), group.put(NewJob(4, expected_at="0s"), key="j")]
        ids.append(group.add(pq["more"].put(5)))
        assert (group.ids, group.id) == (ids, None)
    assert group.id is not None
    assert (then[group.id].waits_for, then[group.id].parents, then[group.id].data) == (5, 5, {"all": 1})
    for queue, number in [(parts, 4), (parts, 1), (parts, 2), (parts, 3), (pq["more"], 5)]:
        assert state(then, group.id) == "held"
        job = take(queue)
        assert job.data == number
        job.done()
    assert take(then).id == group.id


def test_what_a_group_is_to_be_followed_by_names_its_queue(parts: Queue, then: Queue) -> None:
    for wrong in (NewJob(1), then, (then,), (1, then), None):
        message = r"give then=\(queue, new_job\)" if isinstance(wrong, NewJob) else r"then=\(queue, data\), not "
        with pytest.raises(TypeError, match=message):
            parts.group(then=wrong)  # type: ignore[arg-type]
    assert not parts.count() and not then.count()


def test_a_group_is_put_as_a_whole_or_not_at_all(parts: Queue, then: Queue, sql: Sql) -> None:
    with pytest.raises(OSError, match="no"), parts.group(then=(then, 1)) as group:
        group.put(1)
        raise OSError("no")
    with pytest.raises(TypeError, match="JSON"), parts.group(then=(then, object())) as group:
        group.put(1)
    id = parts.put(1)
    then.put(1, after=id)
    with pytest.raises(ValueError, match=f"job {id} has a follower already"), parts.group(then=(then, 1)) as group:
        group.put(2)
        group.add(id)
    assert group.id is None
    with parts.group(then=(then, 1)) as group:
        with pytest.raises(TypeError, match="a job id must be an int, not list"):
            group.add([id])  # type: ignore[arg-type]
        group.put(2)
    assert sql("select count(*) from queue") == [(4,)]


def test_nobody_sees_a_part_of_a_group(pq: PQ, parts: Queue, then: Queue, dsn: str) -> None:
    with PQ(dsn) as other, parts.group(then=(then, 1)) as group:
        group.put(1)
        assert other["parts"].get(block=False) is None
    assert parts.count() == then.count() == 1


def test_a_group_without_jobs(parts: Queue, then: Queue) -> None:
    with parts.group(then=(then, 1)) as group:
        pass
    assert state(then, group.id or 0) == "ready"


def test_a_group_in_transactions_of_the_application(pq: PQ, parts: Queue, then: Queue, connect: Any) -> None:
    conn = connect()
    with parts.group(then=(then, 1), conn=conn) as group:
        group.put(1)
    assert parts.count() == 0
    conn.commit()
    assert (parts.count(), state(then, group.id or 0)) == (1, "held")
    with parts as cursor:
        with parts.group(then=(then, NewJob(2, key="k"))) as group:
            group.put(2)
        cursor.execute("select 1")
    assert (parts.count(), then[group.id or 0].key) == (2, "k")


def test_groups_of_groups(pq: PQ) -> None:
    queue = pq["a"]
    with queue.group(then=(queue, "all")) as outer:
        for number in range(2):
            with queue.group(then=(queue, f"half {number}")) as inner:
                inner.put(number)
            outer.add(inner.id or 0)
    seen = []
    while job := queue.get(block=False, lease="1h"):
        assert isinstance(job, LeasedJob)
        seen.append(job.data)
        job.done()
    assert seen == [0, "half 0", 1, "half 1", "all"] or seen == [0, 1, "half 0", "half 1", "all"]


@pytest.mark.parametrize("then", [None, 7, ("then", 1), (1,), []])
def test_a_bad_then(parts: Queue, then: Any) -> None:
    with pytest.raises(TypeError, match=r"then must be a tuple of a queue and the data of the job, .* not "):
        parts.group(then=then)


def test_a_queue_of_another_table(pq: PQ, parts: Queue, dsn: str) -> None:
    with PQ(dsn) as other, pytest.raises(ValueError, match="then must name a queue of the same PQ"):
        parts.group(then=(other["a"], 1))


def test_a_group_of_tasks(pq: PQ, sql: Sql) -> None:
    queue: Any = pq["tasks"]
    seen: list[Any] = []

    @queue.task(name="part")  # type: ignore[untyped-decorator]
    def part(job_id: int, number: int) -> None:
        seen.append(number)

    @queue.task(name="all of them")  # type: ignore[untyped-decorator]
    def all_of_them(job_id: int) -> None:
        seen.append("all")

    with queue.group(then=(queue, all_of_them.new_job())) as group:
        group.put(part.new_job(1))
        group.add(part(2))
    after = all_of_them(_after=part(3))
    assert state(queue, after) == "held"
    queue.timeout = 0.1
    queue.work(burst=True)
    assert sorted(seen, key=str) == [1, 2, 3, "all", "all"]
    assert seen.index("all") > seen.index(2)
    assert seen[-1] == "all"
