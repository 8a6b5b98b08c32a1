"""Reading streams."""

from __future__ import annotations

from typing import Any


def following(subscription: Any, n: int = 1000) -> list[Any]:
    """The data of the next events, in a transaction of their own."""
    with subscription.batch(n, timeout=0) as batch:
        return [event.data for event in batch]


def drained(subscription: Any, n: int) -> list[Any]:
    """Read all that there is, in batches of `n`, and return the data."""
    found: list[Any] = []
    while data := following(subscription, n):
        assert len(data) <= n
        found += data
    return found
