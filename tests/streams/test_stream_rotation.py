"""Old events are removed, and nothing else: nothing unread, no open batch, nothing younger than it must be."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import psycopg2.extensions
import pytest
from support import wait_until
from support.streams import following

from pq import PQ
from pq._streams import Stream, upkeep
from pq.errors import BatchLost, EventsLeft, EventsLost, StreamMissing
from pq.sql import stream_object

Sql = Callable[..., list[tuple[Any, ...]]]


class Aging:
    """A stream whose events can be made old: the clock is the server's, so they are moved and not the clock."""

    def __init__(self, stream: Stream, sql: Sql) -> None:
        self.stream, self._sql = stream, sql

    def age(self, seconds: float) -> None:
        """Make all events older, and move them to the slot that comes next."""
        self._sql(f"update queue_stream_orders set at = at - make_interval(secs => {seconds})")
        self._sql(
            "update queue_stream_orders"
            " set slot = mod(floor(extract(epoch from statement_timestamp()) / 86400)::bigint + 1, 3)"
        )

    def left(self) -> list[Any]:
        return [event.data for event in self.stream.read()]


@pytest.fixture
def aging(pq: PQ, sql: Sql) -> Aging:
    stream = pq.streams["orders"]
    stream.create(retain="1d")
    return Aging(stream, sql)


@pytest.fixture
def stream(aging: Aging) -> Stream:
    return aging.stream


DAYS = 3 * 86400.0


def test_what_all_have_read_is_removed_when_it_is_old(stream: Stream, aging: Aging) -> None:
    readers = [stream.subscribe("a"), stream.subscribe("b", types=["x"]), stream.subscribe("c", partitions=2)]
    stream.publish_many([1, 2, 3])
    for reader in readers:
        reader.seek("new")
    aging.age(0)
    assert not stream.rotate()
    assert aging.left() == [1, 2, 3]
    aging.age(DAYS)
    assert stream.rotate()
    assert aging.left() == []
    assert not stream.rotate()
    stream.publish(4)
    with readers[0].batch(timeout=0) as batch:
        assert [event.data for event in batch] == [4]


def test_without_subscriptions_only_the_age_counts(stream: Stream, aging: Aging) -> None:
    stream.publish(1)
    aging.age(0)
    assert not stream.rotate()
    aging.age(DAYS)
    assert stream.rotate()


def test_other_slots_stay(stream: Stream, aging: Aging, sql: Sql) -> None:
    stream.publish(1)
    aging.age(DAYS)
    sql("update queue_stream_orders set slot = mod(slot + 1, 3)")
    assert not stream.rotate()
    assert aging.left() == [1]


@pytest.mark.parametrize("where", ["unread", "inside of a window", "late", "in an open batch", "set aside in halves"])
def test_what_one_has_not_read_stays(
    stream: Stream, aging: Aging, connect: Callable[..., Any], where: str
) -> None:
    reader, other = stream.subscribe("a"), stream.subscribe("b")
    late = connect()
    if where == "late":
        stream.publish("late", conn=late)
    stream.publish_many([1, 2, 3])
    if where in ("late", "inside of a window"):
        with reader.batch(2 if where == "inside of a window" else 10, timeout=0) as batch:
            assert len(batch) >= 2
    elif where != "unread":
        batch = next(reader.batches(2 if where == "in an open batch" else 3, lease="1h", timeout=0))
        if where == "set aside in halves":
            batch.failed("no")
    late.commit()
    before = aging.left()
    other.seek("new")
    if where == "in an open batch":
        unread = [1, 2, 3]
        aging.age(DAYS)
        assert not stream.rotate()
        batch.done()
    aging.age(DAYS)
    assert not stream.rotate()
    assert aging.left() == before
    unread = {"late": ["late"], "inside of a window": [3], "in an open batch": [3]}.get(where, [1, 2, 3])
    found: list[Any] = []
    wait_until(lambda: not found.extend(following(reader)) and len(found) >= len(unread), "the events")
    assert found == unread
    assert stream.rotate()
    assert aging.left() == []


def test_what_is_published_meanwhile_stays(stream: Stream, aging: Aging, sql: Sql, connect: Callable[..., Any]) -> None:
    """Somebody with a wrong clock, or in a long transaction, writes where it is removed."""
    stream.publish(1)
    aging.age(DAYS)
    late = connect()
    ((slot,),) = sql("select slot from queue_stream_orders")
    with late.cursor() as cursor:
        cursor.execute(f"insert into queue_stream_orders (data, slot) values ('2', {slot})")
    assert not stream.rotate()  # its transaction has the slot
    late.commit()
    assert not stream.rotate()
    assert aging.left() == [1, 2]


def test_a_transaction_that_reads_is_not_waited_for(
    stream: Stream, aging: Aging, connect: Callable[..., Any]
) -> None:
    reader = stream.subscribe("a")
    stream.publish(1)
    late = connect()
    with pytest.raises(ValueError, match="needs a transaction"):
        reader.take()
    assert [event.data for event in reader.take(conn=late)] == [1]
    aging_reader = stream.subscribe("b")
    aging_reader.drop()
    late.commit()
    aging.age(DAYS)
    with late.cursor() as cursor:
        cursor.execute("select count(*) from queue_stream_orders")
        cursor.fetchall()
    assert not stream.rotate()
    stream.publish(2)  # nobody stands behind the lock
    late.commit()
    aging.age(DAYS)
    assert following(reader) == [2]
    assert stream.rotate()


def test_one_process_at_a_time(stream: Stream, aging: Aging, connect: Callable[..., Any]) -> None:
    stream.publish(1)
    aging.age(DAYS)
    log, other = stream_object(stream._table.quoted, "log", "orders"), connect()
    with other.cursor() as cursor:
        cursor.execute("select pg_advisory_xact_lock(hashtextextended(%s collate \"C\", 0))", (log,))
    assert not stream.rotate()
    assert aging.left() == [1]
    other.commit()
    assert stream.rotate()


def test_a_missing_stream(pq: PQ) -> None:
    with pytest.raises(StreamMissing):
        pq.streams["none"].rotate()


# -- retain_unread


@pytest.fixture
def hurried(stream: Stream) -> Stream:
    stream.create(retain_unread="1d")
    return stream


def test_events_that_are_lost_are_told_once(
    hurried: Stream, aging: Aging, caplog: pytest.LogCaptureFixture, connect: Callable[..., Any]
) -> None:
    every, some, parts, done = (
        hurried.subscribe("every"),
        hurried.subscribe("some", types=["x"]),
        hurried.subscribe("parts", partitions=3),
        hurried.subscribe("done"),
    )
    hurried.publish_many(range(5))
    hurried.publish_many(range(2), type="x", key="k")
    done.seek("new")
    aging.age(DAYS)
    with caplog.at_level(logging.WARNING, "pq"):
        assert hurried.rotate()
    assert sorted(record.getMessage() for record in caplog.records) == [
        f"subscription {name!r} of stream 'orders' has lost {n} events (retain_unread)"
        for name, n in (("every", 7), ("parts", 7), ("some", 2))
    ]
    hurried.publish("next", type="x")
    for reader, n in ((every, 7), (some, 2), (parts, 7)):
        with pytest.raises(EventsLost) as caught, reader.batch(timeout=0):
            pass
        assert caught.value.count == n
        assert following(reader) == ["next"]
        assert following(reader) == []
    assert following(done) == ["next"]


def test_a_late_event_is_not_lost_with_those_before_it(
    hurried: Stream, aging: Aging, connect: Callable[..., Any]
) -> None:
    """The position moves behind what is removed; an event of a transaction that was open comes all the same."""
    reader = hurried.subscribe("a")
    hurried.publish_many([1, 2])
    aging.age(DAYS)
    late = connect()
    hurried.publish("late", conn=late)
    hurried.publish("fresh")
    assert hurried.rotate()
    late.commit()
    with pytest.raises(EventsLost) as caught:
        following(reader)
    assert caught.value.count == 2
    assert following(reader) == ["late", "fresh"] or following(reader) == ["late"]


def test_an_open_batch_is_lost_to_its_holder(hurried: Stream, aging: Aging) -> None:
    reader = hurried.subscribe("a")
    hurried.publish_many([1, 2, 3])
    batch = next(reader.batches(2, lease="1h", timeout=0))
    aging.age(DAYS)
    assert hurried.rotate()
    with pytest.raises(BatchLost):
        batch.done()
    with pytest.raises(EventsLost) as caught:
        following(reader)
    assert caught.value.count == 3


def test_a_paused_subscription_loses_and_is_told_when_it_goes_on(hurried: Stream, aging: Aging) -> None:
    reader = hurried.subscribe("a")
    hurried.publish(1)
    reader.pause()
    aging.age(DAYS)
    assert hurried.rotate()
    assert following(reader) == []
    reader.resume()
    with pytest.raises(EventsLost):
        following(reader)
    assert following(reader) == []


# -- who does it


def test_a_consumer_removes_them(stream: Stream, aging: Aging, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep, "BEGIN", 0.0)
    stream.publish(1)
    aging.age(DAYS)
    assert following(stream.subscribe("a")) == []
    assert aging.left() == []


@pytest.fixture
def poor(stream: Stream, dsn: str, sql: Sql) -> Iterator[PQ]:
    """A PQ of a role that may read, and not truncate."""
    sql("create role poor_reader login")
    sql("grant all on all tables in schema public to poor_reader")
    sql("revoke truncate on all tables in schema public from poor_reader")
    with PQ(psycopg2.extensions.make_dsn(dsn, user="poor_reader")) as made:
        yield made
    sql("drop owned by poor_reader")
    sql("drop role poor_reader")


def test_a_role_that_may_not_truncate_says_so_once(
    stream: Stream, aging: Aging, poor: PQ, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(upkeep, "BEGIN", 0.0)
    monkeypatch.setattr(upkeep, "PAUSE", 0.0)
    stream.subscribe("a")
    reader = poor.streams["orders"].subscription("a")
    stream.publish(1)
    assert following(reader) == [1]
    aging.age(DAYS)
    with caplog.at_level(logging.WARNING, "pq"):
        for _ in range(3):
            assert following(reader) == []
    assert len(caplog.records) == 1 and "can't be removed" in caplog.text
    assert aging.left() == [1]


# -- the end


def test_a_stream_with_unread_events_is_not_dropped(stream: Stream, pq: PQ) -> None:
    a, b = stream.subscribe("a"), stream.subscribe("b")
    stream.publish_many([1, 2])
    assert following(b) == [1, 2]
    with pytest.raises(EventsLeft) as caught:
        stream.drop()
    assert caught.value.subscriptions == "'a'"
    with pytest.raises(EventsLeft):
        a.drop()
    assert following(a) == [1, 2]
    a.drop()
    stream.drop()
    assert list(pq.streams) == []
    stream.drop()


def test_a_rotation_is_no_part_of_a_transaction(pq: PQ, stream: Stream) -> None:
    with pytest.raises(ValueError, match="transaction of its own"), pq["any"]:
        stream.rotate()


def test_what_came_after_the_last_window_is_behind_too(pq: PQ, stream: Stream) -> None:
    reader = stream.subscribe("of_an_empty_stream", "beginning")
    stream.publish_many(range(3))
    assert (reader.lag().events, reader.lag(exact=True).events) == (3, 3)
    with pytest.raises(EventsLeft):
        reader.drop()
    with reader.batch(2, timeout=0) as batch:
        assert len(batch) == 2
    stream.publish(3)
    assert reader.lag(exact=True).events == 2


def test_of_partitions_those_that_have_nothing_to_read_are_not_behind(pq: PQ, stream: Stream) -> None:
    reader = stream.subscribe("parted", "new", partitions=8)
    stream.publish_many(range(50), key="k")
    while (reader.lag(exact=True)).events:
        with reader.batch(timeout=0) as batch:
            assert batch
    stream.publish(1, key="k")
    assert reader.lag().events == 1
