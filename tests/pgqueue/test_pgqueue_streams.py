"""pq.pgqueue on a server without the extension pgq: queues are streams."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from typing import Any

import pytest
from support import Background, execute, wait_until
from support.driver import driver

from pq import PQ
from pq.errors import EventsLost, StreamMissing, StreamRestored, SubscriptionNotFound
from pq.pgqueue import Consumer, Queue, Ticker

BATCHES = "queue_batches_q"


class World:
    """A queue with one consumer, and a connection."""

    def __init__(self, conn: Any, dsn: str) -> None:
        self.conn, self.dsn = conn, dsn
        self.curs = conn.cursor()
        self.queue, self.consumer = Queue("q"), Consumer("q", "c")
        assert self.queue.create(self.curs) == 1
        self.consumer.register(self.curs)
        conn.commit()

    def sql(self, statement: str, params: Any = None) -> list[tuple[Any, ...]]:
        return execute(self.dsn, statement, params)

    def put(self, *data: str) -> None:
        for each in data:
            self.queue.insert_event(self.curs, "t", each)
        self.conn.commit()

    def taken(self, consumer: Consumer | None = None, curs: Any = None) -> list[list[Any]]:
        """The data of the events of the batches that there are."""
        batches = (consumer or self.consumer).next_batches(curs or self.curs, commit=True)
        return [[event.data for event in batch] for batch in batches]

    def later(self, span: str) -> None:
        """All that is kept of times is so much older."""
        self.sql(f"update {BATCHES} set due_at = due_at - %s::interval", (span,))
        self.sql("update queue_stream_q set at = at - %s::interval", (span,))


@pytest.fixture
def conn(empty_dsn: str) -> Iterator[Any]:
    """A connection to a database without the extension, and without pq's table."""
    with closing(driver.connect(empty_dsn)) as made:
        yield made


@pytest.fixture
def world(conn: Any, empty_dsn: str) -> World:
    return World(conn, empty_dsn)


# -- queues


def test_a_queue_is_made_in_the_transaction_or_not_at_all(conn: Any, empty_dsn: str) -> None:
    queue = Queue("q")
    assert queue.create(conn) == 1
    conn.rollback()
    assert queue.get_info(conn) is None
    with pytest.raises(StreamMissing):
        queue.insert_event(conn, "t", "1")
    conn.rollback()
    assert execute(empty_dsn, "select to_regclass('queue')") == [(None,)]
    conn.autocommit = True
    assert [queue.create(conn), queue.create(conn)] == [1, 0]
    assert queue.insert_event(conn, "t", "1") == 1


@pytest.mark.parametrize("count", [4])
def test_processes_may_make_a_queue_at_once(conn: Any, empty_dsn: str, count: int) -> None:
    def make() -> int:
        with closing(driver.connect(empty_dsn, autocommit=True)) as own:
            return Queue("q").create(own, rotation_period="3 h", ticker_max_count=7)

    threads = [Background(make) for _ in range(count)]
    assert sum(thread.result() for thread in threads) >= 1
    info = Queue("q").get_info(conn.cursor(**driver.dict_rows))
    assert info["queue_ticker_max_count"] == 7


def test_the_period_of_rotation_is_what_events_are_kept_for(world: World) -> None:
    def kept() -> timedelta:
        world.conn.commit()
        with PQ(world.dsn) as pq:
            return pq.streams["q"].info().retain

    assert kept() == timedelta(hours=2)
    for value, expected in (("3 hours", timedelta(hours=3)), ("0 s", timedelta(seconds=1)), ("1 day", timedelta(1))):
        world.queue.set_config(world.curs, "rotation_period", value)
        assert kept() == expected
    with pytest.raises(driver.Error):
        world.queue.create(world.curs, rotation_period="soon", ticker_max_count=7)
    world.conn.rollback()
    assert kept() == timedelta(1)
    assert world.queue.get_info(world.conn.cursor(**driver.dict_rows))["queue_ticker_max_count"] == 500


def test_a_queue_with_consumers_is_not_dropped(world: World) -> None:
    world.put("1")
    with pytest.raises(ValueError, match="queue 'q' has consumers: 'c'; force=True drops it with them"):
        world.queue.drop(world.curs)
    assert world.taken() == [["1"]]
    assert world.queue.drop(world.curs, force=True) == 1
    with pytest.raises(StreamMissing):
        world.queue.drop(world.curs)
    world.conn.rollback()
    assert world.queue.drop(world.curs, True) == 1  # both were undone
    world.conn.commit()
    assert Queue.get_all_queues_info(world.curs) == []


@pytest.mark.parametrize("name", ["q", 'a"b', "ä%s :log", "x" * 100, "pq_q", "q/text"])
def test_names_of_any_kind(conn: Any, name: str) -> None:
    queue, consumer = Queue(name), Consumer(name, name)
    assert [queue.create(conn), queue.create(conn, ticker_max_count=3)] == [1, 0]
    assert consumer.register(conn) == 1
    conn.commit()
    queue.insert_event(conn, name, name)
    queue.insert_events(conn, [(name,)], ["data"])
    conn.commit()
    assert [(event.type, event.data) for event in consumer.next_events(conn, commit=True)] == [
        (name, name),
        (None, name),
    ]
    assert consumer.get_info(conn)[1] == name
    assert [consumer.unregister(conn), queue.drop(conn)] == [1, 1]


# -- events


def test_events_are_those_of_the_stream(world: World) -> None:
    """Be read by pq.streams, and published there."""
    world.queue.insert_event(world.curs, "t", "text", "key", "2", None, "4")
    world.conn.commit()
    with PQ(world.dsn) as pq:
        stream = pq.streams["q"]
        (event,) = stream.read()
        assert (event.type, event.key, event.data) == ("t", "key", "text")
        assert event.headers == {"extra2": "2", "extra4": "4"}
        stream.publish({"a": [1]}, "u", headers={"extra3": "x", "other": 1})
        stream.publish(None)
    found = [tuple(event)[3:9] for event in world.consumer.next_events(world.curs)]
    assert found == [
        ("t", "text", "key", "2", None, "4"),
        ("u", '{"a": [1]}', None, None, "x", None),
        ("", None, None, None, None, None),
    ]


def test_many_events_are_copied(world: World) -> None:
    rows = [("a", "x\ty\\\n\r'\u20ac", None, "2001-02-03 00:00+00"), (None, None, "\\N", "now"), ("", 7, "", "now")]
    world.queue.insert_events(world.curs, iter(rows), ["type", "data", "extra4", "time"])
    world.queue.insert_events(world.curs, [("k",)], ["extra1"])
    world.conn.commit()
    found = list(world.consumer.next_events(world.curs))
    assert [(event.type, event.data, event.extra4) for event in found[:3]] == [
        ("a", "x\ty\\\n\r'\u20ac", None),
        (None, None, "\\N"),
        ("", "7", ""),
    ]
    assert found[0].time.year == 2001
    assert tuple(found[3])[3:9] == (None, None, "k", None, None, None)
    for column in ("id", "txid", "owner", "retry"):
        with pytest.raises(ValueError, match=f"without the extension pgq the {column} of an event can't be given"):
            world.queue.insert_events(world.curs, [(1,)], [column])
    with pytest.raises(ValueError, match="row 1 has 1 values for 2 columns"):
        world.queue.insert_events(world.curs, [(1, 2), (1,)], ["type", "data"])
    with pytest.raises(StreamMissing):
        Queue("none").insert_events(world.curs, [("1",)], ["data"])
    world.put("after")
    assert world.taken()[-1][-1] == "after"


def test_there_are_no_ticks(world: World) -> None:
    with pytest.raises(ValueError, match="tick_id must be None, not 1"):
        world.consumer.register(world.curs, 1)
    with pytest.raises(ValueError, match="there are no ticks"):
        world.queue.external_tick(world.curs, 1, "now", 1)
    world.put("1")
    assert world.taken() == [["1"]]


def test_what_commits_late_is_not_missed(world: World) -> None:
    """Be an event whose id is below those that were read."""
    with closing(driver.connect(world.dsn)) as slow:
        world.queue.insert_event(slow, "t", "late")
        world.put("1", "2")
        assert world.taken() == [["1", "2"]]
        slow.commit()
        world.put("3")
        assert world.taken() == [["late", "3"]]
        assert world.taken() == []


def test_a_batch_has_a_bound(world: World) -> None:
    world.queue.insert_events(world.curs, [(str(number),) for number in range(1_201)], ["data"])
    world.conn.commit()
    found = world.taken()
    assert [len(batch) for batch in found] == [500, 500, 201]
    assert [data for batch in found for data in batch] == [str(number) for number in range(1_201)]


# -- batches


def test_an_open_batch_comes_to_whoever_asks_and_one_finishes_it(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.put("1", "2")
    batches = world.consumer.next_batches(world.curs, commit=True)
    batch = next(batches)
    events = list(batch)
    events[0].tag_retry(0)
    world.conn.commit()
    world.put("3")
    with closing(driver.connect(world.dsn)) as other:
        assert world.consumer.get_info(other)[5] == batch.batch_id
        assert world.taken(curs=other) == [["1", "2"], ["3"]]
    with caplog.at_level(logging.WARNING, "pq.pgqueue"):
        assert list(batches) == []
    assert "is not open any more" in caplog.text
    assert world.sql(f"select count(*) from {BATCHES}") == [(0,)]  # nor does what was tagged come again


def test_a_predicate_chooses_of_an_open_batch_too(world: World) -> None:
    world.put("1", "22", "3%", "44")
    world.consumer.predicate = "length(ev_data) = 2 or ev_data like '%\\%' and false"
    for _ in range(2):
        for batch in world.consumer.next_batches(world.curs, commit=True):
            assert [event.data for event in batch] == ["22", "3%", "44"]
            world.conn.commit()
            break
        world.conn.rollback()
    assert world.taken() == []
    world.put("1")
    world.consumer.predicate = "no sql"
    with pytest.raises(driver.Error):
        world.taken()


@pytest.mark.parametrize("wants", ["count", "interval", "either", "lag"])
def test_a_consumer_waits_until_there_is_enough(world: World, wants: str) -> None:
    if wants in ("count", "either"):
        world.consumer.pgq_min_count = 3
    if wants in ("interval", "either"):
        world.consumer.pgq_min_interval = timedelta(hours=1) if wants == "interval" else "1 hour"
    if wants == "lag":
        world.consumer.pgq_min_lag = "1 hour"
    assert world.taken() == []
    world.put("1", "2")
    assert world.taken() == []
    if wants == "count":
        world.later("2 hours")
        assert world.taken() == []
        world.put("3")
        assert world.taken() == [["1", "2", "3"]]
    elif wants == "interval":
        world.put("3")
        assert world.taken() == []
        world.later("2 hours")
        assert world.taken() == [["1", "2", "3"]]
    elif wants == "either":
        world.later("2 hours")
        assert world.taken() == [["1", "2"]]
    else:
        world.later("2 hours")
        world.put("3")
        assert world.taken() == [["1", "2"]]  # 3 is too new
        assert world.taken() == []
        world.later("2 hours")
        assert world.taken() == [["3"]]
    assert world.taken() == []


def test_what_is_open_is_given_whatever_it_waits_for(world: World) -> None:
    world.consumer.pgq_min_count = 2
    world.put("1", "2")
    next(world.consumer.next_batches(world.curs, commit=True))
    world.conn.commit()
    world.consumer.pgq_min_count = 5
    assert world.taken() == [["1", "2"]]


# -- retries


def test_an_event_comes_again_to_its_consumer_alone(world: World) -> None:
    other = Consumer("q", "other")
    other.register(world.curs)
    world.put(*"12345")
    for batch in world.consumer.next_batches(world.curs, commit=True):
        events = list(batch)
        for number in (3, 0, 4):
            events[number].tag_retry(3600)
        events[1].tag_retry(7200)
    assert world.taken() == []
    world.put("6")
    assert world.taken() == [["6"]]
    world.later("61 min")
    found: list[Any] = []
    for batch in world.consumer.next_batches(world.curs, commit=True):
        for event in batch:
            found.append((event.id, event.data, event.retry))
            if event.data == "4":
                event.tag_retry(0)
    assert found == [(1, "1", 1), (4, "4", 1), (5, "5", 1)]
    world.later("61 min")
    for event in world.consumer.next_events(world.curs, commit=True):
        found.append((event.id, event.data, event.retry))
    assert found[3:] == [(2, "2", 1), (4, "4", 2)]
    assert world.taken(other) == [["1", "2", "3", "4", "5", "6"]]
    assert world.sql(f"select count(*) from {BATCHES}") == [(0,)]


def test_a_loop_ends_though_an_event_is_always_to_be_retried_at_once(world: World) -> None:
    world.put("1", "2")
    count = 0
    for event in world.consumer.next_events(world.curs, commit=True):
        event.tag_retry(0)
        count += 1
        assert count < 5
    assert count == 2
    world.later("1 s")
    assert world.taken() == [["1", "2"]]  # neighbours are one batch


def test_what_is_to_be_retried_goes_with_its_consumer(world: World) -> None:
    world.put("1")
    for event in world.consumer.next_events(world.curs, commit=True):
        event.tag_retry(0)
    assert world.consumer.unregister(world.curs) == 1
    assert world.consumer.unregister(world.curs) == 0
    world.consumer.register(world.curs)
    world.conn.commit()
    world.later("1 hour")
    assert world.taken() == []


# -- subconsumers


class Sharing(Consumer):
    queue_name = "q"
    consumer_name = "c"


def test_subconsumers_share_the_batches(world: World) -> None:
    first, second = (Sharing(subconsumer_name=name) for name in ("one", "two"))
    assert first.register(world.curs) == 0  # the consumer was there
    world.put("1")
    batches = first.next_batches(world.curs, commit=True)
    batch = next(batches)
    assert [event.data for event in batch] == ["1"]
    world.conn.commit()
    world.put("2")
    with closing(driver.connect(world.dsn)) as other:
        assert world.taken(second, other) == [["2"]]
    assert list(batches) == []
    assert world.taken(second) == []
    assert [first.unregister(world.curs), second.unregister(world.curs)] == [1, 1]
    assert world.consumer.unregister(world.curs) == 1
    assert first.unregister(world.curs) == 0


def test_the_batch_of_a_dead_subconsumer_is_taken_over(world: World) -> None:
    first, second = (Sharing(subconsumer_name=name) for name in ("one", "two"))
    first.pgq_dead_interval = timedelta(minutes=10)
    world.put("1")
    with closing(driver.connect(world.dsn)) as dead:
        next(first.next_batches(dead, commit=True))
        dead.commit()
    assert world.taken(second) == []
    world.later("11 min")
    batches = second.next_batches(world.curs, commit=True)
    assert [event.data for event in next(batches)] == ["1"]
    world.conn.commit()
    assert world.taken(first) == []
    assert list(batches) == []


# -- errors


def test_a_consumer_that_is_forgotten_while_it_takes_leaves_no_batch(world: World) -> None:
    """Else one that is registered by that name later would get it."""
    world.put("1")
    with closing(driver.connect(world.dsn)) as other:
        batches = world.consumer.next_batches(world.curs)
        assert next(batches)
        gone = Background(world.consumer.unregister, other)
        waits = "select from pg_locks where not granted and locktype = 'transactionid'"
        wait_until(lambda: world.sql(waits), "its wait for the transaction that takes")
        world.conn.commit()
        assert gone.result() == 1
        other.commit()
    assert world.sql(f"select number from {BATCHES}") == []


def test_what_is_missing_is_named(world: World) -> None:
    with pytest.raises(SubscriptionNotFound, match="no subscription 'x'; it has: 'c'"):
        world.taken(Consumer("q", "x"))
    world.conn.rollback()
    for call in (
        lambda: Queue("none").insert_event(world.curs, "t", "1"),
        lambda: Queue("none").set_config(world.curs, "rotation_period", "1 h"),
        lambda: Queue("none").register_consumer(world.curs, "c"),
        lambda: world.taken(Consumer("none", "c")),
    ):
        with pytest.raises(StreamMissing, match="stream 'none'"):
            call()
        world.conn.rollback()
    assert Queue("none").get_consumer_info(world.curs) == []


def test_a_restored_dump_is_refused_and_lost_events_are_told_once(world: World) -> None:
    world.put("1")
    world.sql("update queue_subscriptions_q set lost = 7")
    with pytest.raises(EventsLost, match="7 events"):
        world.taken()
    world.conn.commit()
    assert world.taken() == [["1"]]
    world.sql("update queue_origin_q set home = 1")
    with pytest.raises(StreamRestored):
        world.taken()


# -- the ticker


def test_the_ticker_removes_old_events(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from pq._streams import Stream

    rotated: list[str] = []
    monkeypatch.setattr(Stream, "rotate", lambda stream: rotated.append(stream.name))
    Queue("p").create(world.curs)
    world.conn.commit()
    ticker = Ticker(world.dsn)
    second = Ticker(world.dsn)
    try:
        with ticker.cursor() as curs:
            assert ticker.try_lock(curs)
            assert 0 < ticker.run_once(curs) <= 1
        assert not second.try_lock(second.cursor())
        assert rotated == ["p", "q"]
        assert ticker.n_maint == 2
    finally:
        ticker.close()
        second.close()


def test_a_stream_is_really_rotated(world: World) -> None:
    world.put("1")
    assert world.taken() == [["1"]]
    ticker = Ticker(world.dsn)
    try:
        with ticker.cursor() as curs:
            ticker.run_maint(curs)
        assert ticker.n_maint == 1
    finally:
        ticker.close()


def test_what_gets_the_extension_later_is_looked_at_again(conn: Any, empty_dsn: str) -> None:
    """By `create` and `version`, and by the ticker."""
    assert Queue.version(conn) == "3.5"
    made = "create function pgq.next_batch_custom() returns int language sql as 'select 1'"
    execute(empty_dsn, f"create schema pgq; {made}")
    execute(empty_dsn, "create function pgq.version() returns text language sql as $$ select '3.7' $$")
    assert wait_until(lambda: Queue.version(conn)) == "3.7"
    conn.rollback()
    with pytest.raises(driver.Error, match="create_queue"):
        Queue("q").create(conn)
