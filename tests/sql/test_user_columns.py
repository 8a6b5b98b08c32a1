"""A table may have columns of the user's, of any name: no statement takes one of them for what it means."""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib.resources import files
from typing import Any

import pytest
from support import Background
from support.tour import check_endings, check_states

from pq import PQ
from pq.sql import quote, statements

Sql = Callable[..., list[tuple[Any, ...]]]

SQL_FILES = sorted(entry.name for entry in files("pq").joinpath("sql").iterdir() if entry.name.endswith(".sql"))

OWN = {
    "id", "enqueued_at", "dequeued_at", "expected_at", "schedule_at", "q_name", "data", "due_at", "attempts",
    "expiries", "error", "failed_at", "result", "key", "is_next", "unique_key", "unique_until", "slot", "follower",
    "waits_for", "on_failed", "steps", "finished_at", "worker", "headers",
}  # fmt: skip


#: Columns that each table has, and no other one can be called so.
SYSTEM = {"tableoid", "xmin", "cmin", "xmax", "cmax", "ctid"}


def names() -> set[str]:
    """All names that the statements give to anything, and words that they use."""
    found = {"id", "queue", "lease", "table", "pq", "value", "name", "row", "now", "limit", "state", "count"}
    for path in SQL_FILES:
        for text in statements(path).values():
            found |= set(re.findall(r"\bas (\w+)", text)) | set(re.findall(r"(\w+) as (?:materialized )?\(", text))
            found |= set(re.findall(r"\b(\w+)\.\w+", text)) | set(re.findall(r"\b\w+\.(\w+)", text))
            for columns in re.findall(r"\bas \w+ \(([\w, ]+)\)", text):
                found |= set(columns.split(", "))
            found |= set(re.findall(r"%\((\w+)\)s", text))
    return found - OWN - SYSTEM


@pytest.fixture
def crowded(pq: PQ, sql: Sql) -> PQ:
    """A table with a column of each of these names, whose values are of use to nobody."""
    columns = sorted(names())
    assert {"queue", "lease", "open", "job", "given", "number", "rank"} <= set(columns)
    added = ", ".join(f"add column {quote(name)} text default 'captured'" for name in columns)
    sql(f"alter table queue {added}")
    return pq


def test_all_states_and_ends(crowded: PQ) -> None:
    check_states(crowded)
    check_endings(crowded)
    crowded.create(retain="0s")
    check_endings(crowded)


def test_waiting(crowded: PQ) -> None:
    waiting = Background(crowded["a"].get, timeout=20)
    crowded["a"].put("job")
    assert waiting.result().data == "job"


def test_looking(crowded: PQ) -> None:
    queue = crowded["a"]
    ready, scheduled = queue.put_many([1, 2]), queue.put(3, schedule_at="1h")
    assert queue.counts()["ready"] == queue.count("ready") == len(queue) == 2
    assert [job.id for job in queue.list()] == [*ready, scheduled]
    assert [job.id for job in queue.list(after=ready[0])] == [ready[1], scheduled]
    job = queue.get(lease="1h")
    assert job is not None
    job.fail("no good")  # type: ignore[union-attr]
    assert [dead.id for dead in queue.dead] == [ready[0]]
    assert queue.find(ready[0]).state == "dead"  # type: ignore[union-attr]
    assert [info.dead for info in crowded.queues()] == [1]
    assert crowded.doctor() is not None


