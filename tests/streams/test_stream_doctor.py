"""What the doctor finds about streams: each thing is brought about, found, and cured by its remedy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from pq import PQ
from pq._cli.main import main
from pq._streams import Stream

Sql = Callable[..., Any]


@pytest.fixture
def stream(pq: PQ) -> Stream:
    stream = pq.streams["orders"]
    stream.create(retain="1h")
    return stream


def found(pq: PQ) -> dict[str, Any]:
    return {finding.name: finding for finding in pq.doctor() if finding.name.startswith("stream")}


def test_nothing_is_wrong_with_a_stream_that_is_read(pq: PQ, stream: Stream) -> None:
    stream.subscribe("a")
    stream.publish(1)
    assert found(pq) == {}


def test_of_a_restored_dump(pq: PQ, stream: Stream, sql: Sql, dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sql("update queue_origin_orders set home = home")  # by another transaction, as in a restored dump
    finding = found(pq)["stream_restored"]
    assert finding.severity == "error"
    monkeypatch.setenv("PQ_DSN", dsn)
    assert main(finding.remedy.split()[3:]) == 0
    assert found(pq) == {}


def test_a_cache_of_ids(pq: PQ, stream: Stream, sql: Sql) -> None:
    sql("alter sequence queue_event_orders cache 20")
    sql(found(pq)["stream_sequence_cache"].remedy)
    assert found(pq) == {}


def test_what_is_read_by_nobody(pq: PQ, stream: Stream, sql: Sql, dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stream.subscribe("a")
    stream.publish_many(range(3))
    sql("update queue_stream_orders set at = at - interval '5 hours'")
    assert set(found(pq)) == {"stream_unread", "stream_not_rotated"}
    finding = found(pq)["stream_unread"]
    assert "'a'" in finding.what and "3 events" in finding.what
    monkeypatch.setenv("PQ_DSN", dsn)
    _, _, command = finding.remedy.partition(": python -m pq ")
    assert main([*command.split(), "--yes"]) == 0
    assert set(found(pq)) == {"stream_not_rotated"}
    for _ in range(3):  # where the events are depends on the clock
        sql("update queue_stream_orders set slot = (slot + 1) % 3")
        stream.rotate()
    assert found(pq) == {}
