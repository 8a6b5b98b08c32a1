"""Connections that pq opens itself."""

from __future__ import annotations

import threading
import time
from typing import Any

from ..drivers.detect import own_driver
from .base import Source, wait

#: Seconds after which a connection that nobody has used is closed, while this process waits; one is kept.
KEEP = 5.0


class OwnConnections(Source):
    """Connections that pq opens from a DSN, in autocommit mode: as many as there are threads at work, at most `limit`;
    a further thread waits."""

    owned = True

    def __init__(self, dsn: str, limit: int) -> None:
        self.driver = own_driver()
        self.driver.parameters(dsn)  # complains of a malformed one now, not at the first connection
        if limit < 1:
            raise ValueError(f"max_connections must be at least 1: {limit}")
        super().__init__()
        self._dsn = dsn
        self._limit = limit
        self._closed = False
        self._reset()

    def _reset(self) -> None:
        self._lock = threading.RLock()
        self._returned = threading.Condition(self._lock)
        self._idle: list[tuple[Any, float]] = []  # since when, in monotonic seconds; the one used last is last
        self._open = 0

    def acquire(self, timeout: float | None = None) -> Any:
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            conn = self._take(deadline)
            alive = False
            try:
                if conn is None:
                    conn = self.driver.connect(self._dsn)
                alive = self.driver.alive(conn)
            finally:
                if not alive:
                    self._discard(conn)
            if alive:
                return conn

    def _take(self, deadline: float | None) -> Any:
        """An idle connection, or None: the right to open one."""
        with self._lock:
            while not self._closed:
                if self._idle:
                    return self._idle.pop()[0]
                if self._open < self._limit:
                    self._open += 1
                    return None
                remaining = None if deadline is None else deadline - time.monotonic()
                if remaining is not None and remaining <= 0:
                    raise TimeoutError
                wait(self._returned, remaining)
        self.driver.raise_lost(None, "this PQ is closed")

    def release(self, conn: Any, lost: bool = False) -> None:
        with self._lock:
            if not (lost or self._closed or conn.closed) and self.driver.idle(conn):
                self._idle.append((conn, time.monotonic()))
                self._returned.notify()
                return
        self._discard(conn)

    def _discard(self, conn: Any) -> None:
        with self._lock:
            self._open -= 1
            self._returned.notify()
        try:
            if conn is not None:
                conn.close()
        except self.driver.Error:
            pass  # it is gone, which is what we want

    def tidy(self) -> None:
        with self._lock:
            until = time.monotonic() - KEEP
            count = sum(since < until for _, since in self._idle[:-1])
            old, self._idle = self._idle[:count], self._idle[count:]
        for conn, _ in old:
            self._discard(conn)

    def open_line(self) -> Any:
        return self.driver.connect(self._dsn)

    def close(self) -> None:
        """Idle connections are closed now, those at work when they come back."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
            self._returned.notify_all()
        for conn, _ in idle:
            self._discard(conn)

    def forked(self) -> None:
        super().forked()
        # never closed here: that would say goodbye on the parent's sockets. Kept, lest the collector close them.
        _inherited.extend(conn for conn, _ in self._idle)
        self._reset()


_inherited: list[Any] = []
