"""Backpressure: a queue that is full refuses jobs, in the transaction of whoever puts them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest
from support import execute
from support.driver import driver
from support.kinds import WITH_PSYCOPG3, make_pq
from support.plan import nodes

from pq import PQ, LeasedJob, NewJob, Queue, QueueFull, RowsDropped
from pq.sql import bound

Sql = Callable[..., list[tuple[Any, ...]]]


@pytest.fixture
def queue(pq: PQ) -> Queue:
    """One with room for three jobs."""
    queue = pq["a"]
    queue.max_ready = 3
    return queue


PUTS: dict[str, Callable[[Queue], Any]] = {
    "put": lambda queue: queue.put(1),
    "put with times": lambda queue: queue.put(1, schedule_at="0s", expected_at="1h"),
    "scheduled": lambda queue: queue.put(1, schedule_at="1h"),
    "put_many": lambda queue: queue.put_many([1]),
    "put_many with times": lambda queue: queue.put_many([NewJob(1, expected_at="1h")]),
    "load": lambda queue: queue.load([1]),
}


@pytest.mark.parametrize("put", list(PUTS))
def test_a_put_into_a_full_queue_is_refused(queue: Queue, put: str) -> None:
    if put == "load":
        queue.put(0)
    queue.put_many([1, 2] if put == "load" else [1, 2, 3])
    before = queue.counts()
    with pytest.raises(QueueFull, match="Queue 'a' is full: it may have 3 ready jobs") as caught:
        PUTS[put](queue)
    assert (caught.value.queue, caught.value.max_ready) == ("a", 3)
    assert queue.counts() == before
    queue.get(timeout=0)
    PUTS[put](queue)
    assert sum(queue.counts().values()) == 4


@pytest.mark.parametrize("kind", [*WITH_PSYCOPG3, "autocommit pool"])
def test_jobs_are_put_as_without_the_option(dsn: str, kind: str) -> None:
    with make_pq(kind, dsn, max_ready=10) as pq:
        queue = pq["a"]
        ids = [queue.put({"it's": "%"}), *queue.put_many(["x", NewJob("y", "1h", "2h"), "z"])]
        assert queue.load(["last"]) == 1
        found = queue.list(limit=10)
        assert [job.data for job in sorted(found, key=lambda job: job.id)] == [{"it's": "%"}, "x", "y", "z", "last"]
        assert ids == sorted(ids)
        scheduled = queue[ids[2]]
        assert scheduled.schedule_at is not None
        assert scheduled.expected_at is not None
        assert scheduled.expected_at > scheduled.schedule_at
        assert queue.put_many([]) == []


def test_all_or_none(queue: Queue) -> None:
    queue.put(1)
    with pytest.raises(QueueFull):
        queue.put_many([2, 3, 4])
    with pytest.raises(QueueFull):
        queue.load([2, 3, 4])
    with pytest.raises(QueueFull):  # more than there is ever room for
        queue.put_many(range(5))
    assert len(queue) == 1
    assert len(queue.put_many([2, 3])) == 2
    assert len(queue) == 3


def test_what_takes_several_statements_counts_its_own(pq: PQ) -> None:
    queue = pq["a"]
    queue.max_ready = 1500
    with pytest.raises(QueueFull):
        queue.put_many(range(1501))
    assert len(queue) == 0
    assert len(queue.put_many(range(1500))) == 1500


def test_only_ready_jobs_of_this_queue_count(pq: PQ, queue: Queue, sql: Sql) -> None:
    pq["b"].put_many(range(10))
    queue.put_many([1, 2], schedule_at="1h")
    dead, running, done = queue.put_many([1, 2, 3])
    jobs = queue.get_many(3, lease="1h")
    jobs[0].fail("why")
    jobs[2].done()
    assert queue.counts() == {"ready": 0, "scheduled": 2, "held": 0, "running": 1, "dead": 1, "finished": 1}
    queue.pause()  # its mark is no job
    ids = queue.put_many([1, 2, 3])
    with pytest.raises(QueueFull):
        queue.put(1)
    queue.cancel(ids[:2])
    sql("update queue set schedule_at = now() - interval '1 s' where schedule_at is not null")
    assert len(queue) == 3  # one ready, two due
    with pytest.raises(QueueFull):
        queue.put(1)
    assert {dead, running, done}.isdisjoint(ids)


def test_in_a_transaction_own_jobs_count_and_it_goes_on(pq: PQ, queue: Queue, connect: Any, sql: Sql) -> None:
    with queue:
        queue.put_many([1, 2, 3])
        with pytest.raises(QueueFull):
            queue.put(4)
        pq["b"].put("in its place")
    assert (len(queue), len(pq["b"])) == (3, 1)
    queue.clear()
    conn = connect()
    queue.put_many([1, 2, 3], conn=conn)
    with pytest.raises(QueueFull):
        queue.put(4, conn=conn)
    pq["b"].put("in its place", conn=conn)
    queue.put_many([1, 2, 3])  # not yet committed there: does not count
    conn.commit()
    assert (len(queue), len(pq["b"])) == (6, 2)
    with pytest.raises(QueueFull):
        queue.put(7)


def test_what_comes_back_is_not_refused(queue: Queue) -> None:
    queue.put_many([1, 2, 3])
    job = queue.get(timeout=0, lease="1h")
    assert isinstance(job, LeasedJob)
    queue.put(4)
    job.release()
    assert len(queue) == 4


def test_a_task_is_refused(pq: PQ, queue: Queue) -> None:
    @queue.task(name="eat")
    def eat(job_id: int) -> None:
        raise AssertionError

    for _ in range(3):
        eat()
    with pytest.raises(QueueFull):
        eat()
    with pytest.raises(QueueFull):
        eat.put_many([eat.new_job()])


def test_a_row_that_a_trigger_drops_is_no_full_queue(queue: Queue, sql: Sql) -> None:
    sql("create function drop_it() returns trigger language plpgsql as 'begin return null; end'")
    sql("create trigger dropper before insert on queue for each row execute function drop_it()")
    with pytest.raises(RowsDropped):
        queue.put(1)
    with pytest.raises(RowsDropped):
        queue.put_many([1, 2])


@pytest.mark.parametrize(("number", "error"), [(0, ValueError), (-1, ValueError), (1.5, TypeError), (True, TypeError)])
def test_a_limit_is_a_positive_int(dsn: str, number: Any, error: type[Exception]) -> None:
    with PQ(dsn, max_ready=number) as pq, pytest.raises(error, match="max_ready"):
        pq["a"]


def test_without_the_option_the_statements_are_the_same(pq: PQ, monkeypatch: pytest.MonkeyPatch) -> None:
    run: list[str] = []
    execute_one = pq._db.execute

    def noted(sql: str, *args: Any, **options: Any) -> Any:
        run.append(sql)
        return execute_one(sql, *args, **options)

    monkeypatch.setattr(pq._db, "execute", noted)
    pq["a"].put(1)
    pq["a"].put_many([1, 2])
    statements = bound("queue.sql", '"queue"')
    assert run == [statements["put"], statements["put_untimed"]]


@pytest.mark.parametrize("analyzed", [False, True])
def test_no_more_is_looked_at_than_needed_and_that_in_the_indexes(dsn: str, analyzed: bool) -> None:
    execute(dsn, """
        insert into queue (q_name, data) select 'a', '1' from generate_series(1, 20000);
        insert into queue (q_name, data, schedule_at)
          select 'a', '1', now() - interval '1 s' from generate_series(1, 20000);
        insert into queue (q_name, data, dequeued_at) select 'a', '1', now() from generate_series(1, 20000);
    """)
    if analyzed:
        execute(dsn, "analyze queue")
    with closing(driver.connect(dsn)) as conn, conn.cursor() as cursor:
        sql = bound("queue.sql", '"queue"')["has_room"]
        cursor.execute(f"explain (analyze, format json) {sql}", {"queue": "a", "room": 99})
        plan = cursor.fetchone()[0][0]
    scans = [node for node in nodes(plan["Plan"]) if "Scan" in node["Node Type"] and "Relation Name" in node]
    assert sorted((node["Node Type"], node["Index Name"], node["Actual Rows"]) for node in scans) == [
        ("Index Only Scan", "queue_due_index", 100),
        ("Index Only Scan", "queue_ready_index", 100),
    ]
