"""Put and get: data, order, times."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from pq import PQ, Job

DATA = [
    {"kind": "Cox"},
    [1, "zwei", None, True, 1.5],
    "text with \0 NUL",
    "lone \ud800 surrogate",
    10**100,
    "x" * 5_000_000,
    None,
    {"z": 1, "a": 2},
]


@pytest.mark.parametrize("data", DATA, ids=lambda data: str(data)[:20].encode("ascii", "replace").decode())
@pytest.mark.parametrize("name", ["a", "a/pickle"])
def test_data_comes_back_as_it_was(pq: PQ, name: str, data: Any) -> None:
    pq[name].put(data)
    job = pq[name].get(block=False)
    assert job is not None
    assert job.data == data
    assert not isinstance(data, dict) or list(job.data) == list(data)


def test_order(pq: PQ) -> None:
    queue = pq["a"]
    queue.put("none 1")
    queue.put("late", expected_at="2h")
    queue.put("none 2")
    queue.put("soon", expected_at="1h")
    queue.put("past", expected_at=dt.timedelta(hours=-1))
    assert [got(queue) for _ in range(5)] == ["past", "soon", "late", "none 1", "none 2"]


def got(queue: Any) -> Any:
    job = queue.get(block=False)
    return job if job is None else job.data


def test_repr(pq: PQ) -> None:
    moment = dt.datetime(2014, 2, 21, 16, 22, 6)
    job = Job(pq["a"], 77709, 1, 1, moment, None, None)
    assert repr(job) == (
        '<pq.Job id=77709 size=1 enqueued_at="2014-02-21T16:22:06.000000Z" schedule_at=None expected_at=None>'
    )
