"""Events that fail: delivered again by halves, then alone, then set aside; and those that a consumer sets aside."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from pq import PQ
from pq._streams import Stream, Subscription

Sql = Callable[..., list[tuple[Any, ...]]]


@pytest.fixture
def stream(pq: PQ) -> Stream:
    stream = pq.streams["orders"]
    stream.create()
    return stream


def subscribe(stream: Stream, **options: Any) -> Subscription:
    return stream.subscribe("billing", **{"retry_in": None, **options})


def deliver(subscription: Subscription, bad: set[Any], n: int = 1000, how: str = "batch") -> list[list[Any]]:
    """Take batches until there are none; those with a bad event fail. Return the data of all that were delivered."""
    seen = []
    while True:
        try:
            with batch_of(subscription, n, how) as batch:
                if not batch:
                    return seen
                seen.append([event.data for event in batch])
                if bad.intersection(seen[-1]):
                    raise ValueError("bad")
        except ValueError:
            pass


def batch_of(subscription: Subscription, n: int, how: str) -> Any:
    if how == "batch":
        return subscription.batch(n, timeout=0)
    return next(subscription.batches(n, timeout=0))


HOWS = pytest.mark.parametrize("how", ["batch", "batches"])


@HOWS
def test_a_batch_that_fails_comes_again_by_halves_until_the_event_that_fails_is_alone(
    stream: Stream, pq: PQ, how: str, sql: Sql
) -> None:
    subscription = subscribe(stream, max_retries=2)
    stream.publish_many(range(8))
    seen = deliver(subscription, {5}, how=how)
    assert seen == [[0, 1, 2, 3, 4, 5, 6, 7], [0, 1, 2, 3], [4, 5, 6, 7], [4, 5], [4], [5], [5], [5], [6, 7]]
    (dead,) = pq["orders:billing"].dead
    assert dead.error.type == "ValueError"
    assert dead.error.message == "bad"
    assert dead.attempts == 3
    assert dead.data["data"] == 5
    assert sql("select from queue_batches_orders") == []
