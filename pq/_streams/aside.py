"""Events that are set aside: each is put as a job of a queue, with the end of its batch, while the others go on."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any, NamedTuple

from .._jobs.failure import Failure
from ..sql import array


class Entry(NamedTuple):
    """An event that is set aside.

    :ivar attempts: how often it was delivered.
    :ivar pause: until it is tried again; None: it is dead.
    :ivar error: why, or None.
    :ivar text: its data as a job, if it was one before; None: the log has it.
    """

    id: int
    attempts: int
    pause: timedelta | None
    error: BaseException | str | None
    text: str | None = None


def parameters(queue: str, entries: Iterable[Entry]) -> dict[str, Any]:
    """Return the parameters of the fragment ``set_aside``."""
    entries = list(entries)
    return {
        "queue": queue,
        "ids": array(entry.id for entry in entries),
        "attempts": array(entry.attempts for entry in entries),
        "delays": array(None if entry.pause is None else entry.pause.total_seconds() for entry in entries),
        "errors": array(None if entry.error is None else Failure.of(entry.error).dumps() for entry in entries),
        "data": array(entry.text for entry in entries),
    }


class Aside:
    """Those of one batch.

    :param usual: returns the pause of the retry policy after that many attempts.
    :ivar put: puts one at once, in the transaction in which the batch has ended; None: they wait for its end.
    :ivar closed: whether the batch has ended, so that none can be added.
    """

    def __init__(self, usual: Callable[[int], timedelta | None]) -> None:
        self.entries: dict[int, Entry] = {}
        self.put: Callable[[Entry], None] | None = None
        self.closed = False
        self.usual = usual

    def add(self, entry: Entry) -> None:
        """
        :raises ValueError: the event was set aside before, or its batch has ended.
        """
        if self.closed:
            raise ValueError(f"the batch of event {entry.id} has ended: it can't be set aside any more")
        if entry.id in self.entries:
            raise ValueError(f"event {entry.id} was set aside before")
        if self.put is not None:
            self.put(entry)
        self.entries[entry.id] = entry
