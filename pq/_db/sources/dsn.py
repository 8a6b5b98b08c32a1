"""Connections that pq opens itself."""

from __future__ import annotations

import threading
import time
from typing import Any
from weakref import WeakKeyDictionary

from ..drivers.detect import own_driver
from .base import Source
from .turns import Turn, Turns

#: Seconds after which a connection that nobody has used is closed, while this process waits; one is kept.
KEEP = 5.0


class DsnPool(Source):
    """Connections that pq opens from a DSN, in autocommit mode: as many as there are threads at work, at most `limit`.
    Further threads wait, and whoever has waited longest gets the next connection."""

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
        self._turns = Turns(self._limit)
        self._lent: WeakKeyDictionary[Any, Turn] = WeakKeyDictionary()
        self._idle: list[tuple[Any, float]] = []  # since when, in monotonic seconds; the one used last is last

    def acquire(self, timeout: float | None = None) -> Any:
        turn = self._turns.take(timeout)
        try:
            conn = self._find()
            self._lent[conn] = turn
            return conn
        except BaseException:
            self._turns.give(turn)
            raise

    def _find(self) -> Any:
        """An idle connection that is alive, or a new one."""
        while True:
            conn = self._pop()
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

    def _pop(self) -> Any:
        with self._lock:
            if self._closed:
                self.driver.raise_lost(None, "this PQ is closed")
            return self._idle.pop()[0] if self._idle else None

    def release(self, conn: Any, lost: bool = False) -> None:
        turn = self._lent.pop(conn, None)  # first: a connection that came back twice would go to two threads
        if turn is None:
            return
        try:
            usable = not (lost or conn.closed) and self.driver.idle(conn)
            with self._lock:
                if usable and not self._closed:
                    self._idle.append((conn, time.monotonic()))
                    return
            self._discard(conn)
        finally:
            self._turns.give(turn)

    def _discard(self, conn: Any) -> None:
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
        self._turns.open()
        for conn, _ in idle:
            self._discard(conn)

    def forked(self) -> None:
        super().forked()
        # never closed here: that would say goodbye on the parent's sockets. Kept, lest the collector close them.
        _inherited.extend(conn for conn, _ in self._idle)
        self._reset()


_inherited: list[Any] = []
