"""Statements and transactions on the connections of a source.

A transaction belongs to a thread and a connection. While a thread has one open, all that pq executes in that thread on
that source is part of it; otherwise each statement is a transaction of its own, in one round trip where that can be.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from .psycopg2_driver import Psycopg2
from .sources import ConnectionPool, OwnConnections, SingleConnection, Source
from .waiting import Polling, Waiter, WaitingRoom
from .watchdog import Watchdog

Params = Mapping[str, Any]
Rows = list[tuple[Any, ...]]

#: How often a statement of its own is tried again after a deadlock or serialization failure.
ATTEMPTS = 5

#: Seconds that a bounded statement may take beyond the caller's deadline before its connection is cut.
GRACE = 5.0


class Database:
    """What the rest of pq knows of a database.

    :param conn: a psycopg2 connection, or a DSN.
    :param pool: a psycopg2 pool; takes precedence.
    :param table: the quoted name of the queue table, for error messages and for waiting.
    :param max_connections: bound on the connections that pq opens itself, for a DSN.
    :param poll_interval: seconds; how long a waiter sleeps at most before it looks again.
    :param listen_dsn: where to listen, if not with the parameters of the other connections.
    :raises TypeError: `conn` or `pool` is something else.
    :raises ValueError: the DSN is malformed.
    """

    def __init__(
        self,
        conn: Any,
        pool: Any,
        table: str,
        *,
        max_connections: int = 10,
        poll_interval: float = 1.0,
        listen_dsn: str | None = None,
    ) -> None:
        self.conn = conn
        self.pool = pool
        self.table = table
        self.source: Source
        if pool is not None:
            self.source = ConnectionPool(pool)
        elif isinstance(conn, str):
            self.source = OwnConnections(conn, max_connections)
        else:
            self.source = SingleConnection.of(conn)
        self.poll_interval = poll_interval
        self._room = WaitingRoom(self.source, table, poll_interval, listen_dsn)
        self._watchdog = Watchdog()
        self._pid = os.getpid()

    @property
    def driver(self) -> Psycopg2:
        return self.source.driver

    @property
    def in_transaction(self) -> bool:
        """Whether this thread has a transaction open."""
        return self.source.transaction is not None

    # -- statements

    def execute(self, sql: str, params: Params | None = None, *, timeout: float | None = None) -> Rows:
        """Execute one statement, in this thread's transaction if there is one.

        :param timeout: seconds after which an answer that has not come is no longer waited for; only on connections
            that pq opened itself. None waits.
        :raises ConnectionLost: nothing was changed.
        :raises CommitUnknown: the connection was lost, and with it the knowledge whether the statement took effect.
        :raises TableMissing: the table is not there.
        """
        transaction = self.source.transaction
        if transaction is not None:
            return transaction.run(sql, params)
        attempt = 1
        while True:
            conn = self.source.acquire()
            lost = False
            try:
                with self._guard(conn, timeout), self.driver.committed(conn):
                    return self.driver.run(conn, sql, params)
            except self.driver.Error as error:
                lost = self.driver.is_lost(conn, error)
                refused = self.driver.was_refused(error)
                if attempt < ATTEMPTS and not lost and self.driver.may_be_repeated(error):
                    attempt += 1
                elif attempt == 1 and lost and refused and self.source.replaceable:
                    attempt = ATTEMPTS  # the server said goodbye before it did anything: once more, on another one
                else:
                    self._raise(conn, error, lost, refused)
            finally:
                self.source.release(conn, lost)

    def _guard(self, conn: Any, timeout: float | None) -> AbstractContextManager[None]:
        if timeout is None or not self.source.owned:
            return nullcontext()
        if self._pid != os.getpid():
            self._pid, self._watchdog = os.getpid(), Watchdog()  # its thread stayed with the parent
        return self._watchdog.guard(conn, timeout + GRACE)

    def _raise(self, conn: Any, error: Exception, lost: bool, refused: bool) -> None:
        if lost and refused:
            self.driver.raise_lost(error, "the server closed the connection; nothing was changed")
        if lost:
            self.driver.raise_commit_unknown(error)
        if self.driver.table_is_missing(error):
            self.driver.raise_table_missing(error, self.table, self.driver.database_name(conn))
        raise error

    # -- transactions

    @contextmanager
    def transaction(self, **cursor_kwargs: Any) -> Iterator[Any]:
        """One transaction for all that this thread does inside; its value is a cursor. Inside another: a savepoint.

        :param cursor_kwargs: arguments of the connection's ``cursor()``.
        """
        outer = self.source.transaction
        if outer is not None:
            with outer.savepoint(), outer.conn.cursor(**cursor_kwargs) as cursor:
                yield cursor
            return
        transaction = Transaction(self)
        try:
            with transaction.conn.cursor(**cursor_kwargs) as cursor:
                yield cursor
        except BaseException:
            transaction.rollback()
            raise
        transaction.commit()

    def changed(self) -> None:
        """Call after a put: its commit may have to wake a waiter of this process."""
        if self.source.transaction is not None:
            self.source.transaction.changed = True
        else:
            self.source.changed()

    # -- waiting

    def waiter(self, queue: str) -> Waiter | Polling:
        """A place to wait for a queue; a context manager."""
        if isinstance(self.source, SingleConnection) and self.in_transaction:
            return Polling(self, self.poll_interval, queue)  # the only connection hears nothing in a transaction
        return self._room.enter(queue)

    # -- the end

    def close(self) -> None:
        """Close all connections, those given to pq, too."""
        self._room.close()
        self.source.close()
        if self._pid == os.getpid():
            self._watchdog.close()


class Transaction:
    """A transaction that a thread has open on a connection."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._source = database.source
        self._driver = database.driver
        self._pid = os.getpid()
        self._depth = 0
        self.changed = False
        self.conn = self._begin()
        self._source.transaction = self

    def _begin(self) -> Any:
        """Begin, on another connection if the first turns out to be lost."""
        once_more = self._source.replaceable
        while True:
            conn = self._source.acquire()
            try:
                self._driver.begin(conn)
                return conn
            except BaseException as error:
                lost = self._driver.is_lost(conn, error)
                self._source.release(conn, lost)
                if not lost or not once_more:
                    raise
            once_more = False

    def run(self, sql: str, params: Params | None) -> Rows:
        try:
            return self._driver.run(self.conn, sql, params)
        except self._driver.Error as error:
            if self._driver.is_lost(self.conn, error):
                self._driver.raise_lost(error, "the connection was lost; the transaction was rolled back")
            if self._driver.table_is_missing(error):
                self._driver.raise_table_missing(error, self._database.table, self._driver.database_name(self.conn))
            raise

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        name = f"pq_{self._depth}"
        self.run(f"savepoint {name}", None)
        self._depth += 1
        try:
            yield
        except BaseException:
            self._depth -= 1
            if not self.conn.closed and self._pid == os.getpid():
                self.run(f"rollback to savepoint {name}", None)
            raise
        self._depth -= 1
        self.run(f"release savepoint {name}", None)

    def commit(self) -> None:
        if self._pid != os.getpid():
            return  # a child left the block: the transaction is its parent's
        lost = False
        try:
            self._driver.commit(self.conn)
        except BaseException as error:
            lost = self._driver.is_lost(self.conn, error)
            if lost and not self._driver.was_refused(error):
                self._driver.raise_commit_unknown(error)
            self._driver.rollback(self.conn)
            raise
        finally:
            self._end(lost)
        if self.changed:
            self._source.changed()

    def rollback(self) -> None:
        if self._pid != os.getpid():
            return
        try:
            self._driver.rollback(self.conn)
        finally:
            self._end(bool(self.conn.closed))

    def _end(self, lost: bool) -> None:
        self._source.transaction = None
        self._source.release(self.conn, lost)
