"""The log of a worker: its fields, and the schema of its lines of JSON."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import HOLDER

from pq import PQ, Worker, tasks
from pq._cli.logs import JSONFormatter

SCHEMA = Path(__file__).parents[2] / "docs" / "examples" / "log.schema.json"
TRACE = "0af7651916cd43dd8448eb211c80319c"

KINDS: dict[str, Any] = {"string": str, "integer": int, "number": (int, float), "object": dict}


@pytest.fixture
def pq(dsn: str) -> Iterator[PQ]:
    with tasks.PQ(dsn) as made:
        yield made


class Headers:
    def __init__(self, **headers: str) -> None:
        self.given = headers

    def headers(self, queue: str) -> dict[str, str]:
        return {name.replace("_", "-"): value for name, value in self.given.items()}


def lines(pq: PQ, caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    """What a worker logs, as JSON."""
    with caplog.at_level(logging.DEBUG, "pq"):
        Worker(pq, burst=True).run()
    found = [json.loads(JSONFormatter().format(record)) for record in caplog.records]
    for line in found:
        check(line, json.loads(SCHEMA.read_text("utf-8")))
    return found


def check(line: dict[str, Any], schema: dict[str, Any]) -> None:
    """Check a line by what of the schema language our schema uses."""
    properties = schema["properties"]
    assert line.keys() <= properties.keys() and set(schema["required"]) <= line.keys()
    for name, others in schema["dependentRequired"].items():
        assert name not in line or set(others) <= line.keys()
    for name, value in line.items():
        about = properties[name]
        assert about.keys() <= {"type", "enum", "pattern", "minimum", "format", "description"}
        if "type" in about:
            assert isinstance(value, KINDS[about["type"]]) and not isinstance(value, bool), name
        assert "enum" not in about or value in about["enum"], name
        assert "pattern" not in about or re.search(about["pattern"], value), name
        assert "minimum" not in about or value >= about["minimum"], name


def test_the_lines_are_as_the_schema_says(pq: PQ, caplog: pytest.LogCaptureFixture) -> None:
    if not SCHEMA.exists():
        pytest.skip("tested as installed, without the source tree")
    pq.instrument(Headers(traceparent=f"00-{TRACE}-b7ad6b7169203331-01"))
    task = pq["q"].task(name="t", max_retries=1, retry_in="0s")(lambda job_id, n: 1 / n)
    task(1)
    task(0)
    pq["q"].put("no call")
    found = lines(pq, caplog)
    jobs = [line for line in found if "job_id" in line]
    assert {line["event"] for line in jobs} >= {"start", "done", "retry", "dead"}
    assert {line["trace_id"] for line in jobs} == {TRACE}
    assert {line["worker"] for line in jobs} == {HOLDER}
    assert [line for line in found if "job_id" not in line], "and others"
    assert [line for line in found if "traceback" in line]
    assert pq["q"].list("finished")[0].worker == jobs[0]["worker"], "as in the row"


@pytest.mark.parametrize(
    ("headers", "trace"),
    [
        ({"sentry_trace": f"{TRACE}-b7ad6b7169203331-1"}, TRACE),
        ({"sentry_trace": f"{TRACE}-b7ad6b7169203331"}, TRACE),
        ({"sentry_trace": f"{'a' * 32}-{'b' * 16}", "traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}, TRACE),
        ({"traceparent": "junk"}, None),
        ({"traceparent": "00-\nforged-line-"}, None),
        ({"other": "x"}, None),
    ],
    ids=range(6),
)
def test_the_trace(pq: PQ, caplog: pytest.LogCaptureFixture, headers: Any, trace: str | None) -> None:
    pq.instrument(Headers(**headers))
    pq["q"].task(name="t")(lambda job_id: None)()
    assert {line.get("trace_id") for line in lines(pq, caplog) if "job_id" in line} == {trace}


def test_without_headers_there_is_no_trace(pq: PQ, caplog: pytest.LogCaptureFixture) -> None:
    pq["q"].task(name="t")(lambda job_id: None)()
    assert not any("trace_id" in line for line in lines(pq, caplog))
