"""Faults that an attack on streams has found, each with its kind."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from support import wait_until
from support.streams import following

from pq import PQ

Sql = Callable[..., list[tuple[Any, ...]]]


@pytest.mark.parametrize("how", ["retry", "fail"])
def test_an_event_is_set_aside_in_the_transaction_of_its_batch(pq: PQ, how: str) -> None:
    stream = pq.streams["orders"]
    stream.create()
    subscription = stream.subscribe("a")
    stream.publish_many([1, 2])
    with subscription.batch(timeout=0) as batch:
        batch[0].retry("0s") if how == "retry" else batch[0].fail("no")
    assert following(subscription) == ([1] if how == "retry" else [])


def test_beside_a_publication_of_all_tables(pq: PQ, sql: Sql) -> None:
    sql("create publication everything for all tables")
    stream = pq.streams["orders"]
    stream.create()
    subscription = stream.subscribe("a")
    stream.publish_many(range(5))
    assert following(subscription, 2) == [0, 1]
    sql("update queue_origin_orders set home = 1")
    assert stream.rebase()
    assert following(subscription) == [2, 3, 4]


def test_what_is_published_before_the_rebase_is_read_though_numbers_of_the_dump_are_higher(pq: PQ, sql: Sql) -> None:
    stream = pq.streams["orders"]
    stream.create()
    subscription = stream.subscribe("a")
    stream.publish(1)
    assert following(subscription) == [1]
    sql(
        "update queue_origin_orders set home = 1;"
        "update queue_stream_orders set txid = '999999';"
        "update queue_positions_orders set seen = '1000000:1000000:', top = '1000000'"
    )
    stream.publish(2)
    with pq["any"], pq["any"]:  # in a savepoint
        stream.publish(3)
    assert stream.rebase()
    assert following(subscription) == [2, 3]
    assert following(subscription) == []


def test_an_origin_that_was_restored_beside_the_one_that_was_there(pq: PQ, sql: Sql) -> None:
    stream = pq.streams["orders"]
    stream.create()
    sql("insert into queue_origin_orders values ('orders', '7', 7)")
    assert stream.rebase()
    assert not stream.rebase()


@pytest.mark.parametrize("how", ["drop", "seek"])
def test_a_take_that_is_not_committed_leaves_no_batch_behind(
    pq: PQ, sql: Sql, connect: Callable[..., Any], how: str
) -> None:
    stream = pq.streams["orders"]
    stream.create()
    subscription = stream.subscribe("a")
    stream.publish_many(range(5))
    conn = connect()
    with pq.using(conn):
        assert next(subscription.batches(2, timeout=0))
    change = (lambda: subscription.drop(force=True)) if how == "drop" else (lambda: subscription.seek("new"))
    thread = threading.Thread(target=change)
    thread.start()
    waits = "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
    wait_until(lambda: sql(waits)[0][0] == 1, "it waits")
    conn.commit()
    thread.join()
    assert sql("select count(*) from queue_batches_orders") == [(0,)]


@pytest.mark.parametrize("types", [[None], [0], [b""], 5, "ab"])
def test_types_that_are_none(pq: PQ, types: Any) -> None:
    stream = pq.streams["orders"]
    stream.create()
    with pytest.raises(TypeError):
        stream.subscribe("a", types=types)
    with pytest.raises(TypeError):
        stream.read(types=types)


def test_types_have_no_order(pq: PQ) -> None:
    stream = pq.streams["orders"]
    stream.create()
    stream.subscribe("a", types=["x", "y"])
    stream.subscribe("a", types=["y", "x", "y"])
    assert stream.read(limit=10**30) == []


@pytest.mark.parametrize("name", ["50%", "%s", "%(n)s"])
def test_a_percent_sign_in_the_name(pq: PQ, name: str) -> None:
    stream = pq.streams[name]
    stream.create(retain="1s")
    stream.publish(1)
    wait_until(stream.rotate, "its slot is emptied")
    assert not stream.rebase()


def test_rotate_refuses_an_open_transaction(pq: PQ) -> None:
    stream = pq.streams["orders"]
    stream.create()
    with pq["any"], pytest.raises(ValueError, match="outside"):
        stream.rotate()
