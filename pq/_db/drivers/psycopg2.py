"""What pq needs of psycopg2."""

from __future__ import annotations

from collections.abc import Container, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from select import select
from typing import Any, ClassVar

from .base import Driver, Rows
from .literal import Encoded

#: The client_encoding SQL_ASCII, as the package names it.
_ASCII = ("SQLASCII", "SQL_ASCII")

#: What values are read by, as the package names it, where the application has registered others for its connection.
_TYPES = (
    "LONGINTEGER", "INTEGER", "FLOAT", "DECIMAL", "BOOLEAN", "UNICODE", "ROWID", "PYDATETIME", "PYDATETIMETZ",
    "LONGINTEGERARRAY", "INTEGERARRAY", "UNICODEARRAY",
)  # fmt: skip


class Psycopg2(Driver):
    """psycopg2."""

    _interruptible: ClassVar[bool] = False

    def __init__(self, package: str = "psycopg2") -> None:
        self._extensions = import_module(package + ".extensions")
        super().__init__(import_module(package), import_module(package + ".pool").PoolError)
        self._types = [getattr(self._extensions, name) for name in _TYPES if hasattr(self._extensions, name)]

    # -- connections

    def _parse(self, dsn: str) -> dict[str, str]:
        return dict(self._extensions.parse_dsn(dsn))

    def _open(self, parameters: dict[str, str]) -> Any:
        # without any, psycopg2 complains where libpq would take PG* variables: there always are some here
        conn = self._package.connect(**parameters)
        conn.autocommit = True
        return conn

    def _parameters_of(self, conn: Any) -> dict[str, str] | None:
        info = getattr(conn, "info", None)
        if info is None:
            return None
        return {**info.dsn_parameters, **({"password": info.password} if info.password else {})}

    def database_name(self, conn: Any) -> str:
        return str(conn.get_dsn_parameters().get("dbname", "")) if hasattr(conn, "get_dsn_parameters") else ""

    def backend_pid(self, conn: Any) -> int:
        return int(conn.get_backend_pid())

    def _status(self, conn: Any) -> int:
        status: int = conn.get_transaction_status()
        return status

    def idle(self, conn: Any) -> bool:
        return not conn.get_transaction_status()  # asked several times a statement

    def is_plain(self, conn: Any) -> bool:
        return conn.isolation_level is None and conn.readonly is None and conn.deferrable is None

    def _begin(self, conn: Any) -> str:
        return "begin"  # all else has been written to the session

    def _by_sql(self, conn: Any) -> bool:
        # in `with conn:` psycopg2 begins transactions in autocommit mode, too
        return bool(conn.autocommit and conn.status != self._extensions.STATUS_BEGIN)

    def _sqlstate(self, error: BaseException) -> str | None:
        return getattr(error, "pgcode", None)

    # -- statements

    def _cursor(self, conn: Any) -> Any:
        """Return a cursor for plain tuples, whatever cursor_factory the connection has."""
        return conn.cursor(cursor_factory=self._extensions.cursor)

    def _run(self, conn: Any, sql: str, params: Any) -> list[tuple[Any, ...]]:
        with self._cursor(conn) as cursor:
            if getattr(conn, "string_types", None):  # with one that fails, a job would be lost that was taken
                for type in self._types:
                    self._extensions.register_type(type, cursor)
            text: Any = sql
            ascii = conn.encoding in _ASCII
            if ascii:
                self._extensions.register_type(self._extensions.BYTES, cursor)
                text, params = Encoded.statement(sql, params), None
            if self._interruptible:
                with self._waiting():
                    cursor.execute(text, params)
            else:
                cursor.execute(text, params)
            rows: Rows = cursor.fetchall() if cursor.description is not None else []
            return Encoded.rows(rows) if ascii else rows

    def mogrify(self, conn: Any, sql: str, params: Any) -> str:
        return str(self._cursor(conn).mogrify(sql, params), self._extensions.encodings[conn.encoding])

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Return a context manager: inside, Ctrl-C ends a statement, for which libpq would else wait to its end.

        Use it in a process of one thread: it changes how all connections wait. It has no effect while connecting, where
        libpq would forget its timeout.
        """
        Psycopg2._interruptible = True  # of the class: connections that pq opens have a copy of the driver
        try:
            yield
        finally:
            Psycopg2._interruptible = False

    @contextmanager
    def _waiting(self) -> Iterator[None]:
        self._extensions.set_wait_callback(self._wait)
        try:
            yield
        finally:
            self._extensions.set_wait_callback(None)

    def _wait(self, conn: Any) -> None:
        try:
            while (state := conn.poll()) != self._extensions.POLL_OK:
                if state == self._extensions.POLL_READ:
                    select([conn], [], [])
                else:
                    select([], [conn], [])
        except KeyboardInterrupt:
            with suppress(self.Error):
                conn.cancel()  # or the server would go on
            raise

    def _copy(self, conn: Any, sql: str, file: Any) -> int:
        cursor = self._cursor(conn)
        cursor.copy_expert(sql, Encoded(file) if conn.encoding in _ASCII else file, 65536)
        return int(cursor.rowcount)

    # -- notifications

    def listen(self, conn: Any) -> None:
        """Do nothing: psycopg2 keeps all notifications."""

    def receive(self, conn: Any) -> None:
        conn.poll()

    def has_notified(self, conn: Any, channels: Container[str]) -> bool:
        return any(notify.channel in channels for notify in conn.notifies)

    def take(self, conn: Any, channels: Container[str]) -> set[str]:
        ours = {notify.channel for notify in conn.notifies if notify.channel in channels}
        if ours:
            conn.notifies[:] = [notify for notify in conn.notifies if notify.channel not in ours]
        return ours
