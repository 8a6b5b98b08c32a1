"""Reading streams."""

from __future__ import annotations

from typing import Any


def drained(subscription: Any, n: int) -> list[Any]:
    """Read all that there is, in batches of `n`, and return the data."""
    found: list[Any] = []
    while True:
        with subscription.batch(n, timeout=0) as batch:
            if not batch:
                return found
            assert len(batch) <= n
            found += [event.data for event in batch]
