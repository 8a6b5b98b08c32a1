"""The grants of docs/howto/streams.rst, each with all else revoked; and other things of the server around a stream."""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from psycopg2.extensions import make_dsn
from support import execute, wait_until
from support.driver import driver

from pq import PQ, NewEvent, SchemaError
from pq._streams.upkeep import rotate
from pq.sql import TableName

PAGE = Path(__file__).parents[2].joinpath("docs", "howto", "streams.rst").read_text("utf-8")


@pytest.fixture
def role(dsn: str, pq: PQ) -> Iterator[Callable[[str], PQ]]:
    """A PQ as a role that has the grants which the page has for that name, and no others."""
    pq.streams["orders"].create()
    pq.streams["orders"].subscribe("a")
    roles, opened = [], []

    def open_one(name: str) -> PQ:
        roles.append(made := f"pq_{name}_{uuid.uuid4().hex[:8]}")
        blocks = re.findall(r"\.\. code-block:: sql\n\n((?:   .*\n|\n)+)", PAGE)
        (block,) = [text for text in blocks if f"to {name};" in text]
        grants = "\n".join(line for line in block.splitlines() if re.search(rf"\b(role|to) {name};", line))
        execute(dsn, re.sub(rf"\b(role|to) {name};", rf"\1 {made};", grants))
        execute(dsn, f"alter role {made} login")
        opened.append(PQ(make_dsn(dsn, user=made)))
        return opened[-1]

    yield open_one
    for each in opened:
        each.close()
    for made in roles:
        execute(dsn, f"drop owned by {made}; drop role {made}")


def test_a_producer_publishes_and_does_nothing_else(role: Callable[[str], PQ]) -> None:
    stream = role("producer").streams["orders"]
    stream.publish(1)
    stream.publish(1, "t", "k", {"a": 1})
    stream.publish_many([1, NewEvent(2, "t")])
    stream.load([1, 2])
    with pytest.raises(driver.Error):
        stream.read()
    with pytest.raises(driver.Error):
        stream.subscription("a").batch(timeout=0).__enter__()


def test_a_consumer_reads_and_does_not_publish(role: Callable[[str], PQ], pq: PQ, dsn: str) -> None:
    subscription = role("consumer").streams["orders"].subscription("a")
    stream = pq.streams["orders"]
    stream.publish_many(range(6))
    with subscription.batch(2, timeout=0) as batch:
        assert [event.data for event in batch] == [0, 1]
    with next(iter(subscription.batches(2))) as batch:
        assert [event.data for event in batch] == [2, 3]
    with pytest.raises(KeyError), subscription.batch(2, timeout=0):
        raise KeyError
    for n in (4, 5):
        with subscription.batch(timeout=0) as batch:
            assert [event.data for event in batch] == [n]
    assert subscription.lag(exact=True).events == 0
    stream.publish("last")
    with next(iter(subscription.batches(1))) as batch:
        batch[0].retry("0s")
    with subscription.batch(timeout=5) as batch:
        assert [event.data for event in batch] == ["last"]
    with pytest.raises(driver.Error):
        subscription.stream.publish(1)
    execute(dsn, "update queue_stream_orders set at = at - interval '10 days'")
    for slot in range(3):  # which of them is the next one depends on the clock
        execute(dsn, f"update queue_stream_orders set slot = {slot}")
        if rotate(subscription.stream):
            break
    assert pq.streams["orders"].info().events == 0


@pytest.mark.parametrize("table", ["queue", "jöbs", 'a"b\\c'])
def test_a_table_with_streams_is_not_dropped(dsn: str, sql: Callable[..., Any], table: str) -> None:
    with PQ(dsn, table=table) as pq:
        pq.create()
        stream = pq.streams["orders"]
        stream.create()
        assert list(pq.streams) == ["orders"]
        for force in (False, True):
            with pytest.raises(SchemaError, match="'orders'"):
                pq.drop(force)
        sequence = TableName(table + "_event_orders")
        sql(f"alter sequence {sequence.quoted} cache 20")
        assert "stream_sequence_cache" in [finding.name for finding in pq.doctor()]
        stream.drop()
        pq.drop()


def test_jobs_go_on_where_all_tables_are_published(pq: PQ, sql: Callable[..., Any]) -> None:
    sql("create publication everything for all tables")
    queue = pq["a"]
    for key in ("k", "k", None):
        queue.put(1, key=key)
    sql("insert into queue_checks (q_name, key, check_at) values ('a', 'k', now())")
    taken = [queue.get(timeout=0), queue.get(timeout=5, lease="30s"), queue.get(timeout=5)]
    assert all(job is not None for job in taken)
    wait_until(lambda: pq._table.heal() or not sql("select from queue_checks"), "the checks")


def test_positions_can_be_updated_where_all_tables_are_published(pq: PQ, sql: Callable[..., Any]) -> None:
    stream = pq.streams["orders"]
    stream.create()
    sql("create publication everything for all tables")
    subscription = stream.subscribe("a", "beginning")
    stream.publish_many(range(3))
    with subscription.batch(2, timeout=0) as batch:
        assert len(batch) == 2
    with next(iter(subscription.batches(2))) as batch:
        assert len(batch) == 1
    subscription.seek("beginning")
    subscription.pause()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_child_process_reads_and_publishes_on_its_own(pq: PQ) -> None:
    stream = pq.streams["orders"]
    stream.create()
    subscription = stream.subscribe("a")
    stream.publish(1)
    with subscription.batch(timeout=0) as batch:
        assert len(batch) == 1
    child = os.fork()
    if not child:
        code = 1
        try:
            stream.publish("child")
            with subscription.batch(timeout=10) as batch:
                code = int([event.data for event in batch] != ["child"])
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    stream.publish("parent")
    with subscription.batch(timeout=10) as batch:
        assert [event.data for event in batch] == ["parent"]


@pytest.mark.parametrize(
    "name", ["a b", 'x"y', "%", "$pq$", "Ünïcode", "x" * 80, "y" * 80, "a'b\\c", "positions", "b:c"]
)
def test_a_stream_can_have_any_name(pq: PQ, name: str) -> None:
    other = pq.streams["orders"]
    other.create()
    stream = pq.streams[name]
    stream.create()
    stream.create(retain="2h")
    assert sorted(pq.streams) == sorted(["orders", name])
    subscription = stream.subscribe(name)
    stream.publish({"n": 1})
    other.publish(2)
    with subscription.batch(timeout=0) as batch:
        assert [event.data for event in batch] == [{"n": 1}]
    assert stream.info().name == name
    stream.rotate()
    stream.drop()
    assert list(pq.streams) == ["orders"]


@pytest.mark.parametrize("name", ["", "a\0b", "\ud800", 7, None])
def test_names_that_no_stream_can_have(pq: PQ, name: Any) -> None:
    with pytest.raises((ValueError, TypeError), match="stream name"):
        pq.streams[name]
    assert name not in pq.streams
