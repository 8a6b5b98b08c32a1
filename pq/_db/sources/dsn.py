"""Connections that pq opens itself."""

from __future__ import annotations

import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from typing import Any

from ... import sql as _sql
from ..drivers.base import PING, Driver, Params, Rows
from ..drivers.detect import own_driver
from ..inherited import leave_to_the_parent
from ..known import known
from ..scope import check_coroutines
from ..watchdog import SILENCE, Guard
from .base import Source
from .turns import Turn, Turns

#: Seconds after which an unused connection is closed while this process waits for jobs.
KEEP_IDLE = 5.0

#: Seconds that a question to the server may take which it answers from memory.
ANSWER_TIMEOUT = 5.0

#: Seconds within which a server refuses a connection.
REFUSAL_TIME = 1.0

_SQL = _sql.statements("session.sql")

#: Seconds to wait for a connection that is to be reserved.
RESERVE_TIMEOUT = 30.0


class DsnPool(Source):
    """Connections that pq opens from a DSN, in autocommit mode: as many as there are threads at work, at most `limit`.
    Further threads wait, and whoever has waited longest gets the next connection."""

    owned = True

    def __init__(
        self,
        dsn: str | Callable[[], str],
        limit: int,
        statement_timeout: float | None = None,
        driver: Driver | None = None,
    ) -> None:
        self._driver = driver or own_driver()
        self.driver = self._driver if statement_timeout is None else self._driver.limited(weakref.proxy(self))
        if isinstance(dsn, str):
            self.driver.parameters(dsn)  # raises now if the DSN is malformed, not at the first connection
        if limit < 1:
            raise ValueError(f"max_connections must be at least 1: {limit}")
        super().__init__()
        self.statement_timeout = statement_timeout
        self._dsn = dsn
        self._limit = limit
        self._closed = self._retired = False
        self._reserved: tuple[Turns, Turn] | None = None  # the turn of another source that this one has
        self._reset()

    def _reset(self) -> None:
        self._turns = Turns(self._limit)
        self._lent: dict[int, Turn] = {}  # by the ids of connections
        self._patient: set[int] = set()  # likewise
        # Since when, in monotonic seconds; the one used last is last. No lock: each step takes one, or adds one.
        self._idle: deque[tuple[Any, float]] = deque()

    @property
    def capacity(self) -> float:
        return self._limit

    def reserve(self) -> DsnPool | None:
        if self._limit < 2:
            return None
        source = DsnPool(self._dsn, 1, self.statement_timeout)
        source._reserved = (self._turns, self._turns.acquire(RESERVE_TIMEOUT))
        return source

    def acquire(self, timeout: float | None = None, into: Any = None) -> Any:
        turns = self._turns
        if turns.exhausted:
            check_coroutines(self.open_transactions(), self._limit)
        turn = turns.acquire(timeout)
        try:
            conn = self._find()
            if into is not None:
                into.conn = conn  # which is given back from here on, however this ends
            self._lent[id(conn)] = turn
            return conn
        except BaseException:
            turns.release(turn)
            raise

    def _find(self) -> Any:
        """Return an idle connection that is alive, or a new one."""
        while True:
            conn = None
            alive = False
            try:
                if self._closed:
                    self.driver.raise_lost(None, "this PQ is closed")
                conn = self._pop() or self._open()
                alive = self.driver.alive(conn)
            finally:
                if not alive:
                    self._discard(conn)
            if alive:
                return conn

    def _open(self) -> Any:
        conn = self.driver.connect(self._find_dsn())
        with self.watchdog.guard(conn, ANSWER_TIMEOUT):
            self.session(conn)  # at once, since it sets the limit there
        return conn

    def _find_dsn(self) -> str:
        return self._dsn if isinstance(self._dsn, str) else self._dsn()

    def _pop(self) -> Any:
        """Return the idle connection that was used last; None if there is none."""
        try:
            return self._idle.pop()[0]
        except IndexError:
            return None

    def release(self, conn: Any, lost: bool = False) -> None:
        turn = self._lent.pop(id(conn), None)  # first: a connection that came back twice would go to two threads
        if turn is None:
            return
        try:
            if lost or conn.closed or (self._suspects and self._is_suspect(conn)) or not self.driver.idle(conn):
                self._discard(conn)
            else:
                if not conn.autocommit:  # see puts_off
                    conn.autocommit = True
                self._idle.append((conn, time.monotonic()))
        finally:
            self._turns.release(turn)
            if self._retired:
                self.distrust()

    def restore(self, conn: Any, lost: bool = False) -> None:
        if id(conn) in self._lent:
            self.release(conn, lost)  # once it is idle, another thread may take it
        elif all(conn is not idle for idle, _ in list(self._idle)):
            self._discard(conn)

    def _discard(self, conn: Any) -> None:
        if conn is None:
            return
        try:
            conn.close()
        except self.driver.Error:
            pass  # it is gone, and that was the aim
        finally:
            known(conn).close()

    def distrust(self) -> None:
        """Close all that are idle."""
        while (conn := self._pop()) is not None:
            self._discard(conn)

    # -- limits: see drivers.base.Limits

    def guard(self, conn: Any, limit: float | None = None) -> Guard:
        """Return a context manager around a statement: the connection is cut somewhat later than the server gives the
        statement up.

        :param limit: the seconds after which it does so. Default: outside of a transaction those of
            `statement_timeout`. In a transaction, where the application's statements are executed, too, the server has
            no such limit: after that time pq asks, by another connection, whether it is still at work.
        """
        is_working = None
        if limit is None:
            limit = self.statement_timeout or 0
            if id(conn) in self._patient or not self.driver.idle(conn):
                is_working = partial(self._is_working, conn)
        return Guard(self.watchdog, conn, limit + SILENCE, is_working)

    def lift(self, conn: Any) -> str:
        its = known(conn)
        session = its.session
        if session is None or not session.limited or its.limit == session.own_limit:
            return ""
        return f"; set local statement_timeout = {session.own_limit}"

    def puts_off(self, conn: Any, hot: bool) -> bool:
        its = known(conn)
        if not hot or its.session is None or not self.driver.is_plain(conn):
            return False
        own = its.session.own_limit
        if its.session.limited and its.limit != own:  # the application's first statement is not to be limited, either
            its.limit = None  # until that has succeeded
            self.driver.run(conn, f"set statement_timeout = {own}")
            its.limit = own
        conn.autocommit = False
        return True

    def run_patiently(self, conn: Any, sql: str, params: Params | None) -> Rows:
        self._patient.add(id(conn))
        try:
            return self.driver.run(conn, sql, params)
        finally:
            self._patient.discard(id(conn))

    def _is_working(self, conn: Any) -> bool:
        began = time.monotonic()
        try:
            with closing(self._driver.connect(self._find_dsn())) as other, self.watchdog.guard(other, ANSWER_TIMEOUT):
                if self.session(conn).hidden:
                    self._driver.run(other, PING)
                    return True
                rows = self._driver.run(other, _SQL["working"], {"pid": self._driver.backend_pid(conn)})
        except self._driver.Error:
            # Refused in a moment, as when there are too many connections: something is there, and TCP finds out whether
            # the other connection is. A server that stands still does not answer in time.
            return time.monotonic() - began < REFUSAL_TIME
        return rows == [(True,)]

    @contextmanager
    def briefly(self) -> Iterator[None]:
        rests = not (self._idle or self._lent)
        try:
            yield
        finally:
            if rests:
                self.distrust()

    def tidy(self) -> None:
        until = time.monotonic() - KEEP_IDLE
        while True:
            try:
                if self._idle[0][1] >= until:
                    return
                conn, since = self._idle.popleft()
            except IndexError:
                return
            if since >= until:  # others have taken those that came before
                self._idle.appendleft((conn, since))
                return
            self._discard(conn)

    def open_listening_connection(self) -> Any:
        return self.driver.connect(self._find_dsn())

    def retire(self) -> None:
        """Keep no connections: close those that are idle now, and others when they come back. Whoever comes late gets
        one all the same."""
        self._retired = True
        self.watchdog.close()
        self.distrust()

    def close(self) -> None:
        """Retire, and refuse whoever comes late."""
        self._closed = True
        reserved, self._reserved = self._reserved, None
        self._turns.open()
        self.retire()
        if reserved is not None:
            turns, turn = reserved
            turns.release(turn)

    def forked(self) -> None:
        super().forked()
        leave_to_the_parent(*(conn for conn, _ in self._idle))
        self._reset()
