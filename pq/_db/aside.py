"""A second connection for threads that wait on the application's single one.

Outside of autocommit mode a statement of pq's on the application's connection may commit what another thread of the
application executes there at that moment: see `Driver.committed`. Who waits executes many statements, at times that the
application can't know. So these go to a connection that pq opens with the parameters of the application's.

Both must lead to the same table, with the same rights. The application's is asked when a wait begins and nobody else
waits, else once a minute, and at the end of each block of pq's, by its thread, which has the connection. The second
one, whose settings nobody changes, is asked if the answer is another one than before, or a minute old. Where they
differ (a temporary table, a search path, SET ROLE), or where rows depend on settings of the session (row security),
waiting threads use the application's connection, as they do where that could not be found out.
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
from .sources.base import Source
from .sources.dsn import DsnPool
from .sources.single import SingleConnection
from .watchdog import SILENCE

#: Seconds for which the result of a check is used.
CHECK_FRESH = 60.0

#: Seconds that a check waits for either connection.
BUSY_TIMEOUT = 0.05

#: Seconds that a statement of a check may take, which waits for no lock.
CHECK_TIMEOUT = 2.0

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
        self._agreed: Rows = []  # what both have said
        self._agreed_at = -CHECK_FRESH
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
        """`database`, if a claim of this thread is to go there: if it waits. Before, it may just have changed what the
        application's connection sees."""
        return self.database if get_ident() in self._waiting else None

    @property
    def watched(self) -> tuple[int, ...]:
        """The descriptor of the application's connection, if threads sleep on the second one alone: they are to be told
        when it ends."""
        try:
            return () if self.database is None else (self._source.conn.fileno(),)
        except self._source.driver.Error:
            return ()  # closed by another thread just now

    def enter(self) -> None:
        """Say that this thread waits from now on. A second call checks again what could not be checked."""
        alone = not self._waiting
        self._waiting.add(get_ident())
        self.renew(0.0 if alone else CHECK_FRESH)

    def leave(self) -> None:
        """Say that this thread waits no more. A second call does no harm."""
        self._waiting.discard(get_ident())
        self._left_at = time.monotonic()

    @property
    def may_rest(self) -> bool:
        """Whether nobody has waited lately, or the application has closed its connection: it may be about to drop the
        database, which takes the end of all of them."""
        return (not self._waiting and time.monotonic() >= self._left_at + REST_AFTER) or not self._is_connected()

    def renew(self, fresh: float = CHECK_FRESH, held: Any = None) -> None:
        """Check whether the second connection may be used, and open it, unless that was done `fresh` seconds ago.

        :param held: the application's connection, if the caller has it.
        """
        if time.monotonic() - self._checked_at < fresh:
            return
        with self._lock:
            if time.monotonic() - self._checked_at < fresh or self._closed:
                return
            self._checked_at = -CHECK_FRESH
            usable = False
            try:
                target = self._target(held)
                if target is None:  # try again the next time; meanwhile those that wait there may go on
                    usable = fresh > 0
                    return
                found = self._target_of_second(target)
                if found is not None:
                    self._checked_at = time.monotonic()
                    usable = bool(target) and found == target
            finally:
                if not usable or self._closed:
                    self._drop()

    def check_again(self, conn: Any) -> None:
        """Check at the end of a block, which may have changed what the application's connection sees, or may have been
        in the way of a check.

        :param conn: that connection, which the caller has.
        """
        if self._database is not None or self._waiting:
            self.renew(CHECK_FRESH if self._database is None else 0.0, conn)

    def rest(self) -> None:
        """Close the second connection, until `renew` is called again."""
        with self._lock:
            self._checked_at = -CHECK_FRESH
            self._drop()

    def close(self) -> None:
        """Close the second connection for good. Whoever checks it just now does so afterwards."""
        self._closed = True
        self._drop()

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

    def _target(self, held: Any) -> Rows | None:
        """Return where the application's connection leads; no rows if it needs no second one, or can have none; None if
        it is in use."""
        driver = self._source.driver
        loan = Loan(self._source)
        try:
            conn = loan.acquire(BUSY_TIMEOUT) if held is None else held
            if conn.autocommit:
                return []
            if not driver.idle(conn):
                return None
            return self._usable(driver.committed(conn, self._ask))
        except TimeoutError:
            return None
        except driver.Error:
            return []  # of which the next claim tells
        finally:
            loan.release()

    def _target_of_second(self, wanted: Rows) -> Rows | None:
        """Return where the second connection leads; no rows if there can be none; None if it is in use for long, as by
        a claim that waits for a lock: whoever uses it keeps it, and the next check opens another."""
        if not wanted:
            return []
        now = time.monotonic()
        if self._database is not None and self._agreed == wanted and now - self._agreed_at < CHECK_FRESH:
            return wanted
        try:
            if self._database is None and (source := self._open()) is not None:
                self._database = self._home.on(source)
            if self._database is None:
                return []
            found = self._ask_second(self._database.source)
        except TimeoutError:
            return None
        except self._source.driver.Error:
            return []  # there are too many connections, say
        self._agreed, self._agreed_at = found, now
        return found

    def _ask_second(self, source: Source) -> Rows:
        loan = Loan(source)
        try:
            conn = loan.acquire(BUSY_TIMEOUT)
            with source.watchdog.guard(conn, CHECK_TIMEOUT + SILENCE):
                return self._ask(conn)
        finally:
            loan.release()

    def _ask(self, conn: Any) -> Rows:
        limit = f"set local statement_timeout = {CHECK_TIMEOUT * 1000:.0f}; "
        return self._source.driver.run(conn, limit + _SQL["target"], {"table": self._table})

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
