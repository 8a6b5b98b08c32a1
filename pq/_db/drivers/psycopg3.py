"""What pq needs of psycopg 3."""

from __future__ import annotations

import re
from collections.abc import Container
from importlib import import_module
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

from .base import Driver
from .literal import ENCODING, Encoded, Literal, rendered

#: The channels that pq listens on.
_OURS = re.compile(rb"pq_[0-9a-f]{1,16}")

_UTF8 = ("utf-8",)


class Psycopg3(Driver):
    """psycopg 3, with parameters bound by the client: several statements are sent in one message, and nothing is
    prepared without our knowing.

    Statements go to libpq without a cursor of psycopg's, which takes as long for each as all the rest of a put.
    """

    pools_wait = True

    def __init__(self) -> None:
        package = import_module("psycopg")
        super().__init__(package, package.OperationalError)  # those of psycopg_pool are such
        self._execute = import_module("psycopg.generators").execute
        self._transformer = import_module("psycopg.adapt").Transformer
        self._adapters = _plain_adapters()
        self._error_of = package.errors.error_from_result
        self._status_of = package.pq.ExecStatus
        self._copying: WeakSet[Any] = WeakSet()
        self._inboxes: WeakKeyDictionary[Any, _Inbox] = WeakKeyDictionary()
        # one that is dropped with its PQ closes its socket, and need not be warned of
        self._own = type("Connection", (package.Connection,), {"__del__": lambda self: None})
        package.adapters.register_dumper(Literal, _dumper(import_module("psycopg.adapt").Dumper))

    # -- connections

    def _parse(self, dsn: str) -> dict[str, str]:
        return dict(import_module("psycopg.conninfo").conninfo_to_dict(dsn))

    def _open(self, parameters: dict[str, str]) -> Any:
        conn = self._own.connect(  # type: ignore[attr-defined]
            **parameters, autocommit=True, prepare_threshold=None, cursor_factory=self._package.ClientCursor
        )
        if not (conn.info.parameter_status("DateStyle") or "").startswith("ISO"):
            conn.execute("set datestyle to iso")  # psycopg reads times of no other; psycopg2 does the same
        return conn

    def _parameters_of(self, conn: Any) -> dict[str, str]:
        info = conn.info
        return {**info.get_parameters(), **({"password": info.password} if info.password else {})}

    def database_name(self, conn: Any) -> str:
        return str(conn.info.dbname)

    def backend_pid(self, conn: Any) -> int:
        return int(conn.pgconn.backend_pid)

    def _status(self, conn: Any) -> int:
        status: int = conn.pgconn.transaction_status
        return status

    def is_plain(self, conn: Any) -> bool:
        return conn.isolation_level is None and conn.read_only is None and conn.deferrable is None

    def _begin(self, conn: Any) -> str:
        modes = []
        if conn.isolation_level is not None:
            modes.append("isolation level " + conn.isolation_level.name.lower().replace("_", " "))
        if conn.read_only is not None:
            modes.append("read only" if conn.read_only else "read write")
        if conn.deferrable is not None:
            modes.append("deferrable" if conn.deferrable else "not deferrable")
        return f"begin {', '.join(modes)}".rstrip()

    def _sqlstate(self, error: BaseException) -> str | None:
        return getattr(error, "sqlstate", None)

    # -- statements

    def _run(self, conn: Any, sql: str, params: Any) -> list[tuple[Any, ...]]:
        if conn in self._copying:  # psycopg would wait for ever
            raise self._package.InternalError("another statement, COPY, is under way on this connection")
        if conn.pgconn.pipeline_status:  # there are no rows before its end, and with them no outcome
            raise self._package.NotSupportedError("pq does not work in pipeline mode")
        encoding = _encoding(conn)
        text = rendered(sql, params)
        if not conn.autocommit and self.idle(conn):
            text = f"{self._begin(conn)}; {text}"
        try:
            with conn.lock:
                conn.pgconn.send_query(text.encode(*encoding))
                result = conn.wait(self._execute(conn.pgconn))[-1]
        except self.Error:
            raise
        except BaseException:
            self._recover(conn)
            raise
        finally:
            self._collect(conn)
        if result.status == self._status_of.FATAL_ERROR:
            raise self._error_of(result, encoding=encoding[0])
        if result.status != self._status_of.TUPLES_OK or not result.ntuples:
            return []
        transformer = self._transformer(_Context(self._adapters, conn))
        transformer.set_pgresult(result)
        rows = list(transformer.load_rows(0, result.ntuples, tuple))
        return Encoded.rows(rows) if encoding is ENCODING else rows

    def mogrify(self, conn: Any, sql: str, params: Any) -> str:
        return rendered(sql, params)

    def _recover(self, conn: Any) -> None:
        """Psycopg itself ends what KeyboardInterrupt has cut off. After what else a signal handler may raise, the
        connection could not be used any more."""
        if not conn.closed and conn.pgconn.transaction_status == self._package.pq.TransactionStatus.ACTIVE:
            conn.cancel()
            while conn.pgconn.get_result() is not None:
                pass

    def commit(self, conn: Any) -> None:
        try:
            super().commit(conn)
        except self.Error:
            raise
        except BaseException:
            self._recover(conn)
            raise

    def _copy(self, conn: Any, sql: str, file: Any) -> int:
        cursor = self._package.ClientCursor(conn)  # whatever cursor_factory the connection has
        if _encoding(conn) is ENCODING:
            file = Encoded(file)
        with cursor.copy(sql) as copy:
            self._copying.add(conn)
            try:
                while text := file.read(65536):
                    copy.write(text)
            finally:
                self._copying.discard(conn)
        return int(cursor.rowcount)

    # -- notifications

    def listen(self, conn: Any) -> None:
        if conn not in self._inboxes:
            self._inboxes[conn] = _Inbox(conn.pgconn)

    def receive(self, conn: Any) -> None:
        conn.pgconn.consume_input()
        self._collect(conn)

    def _collect(self, conn: Any) -> None:
        """What came with an answer but behind it is still with libpq, and the socket says nothing of it any more."""
        if conn in self._inboxes and not conn.closed and not conn.lock.locked():
            with conn.lock:  # after acquire() an interrupt may come before the next line
                while (notify := conn.pgconn.notifies()) is not None:
                    conn.pgconn.notify_handler(notify)

    def has_notified(self, conn: Any, channels: Container[str]) -> bool:
        return any(channel in channels for channel in list(self._inbox(conn)))

    def take(self, conn: Any, channels: Container[str]) -> set[str]:
        self._collect(conn)
        inbox = self._inbox(conn)
        ours = {channel for channel in list(inbox) if channel in channels}
        inbox -= ours
        return ours

    def _inbox(self, conn: Any) -> set[str]:
        inbox = self._inboxes.get(conn)
        return set() if inbox is None else inbox.channels


def _encoding(conn: Any) -> tuple[str, ...]:
    """Return the arguments of ``str.encode`` for what is sent to the server."""
    name = conn.pgconn.parameter_status(b"client_encoding")
    if name == b"UTF8":
        return _UTF8
    return ENCODING if name == b"SQL_ASCII" else (conn.info.encoding,)


class _Context:
    """What psycopg reads values by: not by the loaders that the application has registered, for its connection or for
    all. With one that fails, or makes something else of a time, a job would be lost that the statement has taken."""

    __slots__ = ("adapters", "connection")

    def __init__(self, adapters: Any, connection: Any) -> None:
        self.adapters = adapters
        self.connection = connection


def _plain_adapters() -> Any:
    postgres = import_module("psycopg.postgres")
    adapters = import_module("psycopg.adapt").AdaptersMap(types=postgres.types)
    postgres.register_default_adapters(adapters)
    return adapters


class _Inbox:
    """Takes pq's notifications out of what a connection receives; all others go the way that they went before."""

    def __init__(self, pgconn: Any) -> None:
        self.channels: set[str] = set()
        self._others = pgconn.notify_handler
        pgconn.notify_handler = self._receive

    def _receive(self, notify: Any) -> None:
        if _OURS.fullmatch(notify.relname):
            self.channels.add(notify.relname.decode())
        elif self._others is not None:
            self._others(notify)


def _dumper(base: Any) -> Any:
    """A class of psycopg's, for `Literal`."""
    dump = {"dump": lambda self, literal: bytes(literal), "quote": lambda self, literal: bytes(literal)}
    return type("LiteralDumper", (base,), dump)
