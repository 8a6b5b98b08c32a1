"""A limit on how long pq waits for a server that does not answer."""

from __future__ import annotations

import os
import socket
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

from .._logs import queue_log as logger
from .._loop import Loop
from .known import known

#: Seconds beyond the time when the server should have given up a statement, after which it counts as silent.
SILENCE = 2.0

#: Seconds after which the thread ends if nothing is guarded.
IDLE = 1.0

#: Seconds that the question whether the server is still at work may take.
QUESTION_TIMEOUT = 10.0


class Guard:
    """A context manager: cut the connection if the block lasts too long.

    :param seconds: how long the block may last.
    :param is_working: asked after that time, in a thread of its own: whether the server is still at work on what the
        block waits for. If it is, the block may last as long again. Default: the connection is cut at once.

    It can be entered again after it was left.
    """

    __slots__ = ("__weakref__", "_ref", "_sock", "_watchdog", "asking", "deadline", "is_working", "seconds")

    def __init__(
        self, watchdog: Watchdog, conn: Any, seconds: float, is_working: Callable[[], bool] | None = None
    ) -> None:
        self._watchdog = watchdog
        self._ref = weakref.ref(self)
        # not the connection: a guard that an interruption leaves behind would keep it open
        self._sock = known(conn).socket(conn)
        self.seconds: float = seconds
        self.is_working: Callable[[], bool] | None = is_working
        self.asking: bool = False

    def __enter__(self) -> Guard:
        watchdog = self._watchdog
        try:
            self.deadline: float = time.monotonic() + self.seconds
            watchdog.guards.add(self._ref)
            watchdog.wake(self.deadline)
        except BaseException:  # interrupted: the connection would be cut later
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        try:
            self._watchdog.guards.remove(self._ref)
        except KeyError:  # the watchdog is about to cut the connection: nobody else must have it before
            with self._watchdog.lock:
                pass

    def resume(self) -> None:
        """Begin to count, from 0."""
        self.__enter__()

    def pause(self) -> None:
        """Stop counting."""
        self.__exit__()

    def cut(self) -> None:
        try:
            self._sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # the connection went by itself
        logger.warning("the server has not answered for %.0f seconds: its connection was cut", self.seconds)
        self._watchdog.has_cut()


class Watchdog:
    """Cuts connections whose statement has not returned in time, so that the waiting thread gets an error.

    libpq can't do that for a blocking call: TCP's own timeouts notice a peer that acknowledges nothing, but not a proxy
    or a server that takes the bytes and then keeps silent. One thread serves all guards; it starts with the first one
    and ends when there was none for a while.

    :param on_cut: a weak reference to what is called after a connection was cut.
    """

    def __init__(self, on_cut: weakref.ref[Callable[[], object]] | None = None) -> None:
        self._on_cut = on_cut
        self._loop = Loop(self.run_once, "pq watchdog", idle=IDLE)
        self._closed = False
        self._reset()
        _watchdogs.add(self)

    def _reset(self) -> None:
        self.lock: Any = threading.RLock()
        # weak: an interrupt may come just before `__exit__`, and would have a connection cut that others use by then
        self.guards: set[weakref.ref[Guard]] = set()

    def guard(self, conn: Any, seconds: float, is_working: Callable[[], bool] | None = None) -> Guard:
        """Return a context manager; see `Guard`."""
        return Guard(self, conn, seconds, is_working)

    def has_cut(self) -> None:
        """Tell the owner that a connection was cut."""
        on_cut = None if self._on_cut is None else self._on_cut()
        if on_cut is not None:
            on_cut()

    def close(self, timeout: float | None = None) -> None:
        """End the thread now, and wait for that; but if something is guarded, or will be, soon after that.

        :param timeout: seconds; None waits as long as it takes.
        """
        self._closed = True
        self._loop.stop(timeout)
        if self.guards:
            self.wake(0.0)

    def run_once(self) -> float | None:
        """Cut what is overdue, and return the seconds until the next deadline."""
        with self.lock:
            now = time.monotonic()
            deadlines: list[float] = []
            for ref in list(self.guards):  # which others go on adding to
                guard = ref()
                if guard is None:
                    self.guards.discard(ref)
                elif guard.deadline > now or self._expire(guard, now):
                    deadlines.append(guard.deadline)
            if not deadlines:
                return None
            pause = max(0.0, min(deadlines) - now)
            return min(pause, IDLE) if self._closed else pause

    def _expire(self, guard: Guard, now: float) -> bool:
        """Cut the connection, or have somebody ask first; then it has a new deadline, and this returns True."""
        if guard.is_working is None or guard.asking:
            try:
                self.guards.remove(guard._ref)
            except KeyError:
                return False  # it has just left
            guard.cut()
            return False
        guard.asking = True
        guard.deadline = now + QUESTION_TIMEOUT
        threading.Thread(target=self._ask, args=(guard, guard.is_working), name="pq watchdog asks", daemon=True).start()
        return True

    def _ask(self, guard: Guard, is_working: Callable[[], bool]) -> None:
        working = False
        try:
            working = is_working()
        except Exception:
            logger.exception("could not ask whether the server is at work")
        with self.lock:
            guard.asking = not working  # so it is cut
            guard.deadline = time.monotonic() + guard.seconds * working
        self.wake(guard.deadline)

    def wake(self, by: float) -> None:
        """Look at the guards at this time at the latest."""
        if self._closed:
            by = min(by, time.monotonic() + IDLE)
        try:
            self._loop.wake(by)
        except RuntimeError:
            pass  # the interpreter is about to end: go without


_watchdogs: weakref.WeakSet[Watchdog] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for watchdog in list(_watchdogs):
        watchdog._reset()  # whoever held the lock, or waited for a server, stayed with the parent


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
