"""A second connection for threads that wait on the application's single one.

Outside of autocommit mode a statement of pq's on the application's connection may commit what another thread of the
application executes there at that moment: see `Driver.committed`. Who waits executes many statements, at times that the
application can't know. So these go to a connection that pq opens with the parameters of the application's.

Both must lead to the same table, with the same rights. That is checked on both when a wait begins, at most once a
minute, and when a block of pq's has ended, by its thread. Where they differ (a temporary table, a search path, SET
ROLE), or where rows depend on settings of the session (row security), waiting threads use the application's connection.
"""

from __future__ import annotations

import threading
import time
from threading import get_ident
from typing import Any

from .. import sql as _sql
from .database import Database
from .drivers.base import Rows
from .loan import Loan
from .sockets import hung_up
from .sources.dsn import DsnPool
from .sources.single import SingleConnection

#: Seconds for which the result of a check is used.
CHECK_FRESH = 60.0

#: Seconds that a check waits for the application's connection.
BUSY_TIMEOUT = 0.05

#: Seconds without a waiting thread after which the second connection is closed.
REST_AFTER = 5.0

_SQL = _sql.statements("session.sql")


class Aside:
    """Opens, checks and closes the second connection.

    :param home: the database whose source is the application's connection.
    :param source: that source.
    :param table: the quoted name of the table.
    """

    def __init__(self, home: Database, source: SingleConnection, table: str) -> None:
        self._home = home
        self._source = source
        self._table = table
        self._closed = False
        self.reset()

    def reset(self) -> None:
        """Begin anew, without closing anything. A child process does so."""
        self._lock = threading.Lock()
        self._database: Database | None = None
        self._checked_at = -CHECK_FRESH  # monotonic seconds
        self._waiting: set[int] = set()  # the idents of threads
        self._left_at = -REST_AFTER  # when one of them left; monotonic seconds

    @property
    def database(self) -> Database | None:
        """The database by way of the second connection; None: there is none, or the application's was lost or closed,
        which whoever uses that one is told."""
        found = self._database
        return found if found is not None and self._is_connected() else None

    @property
    def database_for_claim(self) -> Database | None:
        """`database`, if a claim of this thread may go there: not if the thread does not wait and the application has a
        transaction open, which may be this thread's."""
        found = self.database
        if found is None or get_ident() in self._waiting or self._source.driver.idle(self._source.conn):
            return found
        return None

    @property
    def watched(self) -> tuple[int, ...]:
        """The descriptor of the application's connection, if threads sleep on the second one alone: they are to be told
        when it ends."""
        try:
            return () if self.database is None else (self._source.conn.fileno(),)
        except self._source.driver.Error:
            return ()  # closed by another thread just now

    def enter(self) -> None:
        """Say that this thread waits from now on."""
        self._waiting.add(get_ident())
        self.renew()

    def leave(self) -> None:
        """Say that this thread waits no more. A second call does no harm."""
        self._waiting.discard(get_ident())
        self._left_at = time.monotonic()

    @property
    def may_rest(self) -> bool:
        """Whether nobody has waited lately, or the application has closed its connection: it may be about to drop the
        database, which takes the end of all of them."""
        return time.monotonic() >= self._left_at + REST_AFTER or not self._is_connected()

    def renew(self, fresh: float = CHECK_FRESH) -> None:
        """Check whether the second connection may be used, and open it, unless that was done `fresh` seconds ago."""
        if time.monotonic() - self._checked_at < fresh:
            return
        with self._lock:
            if time.monotonic() - self._checked_at < fresh or self._closed:
                return
            target = self._target()
            if target is None:
                return  # the connection is in use: try again the next time
            self._checked_at = time.monotonic()
            if target != self._target_of_second(target):
                self._drop()

    def rest(self) -> None:
        """Close the second connection, until `renew` is called again."""
        with self._lock:
            self._checked_at = -CHECK_FRESH
            self._drop()

    def close(self) -> None:
        """Close the second connection for good."""
        self._closed = True
        self.rest()

    def _drop(self) -> None:
        database, self._database = self._database, None
        if database is not None:
            source: Any = database.source
            source.retire()  # a thread may be about to claim there

    def _is_connected(self) -> bool:
        conn = self._source.conn
        try:
            return not conn.closed and not hung_up(conn.fileno())
        except self._source.driver.Error:
            return False  # closed by another thread just now

    def _target(self) -> Rows | None:
        """Return where the application's connection leads; no rows if it needs no second one, or can have none; None if
        it is in use."""
        driver = self._source.driver
        loan = Loan(self._source)
        try:
            conn = loan.acquire(BUSY_TIMEOUT)
            if conn.autocommit:
                return []
            if not driver.idle(conn):
                return None
            with driver.committed(conn):
                return self._usable(driver.run(conn, _SQL["target"], {"table": self._table}))
        except TimeoutError:
            return None
        except driver.Error:
            return []  # of which the next claim tells
        finally:
            loan.release()

    def _target_of_second(self, wanted: Rows) -> Rows | None:
        if not wanted:
            return None
        try:
            if self._database is None and (source := self._open()) is not None:
                self._database = self._home.on(source)
            return None if self._database is None else self._database.execute(_SQL["target"], {"table": self._table})
        except self._source.driver.Error:
            return None  # there are too many connections, say

    def _open(self) -> DsnPool | None:
        driver = self._source.driver
        dsn = driver.dsn_of(self._source.conn)
        try:
            return None if dsn is None else DsnPool(dsn, 1, driver=driver)
        except ValueError:
            return None

    @staticmethod
    def _usable(rows: Rows) -> Rows:
        return [row for row in rows if not row[-1]]


def aside_of(database: Database, table: str) -> Aside | None:
    """Return an `Aside` if the database is reached by a single connection of the application's."""
    source: Any = database.source
    return Aside(database, source, table) if isinstance(source, SingleConnection) else None
