"""How far a loop is, told while it runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from .._args import is_number

#: Seconds from one time to the next, at least.
PAUSE = 1.0

T = TypeVar("T")


def tracked(items: Iterator[T], total: int | None, tell: Callable[[dict[str, Any]], None]) -> Iterator[T]:
    """Yield the items.

    :param total: how many they are, if that is known.
    :param tell: called between two items, at most once in each `PAUSE`, with a fraction from 0 to 1 and a text.
    """
    told_at = time.monotonic()
    for count, item in enumerate(items):
        if time.monotonic() >= told_at + PAUSE:
            tell({"done": min(count / total, 1.0), "text": f"{count} of {total}"} if total else {"text": str(count)})
            told_at = time.monotonic()
        yield item


def ratio(data: Any) -> float | None:
    """Return the part of a job that is done, of what it has noted as its progress; None if that does not say."""
    found: Any = data.get("done") if isinstance(data, dict) else data
    return float(found) if is_number(found) and 0 <= found <= 1 else None
