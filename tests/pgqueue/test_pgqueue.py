"""pq.pgqueue on the extension: what pgqueue does wrong, what it does not have, and what it is given wrongly."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from support import execute
from support.driver import driver

from pq import pgqueue
from pq._db.given import Given
from pq.pgqueue import Batch, Consumer, Queue, bulk_insert_events, insert_event

Sql = Callable[..., list[tuple[Any, ...]]]


class World:
    """A queue with one consumer, and a connection."""

    def __init__(self, conn: Any, dsn: str) -> None:
        self.conn, self.dsn = conn, dsn
        self.curs = conn.cursor()
        self.queue, self.consumer = Queue("q"), Consumer("q", "c")
        self.queue.create(self.curs)
        self.consumer.register(self.curs)
        conn.commit()

    def sql(self, statement: str, params: Any = None) -> list[tuple[Any, ...]]:
        return execute(self.dsn, statement, params)

    def tick(self) -> None:
        self.sql("select pgq.force_tick('q'), pgq.ticker('q')")

    def put(self, *data: str) -> None:
        for each in data:
            self.queue.insert_event(self.curs, "t", each)
        self.conn.commit()
        self.tick()

    def taken(self) -> list[Any]:
        return [event.data for event in self.consumer.next_events(self.curs, commit=True)]


@pytest.fixture
def world(conn: Any, pgq: str) -> World:
    return World(conn, pgq)


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The statements that this API executes."""
    executed: list[str] = []
    run = Given.run

    def note(self: Given, sql: str, params: Any = None) -> Any:
        executed.append(sql)
        return run(self, sql, params)

    monkeypatch.setattr(Given, "run", note)
    return executed


# -- COPY


def test_many_events_are_copied(world: World) -> None:
    rows = [("a", "x\ty\\\n\r'\u20ac", None), ("b", "", "1"), ("", 7, 1.5), (None, "\\N", "\\.")]
    world.queue.insert_events(world.curs, iter(rows), ["type", "data", "extra2"])
    bulk_insert_events(world.curs, "q", [], ["data"])
    world.conn.commit()
    world.tick()
    found = [(event.type, event.data, event.extra2) for event in world.consumer.next_events(world.curs)]
    assert found == [("a", "x\ty\\\n\r'\u20ac", None), ("b", "", "1"), ("", "7", "1.5"), (None, "\\N", "\\.")]


def test_the_time_of_events_that_are_copied_may_be_given(world: World) -> None:
    world.queue.insert_events(world.curs, [("1", "2001-02-03 04:05:06+00")], ["data", "time"])
    world.queue.insert_events(world.curs, [("2",)], ["data"])
    ((now,),) = world.sql("select now()")
    world.conn.commit()
    world.tick()
    first, second = [event.time for event in world.consumer.next_events(world.curs)]
    assert first.isoformat().startswith("2001-02-03")
    assert abs(now - second) < timedelta(minutes=1)


@pytest.mark.parametrize("autocommit", [False, True])
def test_a_bad_row_undoes_the_copy_and_nothing_else(world: World, autocommit: bool) -> None:
    world.conn.autocommit = autocommit
    world.queue.insert_event(world.curs, "t", "before")

    def rows() -> Iterator[tuple[str]]:
        yield from [(str(number),) for number in range(20_000)]
        raise ZeroDivisionError

    bad: list[tuple[Any, type[Exception], str]] = [
        (rows(), ZeroDivisionError, "^$"),
        ([("1",), ("2", "3")], ValueError, "row 1 has 2 values for 1 columns"),
        ([("1",), "2"], TypeError, "row 1 must be a list or a tuple, not str"),
        ([("1",), ("\0",)], ValueError, "data of row 1 must not have a NUL character"),
        ([("\ud800",)], ValueError, "data of row 0 must not have a lone surrogate"),
    ]
    for given, kind, message in bad:
        with pytest.raises(kind, match=message):
            world.queue.insert_events(world.curs, given, ["data"])
    with pytest.raises(driver.Error):
        world.queue.insert_events(world.curs, [("x",)], ["retry"])
    world.queue.insert_events(world.curs, [("after",)], ["data"])
    world.conn.commit()
    world.tick()
    world.conn.autocommit = False
    assert world.taken() == ["before", "after"]


def test_the_table_can_not_change_before_the_copy(world: World) -> None:
    """In autocommit mode both are one transaction: the ticker rotates tables between two."""
    world.conn.autocommit = True

    def rows() -> Iterator[tuple[str]]:
        yield (world.sql(in_transaction, (pid,))[0][0],)

    pid = driver.pid(world.conn)
    in_transaction = "select xact_start < query_start from pg_stat_activity where pid = %s"
    world.queue.insert_events(world.curs, rows(), ["data"])
    world.tick()
    world.conn.autocommit = False
    assert world.taken() == ["True"]


# -- retries


def test_events_come_again_by_one_statement(world: World, runs: list[str]) -> None:
    world.put(*map(str, range(50)))
    for batch in world.consumer.next_batches(world.curs, commit=True):
        for event in batch:
            event.tag_retry(0)
        runs.clear()
    assert len(runs) == 2  # and the next batch, which there is not
    assert world.sql("select count(*) from pgq.retry_queue") == [(50,)]


def test_a_batch_that_another_process_has_finished_is_not_retried(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.put("1")
    (batch,) = list(world.consumer.next_batches(world.curs, limit=1))[:0] or [None]
    world.conn.rollback()
    batches = world.consumer.next_batches(world.curs, commit=True)
    batch = next(batches)
    for event in batch:
        event.tag_retry(0)
    world.conn.commit()
    world.sql("select pgq.finish_batch(%s)", (batch.batch_id,))
    with caplog.at_level(logging.WARNING, "pq.pgqueue"):
        assert list(batches) == []
    assert "is not open any more" in caplog.text
    assert world.sql("select count(*) from pgq.retry_queue") == [(0,)]


def test_what_is_retried_is_as_it_was(world: World) -> None:
    args = ("t\\'", '{"a": "\u20ac\\n"}', None, "", "null", "4")
    id = insert_event(world.curs, "q", *args)
    world.conn.commit()
    world.tick()
    for expected in (0, 1, 2):
        for batch in world.consumer.next_batches(world.curs, commit=True):
            for event in batch:
                assert (event.id, event.retry, *event[3:9]) == (id, expected, *args)
                event.tag_retry(Decimal("-0.5"))
        assert world.sql("select pgq.maint_retry_events()") == [(1,)]
        world.tick()


# -- how a batch ends


def test_a_batch_whose_block_has_raised_comes_again(world: World) -> None:
    world.put("1")

    def handle() -> None:
        for batch in world.consumer.next_batches(world.curs, commit=True):
            with batch:
                assert [event.data for event in batch] == ["1"]
                raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        handle()
    world.conn.rollback()
    assert world.taken() == ["1"]


def test_a_batch_of_a_transaction_that_has_failed_comes_again(world: World) -> None:
    world.put("1")
    for batch in world.consumer.next_batches(world.curs, commit=True):
        assert [event.data for event in batch] == ["1"]
        with pytest.raises(driver.Error):
            world.curs.execute("select 1 / 0")
        break  # which would finish it, and can't
    world.conn.rollback()
    assert world.taken() == ["1"]


def test_two_consumers_may_read_in_one_transaction(world: World) -> None:
    """pgqueue has one name for the cursors of all."""
    other = Consumer("q", "other")
    other.register(world.curs)
    world.put(*"123")
    pairs = zip(world.consumer.next_events(world.curs), other.next_events(world.curs), strict=True)
    assert [(a.data, b.data) for a, b in pairs] == [("1", "1"), ("2", "2"), ("3", "3")]


def test_what_commits_by_itself_needs_a_whole_batch_at_once(world: World) -> None:
    world.put("1")
    world.conn.autocommit = True
    for commit in (False, True):
        with pytest.raises(RuntimeError, match="pgq_lazy_fetch = 0"):
            list(world.consumer.next_batches(world.curs, commit=commit))
    world.curs.execute("begin")
    with pytest.raises(RuntimeError, match="pgq_lazy_fetch = 0"):
        list(world.consumer.next_batches(world.curs, commit=True))
    assert [event.data for event in world.consumer.next_events(world.curs)] == ["1"]
    world.curs.execute("rollback")
    world.consumer.pgq_lazy_fetch = 0
    assert [event.data for event in world.consumer.next_events(world.curs, commit=True)] == ["1"]
    assert world.taken() == []


def test_a_percent_sign_in_a_predicate_is_one(world: World) -> None:
    world.put("a%c", "abc")
    for lazy in (300, 0):
        consumer = Consumer("q", f"c{lazy}", "ev_data like 'a\\%%' or false")
        consumer.pgq_lazy_fetch = lazy
        consumer.register(world.curs, 1)
        assert [event.data for event in consumer.next_events(world.curs)] == ["a%c"]


# -- what can be passed


def test_a_row_is_of_the_kind_of_the_cursor(world: World) -> None:
    named = world.conn.cursor(**driver.dict_rows)
    assert world.queue.get_info(named)["queue_name"] == "q"
    assert world.consumer.get_info(named)["consumer_name"] == "c"
    assert Queue.get_all_queues_info(named)[0]["queue_ntables"] == 3
    assert world.queue.get_info(world.curs)[:2] == ("q", 3)
    assert world.queue.get_info(world.conn)[:2] == ("q", 3)
    assert world.queue.insert_event(named, "t", "1") == 1  # whatever the rows


def test_a_session_of_sqlalchemy_will_do(world: World) -> None:
    sa = pytest.importorskip("sqlalchemy")
    orm = pytest.importorskip("sqlalchemy.orm")
    engine = sa.create_engine(f"postgresql+{driver.package}://", creator=lambda: driver.connect(world.dsn))
    with orm.Session(engine) as session:
        world.queue.insert_event(session, "t", "1")
        session.rollback()
        world.queue.insert_event(session, "t", "2")
        world.queue.insert_events(session, [("3",)], ["data"])
        session.commit()
    engine.dispose()
    world.tick()
    assert world.taken() == ["2", "3"]


BAD: list[tuple[Callable[[World], object], type[Exception], str]] = [
    (lambda w: Queue(""), ValueError, "queue_name is missing"),
    (lambda w: Queue(None), ValueError, "queue_name is missing"),
    (lambda w: Queue(7), TypeError, "queue_name must be a str, not int: 7"),  # type: ignore[arg-type]
    (lambda w: Queue("a\0b"), ValueError, "NUL"),
    (lambda w: Consumer("q"), ValueError, "consumer_name is missing"),
    (lambda w: Consumer("q", "c", predicate=7), TypeError, "predicate must be a str"),  # type: ignore[arg-type]
    (lambda w: w.queue.register_consumer(w.curs, ""), ValueError, "consumer must not be empty"),
    (lambda w: w.queue.register_consumer(w.curs, "x", "1"), TypeError, "tick_id must be an int"),  # type: ignore[arg-type]
    (lambda w: w.queue.register_consumer(w.curs, "x", 2**63), ValueError, "tick_id is out of range"),
    (lambda w: w.queue.create(w.curs, rotation="1h"), ValueError, "no setting 'rotation': there are ticker_max_count"),
    (lambda w: w.queue.set_config(w.curs, "x", 1), ValueError, "no setting 'x'"),
    (lambda w: w.queue.set_config(w.curs, "rotation_period", "\0"), ValueError, "NUL"),
    (lambda w: w.queue.insert_event(w.curs, "t", b"x"), TypeError, "data must be a str or None, not bytes"),  # type: ignore[arg-type]
    (lambda w: w.queue.insert_event(w.curs, 7, "x"), TypeError, "type must be a str or None, not int: 7"),  # type: ignore[arg-type]
    (lambda w: w.queue.insert_event(w.curs, "t", {"a": 1}), TypeError, "not dict"),  # type: ignore[arg-type]
    (lambda w: w.queue.insert_event(w.curs, "t", "d", "\0"), ValueError, "extra1 must not have a NUL"),
    (lambda w: w.queue.insert_event(w.curs, "t", "\ud800"), ValueError, "data must not have a lone surrogate"),
    (lambda w: w.queue.insert_events(w.curs, [], "data"), TypeError, "columns must be a list of names"),
    (lambda w: w.queue.insert_events(w.curs, [], ["ev_data"]), ValueError, "no column 'ev_data': there are id, time"),
    (lambda w: w.queue.insert_events(w.curs, [], []), ValueError, "columns must be names of columns, each once"),
    (lambda w: w.queue.insert_events(w.curs, [], ["data"] * 2), ValueError, "each once"),
    (lambda w: w.queue.external_tick(w.curs, True, "now", 1), TypeError, "tick_id must be an int"),
    (lambda w: list(w.consumer.next_batches(w.curs, limit=-1)), ValueError, "limit must not be negative"),
    (lambda w: list(w.consumer.next_batches(w.curs, limit=1.5)), TypeError, "limit must be an int"),  # type: ignore[arg-type]
    (lambda w: w.queue.get_info(object()), TypeError, "conn must be a connection or cursor"),
    (lambda w: pgqueue.Ticker(w.dsn, {"maint_period": 0}), ValueError, "maint_period must be a positive number"),
    (lambda w: pgqueue.Ticker(w.dsn, {"check_period": "x"}), TypeError, "check_period must be a number"),
    (lambda w: pgqueue.Ticker(w.dsn, {"ticker_period": math.nan}), ValueError, "ticker_period must be a number"),
    (lambda w: pgqueue.Ticker("postgres"), ValueError, "neither a postgresql:// URL nor key=value pairs"),
]  # fmt: skip


def test_bad_input_is_refused_before_any_statement(world: World, runs: list[str]) -> None:
    for call, kind, message in BAD:
        with pytest.raises(kind, match=message):
            call(world)
    assert runs == []


@pytest.mark.parametrize("bad", [True, "x", None, math.nan, math.inf, 1e12, [1]], ids=repr)
def test_a_time_to_retry_is_a_number_of_seconds(bad: Any) -> None:
    failed = pgqueue.events.Retries()
    event = pgqueue.Event((1, 2, None, "t", "d", None, None, None, None, 0, failed))
    with pytest.raises((TypeError, ValueError), match="retry_time must be a number of seconds"):
        event.tag_retry(bad)
    assert not event.failed
    event.tag_retry("1.5")  # type: ignore[arg-type]
    assert event.retry_time == "1.5"


def test_a_size_of_fetches_is_an_int(world: World) -> None:
    world.put("1")
    bad: list[Any] = [-1, 1.5, "3"]
    for world.consumer.pgq_lazy_fetch in bad:
        with pytest.raises((TypeError, ValueError), match="pgq_lazy_fetch"):
            list(world.consumer.next_events(world.curs))
    world.consumer.pgq_lazy_fetch = 3
    assert world.taken() == ["1"]


# -- subconsumers

#: Of the extension pgq_coop, which Debian does not have, what is called; with one subconsumer it is this.
COOP = """
    create schema pgq_coop;
    create function pgq_coop.register_subconsumer(text, text, text) returns int language sql as
        $$ select pgq.register_consumer($1, $2 || '.' || $3) $$;
    create function pgq_coop.unregister_subconsumer(text, text, text, int) returns int language sql as
        $$ select pgq.unregister_consumer($1, $2 || '.' || $3) where $4 = 0 $$;
    create function pgq_coop.next_batch_custom(text, text, text, interval, int, interval, interval) returns bigint
        language sql as $$ select batch_id from pgq.next_batch_custom($1, $2 || '.' || $3, $4, $5, $6) $$;
    create function pgq_coop.finish_batch(bigint) returns int language sql as $$ select pgq.finish_batch($1) $$;
"""


def test_subconsumers_are_those_of_pgq_coop(world: World) -> None:
    world.sql(COOP)

    class Sharing(Consumer):
        queue_name = "q"
        consumer_name = "c"
        subconsumer_name = "one"
        pgq_dead_interval = "1 hour"

    sharing = Sharing()
    assert [sharing.register(world.curs), sharing.register(world.curs)] == [1, 0]
    with pytest.raises(ValueError, match="a subconsumer can't begin at a tick"):
        sharing.register(world.curs, 1)
    world.put("1", "2")
    assert list(Batch.__iter__(next(sharing.next_batches(world.curs))))[0].data == "1"
    for batch in sharing.next_batches(world.curs, commit=True):
        assert [event.data for event in batch] == ["1", "2"]
        assert sharing.batch_info is not None and sharing.batch_info["batch_start"] < sharing.batch_info["batch_end"]
    assert sharing.batch_info is not None and sharing.batch_info["batch_id"] is None
    assert [row[1] for row in world.queue.get_consumer_info(world.curs)] == ["c", "c.one"]
    assert [sharing.unregister(world.curs), sharing.unregister(world.curs)] == [1, 0]
