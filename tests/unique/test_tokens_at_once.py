"""Puts with tokens at once: no deadlock, no row twice, each put that joined is followed by a start."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any

import psycopg2
import psycopg2.errors
import pytest
from support import Background, execute, wait_until
from support.kinds import WITH_PSYCOPG3, make_pq

from pq import PQ, NewJob, PQError, Unique

Sql = Callable[..., list[tuple[Any, ...]]]


@pytest.mark.parametrize("on_duplicate", ["keep", "replace", "merge"])
def test_put_many_in_opposite_orders_is_no_deadlock(dsn: str, pq: PQ, on_duplicate: Any) -> None:
    tokens = [f"t{number}" for number in range(100)]
    items = [NewJob([token], unique=Unique(token, on_duplicate=on_duplicate)) for token in tokens]
    items.insert(50, NewJob(["plain"]))
    barrier = threading.Barrier(4)

    def produce(given: list[NewJob]) -> list[int]:
        with PQ(dsn) as own:
            for _ in range(3):
                barrier.wait()
                ids = own["a"].put_many(given)
            return ids

    producers = [Background(produce, given) for given in (items, items[::-1], items, items[::-1])]
    first, second, *_ = [producer.result() for producer in producers]
    del first[50], second[-51]
    assert first == second[::-1]
    assert pq["a"].counts()["ready"] == 100 + 4 * 3


@pytest.mark.parametrize("on_duplicate", ["keep", "merge"])
def test_each_put_that_joined_is_followed_by_a_start(dsn: str, sql: Sql, on_duplicate: Any) -> None:
    """Producers say before each put which value they are about to put; who starts a job of the token afterwards, and
    commits later than the put, counts for it."""
    sql("create table started (token text, at timestamptz default clock_timestamp(), data json)")
    sql("create table puts (token text, at timestamptz, value int, job bigint, created bool)")
    until = time.monotonic() + 4
    all_put = threading.Event()  # which a producer on a slow machine is later than that
    tokens = ["a", "b", "c"]

    def produce(seed: int) -> None:
        dice = random.Random(seed)
        with PQ(dsn) as pq, closing(psycopg2.connect(dsn)) as log:
            log.autocommit = True
            value = 0
            while time.monotonic() < until:
                value += 1
                token = dice.choice(tokens)
                unique = Unique(token, on_duplicate=on_duplicate)
                schedule_at = dice.choice([None, None, "20ms"])
                number = seed * 1_000_000 + value
                is_open = dice.random() < 0.5
                if is_open:
                    with pq["q"] as cursor:
                        id: Any = pq["q"].put([number], schedule_at, unique=unique)
                        cursor.execute("select clock_timestamp()")
                        ((at,),) = cursor.fetchall()
                        if dice.random() < 0.2:
                            time.sleep(0.01)
                else:
                    at = execute_on(log, "select clock_timestamp()")
                    id = pq["q"].put([number], schedule_at, unique=unique)
                execute_on(
                    log, "insert into puts values (%s, %s, %s, %s, %s) returning 1", (token, at, number, id, id.created)
                )

    def consume(seed: int) -> None:
        dice = random.Random(seed)
        with PQ(dsn) as pq:
            while time.monotonic() < until + 30:
                if dice.random() < 0.5:
                    with pq["q"] as cursor:
                        job = pq["q"].get(timeout=0)
                        if job is not None:
                            cursor.execute(
                                "insert into started select %s, clock_timestamp(), %s", (str(job.id), str(job.data))
                            )
                else:
                    job = pq["q"].get(timeout=0, lease="1m")
                    if job is not None:
                        insert = "insert into started select %s, clock_timestamp(), %s"
                        execute(dsn, insert, (str(job.id), str(job.data)))
                        job.done()
                left = ("ready", "scheduled", "running")
                if job is None and all_put.is_set() and not sum(pq["q"].counts()[state] for state in left):
                    return
                time.sleep(0.002)

    producers = [Background(produce, seed) for seed in range(1, 5)]
    consumers = [Background(consume, seed) for seed in (7, 8)]
    for thread in producers:
        thread.result(60)
    all_put.set()
    for thread in consumers:
        thread.result(60)
    ((puts, joined),) = sql("select count(*), count(*) filter (where not created) from puts")
    assert puts > 100
    assert joined > puts / 10
    # the job that was returned has started, once, and not before the put had begun
    assert sql("""
        select * from puts left join started on started.token = puts.job::text
        where started.at is null or started.at < puts.at
    """) == []  # fmt: skip
    assert sql("select token from started group by token having count(*) > 1") == []
    if on_duplicate == "merge":  # and nothing is lost, nor there twice
        values = sql("select value::text::int from started, json_array_elements(data) as value order by 1")
        assert values == sql("select value from puts order by 1")


def execute_on(conn: Any, statement: str, params: Any = None) -> Any:
    with conn.cursor() as cursor:
        cursor.execute(statement, params)
        return cursor.fetchone()[0]


@pytest.mark.parametrize("on_duplicate", ["keep", "replace", "merge"])
def test_a_throttled_job_starts_while_transactions_that_overlap_go_on_putting(dsn: str, on_duplicate: Any) -> None:
    ends = threading.Event()

    def produce(number: int) -> int:
        count = 0
        unique = Unique("t", on_duplicate=on_duplicate, time="keep")
        with PQ(dsn) as pq:
            while not ends.is_set():
                with pq["q"]:
                    pq["q"].put([number], "500ms", unique=unique)
                    count += 1
                    ends.wait(0.1)
        return count

    producers = [Background(produce, number) for number in range(4)]
    try:
        with PQ(dsn) as pq:
            for _ in range(3):
                began = time.monotonic()
                assert pq["q"].get(timeout=20) is not None
                assert time.monotonic() - began < 2.5
    finally:
        ends.set()
    assert sum(producer.result() for producer in producers) > 10


def test_a_ready_job_starts_while_transactions_that_overlap_go_on_putting(dsn: str, pq: PQ, sql: Sql) -> None:
    """Within some seconds: here it has been ready for long."""
    ends = threading.Event()
    first = pq["q"].put([0], unique="t")
    sql("update queue set enqueued_at = enqueued_at - interval '1 min'")

    def produce(number: int) -> None:
        with PQ(dsn) as own:
            while not ends.is_set():
                with own["q"]:
                    own["q"].put([number], unique=Unique("t", on_duplicate="merge"))
                    ends.wait(0.1)

    producers = [Background(produce, number) for number in range(3)]
    try:
        wait_until(lambda: (job := pq["q"].get(timeout=1)) is not None and job.id == first)
    finally:
        ends.set()
    for producer in producers:
        producer.result()


def test_transactions_that_stay_open_join_a_job_side_by_side(pq: PQ, connect: Any) -> None:
    first = pq["q"].put(1, unique="t")
    conns = [connect() for _ in range(3)]
    for conn in conns:
        conn.autocommit = False
        assert pq["q"].put(2, unique="t", conn=conn) == first
    for conn in conns:
        assert pq["q"].get(timeout=0) is None
        conn.commit()
    assert pq["q"].get(timeout=0) is not None


def test_a_put_waits_for_its_token_alone_and_at_most_lock_timeout(pq: PQ, dsn: str, connect: Any, sql: Sql) -> None:
    conn = connect()
    conn.autocommit = False
    pq["q"].put(1, unique="t", conn=conn)
    with PQ(f"{dsn} options='-c lock_timeout=100ms'") as other:
        for on_duplicate in ("keep", "replace", "merge", "error"):
            with pytest.raises(psycopg2.errors.LockNotAvailable):
                other["q"].put([2], unique=Unique("t", on_duplicate=on_duplicate))  # type: ignore[arg-type]
        assert other["q"].put(3, unique="u").created
        assert other["r"].put(4, unique="t").created
    conn.rollback()
    assert sql("select data from queue order by id") == [(3,), (4,)]
    assert pq["q"].put(5, unique="t").created


def test_under_a_savepoint(pq: PQ, sql: Sql) -> None:
    queue = pq["q"]
    with queue:
        with pytest.raises(ZeroDivisionError), queue:
            assert queue.put([1], unique="t").created
            assert not queue.put([2], unique=Unique("t", on_duplicate="merge")).created
            1 / 0  # noqa: B018
        with queue:
            first = queue.put([3], unique="t")
            assert first.created
        assert queue.put([4], unique=Unique("t", on_duplicate="merge")) == first
    assert sql("select data from queue") == [([3, 4],)]


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
def test_with_an_older_snapshot_a_joined_token_is_a_serialization_failure(
    pq: PQ, connect: Any, dsn: str, level: str
) -> None:
    conn = connect()
    conn.set_session(isolation_level=level.upper())
    with conn.cursor() as cursor:
        cursor.execute("select 1")
    first = pq["q"].put(1, unique="t")
    with pytest.raises(psycopg2.errors.SerializationFailure):
        pq["q"].put(2, unique="t", conn=conn)
    conn.rollback()
    assert pq["q"].put(2, unique="t", conn=conn) == first
    conn.commit()
    escaped = level.replace(" ", r"\\ ")
    with PQ(f"{dsn} options='-c default_transaction_isolation={escaped}'") as other:
        ends = time.monotonic() + 2
        producers = [Background(hammer, other, ends) for _ in range(4)]  # where it is pq's own, it is tried again
        while time.monotonic() < ends:
            pq["q"].get(timeout=0)
        assert sum(producer.result() for producer in producers) > 10


def hammer(pq: PQ, ends: float) -> int:
    count = 0
    while time.monotonic() < ends:
        pq["q"].put(count, unique="t")
        count += 1
    return count


def test_who_may_only_insert_and_select_joins_or_is_told_what_is_missing(pq: PQ, dsn: str, sql: Sql) -> None:
    role = "pq_unique_producer"
    sql(f"drop role if exists {role}")
    sql(f"create role {role} login")
    try:
        sql(f"grant select, insert on queue to {role}")
        sql(f"grant usage on sequence queue_id_seq to {role}")
        with PQ(f"{dsn} user={role}") as producer:
            queue = producer["q"]
            first = queue.put([1], unique="t", key="k")
            assert first.created
            assert queue.put([2], unique="t") == first
            assert queue.put([2], unique=Unique("t", window="1h")) == first
            for attempt in (
                lambda: queue.put([3], unique=Unique("t", on_duplicate="replace")),
                lambda: queue.put_many([NewJob([3], unique="t")]),
            ):
                with pytest.raises(psycopg2.errors.InsufficientPrivilege, match="INSERT and SELECT; and UPDATE to"):
                    attempt()
                with pytest.raises(PQError, match="permission denied"):
                    attempt()
        assert pq["q"].get(timeout=0).data == [1]  # type: ignore[union-attr]
    finally:
        sql(f"drop owned by {role}")
        sql(f"drop role {role}")


@pytest.mark.parametrize("kind", [*WITH_PSYCOPG3, "autocommit pool"])
def test_each_kind_of_connection(dsn: str, kind: str) -> None:
    with make_pq(kind, dsn) as pq:
        queue = pq["a"]
        for on_duplicate in ("keep", "replace", "merge"):
            unique = Unique(on_duplicate, on_duplicate=on_duplicate)  # type: ignore[arg-type]
            first = queue.put({"it's": ["%s\\"]}, unique=unique)
            for _ in range(3):  # prepared, too
                assert queue.put({"it's": ["%s\\"]}, "1h", unique=unique) == first
            with queue:
                assert queue.put({"x": 1}, unique=unique) == first
            assert queue.put_many([NewJob({"y": 1}, unique=unique)]) == [first]
            last = {"y": 1}
            assert queue[first].data == {
                "keep": {"it's": ["%s\\"]}, "replace": last, "merge": {"it's": ["%s\\"] * 4, "x": 1, **last},
            }[on_duplicate]  # fmt: skip


def test_a_trigger_of_the_users_that_drops_the_row(pq: PQ, sql: Sql) -> None:
    from pq import RowsDropped

    sql("create function drops() returns trigger language plpgsql as 'begin return null; end'")
    sql("create trigger drops before insert on queue for each row execute function drops()")
    for on_duplicate in ("keep", "replace"):
        with pytest.raises(RowsDropped):
            pq["q"].put([1], unique=Unique("t", on_duplicate=on_duplicate))  # type: ignore[arg-type]


def test_on_the_application_s_own_connection_an_open_transaction_is_noticed(dsn: str, sql: Sql) -> None:
    """The job that was joined can't start before the commit, although pq did not begin the transaction."""
    with PQ(dsn) as other, closing(psycopg2.connect(dsn)) as conn, PQ(conn) as pq:
        first = other["q"].put(1, unique="t")
        conn.autocommit = True
        with conn.cursor() as cursor:
            cursor.execute("begin")
            assert pq["q"].put(2, unique="t") == first
            assert other["q"].get(timeout=0) is None
            cursor.execute("commit")
        assert other["q"].get(timeout=0) is not None
