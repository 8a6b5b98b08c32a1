"""Keys and tokens as arguments: of puts, of NewJob, of tasks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from pq import PQ, JobId, NewJob, Unique

Sql = Callable[..., list[tuple[Any, ...]]]


@pytest.fixture
def rows(sql: Sql) -> Callable[[], list[tuple[Any, ...]]]:
    return lambda: sql("select id, data, key, unique_key, unique_until::text from queue order by id")


def test_a_key_is_stored_however_a_job_is_put(pq: PQ, rows: Any) -> None:
    queue = pq["a"]
    ids = [
        queue.put(1, key="k1"), queue.put(2, "1h", key="k1"),
        *queue.put_many([NewJob(3, key="k2"), 4, NewJob(5, expected_at="1h", key="k\n3")]),
    ]
    queue.max_ready = 10
    ids += [queue.put(6, key="k4"), *queue.put_many([7, NewJob(8, key="k5")])]
    queue.max_ready = None
    assert queue.load([NewJob(9, key="k\t\\6"), 10]) == 2
    keys = ["k1", "k1", "k2", None, "k\n3", "k4", None, "k5", "k\t\\6", None]
    found = rows()
    assert [(data, key) for _, data, key, *_ in found] == list(enumerate(keys, 1))
    assert [id for id, *_ in found[:8]] == ids


def test_a_second_put_joins_the_first(pq: PQ, rows: Any) -> None:
    queue = pq["a"]
    first = queue.put(1, unique="t")
    second = queue.put(2, unique=Unique("t"))
    assert isinstance(first, JobId)
    assert (first.created, second.created, second) == (True, False, first)
    assert pq["b"].put(3, unique="t").created
    assert [row[1:] for row in rows()] == [(1, None, "t", "-infinity"), (3, None, "t", "-infinity")]


def test_a_task_has_a_key_and_a_token_for_its_arguments(pq: PQ, rows: Any) -> None:
    queue = pq["a"]

    @queue.task(key=lambda customer: f"c{customer}", unique=Unique(True, until="done"))
    def bill(job_id: int, customer: int, amount: int = 0) -> None: ...

    first = bill(7, 1)
    assert (first, False) == (again := bill(7, amount=1), again.created)  # type: ignore[attr-defined]
    bill(7, 1, _key="other", _unique="t")
    bill.put_many([(8,), bill.new_job(9, _key="x")])
    found = rows()
    assert [key for _, _, key, *_ in found] == ["c7", "other", "c8", "x"]
    assert found[1][3:] == ("t", "-infinity")
    assert [until for *_, until in found] == ["infinity", "-infinity", "infinity", "infinity"]
    assert len({token for *_, token, _ in found}) == 4
