"""A stream, and the ways to take from it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from pq import PQ
from pq._streams import Stream, Subscription

HOWS = ("batch", "batches", "take")


@pytest.fixture
def stream(pq: PQ) -> Stream:
    stream = pq.streams["orders"]
    stream.create()
    return stream


class Take:
    """Takes batches in one of the ways: each call takes one, and hands it to a function."""

    def __init__(self, pq: PQ, how: str, connect: Callable[..., Any]) -> None:
        self.how = how
        self._pq = pq
        self._connect = connect

    def __call__(self, subscription: Subscription, handle: Callable[[Any], Any] = bool, n: int = 1000) -> list[Any]:
        """Return the data of the batch; what `handle` raises is a failure."""
        if self.how == "take":
            conn = self._connect()
            try:
                with conn:
                    batch = subscription.take(n, conn=conn)
                    handle(batch)
                    return [event.data for event in batch]
            finally:
                conn.close()
        block = subscription.batch(n, timeout=0) if self.how == "batch" else next(subscription.batches(n, timeout=0))
        with block as batch:
            handle(batch)
            return [event.data for event in batch]


@pytest.fixture(params=HOWS)
def take(request: pytest.FixtureRequest, pq: PQ, connect: Callable[..., Any]) -> Take:
    return Take(pq, request.param, connect)
