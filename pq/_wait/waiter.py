"""A thread's place among those that wait."""

from __future__ import annotations

import threading
from typing import Any, Protocol


class Room(Protocol):
    """What a waiter needs of its `WaitingRoom`."""

    lock: Any

    def admit(self, waiter: Waiter) -> None: ...
    def wait(self, waiter: Waiter, deadline: float) -> bool: ...
    def cancel(self, waiter: Waiter) -> None: ...
    def leave(self, waiter: Waiter) -> None: ...


class Waiter:
    """A thread's place among those that wait for queues: a context manager."""

    def __init__(self, room: Room, queues: tuple[str, ...]) -> None:
        self._room = room
        self.queues = queues
        self.condition = threading.Condition(room.lock)
        self.called = False  # sent to look,
        self.looking = False  # and gone
        self.last = False  # for the last time
        self.cancelled = False

    def wait(self, deadline: float) -> bool:
        """True when it is time to look for a job, False when the deadline (monotonic seconds) has passed, or it was
        cancelled."""
        return self._room.wait(self, deadline)

    def cancel(self) -> None:
        """From another thread: no more waiting, neither now nor later."""
        self._room.cancel(self)

    def __enter__(self) -> Waiter:
        try:
            self._room.admit(self)
            return self
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *exc: object) -> None:
        try:
            self._room.leave(self)
        except BaseException:  # interrupted: nobody else would do it
            self._room.leave(self)
            raise
