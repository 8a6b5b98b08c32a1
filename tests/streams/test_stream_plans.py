"""What the statements of a stream cost the server, told by plans and not by times."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
from support.driver import driver

from pq import PQ
from pq._streams import Stream, Subscription

PARAMS = {
    "subscription": "a", "partition": 0, "n": 1000, "lease": 2.0, "queue": "orders:a", "past_retries": False,
    "past_open": False, "most": 1000, "exact": False, "number": 0, "delivery": 0, "retain": 60,
}  # fmt: skip


@pytest.mark.parametrize("options", [{}, {"partitions": 8}, {"types": ["x"]}], ids=str)
def test_no_statement_is_worth_compiling(pq: PQ, stream: Stream, sql: Any, options: dict[str, Any]) -> None:
    """Above ``jit_above_cost`` the server compiles each of them first, which takes a tenth of a second."""
    stream.subscribe("a", "beginning", **options)
    stream.load((n for n in range(100_000)), "x", "k")
    dearest = float(sql("show jit_above_cost")[0][0])
    statements = stream._table.statements("stream_take.sql", stream.name)
    for analysed in (False, True):  # the slots of a log never are, unless somebody does it
        if analysed:
            sql("analyze")
        for name in ("ready_partitions", "take", "take_leased", "take_again"):
            with pq["any"] as cursor:
                cursor.execute(f"explain (format json) {statements[name]}", PARAMS)
                ((found,),) = cursor.fetchall()
            assert found[0]["Plan"]["Total Cost"] < dearest / 10, name


# -- under an old snapshot, for whose sake no dead row can be removed


@pytest.fixture
def old_snapshot(dsn: str, stream: Stream) -> Iterator[None]:
    with closing(driver.connect(dsn)) as conn:
        conn.cursor().execute("set transaction isolation level repeatable read")
        conn.cursor().execute("select 1")
        yield


def by_block(subscription: Subscription) -> None:
    with subscription.batch(1, timeout=0) as batch:
        assert batch


def by_lease(subscription: Subscription) -> None:
    with next(subscription.batches(1, timeout=0)) as batch:
        assert batch


def by_event(subscription: Subscription) -> None:
    with next(subscription.events(timeout=0)) as event:
        assert event


def in_a_transaction(subscription: Subscription) -> None:
    with subscription.stream._queue_of("any"):
        assert subscription.take(1)


def after_a_failure(subscription: Subscription) -> None:
    next(subscription.batches(1, timeout=0)).failed("again", 0)
    by_lease(subscription)


def read(dsn: str, stream: Stream, file: str, name: str) -> tuple[int, int]:
    """How many entries of indexes a statement reads, of dead rows, too, and how many pages."""
    sql = stream._table.statements(file, stream.name, **({"slot": "first_slot"} if name == "spent" else {}))[name]
    with closing(driver.connect(dsn)) as conn, conn.cursor() as cursor:
        cursor.execute("set local enable_seqscan = off")  # as pq has such plans made
        cursor.execute(f"explain (analyze, buffers, format json) {sql}", PARAMS)
        plan = cursor.fetchone()[0][0]["Plan"]
        cursor.execute(
            "select sum(pg_stat_get_xact_tuples_returned(indexrelid)) from pg_index"
            " where indrelid::regclass::text ~ '^queue_(positions|batches|log|subscriptions)_orders'"
        )
        return int(cursor.fetchone()[0]), plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]


@pytest.mark.parametrize("how", [by_block, by_lease, by_event, in_a_transaction, after_a_failure])
@pytest.mark.parametrize("options", [{}, {"partitions": 3}, {"shared": True}], ids=str)
@pytest.mark.usefixtures("old_snapshot")
def test_under_an_old_snapshot_a_take_reads_as_much_after_many_as_at_first(
    dsn: str, stream: Stream, how: Callable[[Subscription], None], options: dict[str, Any]
) -> None:
    subscription = stream.subscribe("a", **options)
    statements = [
        ("stream_take.sql", name) for name in ("ready_partitions", "take", "take_leased", "take_again", "done")
    ] + [("stream_upkeep.sql", "lag"), ("stream_upkeep.sql", "spent")]  # fmt: skip
    first: dict[str, tuple[int, int]] = {}
    for n in range(1, 101):
        stream.publish(n, "x")
        if n in (10, 100):
            found = {name: read(dsn, stream, file, name) for file, name in statements}
            first = first or found
        how(subscription)
    for name, (entries, pages) in found.items():
        assert entries <= first[name][0] + 5, name
        assert pages <= first[name][1] + 10, name  # indexes are a level higher, and rows further apart
