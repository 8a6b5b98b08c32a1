"""Statements and transactions on the connections of a source.

While a block is open in the current context, all that pq executes there on that source is part of its transaction; see
`scope`. Otherwise each statement is a transaction of its own, in one round trip where that can be.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from .._times import Delay, wait_of
from .block import Block, Using
from .drivers.base import PING, Driver, Params, Rows, Statement
from .drivers.detect import driver_of, is_dsn, is_engine
from .execute import Executor
from .joined import Joined
from .scope import current
from .sources.base import Source
from .sources.dsn import DsnPool
from .sources.pools import source_of
from .sources.single import SingleConnection
from .sources.sqlalchemy import EnginePool


class Database:
    """What the rest of pq knows of a database.

    :param conn: a connection of psycopg2 or psycopg 3, or a DSN, or a function that returns one.
    :param pool: a pool of psycopg2, or of psycopg_pool; takes precedence.
    :param table: the quoted name of the queue table, for error messages.
    :param max_connections: for a DSN: how many connections pq opens at most.
    :param statement_timeout: for a DSN: seconds that a statement of pq's may take; None: no limit.
    :raises TypeError: `conn` or `pool` is something else.
    :raises ValueError: a DSN is malformed, or a limit is out of range.
    """

    def __init__(
        self,
        conn: Any,
        pool: Any,
        table: str,
        max_connections: int = 10,
        statement_timeout: Delay | None = 30.0,
    ) -> None:
        limit = wait_of(statement_timeout, "statement_timeout")
        if limit < 0.001:
            raise ValueError(f"statement_timeout must be at least 0.001 seconds, or None: {statement_timeout!r}")
        self.conn = conn
        self.pool = pool
        self.table = table
        self.source: Source
        if is_engine(given := conn if pool is None else pool):
            self.source = EnginePool.of(given)
        elif pool is not None:
            self.source = source_of(pool)
        elif is_dsn(conn):
            self.source = DsnPool(conn, max_connections, None if limit == math.inf else limit)
        else:
            driver_of(conn)  # before `of`, which needs an object that can be a key
            self.source = SingleConnection.of(conn)
        self._given: Joined | None = None
        self._executor = Executor(self.source, table)

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

    def reserve(self) -> Database | None:
        """Return a view of this database with a connection of its own; the errors are those of `Source.reserve`.

        Close its source in the end. None if there is no second connection.
        """
        source = self.source.reserve()
        return None if source is None else self.on(source)

    def on(self, source: Source) -> Database:
        """Return a view of this database with other connections."""
        view = object.__new__(type(self))
        view.__dict__.update(self.__dict__, source=source, _executor=Executor(source, self.table))
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
    def stays_open(self) -> bool:
        """Whether what is executed now is part of a transaction that goes on.

        On the connection that PQ was given that is also one which the application has begun there by SQL, in autocommit
        mode: any other one pq commits.
        """
        if self.in_transaction:
            return True
        source, conn = self.source, self.source.conn
        is_own = conn is None or self.current is not None or conn.closed
        return not is_own and bool(conn.autocommit) and not source.driver.idle(conn)

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
        patient: bool = False,
    ) -> Rows:
        """Execute one statement, in the current transaction if there is one.

        :param timeout: the seconds that the caller has; not on a connection of the application's. Some seconds later
            the statement is given up and, if the server does not answer at all, the connection is cut. None: it may
            take as long as `statement_timeout` says.
        :param lock_timeout: seconds after which it fails if it waits for a lock; outside of a transaction only.
        :param prepare: it may be worth a prepared statement, where that is no risk: outside of a transaction, or as its
            first statement.
        :param patient: it may take as long as the server works on it.
        :raises TimeoutError: with `timeout`: it was given up, and nothing was done, since the server held it up or no
            connection was free.
        :raises StatementTimeout: it took longer than `statement_timeout`; nothing was done.
        :raises ConnectionLost: nothing was changed.
        :raises CommitUnknown: the connection was lost, and with it the knowledge whether the statement took effect.
        :raises TableMissing: the table is not there.
        """
        transaction = self.current
        if transaction is None:
            return self._executor.execute(sql, params, timeout, lock_timeout, prepare, patient)
        rows: Rows
        if not transaction.owned:
            rows = transaction.run(sql, params)
            if transaction.commits_at_once:
                self.source.executed(sql)
            return rows
        try:
            bound = self._executor.bound(timeout)
            if bound is None or bound <= (self.source.statement_timeout or 0):
                rows = transaction.run(sql, params, bound, prepare)
                return rows
            with self.source.guard(transaction.conn, bound):
                rows = transaction.run(sql, params, None, prepare)
                return rows
        except self.source.driver.Error as error:
            self.source.note(transaction.conn, error)
            raise

    # -- transactions

    def transaction(self, opener: object = None, first: Statement | None = None, **cursor_kwargs: Any) -> Block:
        """Return a context manager: one transaction for all that this context does inside; its value is a cursor.

        Inside of another transaction it is a savepoint.

        :param opener: who enters the block, for `scope.block_of`.
        :param first: the statement that it begins with, in the same message; `Block.rows` has its rows.
        :param cursor_kwargs: arguments of the connection's ``cursor()``.
        """
        return Block(self, opener, cursor_kwargs, first)

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
        if conn is None:
            return nullcontext()
        if self.is_view:
            raise TypeError("this PQ was made by bind() and has its connection: call bind() of the PQ itself")
        return Using(self, Joined(self.source, self.table, conn), savepoint)

    def require_transaction(self, what: str) -> None:
        """
        :raises ValueError: the connection that the application has us use is in autocommit mode.
        """
        transaction = self.current
        if transaction is None or transaction.owned or not transaction.commits_at_once:
            return
        transaction.run(PING)  # in `with conn:` psycopg2 begins with the first statement, and tells no sooner
        if transaction.commits_at_once:
            raise ValueError(f"{what} needs a transaction, but the connection given is in autocommit mode: begin one")

    def copy(self, sql: str, file: Any) -> int:
        """COPY from a file, in the current transaction, which there must be; returns the number of rows."""
        count: int = self.current.copy(sql, file)
        return count

    # -- the end

    def close(self) -> None:
        """Close all connections, those given to pq, too."""
        self.source.close()
