"""Statements and transactions on the connections of a source.

A transaction belongs to a thread and a connection. While a thread has one open, all that pq executes in that thread on
that source is part of it; otherwise each statement is a transaction of its own, in one round trip where that can be.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from logging import getLogger
from typing import Any

from ..errors import ConnectionLost
from .drivers.base import PING, Driver, Params, Rows
from .drivers.detect import is_engine
from .prepared import Plans
from .sources.base import Source
from .sources.dsn import DsnPool
from .sources.pools import source_of
from .sources.single import SingleConnection
from .sources.sqlalchemy import EnginePool
from .transaction import Joined, OwnTransaction
from .watchdog import Watchdog

logger = getLogger("pq")

#: How often a statement of its own is tried again after a deadlock or serialization failure.
ATTEMPTS = 5

READ_COMMITTED = "set transaction isolation level read committed; "

#: Seconds that a statement may take beyond the caller's timeout before the server is to give it up.
GRACE = 4.0

#: Seconds later that the connection is cut: the server does not answer at all.
SILENCE = 2.0

#: Longer bounds, in seconds, are none.
LONGEST = 1e6


class Database:
    """What the rest of pq knows of a database.

    :param conn: a connection of psycopg2 or psycopg 3, or a DSN.
    :param pool: a pool of psycopg2, or of psycopg_pool; takes precedence.
    :param table: the quoted name of the queue table, for error messages.
    :param max_connections: bound on the connections that pq opens itself, for a DSN.
    :raises TypeError: `conn` or `pool` is something else.
    :raises ValueError: a DSN is malformed.
    """

    def __init__(
        self,
        conn: Any,
        pool: Any,
        table: str,
        *,
        max_connections: int = 10,
    ) -> None:
        self.conn = conn
        self.pool = pool
        self.table = table
        self.source: Source
        if is_engine(given := conn if pool is None else pool):
            self.source = EnginePool.of(given)
        elif pool is not None:
            self.source = source_of(pool)
        elif isinstance(conn, str):
            self.source = DsnPool(conn, max_connections)
        else:
            self.source = SingleConnection.of(conn)
        self._plans = Plans(self.driver)
        self._watchdog = Watchdog()
        self._slack = 1

    @property
    def driver(self) -> Driver:
        """Of the connection on which this thread executes."""
        transaction = self.source.transaction
        return self.source.driver if transaction is None else transaction.driver

    @property
    def in_transaction(self) -> bool:
        """Whether what this thread executes is not committed at once."""
        transaction = self.source.transaction
        return transaction is not None and not transaction.commits_at_once

    @property
    def joined(self) -> Joined | None:
        """The application's transaction, or its connection in autocommit mode, that this thread executes on."""
        transaction = self.source.transaction
        return transaction if isinstance(transaction, Joined) else None

    # -- statements

    def execute(
        self,
        sql: str,
        params: Params | None = None,
        *,
        timeout: float | None = None,
        lock_timeout: float | None = None,
        prepare: bool = False,
    ) -> Rows:
        """Execute one statement, in this thread's transaction if there is one.

        :param timeout: the seconds that the caller has; only on connections that pq opened itself. Some seconds later,
            the statement is given up; if the server does not answer at all, the connection is cut. None waits.
        :param lock_timeout: seconds after which it fails if it waits for a lock; not in this thread's transaction.
        :param prepare: it is one that may be worth a prepared statement. In a transaction it would be a risk.
        :raises TimeoutError: it was given up, and nothing is done: the server held it up, or no connection was free.
        :raises ConnectionLost: nothing was changed.
        :raises CommitUnknown: the connection was lost, and with it the knowledge whether the statement took effect.
        :raises TableMissing: the table is not there.
        """
        bound = self._bound(timeout)
        transaction = self.source.transaction
        if transaction is not None:
            with self._guard(transaction.conn, None if self.joined else bound):
                return transaction.run(sql, params)
        changes = not sql.startswith("select")
        # the server must give up before we do: what it went on with after that, nobody would hear of
        before = "" if bound is None else f"set local statement_timeout = {bound * 1000:.0f}; "
        if lock_timeout is not None:
            before += f"set local lock_timeout = {lock_timeout * 1000:.0f}; "
        deadline = math.inf if bound is None else time.monotonic() + bound
        attempt = 1
        while True:
            conn = self.source.acquire(bound)
            lost = False
            try:
                alone = self.driver.idle(conn)  # otherwise the application has a transaction open, which we'd lose
                with self._guard(conn, bound), self.driver.committed(conn):
                    text = before + (self._plans.text(conn, sql) if prepare and alone else sql)
                    if changes and alone and conn.autocommit and self.source.is_doubtful(conn):
                        rows = self.driver.run_and_commit(conn, text, params)
                    else:
                        rows = self.driver.run(conn, text, params)
                self.source.proved(conn)
                if bound is not None:
                    self._slack = 1
                return rows
            except self.driver.Error as error:
                lost = self.driver.is_lost(conn, error)
                if alone and not lost and attempt < ATTEMPTS and self.driver.may_be_repeated(error):
                    attempt += 1
                    if not before.startswith(READ_COMMITTED):  # at a stricter default it might only fail again
                        before = READ_COMMITTED + before
                elif alone and self.driver.is_unprepared(error) and self._plans.lost(conn):
                    pass  # at once, without
                elif attempt == 1 and self._is_replaced(conn, error, changes) and time.monotonic() < deadline:
                    attempt = ATTEMPTS  # once more
                elif bound is not None and self.driver.was_canceled(error):
                    # a locked table, or a statement that takes so long: allow the next one more, lest none succeeds
                    self._slack = min(2 * self._slack, 64)
                    logger.warning("a statement was cancelled after %.0f seconds", bound)
                    raise TimeoutError from error
                else:
                    self.driver.fail(conn, error, changes, self.table)
            finally:
                self.source.release(conn, lost)

    def _is_replaced(self, conn: Any, error: Exception, changes: bool) -> bool:
        """Whether the connection is lost, another takes its place, and the statement was certainly not committed."""
        certain = not changes or isinstance(error, ConnectionLost)
        return certain and self.source.replaceable and self.driver.is_lost(conn, error)

    def _bound(self, timeout: float | None) -> float | None:
        if timeout is None or not self.source.owned:
            return None
        bound = (timeout + GRACE) * self._slack
        return bound if bound < LONGEST else None

    def _guard(self, conn: Any, bound: float | None) -> AbstractContextManager[None]:
        return nullcontext() if bound is None else self._watchdog.guard(conn, bound + SILENCE)

    # -- transactions

    @contextmanager
    def transaction(self, **cursor_kwargs: Any) -> Iterator[Any]:
        """One transaction for all that this thread does inside; its value is a cursor. Inside another: a savepoint.

        :param cursor_kwargs: arguments of the connection's ``cursor()``.
        """
        outer = self.source.transaction
        if outer is not None:
            self.require_transaction("a block")
            with outer.savepoint(), outer.conn.cursor(**cursor_kwargs) as cursor:
                yield cursor
            return
        transaction = OwnTransaction(self.source, self.table)
        try:
            with transaction.conn.cursor(**cursor_kwargs) as cursor:
                yield cursor
        except BaseException:
            transaction.rollback()
            raise
        transaction.commit()

    def grouped(self) -> AbstractContextManager[Any]:
        """For statements that belong together: a transaction, or the one that the application has open, without a
        savepoint, of which many would slow down the server."""
        if self.joined is None:
            return self.transaction()
        self.require_transaction("what takes several statements")
        return nullcontext()

    def using(self, conn: Any, savepoint: bool = False) -> AbstractContextManager[None]:
        """Have this thread execute in a transaction of the application's; None changes nothing.

        :raises TypeError: `conn` is, or leads to, no connection of a known driver. Where to look for that would begin a
            transaction, the first statement raises it.
        :raises ValueError: it is a server-side cursor.
        """
        return nullcontext() if conn is None else self._using(Joined(self.source, self.table, conn), savepoint)

    @contextmanager
    def _using(self, joined: Joined, savepoint: bool) -> Iterator[None]:
        self.source.transaction = joined
        try:
            if savepoint:
                self.require_transaction("a savepoint")
            with joined.savepoint() if savepoint else nullcontext():
                yield
        finally:
            self.source.leave(joined)

    def require_transaction(self, what: str) -> None:
        """
        :raises ValueError: the connection that the application has us use is in autocommit mode.
        """
        joined = self.joined
        if joined is None or not joined.commits_at_once:
            return
        joined.run(PING)  # in `with conn:` psycopg2 begins with the first statement, and tells no sooner
        if joined.commits_at_once:
            raise ValueError(f"{what} needs a transaction, but the connection given is in autocommit mode: begin one")

    def copy(self, sql: str, file: Any) -> int:
        """COPY from a file, in this thread's transaction; returns the number of rows."""
        assert self.source.transaction is not None
        return self.source.transaction.copy(sql, file)

    def changed(self) -> None:
        """Call after a put: its commit may have to wake a waiter of this process."""
        if self.in_transaction and self.source.transaction is not None:
            self.source.transaction.changed = True
        else:
            self.source.changed()

    # -- the end

    def close(self) -> None:
        """Close all connections, those given to pq, too."""
        self.source.close()
        self._watchdog.close()
