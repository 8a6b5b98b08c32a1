"""What pq needs of a driver, and what is the same with each: transactions by the state of the connection, errors by
their SQLSTATE."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Container, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, NoReturn

from ... import errors
from ..sockets import readable
from . import dsn as dsns
from .errors import Raising, both

#: Options of the connections that pq opens; a DSN overrides them. A peer that vanished is given up
#: after about five seconds, be it in the middle of a statement (tcp_user_timeout, ms) or between two (keepalives, s).
CONNECT = {
    "connect_timeout": "5",
    "keepalives_idle": "5",
    "keepalives_interval": "2",
    "keepalives_count": "2",
    "tcp_user_timeout": "5000",
    "client_encoding": "UTF8",
    "fallback_application_name": "pq",
}

# SQLSTATEs: the table or a column of it is missing; the transaction may simply be tried again
_UNDEFINED = ("42P01", "42703")
_AGAIN = ("40001", "40P01")
_INVALID_TEXT, _LOCK_TIMEOUT, _CANCELED = "22P02", "55P03", "57014"
# no such prepared statement; one too many; its result has changed
_UNPREPARED = ("26000", "42P05", "0A000")
_REFUSED = ("42501", "25006")

Params = Mapping[str, Any]
Rows = list[tuple[Any, ...]]

# libpq's, which all drivers have
_IDLE, _ACTIVE, _FAILED = 0, 1, 3

# Does nothing, not even take a snapshot
PING = "show transaction_isolation"


class Driver(Raising, ABC):
    """One driver package. Get it by `drivers`.

    :ivar Error: the base of its errors.
    :ivar PoolError: the base of those of its pools.
    :ivar Unavailable: what may be different the next time.
    """

    #: Whether its pools wait for a connection themselves.
    pools_wait = False

    #: Whether a thread may sleep until there is a job: not where that would stop an event loop.
    can_wait = True

    def __init__(self, package: Any, pool_error: type[Exception]) -> None:
        self._package = package
        self.Error: type[Exception] = package.Error
        self.PoolError = pool_error
        self.Unavailable: tuple[type[Exception], ...] = (package.OperationalError, package.InterfaceError, pool_error)

    # -- what differs

    @abstractmethod
    def _parse(self, dsn: str) -> dict[str, str]:
        """What a DSN says, or the driver's ProgrammingError."""

    @abstractmethod
    def _open(self, parameters: dict[str, str]) -> Any:
        """A connection in autocommit mode."""

    @abstractmethod
    def _parameters_of(self, conn: Any) -> dict[str, str] | None:
        """What a connection was opened with, and so can be again; None if that can't be known."""

    @abstractmethod
    def database_name(self, conn: Any) -> str: ...

    @abstractmethod
    def _backend_pid(self, conn: Any) -> int:
        """As the server said when it was connected."""

    @abstractmethod
    def _status(self, conn: Any) -> int:
        """libpq's transaction status."""

    @abstractmethod
    def _is_plain(self, conn: Any) -> bool:
        """Whether the application has set no isolation level or the like for the transactions of a connection."""

    @abstractmethod
    def _begin(self, conn: Any) -> str:
        """The statement, on a connection in autocommit mode."""

    @abstractmethod
    def _sqlstate(self, error: BaseException) -> str | None: ...

    @abstractmethod
    def run(self, conn: Any, sql: str, params: Any = None) -> list[tuple[Any, ...]]:
        """Execute statements in one message, and return the rows of the last (none if it returns nothing)."""

    @abstractmethod
    def copy(self, conn: Any, sql: str, file: Any) -> int:
        """COPY from a file, which has `read`; returns the number of rows."""

    @abstractmethod
    def listen(self, conn: Any) -> None:
        """Call before LISTEN: keep what arrives for pq until `notified` takes it."""

    @abstractmethod
    def receive(self, conn: Any) -> None:
        """Take from the socket what has arrived. Only on a connection that nobody else uses."""

    @abstractmethod
    def has_notified(self, conn: Any, channels: Container[str]) -> bool:
        """Whether a notification of these channels has been read from the socket already."""

    @abstractmethod
    def _take(self, conn: Any, channels: Container[str]) -> set[str]:
        """The channels of these that were notified; forgotten with this call. Others stay for their owner."""

    # -- connections

    def parameters(self, dsn: str) -> dict[str, str]:
        """What a DSN says.

        :raises ValueError: it is malformed. It is not quoted in the message: it may hold a password.
        """
        try:
            given = self._parse(dsns.plain(dsn))
        except self._package.ProgrammingError:
            raise ValueError("the DSN is neither a postgresql:// URL nor key=value pairs") from None
        dsns.check(given)
        return given

    def connect(self, dsn: str) -> Any:
        """A connection in autocommit mode.

        :raises ValueError: `dsn` is malformed.
        :raises ConnectionFailed: the server can't be reached, or refuses.
        """
        given = self.parameters(dsn)
        try:
            return self._open({**CONNECT, **given})
        except self._package.OperationalError as error:
            raise both(errors.ConnectionFailed, self._package.OperationalError)(str(error).strip()) from error

    def clone(self, conn: Any) -> Any:
        """A second connection with the parameters of the first, in autocommit mode; None if they can't be known."""
        parameters = self._parameters_of(conn)
        return None if parameters is None else self._open({**CONNECT, **parameters})

    def alive(self, conn: Any) -> bool:
        """Whether a connection is still there. The server is asked only if it has said something meanwhile: a
        notification, or its farewell, after which the connection may last a moment.

        Never by reading from the socket, which would take the answer to what another thread of the application is
        executing.
        """
        try:
            if not conn.closed and self._status(conn) != _ACTIVE and readable(conn.fileno()):
                with self.committed(conn) if self.idle(conn) else nullcontext():
                    self.run(conn, PING)
        except self.Error:
            pass  # a transaction that has failed, unless:
        return not conn.closed

    def backend_is_hidden(self, conn: Any) -> bool:
        """Whether a transaction pooler stands between: then the next statement may meet another server session."""
        return self.run(conn, "select pg_backend_pid()") != [(self._backend_pid(conn),)]

    # -- statements

    def run_and_commit(self, conn: Any, sql: str, params: Any = None) -> list[tuple[Any, ...]]:
        """Execute and commit in two round trips: what is lost in the first one certainly changed nothing.

        :param conn: in autocommit mode, idle.
        :raises ConnectionLost: COMMIT was not sent.
        """
        try:
            rows = self.run(conn, f"begin; {sql}", params)
        except BaseException as error:
            if isinstance(error, self.Error) and self.is_lost(conn, error):
                self.raise_lost(error)
            self.rollback(conn)
            raise
        self.run(conn, "commit")
        return rows

    def committed(self, conn: Any) -> AbstractContextManager[None]:
        """What is executed inside is committed at the end, and with it what the application had begun before.

        Where it can be, without BEGIN and COMMIT around: one round trip, not three. Not on a connection with an
        isolation level of its own: it would not hold, or (psycopg2) be written to the session.
        """
        return nullcontext() if conn.autocommit else self._committed(conn)

    @contextmanager
    def _committed(self, conn: Any) -> Iterator[None]:
        if self.idle(conn) and self._is_plain(conn):
            conn.autocommit = True
            try:
                yield
            finally:
                if not conn.closed:
                    conn.autocommit = False
        else:
            try:
                yield
            except BaseException as error:
                self.rollback(conn)
                if self.is_lost(conn, error):
                    self.raise_lost(error)  # certainly: COMMIT was not sent
                raise
            self.commit(conn)

    # -- transactions

    def idle(self, conn: Any) -> bool:
        return self._status(conn) == _IDLE

    def begin(self, conn: Any, now: bool) -> None:
        """Begin a transaction, unless the application has one open.

        :param now: outside of autocommit mode drivers begin by themselves with the first statement: have it do so here.
        """
        if conn.autocommit and self.idle(conn):
            self.run(conn, self._begin(conn))
        elif now:
            self.run(conn, PING)

    def commit(self, conn: Any) -> None:
        """
        :raises Error: a statement of the transaction has failed: the server would roll back without a word.
        """
        if self._status(conn) == _FAILED:
            self.run(conn, PING)
        if conn.autocommit:
            self.run(conn, "commit")
        else:
            conn.commit()

    def rollback(self, conn: Any) -> None:
        if sys.is_finalizing():
            return  # blocks of threads that are no more end here, and those may have left the connection locked
        try:
            if conn.autocommit:
                self.run(conn, "rollback")
            else:
                conn.rollback()
        except self.Error:
            pass  # the connection is gone, and the transaction with it

    # -- notifications

    def notified(self, conn: Any, channels: Container[str]) -> set[str]:
        """Take what has arrived for these channels; other notifications stay for their owner."""
        if readable(conn.fileno()):
            self.run(conn, PING)  # which reads them; see `alive`
        return self._take(conn, channels)

    # -- errors

    def fail(self, conn: Any, error: BaseException, changes: bool, table: str) -> NoReturn:
        """Raise what an error of the driver means.

        :param changes: what was under way changes something, and was to be committed.
        :param table: the name of the queue table, for the message.
        """
        if isinstance(error, self.Error) and not isinstance(error, errors.PQError):
            if self.is_lost(conn, error):
                if changes:
                    self.raise_commit_unknown(error)
                self.raise_lost(error)
            if self.table_is_missing(error):
                self.raise_table_missing(error, table, self.database_name(conn))
        raise error

    def is_lost(self, conn: Any, error: BaseException | None) -> bool:
        """Whether an error means that the connection is gone. The SQLSTATE does not tell: libpq reports the end of the
        connection, not the server's last words before it."""
        return bool(conn.closed)

    def was_canceled(self, error: BaseException) -> bool:
        return self._sqlstate(error) == _CANCELED

    def is_refused(self, error: BaseException) -> bool:
        """The role may not do that, or the session is read-only."""
        return self._sqlstate(error) in _REFUSED

    def is_unprepared(self, error: BaseException) -> bool:
        return self._sqlstate(error) in _UNPREPARED

    def may_be_repeated(self, error: BaseException) -> bool:
        return self._sqlstate(error) in _AGAIN

    def table_is_missing(self, error: BaseException) -> bool:
        return self._sqlstate(error) in _UNDEFINED

    def text_is_invalid(self, error: BaseException) -> bool:
        return self._sqlstate(error) == _INVALID_TEXT

    def lock_timed_out(self, error: BaseException) -> bool:
        return self._sqlstate(error) == _LOCK_TIMEOUT
