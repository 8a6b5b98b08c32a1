"""A bound on how long pq waits for a server that does not answer."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Watchdog:
    """Cuts connections whose statement has not returned in time, so that the waiting thread gets an error.

    libpq itself can't do that for a blocking call: TCP's own timeouts see a peer that acknowledges nothing, but not a
    proxy, or a server, that takes the bytes and then keeps silent. One thread serves all guarded statements; it starts
    with the first and ends when there was none for a while.
    """

    IDLE = 5.0  # seconds

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._guarded: dict[object, tuple[float, int]] = {}
        self._thread: threading.Thread | None = None
        self._asleep_until = 0.0

    @contextmanager
    def guard(self, conn: Any, seconds: float) -> Iterator[None]:
        """Cut the connection if the block lasts longer than `seconds`."""
        token = object()
        deadline = time.monotonic() + seconds
        with self._condition:
            self._guarded[token] = (deadline, conn.fileno())
            if self._thread is None:
                self._thread = threading.Thread(target=self._watch, name="pq watchdog", daemon=True)
                self._thread.start()
            elif deadline < self._asleep_until:
                self._condition.notify()
        try:
            yield
        finally:
            with self._condition:
                del self._guarded[token]

    def close(self) -> None:
        """End the thread now."""
        with self._condition:
            thread, self._thread = self._thread, None
            self._condition.notify()
        if thread is not None:
            thread.join()

    def _watch(self) -> None:
        while self.run_once():
            pass

    def run_once(self) -> bool:
        """Cut what is overdue, then wait for the next deadline. False when the thread is to end."""
        with self._condition:
            if self._thread is not threading.current_thread():
                return False
            now = time.monotonic()
            for token, (deadline, fd) in list(self._guarded.items()):
                if deadline <= now:
                    _cut(fd)
                    self._guarded[token] = (now + self.IDLE, fd)
            self._asleep_until = min([now + self.IDLE, *(deadline for deadline, _ in self._guarded.values())])
            woken = self._condition.wait(self._asleep_until - now)
            if self._guarded or woken or self._thread is not threading.current_thread():
                return True
            self._thread = None
            return False


def _cut(fd: int) -> None:
    """Shut the socket down without closing the descriptor, which stays the driver's."""
    try:
        with socket.socket(fileno=os.dup(fd)) as sock:
            sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # it went by itself
