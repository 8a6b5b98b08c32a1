"""Partitions, each read in order by one consumer at a time; and subscriptions that several consumers share."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import psycopg2
import pytest
from support import Background, execute, wait_until
from support.driver import driver
from support.streams import following

from pq import PQ
from pq._streams import Batch, Stream

Sql = Callable[..., list[tuple[Any, ...]]]
Take = Callable[..., list[Any]]

PARTITIONS = 4
KEYS = [f"k{n}" for n in range(20)]


def fill(stream: Stream, count: int = 200) -> None:
    """Publish events of all keys; each counts those of its key."""
    counts = dict.fromkeys(KEYS, 0)
    for _ in range(count):
        key = random.choice(KEYS)
        stream.publish(counts[key], key=key)
        counts[key] += 1


def expire(sql: Sql) -> None:
    sql("update queue_batches_orders set due_at = statement_timestamp()")


def partition(sql: Sql, key: str | None) -> int:
    ((found,),) = sql(
        f"""select (hashtextextended(coalesce(%s, '') collate "C", 0) & 1073741823) %% {PARTITIONS}""", (key,)
    )
    return int(found)


def test_all_events_are_read_once_and_those_of_a_key_in_order(stream: Stream, take: Take) -> None:
    subscription = stream.subscribe("billing", partitions=PARTITIONS)
    fill(stream)
    seen: dict[str, list[int]] = {key: [] for key in KEYS}
    partitions = 0
    while take(subscription, lambda batch: [seen[event.key].append(event.data) for event in batch], n=13):
        partitions += 1
    assert sum(map(len, seen.values())) == 200
    assert all(found == list(range(len(found))) for found in seen.values())
    assert partitions >= 200 / 13


def test_a_batch_is_of_one_partition_and_others_are_taken_meanwhile(stream: Stream, sql: Sql) -> None:
    subscription = stream.subscribe("billing", partitions=PARTITIONS)
    fill(stream)
    batches = [next(subscription.batches(5, timeout=0)) for _ in range(PARTITIONS)]
    found = [{partition(sql, event.key) for event in batch} for batch in batches]
    assert all(len(each) == 1 for each in found)
    assert set.union(*found) == set(range(PARTITIONS))
    assert not next(subscription.batches(5, timeout=0))  # each has an open batch
    batches[2].done()
    (again,) = {partition(sql, event.key) for event in next(subscription.batches(5, timeout=0))}
    assert {again} == found[2]


def test_events_without_a_key_are_in_one_partition(stream: Stream) -> None:
    subscription = stream.subscribe("billing", partitions=PARTITIONS)
    stream.publish_many(range(10))
    with subscription.batch(timeout=0) as batch:
        assert [event.data for event in batch] == list(range(10))


def test_a_partition_that_is_always_full_does_not_starve_the_others(stream: Stream, take: Take, sql: Sql) -> None:
    subscription = stream.subscribe("billing", partitions=PARTITIONS)
    stream.publish_many(range(1000), key="a")
    others = [key for key in KEYS if partition(sql, key) != partition(sql, "a")]
    for key in others:
        stream.publish(key, key=key)
    seen: list[Any] = []
    for _ in range(2 * PARTITIONS):
        seen += take(subscription, n=20)
    assert set(others) <= set(seen)


def test_fresh_objects_do_not_starve_a_partition_either(stream: Stream) -> None:
    stream.subscribe("billing", partitions=PARTITIONS)
    for key in KEYS:
        stream.publish_many([key] * 100, key=key)
    seen: set[Any] = set()
    for _ in range(100):
        with stream.subscription("billing").batch(2, timeout=0) as batch:
            seen |= {batch[0].key and hash(batch[0].key)}
    assert len(seen) >= PARTITIONS


def test_an_idle_poll_is_one_statement(stream: Stream, statements: list[str]) -> None:
    for name, options in (("a", {}), ("b", {"partitions": 8}), ("c", {"shared": True})):
        subscription = stream.subscribe(name, **options)  # type: ignore[arg-type]
        assert not next(subscription.batches(timeout=0))
        statements.clear()
        assert not next(subscription.batches(timeout=0))
        assert len(statements) == 1, name


def test_an_idle_poll_writes_nothing(stream: Stream, sql: Sql) -> None:
    subscription = stream.subscribe("billing", partitions=8, types=["t"])
    stream.publish_many(range(50), type="other")
    for _ in range(3):
        assert not next(subscription.batches(timeout=0))
    before = sql("select pg_current_xact_id()::text::bigint")[0][0]
    for _ in range(3):
        assert not next(subscription.batches(timeout=0))
    assert sql("select pg_current_xact_id()::text::bigint")[0][0] == before + 1


def test_events_that_are_not_wanted_are_passed(stream: Stream, sql: Sql, take: Take) -> None:
    subscription = stream.subscribe("billing", partitions=2, types=["t"])
    stream.publish_many(range(150), type="other")
    assert take(subscription) == []
    marks = sql("select min(mark) from queue_positions_orders")
    assert marks == [(150,)]


def test_what_the_own_transaction_has_published_does_not_make_a_take_go_round(
    stream: Stream, connect: Callable[..., Any]
) -> None:
    """It is not visible before the commit, and much of it: the position has nothing to pass."""
    for name, options in (("a", {"types": ["t"]}), ("b", {"partitions": 2})):
        subscription = stream.subscribe(name, **options)  # type: ignore[arg-type]
        conn = connect()
        stream.publish_many(range(200), type="t", conn=conn)
        assert not Background(subscription.take, conn=conn).result()
        conn.commit()
        assert subscription.take(conn=conn)
        conn.rollback()


def test_a_late_event_of_another_partition_does_not_keep_one_ready(
    stream: Stream, connect: Callable[..., Any], statements: list[str]
) -> None:
    subscription = stream.subscribe("billing", partitions=PARTITIONS)
    slow = connect()
    stream.publish("late", key="a", conn=slow)
    for key in KEYS:
        stream.publish(key, key=key)
    seen = [data for _ in range(PARTITIONS) for data in following(subscription)]
    assert sorted(seen) == sorted(KEYS)
    slow.commit()
    assert following(subscription) == ["late"]
    assert following(subscription) == []
    statements.clear()
    assert following(subscription) == []
    assert len(statements) == 1


def test_a_paused_one_gives_nothing_and_a_restored_one_is_told(stream: Stream, sql: Sql) -> None:
    subscription = stream.subscribe("billing", partitions=PARTITIONS)
    fill(stream)
    subscription.pause()
    assert not next(subscription.batches(timeout=0))
    subscription.resume()
    assert next(subscription.batches(timeout=0))


def test_one_that_was_made_anew_with_more_partitions_is_read_whole(stream: Stream) -> None:
    subscription = stream.subscribe("billing")
    assert following(subscription) == []
    subscription.drop()
    stream.subscribe("billing", partitions=PARTITIONS)
    fill(stream)
    seen: list[Any] = []
    wait_until(
        lambda: (not (found := following(subscription)) and len(seen) == 200) or seen.extend(found), "all events"
    )


# -- races


@contextmanager
def stepped(dsn: str, table: str) -> Iterator[Any]:
    """Statements that write to a table stop before each row, until the value is closed."""
    function = """
        create or replace function stop() returns trigger language plpgsql as $$
        begin perform pg_advisory_xact_lock_shared(77); return new; end $$;
    """
    execute(dsn, function)
    execute(dsn, f"create trigger stop before insert or update on {table} for each row execute function stop()")
    with closing(psycopg2.connect(dsn)) as conn:
        conn.autocommit = True
        conn.cursor().execute("select pg_advisory_lock(77)")
        yield conn
    execute(dsn, f"drop trigger if exists stop on {table}")


def waiting(dsn: str) -> bool:
    return bool(execute(dsn, "select from pg_locks where locktype = 'advisory' and not granted and objid = 77"))


@pytest.mark.parametrize("table", ["queue_positions_orders", "queue_batches_orders"])
@pytest.mark.parametrize("partitions", [1, PARTITIONS])
def test_two_batches_of_one_partition_at_once_are_impossible(
    dsn: str, stream: Stream, table: str, partitions: int
) -> None:
    """One take stands still in the middle of its statement; the other one comes then, or has looked before."""
    subscription = stream.subscribe("billing", partitions=partitions)
    stream.publish_many(range(10), key="a")
    with PQ(dsn) as second:
        other = second.streams["orders"].subscription("billing")
        with stepped(dsn, table) as gate:
            first = Background(lambda: next(subscription.batches(3, timeout=0)))
            wait_until(lambda: waiting(dsn), "the first take")
            late = Background(lambda: next(other.batches(3, timeout=0)))
            assert not late.result()
            gate.close()
        assert [event.data for event in first.result()] == [0, 1, 2]
        assert not next(other.batches(3, timeout=0))
        first.result().done()
        assert [event.data for event in next(other.batches(3, timeout=0))] == [3, 4, 5]


def test_one_that_has_looked_before_the_other_took_gets_nothing(dsn: str, stream: Stream, sql: Sql) -> None:
    """It has the snapshot of a moment at which nothing was taken; when it comes to lock the position, there is another
    version of it. So it does with a snapshot that is kept: in a transaction that can see no changes, it fails."""
    subscription = stream.subscribe("billing")
    stream.publish_many(range(10))
    with closing(driver.connect(dsn)) as conn:
        conn.cursor().execute("set transaction isolation level repeatable read")
        conn.cursor().execute("select 1")
        assert len(next(subscription.batches(3, timeout=0))) == 3
        with pytest.raises(driver.Error, match="could not serialize"):
            subscription.take(3, conn=conn)
    assert sql("select first, last from queue_batches_orders") == [(1, 3)]


def test_one_that_comes_to_the_lock_late_gets_nothing(dsn: str, stream: Stream, sql: Sql) -> None:
    """Its statement stands still behind its snapshot, and before it locks the position; another takes meanwhile."""
    subscription = stream.subscribe("billing")
    stream.publish_many(range(10))
    take = stream._table.statements("stream_take.sql", "orders")["take_leased"]
    before = "(select size.n > 0 or its.inside from"
    assert take.count(before) == 1
    slow = take.replace(before, f"(select pg_advisory_xact_lock_shared(77) is not null) and {before}")
    params = {
        "subscription": "billing", "partition": 0, "n": 3, "lease": 30, "queue": "", "past_retries": True,
        "past_open": False,
    }  # fmt: skip
    with closing(psycopg2.connect(dsn)) as gate:
        gate.cursor().execute("select pg_advisory_lock(77)")
        late = Background(execute, dsn, slow, params)
        wait_until(lambda: waiting(dsn), "the slow take")
        assert [event.data for event in next(subscription.batches(3, timeout=0))] == [0, 1, 2]
    assert len(late.result()) == 1
    assert sql("select first, last from queue_batches_orders") == [(1, 3)]


def test_the_second_half_has_to_wait_though_the_first_was_due_a_moment_ago(stream: Stream, sql: Sql) -> None:
    """Another consumer has taken the first half between the two statements of this one."""
    subscription = stream.subscribe("billing")
    stream.publish_many(range(4))
    next(subscription.batches(timeout=0)).failed("x")
    assert len(next(subscription.batches(timeout=0))) == 2
    assert sql("select due_at <= statement_timestamp() from queue_batches_orders order by first") == [(False,), (True,)]
    sql_again = stream._table.statements("stream_take.sql", "orders")["take_again"]
    params = {"subscription": "billing", "partition": 0, "n": 10, "most": 10, "lease": 30}
    assert stream._execute(sql_again, params) == []


def test_many_consumers_at_once_have_one_batch_of_each_partition(dsn: str, stream: Stream, sql: Sql) -> None:
    subscription = stream.subscribe("billing", partitions=2)
    stream.publish_many(range(40), key="a")
    found: list[Any] = []
    with PQ(dsn) as second:
        others = [second.streams["orders"].subscription("billing") for _ in range(2)]
        for _ in range(20):
            takers = [
                Background(lambda each: next(each.batches(2, timeout=0)), each) for each in (subscription, *others)
            ]
            batches: list[Batch] = [batch for taker in takers if (batch := taker.result())]
            assert len(batches) == len(sql("select from queue_batches_orders")) == 1
            found += [event.data for event in batches[0]]
            batches[0].done()
    assert found == list(range(40))


def test_an_expired_batch_goes_to_one_of_two(dsn: str, stream: Stream, sql: Sql) -> None:
    subscription = stream.subscribe("billing", partitions=2)
    stream.publish_many(range(4), key="a")
    assert next(subscription.batches(timeout=0))
    expire(sql)
    with PQ(dsn) as second:
        other = second.streams["orders"].subscription("billing")
        with stepped(dsn, "queue_batches_orders") as gate:
            first = Background(lambda: next(subscription.batches(timeout=0)))
            wait_until(lambda: waiting(dsn), "the first take")
            assert not next(other.batches(timeout=0))
            gate.close()
        assert [event.data for event in first.result()] == [0, 1]
        assert not next(other.batches(timeout=0))  # the other half has to wait


# -- shared


def test_a_shared_one_has_several_open_batches(stream: Stream, take: Take) -> None:
    subscription = stream.subscribe("billing", shared=True)
    stream.publish_many(range(9))
    batches = [next(subscription.batches(3, timeout=0)) for _ in range(3)]
    assert [[event.data for event in batch] for batch in batches] == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    assert take(subscription) == []
    for batch in batches:
        batch.done()
    stream.publish(9)
    assert take(subscription) == [9]


def test_an_expired_batch_of_a_shared_one_comes_first(stream: Stream, sql: Sql) -> None:
    subscription = stream.subscribe("billing", shared=True)
    stream.publish_many(range(4))
    next(subscription.batches(2, timeout=0))
    expire(sql)
    seen = [[event.data for event in next(subscription.batches(2, timeout=0))] for _ in range(4)]
    assert seen == [[0], [1], [2, 3], []]


def test_a_batch_in_a_long_transaction_holds_up_no_other_consumer_of_a_shared_one(
    stream: Stream, dsn: str, sql: Sql
) -> None:
    subscription = stream.subscribe("billing", shared=True)
    stream.publish_many(range(6))
    with PQ(dsn) as second, subscription.batch(2) as batch:
        other = second.streams["orders"].subscription("billing")
        assert len(batch) == 2
        expired = next(other.batches(2, timeout=0))
        assert [event.data for event in expired] == [2, 3]
        wait_until(
            lambda: sql("select from queue_batches_orders where due_at < statement_timestamp()"), "the end of the lease"
        )
        sql("update queue_batches_orders set due_at = statement_timestamp() where first = 3")
        seen = [[event.data for event in next(other.batches(2, timeout=0))] for _ in range(4)]
    assert seen == [[2], [3], [4, 5], []]


def test_a_batch_in_a_long_transaction_keeps_its_partition(stream: Stream, dsn: str, sql: Sql) -> None:
    subscription = stream.subscribe("billing")
    stream.publish_many(range(4))
    with PQ(dsn) as second, subscription.batch(2) as batch:
        other = second.streams["orders"].subscription("billing")
        assert len(batch) == 2
        wait_until(
            lambda: sql("select from queue_batches_orders where due_at < statement_timestamp()"), "the end of the lease"
        )
        assert not next(other.batches(timeout=0))
    assert following(other := stream.subscription("billing")) == [2, 3]
    assert following(other) == []


@pytest.mark.parametrize("ending", ["drop", "seek"])
def test_a_batch_that_is_halved_while_its_subscription_ends_leaves_no_half(
    dsn: str, stream: Stream, sql: Sql, ending: str
) -> None:
    """It would be delivered after the seek, or keep its events for ever."""
    subscription = stream.subscribe("billing")
    stream.publish_many(range(4))
    next(subscription.batches(timeout=0)).failed("x")
    with PQ(dsn) as second:
        other = second.streams["orders"].subscription("billing")
        with stepped(dsn, "queue_batches_orders") as gate:
            half = Background(lambda: next(subscription.batches(timeout=0)))
            wait_until(lambda: waiting(dsn), "the delivery of a half")
            end = Background(lambda: other.drop(force=True) if ending == "drop" else other.seek("new"))
            wait_until(lambda: sql("select from pg_locks where not granted and locktype = 'transactionid'"), "the end")
            gate.close()
            assert half.result()
            end.result()
    assert sql("select first, last from queue_batches_orders") == []
