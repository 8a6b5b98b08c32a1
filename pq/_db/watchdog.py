"""A bound on how long pq waits for a server that does not answer."""

from __future__ import annotations

import os
import socket
import threading
import time
from typing import Any


class Watchdog:
    """Cuts connections whose statement has not returned in time, so that the waiting thread gets an error.

    libpq itself can't do that for a blocking call: TCP's own timeouts see a peer that acknowledges nothing, but not a
    proxy, or a server, that takes the bytes and then keeps silent. One thread serves all guarded statements; it starts
    with the first and ends when there was none for a while.
    """

    IDLE = 5.0  # seconds

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._guarded: dict[socket.socket, float] = {}  # deadlines
        self._thread: threading.Thread | None = None
        self._asleep_until = 0.0

    def guard(self, conn: Any, seconds: float) -> _Guard:
        """Cut the connection if the block lasts longer than `seconds`."""
        return _Guard(self, conn, time.monotonic() + seconds)

    def add(self, sock: socket.socket, deadline: float) -> None:
        if self._pid != os.getpid():
            self._reset()  # the thread stayed with the parent, and so did whoever held the lock
        with self._lock:
            self._guarded[sock] = deadline
            if self._thread is None:
                thread = threading.Thread(target=self._watch, name="pq watchdog", daemon=True)
                try:
                    thread.start()
                except RuntimeError:  # the interpreter is about to end: go without
                    return
                self._thread = thread
            elif deadline < self._asleep_until:
                self._changed.notify()

    def remove(self, sock: socket.socket) -> None:
        with self._lock:
            self._guarded.pop(sock, None)

    def close(self) -> None:
        """End the thread now."""
        if self._pid != os.getpid():
            return
        with self._lock:
            thread, self._thread = self._thread, None
            self._changed.notify()
        if thread is not None:
            thread.join()

    def _watch(self) -> None:
        while self.run_once():
            pass

    def run_once(self) -> bool:
        """Cut what is overdue, then wait for the next deadline. False when the thread is to end."""
        with self._lock:
            if self._thread is not threading.current_thread():
                return False
            now = time.monotonic()
            for sock, deadline in self._guarded.items():
                if deadline <= now:
                    _cut(sock)
                    self._guarded[sock] = now + self.IDLE
            self._asleep_until = min([now + self.IDLE, *self._guarded.values()])
            woken = self._changed.wait(self._asleep_until - now)
            if self._guarded or woken or self._thread is not threading.current_thread():
                return True
            self._thread = None
            return False


class _Guard:
    """A context manager; by hand, since each `get` has one."""

    def __init__(self, watchdog: Watchdog, conn: Any, deadline: float) -> None:
        self._watchdog = watchdog
        # A duplicate: the driver may close its descriptor at any time, and the number then mean somebody else's file.
        # (The family given here plays no part in shutting down.)
        self._sock = socket.fromfd(conn.fileno(), socket.AF_INET, socket.SOCK_STREAM)
        self._deadline = deadline

    def __enter__(self) -> None:
        try:
            self._watchdog.add(self._sock, self._deadline)
        except BaseException:  # interrupted: it would be cut later
            self.__exit__()
            raise

    def __exit__(self, *exc: object) -> None:
        with self._sock:
            self._watchdog.remove(self._sock)


def _cut(sock: socket.socket) -> None:
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # it went by itself
