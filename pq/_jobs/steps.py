"""Steps of a job: what they have returned is kept in its row, so that a later delivery goes on behind them.

The row holds a JSON object: the name of each step, and the JSON of what it has returned, as a text. As a text it comes
back just as the queue has encoded it.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from .._args import check_text
from .._calls import check_finished, check_plain

#: How many steps a job can have, and how many bytes the row may hold of them.
MAX_STEPS = 1000
MAX_BYTES = 1_000_000


class Steps:
    """The steps of one delivery.

    :param kept: what the row holds, as text; None: nothing.
    """

    def __init__(self, kept: str | None) -> None:
        self._lock = threading.Lock()  # a handler may have threads of its own
        self._kept: dict[str, str] = {} if kept is None else json.loads(kept)
        self._size = sum(len(entry(name, text)) for name, text in self._kept.items())
        self._called: set[str] = set()

    @contextmanager
    def called(self, name: str) -> Iterator[str | None]:
        """Note a call of a step, and return what the row holds of it. If the block fails, it may be called again.

        :raises ValueError: this delivery has called it before; there would be too many.
        """
        with self._lock:
            if name in self._called:
                raise ValueError(f"step {name!r} was called before in this attempt: give each step a name of its own")
            if name not in self._kept and len(self._kept.keys() | self._called) >= MAX_STEPS:
                raise ValueError(f"step {name!r} is one too many: a job can have {MAX_STEPS} steps")
            self._called.add(name)
        try:
            yield self._kept.get(name)
        except BaseException:
            self._called.discard(name)
            raise

    def add(self, name: str, text: str, write: Callable[[str], object]) -> None:
        """Have a result written.

        :raises ValueError: all of them would be too long.
        """
        added = entry(name, text)
        with self._lock:
            if self._size + len(added) > MAX_BYTES:
                raise ValueError(
                    f"what step {name!r} returned can't be kept: the steps of a job can have {MAX_BYTES:,} bytes, and"
                    f" with these {len(added):,} they would have {self._size + len(added):,}"
                )
            self._size += len(added)
        write(added)
        self._kept[name] = text


def check(name: str, function: Callable[[], Any]) -> None:
    """
    :raises TypeError: the name is not a str; the function can't be called, or is async or a generator function.
    :raises ValueError: the name is empty, or PostgreSQL can't hold it.
    """
    check_plain(f"the function of step {check_text('the name of a step', name)!r}", function)


def call(name: str, function: Callable[[], Any]) -> Any:
    """Call the function of a step.

    :raises TypeError: its result shows that its work is still to be done.
    """
    return check_finished(f"step {name!r}", function())


def entry(name: str, text: str) -> str:
    """Return a step as it stands in the row."""
    return f"{json.dumps(name)}: {json.dumps(text)}"
