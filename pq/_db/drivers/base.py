"""What pq needs of a driver, and what both drivers share: transactions are known by the state of the connection, errors
by their SQLSTATE."""

from __future__ import annotations

import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Container, Mapping
from copy import copy
from typing import Any, TypeVar

from ... import errors
from ..sockets import readable
from . import dsn as dsns
from .errors import Errors, both
from .limits import Limits, Timed

T = TypeVar("T")

Params = Mapping[str, Any]
Rows = list[tuple[Any, ...]]

#: SQL and its parameters.
Statement = tuple[str, Params]

# libpq's, which all drivers have
_IDLE, _ACTIVE, _OPEN, _FAILED = range(4)

# Does nothing, not even take a snapshot
PING = "show transaction_isolation"


class Driver(Errors, ABC):
    """One driver package. Get it by `detect`."""

    #: Whether its pools wait for a connection themselves.
    pools_wait = False

    #: Whether a thread may sleep until there is a job: not where that would stop an event loop.
    can_wait = True

    #: Limits of the connections that it is used for.
    limits: Limits | None = None

    def __init__(self, package: Any, pool_error: type[Exception]) -> None:
        self._package = package
        self.Error: type[Exception] = package.Error
        self.PoolError: type[Exception] = pool_error

    def limited(self, limits: Limits | None) -> Driver:
        """Return the same driver for connections that have these limits, or none."""
        driver = copy(self)
        driver.limits = limits
        return driver

    # -- what differs

    @abstractmethod
    def _parse(self, dsn: str) -> dict[str, str]:
        """Return the parameters of a DSN, or raise the driver's ProgrammingError."""

    @abstractmethod
    def _open(self, parameters: dict[str, str]) -> Any:
        """Return a connection in autocommit mode."""

    @abstractmethod
    def _parameters_of(self, conn: Any) -> dict[str, str] | None:
        """Return the parameters that a connection was opened with; None if they can't be known."""

    @abstractmethod
    def backend_pid(self, conn: Any) -> int:
        """Return the id of the server process, as it was told when the connection was made. A pooler makes one up."""

    @abstractmethod
    def _status(self, conn: Any) -> int:
        """Return libpq's transaction status."""

    @abstractmethod
    def is_plain(self, conn: Any) -> bool:
        """Return whether the application has set no isolation level or the like for the connection's transactions."""

    @abstractmethod
    def _begin(self, conn: Any) -> str:
        """Return the statement that begins a transaction on a connection in autocommit mode."""

    @abstractmethod
    def _run(self, conn: Any, sql: str, params: Any) -> list[tuple[Any, ...]]:
        """See `run`."""

    @abstractmethod
    def mogrify(self, conn: Any, sql: str, params: Any) -> str:
        """Return a statement with its parameters in it."""

    @abstractmethod
    def _copy(self, conn: Any, sql: str, file: Any) -> int:
        """See `copy`."""

    @abstractmethod
    def listen(self, conn: Any) -> None:
        """Keep what arrives for pq until `notified` takes it. Call this before LISTEN."""

    @abstractmethod
    def receive(self, conn: Any) -> None:
        """Read what has arrived from the socket. Only for a connection that nothing else uses."""

    @abstractmethod
    def has_notified(self, conn: Any, channels: Container[str]) -> bool:
        """Whether a notification of these channels has been read from the socket already."""

    @abstractmethod
    def take(self, conn: Any, channels: Container[str]) -> set[str]:
        """The channels of these that were notified; forgotten with this call. Others stay for their owner."""

    # -- connections

    def parameters(self, dsn: str) -> dict[str, str]:
        """Return the parameters of a DSN.

        :raises ValueError: it is malformed. The message does not quote it: it may hold a password.
        """
        return dsns.parsed(dsn, self._parse, self._package.ProgrammingError)

    def connect(self, dsn: str) -> Any:
        """Return a connection in autocommit mode.

        :raises ValueError: `dsn` is malformed.
        :raises ConnectionFailed: the server can't be reached, or refuses.
        """
        given = self.parameters(dsn)
        try:
            return self._open({**dsns.defaults(given, os.environ), **given})
        except self._package.OperationalError as error:
            raise both(errors.ConnectionFailed, self._package.OperationalError)(str(error).strip()) from error

    def clone(self, conn: Any) -> Any:
        """Return a second connection with the parameters of the first, in autocommit mode; None if they are unknown."""
        parameters = self._parameters_of(conn)
        return None if parameters is None else self._open({**dsns.defaults(parameters, os.environ), **parameters})

    def dsn_of(self, conn: Any) -> str | None:
        """Return a DSN with the parameters that a connection was opened with; None if they are unknown."""
        parameters = self._parameters_of(conn)
        return None if parameters is None else dsns.compose(parameters)

    def alive(self, conn: Any) -> bool:
        """Return whether a connection is still open.

        The server is asked only if it has sent something meanwhile: a notification, or a farewell, after which the
        connection may last a moment. The socket itself is never read here: that would take the answer to what another
        thread of the application executes.
        """
        try:
            if not conn.closed and self._status(conn) != _ACTIVE and readable(conn.fileno()):
                if self.idle(conn):
                    self.committed(conn, self.run, PING)
                else:
                    self.run(conn, PING)
        except self.Error:
            pass  # a transaction that has failed, unless:
        return not conn.closed

    def backend_is_hidden(self, conn: Any) -> bool:
        """Return whether a transaction pooler stands between: the next statement may meet another server session."""
        return self.run(conn, "select pg_backend_pid()") != [(self.backend_pid(conn),)]

    # -- statements

    def run(self, conn: Any, sql: str, params: Any = None, limit: float | None = None) -> list[tuple[Any, ...]]:
        """Execute statements in one message, and return the rows of the last one (none if it returns nothing).

        :param limit: the seconds after which the server gives them up, if the caller knows; see `Limits.guard`.
        """
        if self.limits is None:
            return self._run(conn, sql, params)
        with self.limits.guard(conn, limit):
            return self._run(conn, sql, params)

    def copy(self, conn: Any, sql: str, file: Any) -> int:
        """COPY from a file, which has `read`, and return the number of rows."""
        if self.limits is None:
            return self._copy(conn, sql, file)
        with self.limits.guard(conn) as guard:
            return self._copy(conn, sql, Timed(file, guard))

    def run_and_commit(self, conn: Any, sql: str, params: Any = None) -> list[tuple[Any, ...]]:
        """Execute and commit in two round trips. If the connection is lost in the first one, nothing was changed.

        :param conn: an idle connection. Outside of autocommit mode the caller commits.
        :raises ConnectionLost: COMMIT was not sent.
        """
        if not conn.autocommit:
            return self.run(conn, sql, params)
        rows = None
        try:
            rows = self.run(conn, f"begin; {sql}", params)
            self.run(conn, "commit")
            return rows
        except BaseException as error:
            if rows is None and isinstance(error, self.Error) and self.is_lost(conn, error):
                self.raise_lost(error)
            self.rollback(conn)
            raise

    def committed(self, conn: Any, action: Callable[..., T], *args: Any) -> T:
        """Call ``action(conn, *args)``, and commit what it executes, and with it what the application had begun before.

        Where possible there is no BEGIN and COMMIT around, which saves two of three round trips. But the isolation
        level of a connection would not hold that way, or psycopg2 would write it to the session. This is no context
        manager: an interrupt may come when one has been called to end, and before its first line.
        """
        if conn.autocommit:
            return action(conn, *args)
        if self.idle(conn) and self.is_plain(conn):
            try:
                try:
                    conn.autocommit = True
                    found = action(conn, *args)
                    if not self.idle(conn):  # in psycopg2's `with conn:`
                        self.commit(conn)
                    return found
                finally:
                    self._switch_off(conn)
            finally:
                self._switch_off(conn)  # an interrupt may have come before the first of these two
        try:
            found = action(conn, *args)
        except BaseException as error:
            self.rollback(conn)
            if self.is_lost(conn, error):
                self.raise_lost(error)  # certainly: COMMIT was not sent
            raise
        self.commit(conn)
        return found

    def _switch_off(self, conn: Any) -> None:
        """Leave autocommit mode."""
        if not conn.closed and conn.autocommit:
            if not self.idle(conn):  # interrupted: out of autocommit mode, psycopg2 would not know of the transaction
                self.rollback(conn)
            conn.autocommit = False

    # -- transactions

    def idle(self, conn: Any) -> bool:
        return self._status(conn) == _IDLE

    def works(self, conn: Any) -> bool:
        """Whether a transaction is open in which no statement has failed."""
        return self._status(conn) == _OPEN

    def begin(self, conn: Any, now: bool) -> None:
        """Begin a transaction, unless the application has one open.

        :param now: outside of autocommit mode a driver begins with the first statement: execute one.
        """
        if sql := self.beginning(conn) or (PING if now else ""):
            self.run(conn, sql)

    def beginning(self, conn: Any) -> str:
        """Return the SQL that begins a transaction, to stand in front of its first statement; none if the driver begins
        it, or the application has one open."""
        if not (conn.autocommit and self.idle(conn)):
            return ""
        return self._begin(conn) + ("" if self.limits is None else self.limits.lift(conn))

    def _by_sql(self, conn: Any) -> bool:
        """Whether a transaction of this connection was begun by a statement, and not by the driver."""
        return bool(conn.autocommit)

    def commit(self, conn: Any) -> None:
        """
        :raises Error: a statement of the transaction has failed: the server would roll back without a word.
        """
        if self._status(conn) == _FAILED:
            self.run(conn, PING)
        if self._by_sql(conn):
            self.run(conn, "commit")
        else:
            conn.commit()

    def rollback(self, conn: Any) -> None:
        if sys.is_finalizing():
            return  # blocks of threads that have ended are left now, and those may have left the connection locked
        try:
            if not self._by_sql(conn):
                conn.rollback()
            elif not self.idle(conn):
                self.run(conn, "rollback")
        except self.Error:
            pass  # the connection is gone, and the transaction with it

    # -- notifications

    def notified(self, conn: Any, channels: Container[str]) -> set[str]:
        """Take the notifications of these channels that have arrived. Others stay for their owner."""
        if readable(conn.fileno()):
            self.run(conn, PING)  # which reads them; see `alive`
        return self.take(conn, channels)
