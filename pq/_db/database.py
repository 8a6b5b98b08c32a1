"""Statements and transactions on the connections of a source.

While a block is open in the current context, all that pq executes there on that source is part of its transaction; see
`scope`. Otherwise each statement is a transaction of its own, in one round trip where that can be.
"""

from __future__ import annotations

import math
import time
from contextlib import AbstractContextManager, nullcontext
from logging import getLogger
from typing import Any

from ..errors import ConnectionLost
from .block import Block, Using
from .drivers.base import PING, Driver, Params, Rows
from .drivers.detect import is_engine
from .prepared import Plans
from .scope import current
from .sources.base import Source
from .sources.dsn import DsnPool
from .sources.pools import source_of
from .sources.single import SingleConnection
from .sources.sqlalchemy import EnginePool
from .transaction import Joined
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
        self._given: Joined | None = None
        self._plans = Plans(self.source.driver)
        self._watchdog = Watchdog()
        self._slack = 1

    def bind(self, conn: Any) -> Database:
        """Return a view of this database that executes everything in a transaction of the application's.

        Unlike `using`, nothing is kept in the current context: whoever has the view can use it, in any thread.

        :raises TypeError: `conn` is, or leads to, no connection of a known driver. Where looking for that would begin a
            transaction, the first statement raises it.
        :raises ValueError: `conn` is a server-side cursor.
        """
        view = object.__new__(type(self))
        view.__dict__.update(self.__dict__)
        view._given = Joined(self.source, self.table, conn)
        return view

    @property
    def is_view(self) -> bool:
        """Whether `bind` has made this."""
        return self._given is not None

    @property
    def current(self) -> Any:
        """The transaction that statements belong to now, or None if each is one of its own.

        :raises BlockError: there is one that must not be used from here.
        """
        return current(self.source) if self._given is None else self._given

    @property
    def driver(self) -> Driver:
        """The driver of the connection that executes the next statement."""
        transaction = self.current
        driver: Driver = self.source.driver if transaction is None else transaction.driver
        return driver

    @property
    def in_transaction(self) -> bool:
        """Whether what is executed now is not committed at once."""
        transaction = self.current
        return transaction is not None and not transaction.commits_at_once

    @property
    def joined(self) -> Joined | None:
        """The application's transaction, or its connection in autocommit mode, that statements go to now."""
        transaction = self.current
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
        """Execute one statement, in the current transaction if there is one.

        :param timeout: the seconds that the caller has; only on connections that pq opened itself. Some seconds later,
            the statement is given up; if the server does not answer at all, the connection is cut. None waits.
        :param lock_timeout: seconds after which it fails if it waits for a lock; not in a transaction.
        :param prepare: it is one that may be worth a prepared statement. In a transaction it would be a risk.
        :raises TimeoutError: it was given up, and nothing is done: the server held it up, or no connection was free.
        :raises ConnectionLost: nothing was changed.
        :raises CommitUnknown: the connection was lost, and with it the knowledge whether the statement took effect.
        :raises TableMissing: the table is not there.
        """
        bound = self._bound(timeout)
        transaction = self.current
        if transaction is not None:
            with self._guard(transaction.conn, bound if transaction.owned else None):
                found: Rows = transaction.run(sql, params)
            if transaction.commits_at_once:
                self.source.executed(sql)
            return found
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
                self.source.executed(sql)
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

    def transaction(self, opener: object = None, **cursor_kwargs: Any) -> Block:
        """Return a context manager: one transaction for all that this context does inside; its value is a cursor.

        Inside of another transaction it is a savepoint.

        :param opener: who enters the block, for `scope.entered_by`.
        :param cursor_kwargs: arguments of the connection's ``cursor()``.
        """
        return Block(self, opener, cursor_kwargs)

    def grouped(self) -> AbstractContextManager[Any]:
        """Return a context manager for statements that belong together: a transaction, or the one that the application
        has open, without a savepoint, of which many would slow down the server."""
        if self.joined is None:
            return self.transaction()
        self.require_transaction("what takes several statements")
        return nullcontext()

    def using(self, conn: Any, savepoint: bool = False) -> AbstractContextManager[None]:
        """Return a context manager: the current context executes in a transaction of the application's; None changes
        nothing. The errors are those of `bind`."""
        if self.is_view:
            raise TypeError("this PQ was made by bind() and has its connection: call bind() of the PQ itself")
        return nullcontext() if conn is None else Using(self, Joined(self.source, self.table, conn), savepoint)

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
        """COPY from a file, in the current transaction, which there must be; returns the number of rows."""
        count: int = self.current.copy(sql, file)
        return count

    # -- the end

    def close(self) -> None:
        """Close all connections, those given to pq, too."""
        self.source.close()
        self._watchdog.close()
