"""The smallest schedule that still fails."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def shrink(items: list[T], fails: Callable[[list[T]], bool], runs: int) -> list[T]:
    """Leave out what can be left out: first all, then halves, quarters, …, at last single items.

    A run is not deterministic. One that fails proves that it can, so that whatever is returned has failed; but one that
    passes proves nothing, and so what is returned need not be minimal.

    :param items: of which it is known that they fail together.
    :param runs: how often `fails` may be called.
    """
    passed: list[list[T]] = []
    size = len(items)
    while size and runs:
        at = 0
        while at < len(items) and runs:
            fewer = items[:at] + items[at + size :]
            if fewer not in passed:
                runs -= 1
                if fails(fewer):
                    items = fewer
                    continue
                passed.append(fewer)
            at += size
        size = min(size, len(items) + 1) // 2
    return items
