"""Waiting for events: by the gate and NOTIFY, as for jobs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from psycopg2.extensions import make_dsn
from support import wait_until

from pq import PQ
from pq._streams import Stream, Subscription


@pytest.fixture
def stream(dsn: str) -> Any:
    with PQ(dsn, poll_interval=60) as pq:  # nobody is woken by the clock
        stream = pq.streams["orders"]
        stream.create()
        yield stream


class Reader(threading.Thread):
    """Waits for one batch."""

    def __init__(self, subscription: Subscription) -> None:
        super().__init__(daemon=True)
        self.subscription = subscription
        self.found: list[Any] = []
        self.start()

    def run(self) -> None:
        with self.subscription.batch(timeout=30) as batch:
            self.found = [event.data for event in batch]


def has_gate(sql: Callable[..., Any]) -> bool:
    return bool(sql("select from pg_locks where locktype = 'advisory' and mode = 'ShareLock'"))


def test_each_waiting_subscription_is_woken(stream: Stream, sql: Callable[..., Any]) -> None:
    readers = [Reader(stream.subscribe(name)) for name in ("a", "b", "c")]
    wait_until(lambda: len(stream._table._room.queues) == 4, "the waiters")
    wait_until(lambda: has_gate(sql), "the gate")
    began = time.monotonic()
    stream.publish(1)
    for reader in readers:
        reader.join(30)
        assert reader.found == [1]
    assert time.monotonic() - began < 20


def test_what_was_published_before_the_gate_was_held_and_committed_after_it_is_seen(
    stream: Stream, connect: Callable[..., Any], sql: Callable[..., Any]
) -> None:
    publisher = connect()
    subscription = stream.subscribe("a")
    stream.publish(1, conn=publisher)  # nobody waits yet: this does not notify
    reader = Reader(subscription)
    wait_until(lambda: has_gate(sql), "the gate")
    publisher.commit()
    reader.join(30)
    assert reader.found == [1]


def test_nobody_waits_longer_than_the_timeout(stream: Stream) -> None:
    subscription = stream.subscribe("a")
    began = time.monotonic()
    with subscription.batch(timeout=0.2) as batch:
        assert not batch
    assert 0.2 <= time.monotonic() - began < 20


@pytest.mark.parametrize("quoting", ["publishes", "waits"])
def test_a_session_that_quotes_all_identifiers_has_the_same_gate(
    stream: Stream, dsn: str, quoting: str
) -> None:
    with PQ(make_dsn(dsn, options="-c quote_all_identifiers=on"), poll_interval=60) as pq:
        other = pq.streams["orders"]
        waits, publishes = (stream, other) if quoting == "publishes" else (other, stream)
        reader = Reader(waits.subscribe("a"))
        queues = waits._table._room.queues
        wait_until(lambda: len(queues) == 2 and all(q.sure and not q.stale for q in queues.values()), "its sleep")
        publishes.publish(1)
        reader.join(30)
        assert reader.found == [1]
        assert other._execute("show quote_all_identifiers", {}) == [("on",)]
