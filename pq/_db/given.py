"""Statements on what an application passes for one call: a cursor, a connection, a session."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from .drivers.base import Driver, Rows
from .unwrap import connection_of

_SAVEPOINT = "pq_given"


class Given:
    """The application's connection, and its transaction: errors are the driver's.

    :param given: what leads to the connection; see `connection_of`, whose errors these are.
    """

    def __init__(self, given: Any) -> None:
        self.driver: Driver
        self.conn: Any
        self.driver, self.conn = connection_of(given)
        self._cursor = given if hasattr(given, "fetchone") else None

    @property
    def autocommit(self) -> bool:
        """Whether the application begins transactions by SQL, if at all."""
        return bool(self.conn.autocommit)

    @property
    def commits_at_once(self) -> bool:
        """Whether no transaction is open, and each statement is committed as it is executed."""
        return self.autocommit and self.driver.idle(self.conn)

    @property
    def failed(self) -> bool:
        """Whether a transaction is open in which a statement has failed, or the connection is gone."""
        return bool(self.conn.closed) or not (self.driver.idle(self.conn) or self.driver.works(self.conn))

    def run(self, sql: str, params: Mapping[str, Any] | None = None) -> Rows:
        """Execute statements in one message; return the rows of the last one as tuples."""
        return self.driver.run(self.conn, sql, params)

    def rows(self, sql: str, params: Mapping[str, Any]) -> list[Any]:
        """Execute a statement; return its rows as the cursor that was passed makes them, or those of the connection."""
        if self._cursor is not None:
            self._cursor.execute(sql, params)
            return list(self._cursor.fetchall())
        with self.conn.cursor() as cursor:
            cursor.execute(sql, params)
            return list(cursor.fetchall())

    def copy(self, sql: str, file: Any) -> int:
        """COPY from a file, which has `read`; return the number of rows."""
        return self.driver.copy(self.conn, sql, file)

    @contextmanager
    def atomic(self) -> Iterator[None]:
        """What is executed inside is done as a whole or, after an error, not at all; a transaction around goes on."""
        alone = self.commits_at_once
        self.run("begin" if alone else f"savepoint {_SAVEPOINT}")
        try:
            yield
        except BaseException:
            if not self.conn.closed:
                self.run("rollback" if alone else f"rollback to savepoint {_SAVEPOINT}; release savepoint {_SAVEPOINT}")
            raise
        self.run("commit" if alone else f"release savepoint {_SAVEPOINT}")

    def commit(self) -> None:
        """Commit the transaction, if there is one."""
        if not self.commits_at_once:
            self.driver.commit(self.conn)
