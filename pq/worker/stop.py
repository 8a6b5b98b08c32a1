"""How a worker is told to stop, and how long it may take."""

from __future__ import annotations

import threading
import time

from .._db import Waker, wait_readable
from .._logs import worker_log as logger

#: Seconds for the end after a second request to stop.
HURRY_TIMEOUT = 2.0

_NEVER = float("inf")


class Stop:
    """A request that a worker stop. It wakes the threads that rest, and the one that waits for all others.

    :param name: of the worker.
    :ivar wanted: the worker is to stop.
    :ivar error: why; `Worker.run` raises it.
    :ivar status_wanted: somebody has asked for the status.
    :ivar waits_since: when the thread that waits for all others has begun to wait the last time; monotonic seconds.
        None: it has not yet.
    """

    def __init__(self, name: str) -> None:
        self.error: BaseException | None = None
        self._name = name
        self.wanted: bool = False
        self.status_wanted: bool = False
        self.waits_since: float | None = None
        self._resting = threading.Event()
        self._waker: Waker | None = None  # made late: a fork, or a daemon that closes files, may come before
        self._hurry_at = _NEVER  # monotonic seconds

    def ask(self) -> None:
        """Ask the worker to stop, from any thread or signal handler."""
        self.wanted = True
        self.wake()

    def hurry(self) -> None:
        """Ask the worker to stop and to wait for no job."""
        self._hurry_at = min(self._hurry_at, time.monotonic())
        self.ask()

    def fail(self, error: BaseException) -> None:
        """Stop at once, since a thread of the worker can't go on."""
        self.error = self.error or error
        self.hurry()
        logger.critical("%s: an error ends this worker", self._name, exc_info=error)

    def exit(self, error: BaseException) -> None:
        """Stop, since a hook has asked the process to exit."""
        self.error = self.error or error
        self.ask()

    def thread_ended(self, error: BaseException | None) -> None:
        """Note that a thread that performs jobs has ended."""
        if error is not None:
            self.fail(error)
        self.wake()

    def wait_for_nothing(self) -> None:
        """Ask the worker to end now."""
        self._hurry_at = -HURRY_TIMEOUT
        self.ask()

    def ask_status(self, number: int) -> None:
        """Have the main thread print the status: the handler of a signal."""
        self.status_wanted = True
        self.wake()

    def take_status_request(self) -> bool:
        """Return whether somebody has asked for the status since the last call."""
        wanted, self.status_wanted = self.status_wanted, False
        return wanted

    @property
    def hurried(self) -> bool:
        """Whether no job is to be waited for."""
        return self._hurry_at < _NEVER

    def left(self, until: float) -> float:
        """Return the seconds until a moment, or until the end of a prompt stop if that is earlier; never below 0."""
        return max(0.0, min(until, self._hurry_at + HURRY_TIMEOUT) - time.monotonic())

    # -- to sleep, and to wake

    @property
    def waker(self) -> Waker:
        if self._waker is None:
            self._waker = Waker()
        return self._waker

    def wake(self) -> None:
        """Wake the thread that waits for all others."""
        if self._waker is not None:
            self._waker.wake()

    def wait(self, seconds: float) -> None:
        """Wait for `wake`."""
        self.waits_since = time.monotonic()
        wait_readable((self.waker.fileno(),), seconds)
        self.waker.clear()

    def rest(self, seconds: float) -> None:
        """Sleep, but not longer than until `end_rests`."""
        self._resting.wait(seconds)

    def end_rests(self) -> None:
        self._resting.set()
