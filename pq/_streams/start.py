"""Where a subscription begins to read."""

from __future__ import annotations

import reprlib
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from .._args import JOB_IDS, integer
from .._logs import queue_log as logger
from .._times import When, when


class Start(NamedTuple):
    """Where to begin.

    :ivar id: behind this id; None if a time says it, or ``'new'``.
    :ivar moment: since then; None if it is not by time.
    """

    id: int | None = None
    moment: When | None = None

    def after(self, run: Callable[..., Any]) -> int | None:
        """Return the id behind which to begin; None: with what is not committed yet.

        :param run: executes a statement of ``stream.sql``.
        """
        if self.moment is not None:
            at, delay = self.moment
            seconds = None if delay is None else delay.total_seconds()
            return int(run("before", at=at, seconds=seconds)[0][0])
        if not self.id:
            return self.id
        ((last, first),) = run("last_id")
        if self.id >= last:
            return None
        if self.id < first - 1:
            logger.warning("events up to %d are gone: it begins with event %d", first - 1, first)
        return self.id


def start_of(name: str, start: Any) -> Start:
    """Read an argument `start`.

    :raises TypeError: it is neither a str, a timedelta, a datetime nor an int.
    :raises ValueError: it is another word, or out of range.
    """
    if start == "new":
        return Start()
    if start == "beginning":
        return Start(0)
    if isinstance(start, int) and not isinstance(start, bool):
        return Start(min(integer(name, start), JOB_IDS.stop - 1))
    if isinstance(start, (str, timedelta, datetime)):
        try:
            moment = when(name, start)
        except ValueError as error:
            if not isinstance(start, str):
                raise
            raise ValueError(
                f"{name} must be 'new', 'beginning', a time such as '2h', or an id, not {reprlib.repr(start)}"
            ) from error
        if moment.delay is not None and moment.delay < timedelta():
            raise ValueError(f"{name} must not be negative: {start}")
        return Start(moment=moment)
    kind = type(start).__name__
    raise TypeError(f"{name} must be a str, timedelta, datetime or int, not {kind}: {reprlib.repr(start)}")
