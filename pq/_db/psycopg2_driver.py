"""What pq needs of psycopg2, or of psycopg2cffi, which has the same interface."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import cache
from importlib import import_module
from typing import Any, NoReturn

from .. import errors
from . import dsns
from .sockets import readable

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

# Does nothing, not even take a snapshot
_PING = "show transaction_isolation"

_PACKAGES = ("psycopg2", "psycopg2cffi")


class Psycopg2:
    """One driver package. Get it by `of`."""

    def __init__(self, package: str) -> None:
        self._package = import_module(package)
        self._extensions = import_module(package + ".extensions")
        self.Error: type[Exception] = self._package.Error
        self.PoolError: type[Exception] = import_module(package + ".pool").PoolError
        #: What may be different the next time.
        self.Unavailable = (self._package.OperationalError, self._package.InterfaceError, self.PoolError)

    # -- which driver

    @staticmethod
    def of(conn: object) -> Psycopg2:
        """The driver of a connection.

        :raises TypeError: it is no connection of a known driver.
        """
        for cls in type(conn).__mro__:
            package = cls.__module__.split(".")[0]
            if package in _PACKAGES and callable(getattr(conn, "get_transaction_status", None)):
                return driver(package)
        raise TypeError(f"a psycopg2 (or psycopg2cffi) connection or a DSN is needed, not {type(conn).__name__}")

    # -- connections

    def parameters(self, dsn: str) -> dict[str, str]:
        """What a DSN says.

        :raises ValueError: it is malformed. It is not quoted in the message: it may hold a password.
        """
        try:
            given: dict[str, str] = self._extensions.parse_dsn(dsns.plain(dsn))
        except self._package.ProgrammingError:
            raise ValueError("the DSN is neither a postgresql:// URL nor key=value pairs") from None
        dsns.check(given)
        return given

    def connect(self, dsn: str) -> Any:
        """A connection in autocommit mode.

        :raises ValueError: `dsn` is malformed.
        :raises ConnectionFailed: the server can't be reached, or refuses.
        """
        # an empty DSN makes the driver complain where libpq would take PG* variables: it never is empty here
        given = self.parameters(dsn)
        try:
            conn = self._package.connect(**{**CONNECT, **given})
        except self._package.OperationalError as error:
            raise _both(errors.ConnectionFailed, self._package.OperationalError)(str(error).strip()) from error
        conn.autocommit = True
        return conn

    def clone(self, conn: Any) -> Any:
        """A second connection with the parameters of the first, in autocommit mode; None if they can't be known."""
        info = getattr(conn, "info", None)
        if info is None:
            return None
        parameters = {**CONNECT, **info.dsn_parameters}
        if info.password:
            parameters["password"] = info.password
        clone = self._package.connect(**parameters)
        clone.autocommit = True
        return clone

    def alive(self, conn: Any) -> bool:
        """Whether a connection is still there. The server is asked only if it has said something meanwhile: a
        notification, or its farewell, after which the connection may last a moment.

        Never by `conn.poll()`, which would take the answer to what another thread of the application is executing.
        """
        try:
            if not conn.closed and not self._active(conn) and readable(conn.fileno()):
                with self.committed(conn) if self.idle(conn) else nullcontext():
                    self.run(conn, _PING)
        except self.Error:
            pass  # a transaction that has failed, unless:
        return not conn.closed

    def database_name(self, conn: Any) -> str:
        return str(conn.get_dsn_parameters().get("dbname", "")) if hasattr(conn, "get_dsn_parameters") else ""

    def backend_is_hidden(self, conn: Any) -> bool:
        """Whether a transaction pooler stands between: then the next statement may meet another server session."""
        return self.run(conn, "select pg_backend_pid()") != [(conn.get_backend_pid(),)]

    # -- statements

    def cursor(self, conn: Any) -> Any:
        """A cursor that returns plain tuples, whatever cursor_factory the connection has."""
        return conn.cursor(cursor_factory=self._extensions.cursor)

    def run(self, conn: Any, sql: str, params: Any = None) -> list[tuple[Any, ...]]:
        """Execute, and return the rows (none for a statement that returns nothing)."""
        with self.cursor(conn) as cursor:
            cursor.execute(sql, params)
            return cursor.fetchall() if cursor.description is not None else []

    def copy(self, conn: Any, sql: str, file: Any) -> int:
        """COPY from a file, which has `read`; returns the number of rows."""
        cursor = self.cursor(conn)
        cursor.copy_expert(sql, file, 65536)
        return int(cursor.rowcount)

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

    @contextmanager
    def committed(self, conn: Any) -> Iterator[None]:
        """What is executed inside is committed at the end, and with it what the application had begun before.

        Where it can be, without BEGIN and COMMIT around: one round trip, not three. Not on a connection with an
        isolation level of its own: psycopg2 writes that to the session when autocommit is switched.
        """
        if conn.autocommit:
            yield
        elif self.idle(conn) and conn.isolation_level is None and conn.readonly is None and conn.deferrable is None:
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
        return bool(conn.get_transaction_status() == self._extensions.TRANSACTION_STATUS_IDLE)

    def _active(self, conn: Any) -> bool:
        return bool(conn.get_transaction_status() == self._extensions.TRANSACTION_STATUS_ACTIVE)

    def _failed(self, conn: Any) -> bool:
        return bool(conn.get_transaction_status() == self._extensions.TRANSACTION_STATUS_INERROR)

    def begin(self, conn: Any, now: bool) -> None:
        """Begin a transaction, unless the application has one open.

        :param now: outside of autocommit mode psycopg2 begins by itself with the first statement: have it do so here.
        """
        if conn.autocommit and self.idle(conn):
            self.run(conn, "begin")
        elif now:
            self.run(conn, _PING)

    def commit(self, conn: Any) -> None:
        """
        :raises psycopg2.Error: a statement of the transaction has failed: the server would roll back without a word.
        """
        if self._failed(conn):
            self.run(conn, _PING)
        if conn.autocommit:
            self.run(conn, "commit")
        else:
            conn.commit()

    def rollback(self, conn: Any) -> None:
        try:
            if conn.autocommit:
                self.run(conn, "rollback")
            else:
                conn.rollback()
        except self.Error:
            pass  # the connection is gone, and the transaction with it

    # -- notifications

    def has_notified(self, conn: Any, channels: re.Pattern[str]) -> bool:
        """Whether a notification of these channels has been read from the socket already."""
        return any(channels.fullmatch(notify.channel) for notify in conn.notifies)

    def notified(self, conn: Any, channels: re.Pattern[str]) -> set[str]:
        """Take what has arrived for these channels; other notifications stay for their owner."""
        if readable(conn.fileno()):
            self.run(conn, _PING)  # which reads them; see `alive`
        ours = {notify.channel for notify in conn.notifies if channels.fullmatch(notify.channel)}
        if ours:
            conn.notifies[:] = [notify for notify in conn.notifies if notify.channel not in ours]
        return ours

    # -- errors

    def is_lost(self, conn: Any, error: BaseException) -> bool:
        """Whether an error means that the connection is gone. The SQLSTATE does not tell: libpq reports the end of the
        connection, not the server's last words before it."""
        return bool(conn.closed)

    def was_canceled(self, error: BaseException) -> bool:
        return _code(error) == _CANCELED

    def is_unprepared(self, error: BaseException) -> bool:
        return _code(error) in _UNPREPARED

    def may_be_repeated(self, error: BaseException) -> bool:
        return _code(error) in _AGAIN

    def table_is_missing(self, error: BaseException) -> bool:
        return _code(error) in _UNDEFINED

    def text_is_invalid(self, error: BaseException) -> bool:
        return _code(error) == _INVALID_TEXT

    def lock_timed_out(self, error: BaseException) -> bool:
        return _code(error) == _LOCK_TIMEOUT

    def raise_lost(self, cause: BaseException | None, message: str | None = None) -> NoReturn:
        raise _both(errors.ConnectionLost, self._package.OperationalError)(message) from cause

    def raise_commit_unknown(self, cause: BaseException, message: str | None = None) -> NoReturn:
        raise _both(errors.CommitUnknown, self._package.OperationalError)(message) from cause

    def raise_forked(self, message: str | None = None) -> NoReturn:
        raise _both(errors.ForkedConnection, self._package.InterfaceError)(message)

    def raise_table_missing(self, cause: BaseException, table: str, database: str) -> NoReturn:
        raise _both(errors.TableMissing, self._package.ProgrammingError)(table=table, database=database) from cause

    # -- values

    def literal(self, text: str) -> Any:
        """A query parameter that stands in the SQL as it is, unquoted."""
        return self._extensions.AsIs(text)


def _code(error: BaseException) -> str | None:
    return getattr(error, "pgcode", None)


@cache
def driver(package: str = "psycopg2") -> Psycopg2:
    return Psycopg2(package)


@cache
def _both(ours: type[errors.PQError], drivers: type[Exception]) -> Any:
    """A subclass of both, under our name: what catches the driver's error goes on catching it."""
    return type(ours.__name__, (ours, drivers), {"__module__": ours.__module__, "__doc__": ours.__doc__})
