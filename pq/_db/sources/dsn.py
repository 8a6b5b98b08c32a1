"""Connections that pq opens itself."""

from __future__ import annotations

import threading
import time
import weakref
from contextlib import closing
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

from ... import sql as _sql
from ..drivers.base import PING, Driver, Params, Rows
from ..drivers.detect import own_driver
from ..scope import check_coroutines
from ..watchdog import SILENCE, Guard
from .base import Source
from .turns import Turn, Turns

#: Seconds after which an unused connection is closed while this process waits for jobs; one is kept.
KEEP = 5.0

#: Seconds that a question to the server may take which it answers from memory.
ASKING = 5.0

#: Seconds within which a server refuses a connection.
PROMPT = 1.0

_SQL = _sql.statements("session.sql")

#: Seconds to wait for a connection that is to be reserved.
PATIENCE = 30.0


class DsnPool(Source):
    """Connections that pq opens from a DSN, in autocommit mode: as many as there are threads at work, at most `limit`.
    Further threads wait, and whoever has waited longest gets the next connection."""

    owned = True

    def __init__(
        self, dsn: str, limit: int, statement_timeout: float | None = None, driver: Driver | None = None
    ) -> None:
        self._driver = driver or own_driver()
        self.driver = self._driver if statement_timeout is None else self._driver.limited(weakref.proxy(self))
        self.driver.parameters(dsn)  # raises now if the DSN is malformed, not at the first connection
        if limit < 1:
            raise ValueError(f"max_connections must be at least 1: {limit}")
        super().__init__()
        self.statement_timeout = statement_timeout
        self._dsn = dsn
        self._limit = limit
        self._closed = False
        self._reserved: tuple[Turns, Turn] | None = None  # the turn of another source that this one has
        self._reset()

    def _reset(self) -> None:
        self._lock = threading.RLock()
        self._turns = Turns(self._limit)
        self._lent: WeakKeyDictionary[Any, Turn] = WeakKeyDictionary()
        self._patient: set[int] = set()  # the ids of connections
        self._idle: list[tuple[Any, float]] = []  # since when, in monotonic seconds; the one used last is last

    @property
    def capacity(self) -> float:
        return self._limit

    def reserve(self) -> DsnPool | None:
        if self._limit < 2:
            return None
        source = DsnPool(self._dsn, 1, self.statement_timeout)
        source._reserved = (self._turns, self._turns.take(PATIENCE))
        return source

    def acquire(self, timeout: float | None = None, into: Any = None) -> Any:
        if self._turns.exhausted:
            check_coroutines(self.open_transactions(), self._limit)
        turn = self._turns.take(timeout)
        try:
            conn = self._find()
            self._lent[conn] = turn
            return conn
        except BaseException:
            self._turns.give(turn)
            raise

    def _find(self) -> Any:
        """Return an idle connection that is alive, or a new one."""
        while True:
            conn = self._pop()
            alive = False
            try:
                if conn is None:
                    conn = self._open()
                alive = self.driver.alive(conn)
            finally:
                if not alive:
                    self._discard(conn)
            if alive:
                return conn

    def _open(self) -> Any:
        conn = self.driver.connect(self._dsn)
        with self.watchdog.guard(conn, ASKING):
            self.session(conn)  # at once, since it sets the limit there
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
            usable = not (lost or conn.closed or self._is_suspect(conn)) and self.driver.idle(conn)
            with self._lock:
                if usable and not self._closed:
                    self._idle.append((conn, time.monotonic()))
                    return
            self._discard(conn)
        finally:
            self._turns.give(turn)
            if self._closed:
                self.watchdog.close(0)  # which the end of a block may have started again

    def _discard(self, conn: Any) -> None:
        try:
            if conn is not None:
                conn.close()
        except self.driver.Error:
            pass  # it is gone, and that was the aim

    def distrust(self) -> None:
        """Close all that are idle."""
        with self._lock:
            idle, self._idle = self._idle, []
        for conn, _ in idle:
            self._discard(conn)

    # -- limits: see drivers.base.Limits

    def guard(self, conn: Any, seconds: float | None = None) -> Guard:
        """Return a context manager around a statement.

        :param seconds: after which the connection is cut. Default: outside of a transaction, somewhat later than the
            server gives the statement up. In a transaction, where the application's statements are executed, too, the
            server has no such limit: after that time pq asks, by another connection, whether it is still at work.
        """
        is_working = None
        if seconds is None:
            seconds = (self.statement_timeout or 0) + SILENCE
            if id(conn) in self._patient or not self.driver.idle(conn):
                is_working = partial(self._is_working, conn)
        return self.watchdog.guard(conn, seconds, is_working, self.distrust)

    def lift(self, conn: Any) -> str:
        session = self._sessions.get(conn)
        if session is None or not session.limited:
            return ""
        return f"; set local statement_timeout = {session.own_limit}"

    def run_patiently(self, conn: Any, sql: str, params: Params | None) -> Rows:
        self._patient.add(id(conn))
        try:
            return self.driver.run(conn, sql, params)
        finally:
            self._patient.discard(id(conn))

    def _is_working(self, conn: Any) -> bool:
        began = time.monotonic()
        try:
            with closing(self._driver.connect(self._dsn)) as other, self.watchdog.guard(other, ASKING):
                if self.session(conn).hidden:
                    self._driver.run(other, PING)
                    return True
                rows = self._driver.run(other, _SQL["working"], {"pid": self._driver.backend_pid(conn)})
        except self._driver.Error:
            # Refused in a moment, as when there are too many connections: something is there, and TCP finds out whether
            # the other connection is. A server that stands still does not answer in time.
            return time.monotonic() - began < PROMPT
        return rows == [(True,)]

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
            reserved, self._reserved = self._reserved, None
        self._turns.open()
        self.watchdog.close()
        for conn, _ in idle:
            self._discard(conn)
        if reserved is not None:
            turns, turn = reserved
            turns.give(turn)

    def forked(self) -> None:
        super().forked()
        # not closed here, which would say goodbye on the parent's sockets, and kept, lest the garbage collector do so
        _inherited.extend(conn for conn, _ in self._idle)
        self._reset()


_inherited: list[Any] = []
