"""Batches and events under a lease: done, extend, release; in transactions of the application's; and nested blocks."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from support import Background, wait_until
from support.driver import driver
from support.proxy import Proxy
from support.streams import following

import pq as library
from pq import PQ, errors
from pq._streams import Stream, Subscription

Sql = Callable[..., list[tuple[Any, ...]]]


def subscribe(stream: Stream, **options: Any) -> Subscription:
    return stream.subscribe("billing", **{"retry_in": None, **options})


def expire(sql: Sql) -> None:
    sql("update queue_batches_orders set due_at = statement_timestamp()")
    sql("update queue set due_at = statement_timestamp() where due_at is not null")


def aside(subscription: Subscription) -> None:
    """Set the next event aside, so that it comes back as a job."""
    with subscription.batch(1, timeout=0) as batch:
        batch[0].retry("0s")


#: Whether the batch is one of the log, or the job of an event that was set aside.
KINDS = pytest.mark.parametrize("job", [False, True], ids=["log", "job"])


def taken(stream: Stream, subscription: Subscription, job: bool) -> Any:
    stream.publish(7)
    if job:
        aside(subscription)
    batch = next(subscription.batches(timeout=0, lease="1h"))
    assert [event.data for event in batch] == [7]
    return batch


END: list[tuple[str, Callable[[Any], Any]]] = [
    ("done", lambda batch: batch.done()), ("release", lambda batch: batch.release()),
    ("failed", lambda batch: batch.failed("x")), ("extend", lambda batch: batch.extend("1h")),
]  # fmt: skip


@KINDS
@pytest.mark.parametrize(("name", "call"), END, ids=[name for name, _ in END])
def test_who_has_lost_a_batch_changes_nothing(
    stream: Stream, sql: Sql, job: bool, name: str, call: Callable[[Any], Any]
) -> None:
    subscription = subscribe(stream)
    batch = taken(stream, subscription, job)
    expire(sql)
    other = next(subscription.batches(timeout=0, lease="1h"))
    assert other.attempts == batch.attempts + 1
    before = sql("select * from queue_batches_orders, queue") or sql("select * from queue")
    with pytest.raises(errors.BatchLost, match="of subscription 'billing' is no longer held") as raised:
        call(batch)
    assert isinstance(raised.value, errors.LeaseLost)
    assert raised.value.job_id is None
    assert raised.value.queue == "orders:billing"
    assert raised.value.attempt == batch.attempts
    assert (sql("select * from queue_batches_orders, queue") or sql("select * from queue")) == before
    other.done()
    with pytest.raises(errors.BatchLost):
        call(other)
    assert following(subscription) == []


@KINDS
def test_an_extended_lease_ends_later(stream: Stream, sql: Sql, job: bool) -> None:
    batch = taken(stream, subscribe(stream), job)
    left = """
        select extract(epoch from due_at - statement_timestamp())::float8
        from (select due_at from queue_batches_orders union all select due_at from queue) as held
        where due_at is not null
    """
    batch.extend("2h")
    assert 7100 < sql(left)[0][0] <= 7200
    batch.extend()
    assert 3500 < sql(left)[0][0] <= 3600
    for bad, kind in (("0s", ValueError), ("soon", ValueError), (True, TypeError)):
        with pytest.raises(kind):
            batch.extend(bad)


@KINDS
def test_a_released_batch_comes_at_once_and_was_not_delivered(stream: Stream, job: bool) -> None:
    subscription = subscribe(stream)
    batch = taken(stream, subscription, job)
    attempts = batch.attempts
    batch.release()
    assert batch.settled
    again = next(subscription.batches(timeout=0))
    assert ([event.data for event in again], again.attempts) == ([7], attempts)


def test_a_released_batch_of_many_is_not_halved(stream: Stream) -> None:
    subscription = subscribe(stream)
    stream.publish_many(range(4))
    next(subscription.batches(timeout=0)).release()
    assert following(subscription) == [0, 1, 2, 3]


@KINDS
@pytest.mark.parametrize("commits", [True, False])
def test_done_in_a_transaction_of_the_applications(
    stream: Stream, connect: Callable[..., Any], sql: Sql, job: bool, commits: bool
) -> None:
    sql("create table effects (n int)")
    subscription = subscribe(stream)
    batch = taken(stream, subscription, job)
    conn = connect()
    conn.cursor().execute("insert into effects values (1)")
    batch.done(conn=conn)
    assert sql("select from effects") == []
    if commits:
        conn.commit()
    else:
        conn.rollback()
    assert len(sql("select from effects")) == commits
    expire(sql)
    assert following(subscription) == ([] if commits else [7])


@pytest.mark.parametrize("commits", [True, False])
def test_events_are_set_aside_with_the_end_in_a_transaction(
    stream: Stream, pq: PQ, connect: Callable[..., Any], sql: Sql, commits: bool
) -> None:
    subscription = subscribe(stream)
    stream.publish_many([0, 1])
    batch = next(subscription.batches(timeout=0, lease="1h"))
    batch[1].retry("1h")
    conn = connect()
    batch.done(conn=conn)
    if commits:
        conn.commit()
    else:
        conn.rollback()
    assert pq["orders:billing"].counts()["scheduled"] == commits


@pytest.mark.parametrize("how", ["psycopg2", "psycopg"])
def test_a_session_of_sqlalchemy(stream: Stream, dsn: str, sql: Sql, how: str) -> None:
    sqlalchemy = pytest.importorskip("sqlalchemy")
    orm = pytest.importorskip("sqlalchemy.orm")
    package = pytest.importorskip(how)
    sql("create table effects (n int)")
    subscription = subscribe(stream)
    engine = sqlalchemy.create_engine(f"postgresql+{how}://", creator=lambda: package.connect(dsn))
    try:
        for value in (0, 1, 2):
            stream.publish(value)
            batch = next(subscription.batches(timeout=0))
            with orm.Session(engine) as session, session.begin():
                session.execute(sqlalchemy.text("insert into effects values (:n)"), {"n": batch[0].data})
                batch.extend("1m", conn=session)
                batch.done(conn=session)
            assert sql("select n from effects order by n desc limit 1") == [(value,)]
        stream.publish_many([3, 4])
        with orm.Session(engine) as session, session.begin():
            batch = subscription.take(conn=session)
            batch[0].retry("0s")
        assert following(subscription) == [3]
        stream.publish(5)
        with orm.Session(engine) as session:
            assert [event.data for event in subscription.take(conn=session)] == [5]
            session.rollback()
        assert following(subscription) == [5]
        assert following(subscription) == []
    finally:
        engine.dispose()


def test_each_call_is_one_statement(stream: Stream, statements: list[str]) -> None:
    subscription = subscribe(stream, shared=True)
    stream.publish_many(range(4))
    for call in (
        lambda batch: batch.done(), lambda batch: batch.release(), lambda batch: batch.extend(),
        lambda batch: batch.failed("x"),
    ):  # fmt: skip
        batch = next(subscription.batches(1, timeout=0))
        statements.clear()
        call(batch)
        assert len(statements) == 1


# -- events one by one


def test_events_one_by_one(stream: Stream) -> None:
    subscription = subscribe(stream)
    stream.publish_many(range(3), type="t", key="k", headers={"a": 1})
    found = []
    for event in subscription.events(timeout=0):
        if event is None:
            break
        with event:
            found.append((event.data, event.type, event.key, event.headers, event.attempts))
        assert event.settled
    assert found == [(n, "t", "k", {"a": 1}, 1) for n in range(3)]
    assert following(subscription) == []


def test_an_event_is_done_when_the_loop_goes_on(stream: Stream, sql: Sql) -> None:
    subscription = subscribe(stream)
    stream.publish_many(range(3))
    for event in subscription.events(timeout=0):
        assert event is not None
        if event.data == 1:
            break
    expire(sql)
    assert following(subscription) == [1]
    assert following(subscription) == [2]


def test_an_event_that_fails_comes_again_and_is_dead_in_the_end(stream: Stream, pq: PQ) -> None:
    subscription = subscribe(stream, max_retries=1)
    stream.publish_many(range(2))
    attempts = []
    for event in subscription.events(timeout=0):
        if event is None:
            break
        try:
            with event:
                attempts.append((event.data, event.attempts))
                assert event.data
        except AssertionError:
            pass
    assert attempts == [(0, 1), (0, 2), (1, 1)]
    assert [job.data["data"] for job in pq["orders:billing"].dead] == [0]


def test_an_event_can_be_ended_in_each_way(stream: Stream, pq: PQ, connect: Callable[..., Any]) -> None:
    subscription = subscribe(stream)
    stream.publish_many(range(4))
    events = subscription.events(timeout=0)
    conn = connect()
    for step in range(4):
        event = next(events)
        assert event is not None
        assert event.data == step
        event.extend("1m")
        if step == 0:
            event.retry("1h")
            event.done()
        elif step == 1:
            event.fail("x")  # with the end of the event: as the loop goes on
        elif step == 2:
            event.done(conn=conn)
            conn.commit()
        else:
            event.release()
    again = next(events)
    assert again is not None
    assert (again.data, again.attempts) == (3, 1)
    again.failed("y", "1h")
    assert next(events) is None
    counts = pq["orders:billing"].counts()
    assert (counts["scheduled"], counts["dead"]) == (1, 1)


# -- blocks


def test_a_block_inside_of_its_own_block_is_a_savepoint_with_the_next_batch(stream: Stream, sql: Sql) -> None:
    sql("create table effects (n int)")
    subscription = subscribe(stream)
    stream.publish_many(range(6))
    with subscription.batch(2, timeout=0) as outer:
        outer.cursor.execute("insert into effects values (0)")
        try:
            with subscription.batch(2, timeout=0) as inner:
                assert [event.data for event in inner] == [2, 3]
                inner.cursor.execute("insert into effects values (1)")
                raise ValueError
        except ValueError:
            pass
        with subscription.batch(2, timeout=0) as inner:
            assert [event.data for event in inner] == [2]
            inner.cursor.execute("insert into effects values (2)")
    assert sql("select n from effects order by n") == [(0,), (2,)]
    assert following(subscription) == [3]
    assert following(subscription) == [4, 5]


def test_the_inner_batch_comes_again_when_the_outer_block_fails(stream: Stream) -> None:
    subscription = subscribe(stream)
    stream.publish_many(range(4))
    with pytest.raises(ValueError), subscription.batch(2, timeout=0):  # noqa: PT011
        with subscription.batch(2, timeout=0) as inner:
            assert len(inner) == 2
        raise ValueError
    seen = [following(subscription) for _ in range(4)]
    assert [data for batch in seen for data in batch] == [0, 1, 2, 3]


def test_a_block_of_the_queue_and_one_of_the_stream(stream: Stream, pq: PQ) -> None:
    subscription = subscribe(stream)
    stream.publish_many(range(2))
    with pq["mails"], subscription.batch(timeout=0) as batch:
        for event in batch:
            pq["mails"].put(event.data)
    assert pq["mails"].count() == 2
    stream.publish(2)
    with pytest.raises(ValueError), pq["mails"]:  # noqa: PT011
        with subscription.batch(timeout=0) as batch:
            pq["mails"].put(batch[0].data)
        raise ValueError
    assert pq["mails"].count() == 2
    assert following(subscription) == [2]


@pytest.mark.parametrize("how", ["using", "bind"])
@pytest.mark.parametrize("commits", [True, False])
def test_a_block_in_a_transaction_of_the_applications(
    stream: Stream, pq: PQ, connect: Callable[..., Any], sql: Sql, how: str, commits: bool
) -> None:
    sql("create table effects (n int)")
    subscribe(stream)
    stream.publish_many(range(3))
    conn = connect()
    view = pq if how == "using" else pq.bind(conn)
    with pq.using(conn if how == "using" else None):
        subscription = view.streams["orders"].subscription("billing", retry_in=None)
        with subscription.batch(2, timeout=0) as batch:
            batch.cursor.execute("insert into effects values (1)")
            batch[0].retry("0s")
        assert following(subscription) == [0]
        assert following(subscription) == [2]
        assert following(subscription) == []
    if commits:
        conn.commit()
    else:
        conn.rollback()
    assert len(sql("select from effects")) == commits
    assert following(stream.subscription("billing")) == ([] if commits else [0, 1, 2])


def test_a_block_in_a_transaction_waits_for_events(stream: Stream, pq: PQ, connect: Callable[..., Any]) -> None:
    subscription = subscribe(stream)
    conn = connect()

    def wait() -> list[Any]:
        with pq.using(conn), subscription.batch(timeout=30) as batch:
            found = [event.data for event in batch]
        conn.commit()
        return found

    waiter = Background(wait)
    stream.publish(1)
    assert waiter.result() == [1]


def test_a_block_needs_a_transaction_that_is_open(stream: Stream, pq: PQ, dsn: str, statements: list[str]) -> None:
    subscription = subscribe(stream)
    stream.publish(1)
    conn = driver.connect(dsn, autocommit=True)
    with pq.using(conn):
        statements.clear()
        with pytest.raises(ValueError, match="needs a transaction"), subscription.batch(timeout=0):
            pass
        with pytest.raises(ValueError, match="needs a transaction"):
            subscription.take()
    assert statements == []
    with pytest.raises(ValueError, match="needs a transaction"):
        subscription.take()
    conn.close()
    assert following(subscription) == [1]


def test_what_ends_a_lease_does_nothing_or_is_refused_in_a_block(stream: Stream) -> None:
    subscription = subscribe(stream)
    stream.publish(1)
    with subscription.batch(timeout=0) as batch:
        assert batch.settled
        batch.done()
        batch.extend()
        for call in (batch.release, lambda: batch.failed("x")):
            with pytest.raises(ValueError, match="roll that back"):
                call()
    assert following(subscription) == []


def test_one_that_stood_still_takes_the_next(stream: Stream, sql: Sql, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the take and the transaction its lease has expired, and another consumer has the events."""
    subscription = subscribe(stream)
    stream.publish_many(range(2))
    calls = []
    first = library._streams.Batch._first

    def late(self: Any) -> Any:
        if not calls:
            sql("delete from queue_batches_orders")
        calls.append(self)
        return first(self)

    monkeypatch.setattr(library._streams.Batch, "_first", late)
    with subscription.batch(1, timeout=0) as batch:
        assert [event.data for event in batch] == [1]
    assert len(calls) == 2


def test_a_retried_event_whose_process_was_killed_counts(stream: Stream, pq: PQ, sql: Sql) -> None:
    subscription = subscribe(stream, max_retries=2)
    stream.publish(7)
    aside(subscription)
    for attempt in (2, 3):
        assert next(subscription.batches(timeout=0)).attempts == attempt
        expire(sql)
    assert following(subscription) == []
    (dead,) = pq["orders:billing"].dead
    assert dead.error.type == "pq.errors.LeaseExpired"


def test_a_job_that_loses_a_batch_has_failed(stream: Stream, pq: PQ, sql: Sql) -> None:
    """It is not the job's own lease that is lost."""
    subscription = subscribe(stream)
    stream.publish(7)
    batch = next(subscription.batches(timeout=0))
    batch.done()
    pq["work"].put(1)
    job: Any = pq["work"].get(lease="1h")
    with pytest.raises(errors.BatchLost), job:
        batch.done()
    assert pq["work"].counts()["scheduled"] == 1


def test_waiting_consumers_share_the_partitions(stream: Stream, dsn: str) -> None:
    subscription = subscribe(stream, partitions=8)
    for n in range(40):
        stream.publish(n, key=f"k{n}")
    found: list[int] = []

    def consume(each: Subscription) -> None:
        for batch in each.batches(3, timeout=0.2):
            with batch:
                found.extend(event.data for event in batch)
            if len(found) >= 40:
                return

    with PQ(dsn) as second:
        other = second.streams["orders"].subscription("billing")
        readers = [Background(consume, each) for each in (subscription, other)]
        for reader in readers:
            reader.result()
    wait_until(lambda: sorted(found) == list(range(40)), "each event, once")


def test_a_block_takes_three_messages(dsn: str) -> None:
    """The take, the begin with the end of the batch, the commit: a consumer waits for the first two."""
    with Proxy(dsn) as proxy, PQ(proxy.dsn) as through:
        stream = through.streams["orders"]
        stream.create()
        billing = stream.subscribe("billing")
        stream.publish_many([1, 2])
        for _ in range(2):  # the first time it looks how many partitions there are
            proxy.seen.clear()
            with billing.batch(1, timeout=0) as batch:
                assert len(batch) == 1
        take, begin, commit = proxy.seen
        assert "pq_moved" in take
        assert re.match(r"begin.*; delete from .*batches_orders", begin, re.DOTALL)
        assert commit == "commit"


@pytest.mark.parametrize("arguments", [{"timeout": -1}, {"timeout": "1"}, {"lease": "0s"}, {"lease": -5}])
def test_bad_arguments_of_events_are_told_at_the_call(stream: Stream, arguments: dict[str, Any]) -> None:
    with pytest.raises((ValueError, TypeError)):
        subscribe(stream).events(**arguments)
