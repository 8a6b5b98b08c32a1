"""Jobs of one key run one after the other, in order, whoever takes, ends or changes them, and none is stuck."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from typing import Any

import pytest
from support import taken, wait_until
from support.driver import driver

from pq import PQ, Queue
from pq._jobs.settlement import Settlement, settle

TAKE_191 = """
    update queue set dequeued_at = current_timestamp where id = (
      select id from queue
      where q_name = 'a' and dequeued_at is null and (schedule_at is null or schedule_at <= current_timestamp)
      order by schedule_at nulls first, expected_at nulls first, id
      for update skip locked limit 1
    ) returning data
"""

Sql = Callable[..., list[tuple[Any, ...]]]


@pytest.fixture
def queue(pq: PQ) -> Queue:
    queue = pq["a"]
    queue.timeout = 0
    return queue


def put(queue: Queue, *data: Any, key: str = "k") -> list[int]:
    return [queue.put(each, key=key) for each in data]


# -- ways of taking


def in_block(queue: Queue) -> list[Any]:
    with queue:
        job = queue.get()
        return [] if job is None else [job.data]


def in_item(queue: Queue) -> list[Any]:
    with queue.item() as job:
        return [] if job is None else [job.data]


def by_get(queue: Queue) -> list[Any]:
    job = queue.get()
    return [] if job is None else [job.data]


def by_lease(queue: Queue) -> list[Any]:
    job = queue.get(lease="30s")
    if job is None:
        return []
    job.done()
    return [job.data]


def in_batch(queue: Queue) -> list[Any]:
    jobs = queue.get_many(10, lease="30s")
    queue.done(jobs)
    return [job.data for job in jobs]


WAYS = [in_block, in_item, by_get, by_lease, in_batch]


@pytest.mark.parametrize("retain", ["7d", 0])
@pytest.mark.parametrize("way", WAYS)
def test_jobs_of_one_key_come_one_after_the_other(pq: PQ, queue: Queue, way: Any, retain: Any) -> None:
    pq.create(retain=retain)
    put(queue, 1, 2, 3)
    found = []
    for _ in range(3):
        found += way(queue)
    assert found == [1, 2, 3]
    assert way(queue) == []


@pytest.mark.parametrize("way", WAYS)
def test_while_one_runs_no_other_of_its_key_is_taken(pq: PQ, queue: Queue, way: Any) -> None:
    put(queue, 1, 2)
    running = queue.get(lease="30s")
    assert way(queue) == []
    put(queue, "other", key="other")
    assert way(queue) == ["other"]
    running.done()
    assert way(queue) == [2]


@pytest.mark.parametrize("way", WAYS)
def test_while_a_block_has_one_no_other_of_its_key_is_taken(dsn: str, queue: Queue, way: Any) -> None:
    put(queue, 1, 2)
    put(queue, "other", key="other")
    with PQ(dsn, timeout=0) as another:
        with another["a"]:
            assert another["a"].get().data == 1
            assert way(queue) == ["other"]
            assert way(queue) == []
        assert way(queue) == [2]


@pytest.mark.parametrize("way", WAYS)
def test_a_block_that_is_rolled_back_leaves_the_order_as_it_was(dsn: str, queue: Queue, way: Any) -> None:
    put(queue, 1, 2)
    with PQ(dsn, timeout=0) as another, pytest.raises(ZeroDivisionError), another["a"]:
        assert another["a"].get().data == 1
        assert way(queue) == []
        raise ZeroDivisionError
    found: list[Any] = []
    while len(found) < 2:
        found += way(queue)
    assert found == [1, 2]


def test_a_block_takes_several_of_one_key(queue: Queue) -> None:
    put(queue, 1, 2, 3)
    with queue:
        assert [job.data for job in (queue.get(), queue.get())] == [1, 2]
    assert taken(queue) == 3


def test_what_was_put_while_a_block_had_the_key_comes_at_its_end(dsn: str, queue: Queue) -> None:
    put(queue, 1)
    with PQ(dsn, timeout=0) as another, another["a"]:
        assert another["a"].get().data == 1
        put(queue, 2)
        assert taken(queue) is None
    assert taken(queue) == 2


def test_held_jobs_are_shown(pq: PQ, queue: Queue) -> None:
    _, second = put(queue, 1, 2)
    queue.put(3, "1h", key="k")
    assert queue.counts() == {"ready": 1, "scheduled": 1, "held": 1, "running": 0, "dead": 0, "finished": 0}
    assert len(queue) == 1
    assert queue.count("held") == 1
    assert queue.count() == 3
    assert [job.id for job in queue.list("held")] == [second]
    held = queue[second]
    assert (held.state, held.key, held.schedule_at, held.due_at) == ("held", "k", None, None)
    (info,) = pq.queues()
    assert (info.ready, info.held, info.scheduled) == (1, 1, 1)
    assert [job.data for job in queue.list(key="k")] == [1, 2, 3]
    queue.get(lease="30s")
    assert [job.state for job in queue.list(key="k")] == ["running", "held", "scheduled"]


def test_a_key_is_of_its_queue(pq: PQ, queue: Queue) -> None:
    put(queue, 1)
    pq["b"].put(2, key="k")
    assert queue.get(lease="30s").data == 1
    assert pq["b"].get(lease="30s", timeout=0).data == 2


def test_the_earliest_of_those_that_wait_comes_next(queue: Queue) -> None:
    put(queue, 1, 2)
    queue.put(3, expected_at="0s", key="k")
    running = queue.get(lease="30s")
    assert running.data == 1  # it was first when the others came
    running.done()
    assert [taken(queue), taken(queue)] == [3, 2]


def test_a_scheduled_job_holds_up_nobody_until_its_time(queue: Queue) -> None:
    first = queue.put(1, "1h", key="k")
    put(queue, 2)
    assert taken(queue) == 2
    put(queue, 3)
    running = queue.get(lease="30s")
    queue.reschedule(first, "10ms")
    wait_until(lambda: queue.count("scheduled") == 0, "its time")
    assert queue.get(lease="30s") is None
    running.done()
    assert taken(queue) == 1


# -- ends


def test_a_retry_keeps_its_place(queue: Queue) -> None:
    put(queue, 1, 2)
    queue.get(lease="30s").retry("300ms")
    assert queue.get(lease="30s") is None
    wait_until(lambda: taken(queue) == 1, "the retry")
    assert taken(queue) == 2


def test_while_a_job_waits_for_its_retry_the_others_stay_held(queue: Queue) -> None:
    put(queue, 1, 2, 3)
    queue.get(lease="30s").retry("1h")
    assert queue.counts() == {"ready": 0, "scheduled": 1, "held": 2, "running": 0, "dead": 0, "finished": 0}


def test_a_released_job_is_first_again(queue: Queue) -> None:
    put(queue, 1, 2)
    queue.get(lease="30s").release()
    assert [taken(queue), taken(queue), taken(queue)] == [1, 2, None]


def test_a_job_that_is_given_back_for_a_while_keeps_its_place(queue: Queue) -> None:
    """As a worker does that has no connection for the transaction of the task, or does not know the task."""
    put(queue, 1, 2)
    job = queue.get(lease="30s")
    settle([Settlement(job, "released", timedelta(seconds=0.3))])
    queue.put(3, None, "0s", key="k")
    assert queue.counts() == {"ready": 0, "scheduled": 1, "held": 2, "running": 0, "dead": 0, "finished": 0}
    assert [each.data for each in queue.list(key="k")] == [1, 3, 2]
    assert taken(queue) is None
    wait_until(lambda: taken(queue) == 1, "the end of the pause")
    assert [taken(queue), taken(queue)] == [3, 2]


def test_one_that_was_given_back_leaves_the_line_as_one_that_had_not_begun(queue: Queue) -> None:
    ids = put(queue, 1, 2)
    settle([Settlement(queue.get(lease="30s"), "released", timedelta(hours=1))])
    assert queue.reschedule(ids[0], "50ms")
    assert queue.count("ready") == 1
    wait_until(lambda: queue.find(ids[0]).state == "ready", "its time")
    assert sorted([taken(queue), taken(queue)]) == [1, 2]


def test_a_dead_job_lets_the_next_go(queue: Queue) -> None:
    put(queue, 1, 2)
    queue.get(lease="30s").fail("no")
    assert taken(queue) == 2


def test_an_expired_lease_keeps_its_place(queue: Queue) -> None:
    put(queue, 1, 2)
    queue.get(lease="200ms")
    wait_until(lambda: taken(queue) == 1, "the end of the lease")
    assert taken(queue) == 2


@pytest.mark.parametrize("retain", ["7d", 0])
def test_the_head_and_the_one_behind_it_are_cancelled_by_one_statement(pq: PQ, queue: Queue, retain: Any) -> None:
    pq.create(retain=retain)
    ids = put(queue, 1, 2, 3)
    assert queue.cancel(ids[:2]) == 2
    assert taken(queue) == 3


def test_all_jobs_of_a_key_are_cancelled(queue: Queue) -> None:
    put(queue, 1, 2)
    queue.put(3, "1h", key="k")
    put(queue, 4, key="other")
    assert queue.cancel(key="k") == 3
    assert [taken(queue), taken(queue)] == [4, None]


def test_rows_that_plain_sql_deletes_let_the_next_go(queue: Queue, sql: Sql) -> None:
    put(queue, 1, 2, 3)
    sql("delete from queue where data::text in ('1', '2')")
    assert taken(queue) == 3


def test_a_running_job_that_is_cancelled_lets_the_next_go(queue: Queue) -> None:
    put(queue, 1, 2)
    running = queue.get(lease="30s")
    queue.cancel(running.id)
    assert taken(queue) == 2


def test_moved_jobs_stand_in_the_line_of_the_other_queue(pq: PQ, queue: Queue) -> None:
    ids = put(queue, 1, 2, 3)
    pq["b"].put(0, key="k")
    assert queue.move(ids[0], "b")
    assert queue.move(ids[1], "b")
    assert taken(queue) == 3
    other = pq["b"]
    other.timeout = 2
    assert sorted(taken(other) for _ in range(3)) == [0, 1, 2]


def test_a_head_that_is_rescheduled_leaves_the_line(queue: Queue) -> None:
    ids = put(queue, 1, 2)
    assert queue.reschedule(ids[0], "1h")
    assert taken(queue) == 2
    assert queue.reschedule(ids[0], None)
    assert taken(queue) == 1


def test_a_held_job_that_is_made_ready_by_hand_waits_all_the_same(queue: Queue) -> None:
    ids = put(queue, 1, 2)
    running = queue.get(lease="30s")
    assert queue.reschedule(ids[1], None)
    assert queue[ids[1]].state == "held"
    assert queue.get(lease="30s") is None
    assert queue[ids[1]].state == "held"
    running.done()
    assert taken(queue) == 2


def test_a_held_job_whose_key_plain_sql_takes_away_is_ready(queue: Queue, sql: Sql) -> None:
    put(queue, 1, 2, 3)
    sql("update queue set key = null")
    assert queue.counts()["held"] == 0
    assert [taken(queue) for _ in range(3)] == [1, 2, 3]


def test_a_held_job_that_is_moved_stands_behind_the_one_that_is_first_there(pq: PQ, queue: Queue) -> None:
    ids = put(queue, 1, 2)
    other = pq["b"]
    other.timeout = 2
    put(other, 3)
    assert queue.move(ids[1], "b")
    assert other[ids[1]].state == "held"
    assert [taken(other), taken(other)] == [3, 2]


def test_a_dead_job_that_is_tried_again_stands_in_line(queue: Queue) -> None:
    put(queue, 1, 2)
    dead = queue.get(lease="30s")
    dead.fail("no")
    running = queue.get(lease="30s")
    queue.dead.retry(dead.id)
    assert queue.get(lease="30s") is None
    running.done()
    assert taken(queue) == 1


# -- several per key; retries that pass; dead jobs that stop the line


def limit(sql: Sql, **given: Any) -> None:
    names, values = ", ".join(given), ", ".join(repr(value) for value in given.values())
    sql("delete from queue_limits")
    sql(f"insert into queue_limits (name, {names}) values ('a', {values})")


def test_so_many_run_at_once(queue: Queue, sql: Sql) -> None:
    limit(sql, per_key=2)
    put(queue, 1, 2, 3, 4)
    first, second = queue.get(lease="30s"), queue.get(lease="30s")
    assert (first.data, second.data) == (1, 2)
    assert queue.get(lease="30s") is None
    second.done()
    assert queue.get(lease="30s").data == 3
    assert queue.get(lease="30s") is None
    first.done()
    assert queue.get(lease="30s").data == 4


def test_after_the_number_was_lowered_no_more_than_that_run(queue: Queue, sql: Sql) -> None:
    limit(sql, per_key=3)
    put(queue, *range(8))
    running = [queue.get(lease="30s") for _ in range(3)]
    assert queue.get(lease="30s") is None
    limit(sql, per_key=1)
    for job in running[:2]:
        job.done()
        assert queue.get(lease="30s") is None
    running[2].done()
    jobs: list[Any] = []
    wait_until(lambda: jobs.append(queue.get(lease="30s")) or jobs[-1], "the next")
    assert queue.get(lease="30s") is None


def test_a_retry_lets_the_others_pass(queue: Queue, sql: Sql) -> None:
    limit(sql, on_retry="pass")
    put(queue, 1, 2, 3)
    queue.get(lease="30s").retry("200ms")
    running = queue.get(lease="30s")
    assert running.data == 2
    wait_until(lambda: queue.count("scheduled") == 0, "the time of the retry")
    assert queue.get(lease="30s") is None
    running.done()
    found: list[Any] = []
    wait_until(lambda: found.append(taken(queue)) or sorted(filter(None, found)) == [1, 3], "the others")


def test_a_dead_job_stops_the_line_until_it_is_decided_on(queue: Queue, sql: Sql) -> None:
    limit(sql, on_dead="stop")
    put(queue, 1, 2)
    dead = queue.get(lease="30s")
    dead.fail("no")
    assert taken(queue) is None
    put(queue, 3)
    queue.update(dead.id, 1)
    assert taken(queue) is None
    queue.dead.retry(dead.id)
    assert [taken(queue) for _ in range(3)] == [1, 2, 3]
    put(queue, 4, 5)
    dead = queue.get(lease="30s")
    dead.fail("no")
    assert taken(queue) is None
    queue.dead.discard(dead.id)
    assert taken(queue) == 5


# -- others beside


def test_pq_1_9_1_takes_one_and_the_next_comes_after_its_commit(queue: Queue, connect: Any) -> None:
    put(queue, 1, 2)
    conn = connect()
    with closing(conn.cursor()) as cursor:
        cursor.execute(TAKE_191)
        assert cursor.fetchall() == [(1,)]
    assert queue.get(lease="30s") is None
    conn.commit()
    wait_until(lambda: taken(queue) == 2, "the next")


def test_pq_1_9_1_takes_none_while_another_runs(queue: Queue, sql: Sql) -> None:
    put(queue, 1, 2)
    running = queue.get(lease="30s")
    assert sql(TAKE_191) == []
    running.done()
    assert sql(TAKE_191) == [(2,)]


def test_plain_sql_that_takes_a_held_row_does_not_get_it(queue: Queue, sql: Sql) -> None:
    ids = put(queue, 1, 2)
    sql("update queue set dequeued_at = now() where id = %s", ids[1:])
    assert queue[ids[1]].state == "held"
    assert [taken(queue), taken(queue)] == [1, 2]


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
def test_a_key_is_taken_at_read_committed_only(queue: Queue, pq: PQ, connect: Any, level: str) -> None:
    put(queue, 1, 2)
    conn = connect()
    with closing(conn.cursor()) as cursor:
        cursor.execute(f"set transaction isolation level {level}")
        cursor.execute("select 1")
        with pytest.raises(driver.Error, match=r"READ COMMITTED only\s+HINT: .*first statement"):
            queue.get(conn=conn)
        conn.rollback()
    assert [taken(queue), taken(queue)] == [1, 2]


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
def test_where_that_is_the_default_pq_takes_at_read_committed(dsn: str, queue: Queue, sql: Sql, level: str) -> None:
    put(queue, 1, 2, 3)
    ((name,),) = sql("select current_database()")
    sql(f"alter database {name} set default_transaction_isolation = '{level}'")
    with PQ(dsn, timeout=0) as other:
        assert other["a"].get().data == 1
        assert other["a"].get_many(5, lease="30s")[0].data == 2
        assert other["a"].get(lease="30s") is None


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
@pytest.mark.parametrize("source", ["dsn", "connection"])
def test_where_that_is_the_default_blocks_take_at_read_committed(
    dsn: str, queue: Queue, connect: Any, sql: Sql, source: str, level: str
) -> None:
    put(queue, 1, 2, 3)
    ((name,),) = sql("select current_database()")
    sql(f"alter database {name} set default_transaction_isolation = '{level}'")
    with PQ(dsn if source == "dsn" else connect(), timeout=0) as other:
        its = other["a"]
        for data in (1, 2):
            with its.item() as job:
                assert job.data == data
        with pytest.raises(driver.Error, match="first statement"), its:
            its.get()
        with its as cursor:
            cursor.execute("set transaction isolation level read committed")
            assert its.get().data == 3
            assert its.get() is None
        with its as cursor, pytest.raises(driver.Error, match="first statement"):
            put(queue, 4)
            cursor.execute("select 1")
            with its.item():
                pass


def test_an_end_at_repeatable_read_lets_the_next_go(queue: Queue, pq: PQ, connect: Any) -> None:
    put(queue, 1)
    running = queue.get(lease="30s")
    conn = connect()
    with closing(conn.cursor()) as cursor:
        cursor.execute("set transaction isolation level repeatable read")
        cursor.execute("select count(*) from queue")
        put(queue, 2)
        running.done(conn=conn)
        conn.commit()
    wait_until(lambda: taken(queue) == 2, "the next", 2)


# -- transactions that are open (faults A, B, F and H of the prototype)


@pytest.mark.parametrize("end", ["commit", "rollback"])
@pytest.mark.parametrize("how", ["update", "select for share", "select for update"])
def test_a_held_row_that_another_transaction_has_locked_when_the_head_ends_comes_back(
    queue: Queue, connect: Any, how: str, end: str
) -> None:
    ids = put(queue, 1, 2, 3)
    running = queue.get(lease="30s")
    conn = connect()
    with closing(conn.cursor()) as cursor:
        if how == "update":
            queue.update(ids[1], "changed", conn=conn)
        else:
            cursor.execute(f"select from queue where id = %s {how.removeprefix('select ')}", ids[1:2])
        running.done()
        assert taken(queue) is None
        getattr(conn, end)()
    expected = "changed" if how == "update" and end == "commit" else 2
    wait_until(lambda: taken(queue) == expected, "the next", 2)
    assert taken(queue) == 3


@pytest.mark.parametrize("savepoint", [False, True])
def test_what_was_put_while_the_head_ended_comes_after_its_commit(queue: Queue, connect: Any, savepoint: bool) -> None:
    put(queue, 1)
    running = queue.get(lease="30s")
    conn = connect()
    with closing(conn.cursor()) as cursor:
        if savepoint:
            cursor.execute("savepoint s")
        ids = [queue.put(each, key="k", conn=conn) for each in (2, 3)]
        if savepoint:
            cursor.execute("release s")
        running.done()
        conn.commit()
    found: list[Any] = []
    wait_until(lambda: found.append(taken(queue)) or found[-1], "the next", 2)
    assert found[-1] == 2
    assert taken(queue) == 3
    assert ids == sorted(ids)


def test_jobs_that_overlapping_transactions_have_put_run_one_after_the_other(queue: Queue, connect: Any) -> None:
    conns = [connect() for _ in range(4)]
    for number, conn in enumerate(conns):
        queue.put(number, key="k", conn=conn)
    for conn in reversed(conns):
        conn.commit()
    running = queue.get(lease="30s")
    assert queue.get(lease="30s") is None
    assert queue.get() is None
    found = [running.data]
    running.done()
    wait_until(lambda: found.append(taken(queue)) or len([x for x in found if x is not None]) == 4, "all four")
    assert sorted(x for x in found if x is not None) == [0, 1, 2, 3]


def test_what_a_block_may_not_take_does_not_hide_what_it_may(dsn: str, queue: Queue) -> None:
    """X and Y have one key. One block has Y; X, which was scheduled, is due; another block must get Z."""
    x = queue.put("x", "1h", key="k")
    put(queue, "y")
    queue.put("z")
    with PQ(dsn, timeout=0) as another, another["a"]:
        assert another["a"].get().data == "y"
        queue.reschedule(x, "10ms")
        wait_until(lambda: queue.count("scheduled") == 0, "the time of x")
        with queue:
            assert queue.get().data == "z"
            assert queue.get() is None
    wait_until(lambda: taken(queue) == "x", "x")


def test_an_open_put_holds_up_neither_puts_nor_ends(queue: Queue, connect: Any) -> None:
    conn = connect()
    put(queue, 1)
    queue.put(2, key="k", conn=conn)
    with queue._table.database.transaction() as cursor:  # who waits for a lock gets an error
        cursor.execute("set local lock_timeout = '1ms'")
        put(queue, 3)
        queue.get(lease="30s").done()
    conn.rollback()
    wait_until(lambda: taken(queue) == 3, "the next")


def test_an_end_waits_for_nobody_who_has_rescheduled_another(queue: Queue, connect: Any) -> None:
    ids = put(queue, 1, 2)
    running = queue.get(lease="30s")
    conn = connect()
    with closing(conn.cursor()) as cursor, closing(connect()) as other:
        cursor.execute("update queue set expected_at = now(), schedule_at = now() + '1h' where id = %s", ids[1:])
        with closing(other.cursor()) as ending:
            ending.execute("set local lock_timeout = '1ms'")
            running.done(conn=other)
            other.commit()
        conn.commit()
    assert taken(queue) is None
    assert queue.count("scheduled") == 1


def test_a_claim_locks_few_keys(queue: Queue, sql: Sql) -> None:
    sql(
        "insert into queue (q_name, data, schedule_at, key)"
        " select 'a', to_json(i), now() + '100ms', 'k' || i from generate_series(1, 1000) as i"
    )
    wait_until(lambda: queue.count("scheduled") == 0, "their time")
    with queue:
        jobs = queue.get_many(1000)
        ((locks,),) = queue._run("select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()")
    assert len(jobs) == locks == 60
    assert len(queue.get_many(1000, lease="30s")) == 940


def test_many_held_jobs_of_one_key_do_not_hold_up_the_others(pq: PQ, queue: Queue, connect: Any, sql: Sql) -> None:
    put(queue, 0, key="busy")
    busy = queue.get(lease="30s")
    sql("insert into queue (q_name, data, key) select 'a', to_json(i), 'busy' from generate_series(1, 5000) as i")
    other = pq["b"]
    put(other, 1)
    running = other.get(lease="30s", timeout=0)
    conn = connect()
    other.put(2, key="k", conn=conn)
    running.done()
    conn.commit()
    assert other.get(timeout=4).data == 2
    busy.done()
    assert taken(queue) == 1
