"""The session that listens: a connection of its own, or the application's single one, between its statements."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from typing import Any

from .. import _sql
from .psycopg2_driver import Psycopg2
from .sources import SingleConnection, Source
from .watchdog import Watchdog

CHANNELS = re.compile(r"pq_[0-9a-f]{1,16}")

#: Seconds after which a statement on a line of our own counts as unanswered.
PATIENCE = 5.0

Look = tuple[Collection[int], "float | None", bool]


def open_line(source: Source, table: str, listen_dsn: str | None) -> Line | None:
    """The line of a source; None if no connection can be had now."""
    driver = source.driver
    if isinstance(source, SingleConnection) and listen_dsn is None:
        return Line(_Shared(source), table)
    try:
        conn = source.open_line() if listen_dsn is None else driver.connect(listen_dsn)
    except (driver.Error, driver.PoolError):
        return None
    return None if conn is None else Line(_Own(driver, conn), table)


class Line:
    """What a waiting room says and hears. `hears`: notifications come through."""

    def __init__(self, session: _Own | _Shared, table: str) -> None:
        self._session = session
        self._table = table
        self._sql = _sql.bound("waiting.sql", table)
        try:
            self.hears = not session.use(session.driver.backend_is_hidden)
        except BaseException:
            session.close()
            raise

    def take_gate(self, queue: str) -> int | None:
        """The key of the queue's gate, which we hold then; None if it can't be had now."""
        rows = self._run(self._sql["gate"], {"queue": queue, "table": self._table})
        return next((key for key, taken in rows if taken), None)

    def leave_gate(self, key: int) -> None:
        self._run(f'{self._sql["ungate"]}; unlisten "{channel_name(key)}"', {"key": key})

    def listen_and_look(self, queue: str, key: int | None) -> Look:
        listen = "" if key is None else f'listen "{channel_name(key)}";'
        ((writing, due_in, ready),) = self._run(listen + self._sql["look"], {"queue": queue})
        return writing, due_in, ready

    def look(self, queue: str) -> Look:
        """The transactions now writing, seconds until a row is due, whether one is ready."""
        return self.listen_and_look(queue, None)

    def is_lost(self, error: Exception) -> bool:
        return self._session.is_lost(error)

    def pending(self) -> bool:
        """Whether a notification has been read from the socket already."""
        return self._session.pending()

    def notified(self) -> set[int]:
        """The keys that were notified; forgotten with this call."""
        return {_key(channel) for channel in self._session.use(self._session.driver.notified, CHANNELS)}

    def fileno(self) -> int:
        return self._session.fileno()

    def close(self) -> None:
        self._session.close()

    def _run(self, sql: str, params: Any) -> list[tuple[Any, ...]]:
        rows: list[tuple[Any, ...]] = self._session.use(self._session.driver.run, sql, params)
        return rows


class _Own:
    """A connection for this alone."""

    def __init__(self, driver: Psycopg2, conn: Any) -> None:
        self.driver = driver
        self._conn = conn
        self._watchdog = Watchdog()

    def use(self, action: Callable[..., Any], *args: Any) -> Any:
        with self._watchdog.guard(self._conn, PATIENCE):
            return action(self._conn, *args)

    def fileno(self) -> int:
        return int(self._conn.fileno())

    def pending(self) -> bool:
        return self.driver.has_notified(self._conn, CHANNELS)

    def is_lost(self, error: Exception) -> bool:
        return self.driver.is_lost(self._conn, error)

    def close(self) -> None:
        self._watchdog.close()
        try:
            self._conn.close()
        except self.driver.Error:
            pass


class _Shared:
    """The application's connection, used when no transaction is open on it."""

    def __init__(self, source: SingleConnection) -> None:
        self.driver = source.driver
        self._source = source

    def use(self, action: Callable[..., Any], *args: Any) -> Any:
        """:raises TimeoutError: it is busy with another thread's transaction."""
        conn = self._source.acquire(timeout=0.05)
        try:
            if not self.driver.idle(conn):
                raise TimeoutError  # the application's transaction is not ours to commit
            with self.driver.committed(conn):
                return action(conn, *args)
        finally:
            self._source.release(conn)

    def fileno(self) -> int:
        return int(self._source.conn.fileno())

    def pending(self) -> bool:
        return self.driver.has_notified(self._source.conn, CHANNELS)

    def is_lost(self, error: Exception) -> bool:
        return self.driver.is_lost(self._source.conn, error)

    def close(self) -> None:
        pass  # it is the application's


def channel_name(key: int) -> str:
    """As the trigger writes it: to_hex() of a negative number is its two's complement."""
    return f"pq_{key & 0xFFFFFFFFFFFFFFFF:x}"


def _key(channel: str) -> int:
    number = int(channel.removeprefix("pq_"), 16)
    return number - (1 << 64) if number >= 1 << 63 else number
