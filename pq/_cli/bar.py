"""A bar on the terminal for work that takes long: deleting, moving or retrying many jobs, upgrading a large table."""

from __future__ import annotations

import sys
import time
from typing import Any

from .output import tell

#: Characters of a bar.
WIDTH = 30

#: Seconds until a bar is shown, and from one time that it is drawn to the next.
FIRST = 0.5
PAUSE = 0.1


def drawn(part: float) -> str:
    """Return a bar for a part from 0 to 1."""
    full = int(part * WIDTH)
    return f"[{'#' * full}{' ' * (WIDTH - full)}] {int(part * 100):3} %"


class Bar:
    """Shows on the standard error output how far a command is, if that is a terminal, from half a second on::

        with Bar("pruning") as bar:
            bar.add(1000)

    At the end it is wiped out.

    :param what: what the command does.
    :param total: how many there are, if that is known.
    :param shown: False with ``--json``, say: nothing is shown.
    """

    def __init__(self, what: str, total: int | None = None, shown: bool = True) -> None:
        self._what = what
        self._total = total
        self._count = 0
        self._changed = 0
        self.is_shown: bool = shown and sys.stderr is not None and sys.stderr.isatty()
        self._next = time.monotonic() + FIRST
        self._is_drawn = False

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, kind: Any, *error: Any) -> None:
        if self._is_drawn:
            self._write("")
        if kind is not None and self._changed:  # which the command can't tell any more
            tell(f"pq: at least {self._changed} jobs had been changed by then, and stay so")

    def add(self, count: int, changed: int = 0) -> None:
        """Tell that so many more are done.

        :param changed: how many of them were changed for good. They are told if the command does not reach its end.
        """
        self._count += count
        self._changed += changed
        self.show(self._count, self._total)

    def show(self, count: int, total: int | None, text: str = "") -> None:
        """Show that so many are done.

        :param text: of what.
        """
        if self.is_shown and time.monotonic() >= self._next:
            self._next = time.monotonic() + PAUSE
            done = f"{count:,}"
            if total:
                done = f"{drawn(min(count / total, 1.0))}  {done} of {total:,}"
            self._write(f"{self._what}  {done} {text}".rstrip())
            self._is_drawn = True

    def _write(self, text: str) -> None:
        tell(f"\r{text}\x1b[K", end="")
