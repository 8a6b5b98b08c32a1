"""A transaction that a thread has open."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .database import Database, Params, Rows


class Transaction:
    """A transaction that a thread has open on a connection."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._source = database.source
        self._driver = database.driver
        self._pid = os.getpid()
        self._depth = 0
        self.changed = False
        self.conn = self._begin()
        self._source.transaction = self

    def _begin(self) -> Any:
        """Begin, on another connection if the first turns out to be lost."""
        replaceable = self._source.replaceable
        once_more = replaceable
        while True:
            conn = self._source.acquire()
            try:
                self._driver.begin(conn, now=replaceable)
                return conn
            except BaseException as error:
                lost = self._driver.is_lost(conn, error)
                self._driver.rollback(conn)  # interrupted, it may have begun
                self._source.release(conn, lost)
                if not lost or not once_more:
                    self._database.fail(conn, error, changes=False)
            once_more = False

    def run(self, sql: str, params: Params | None = None) -> Rows:
        self._check_process()
        try:
            return self._driver.run(self.conn, sql, params)
        except self._driver.Error as error:
            self._database.fail(self.conn, error, changes=False)

    def copy(self, sql: str, file: Any) -> int:
        """COPY from a file; returns the number of rows."""
        self._check_process()
        try:
            return self._driver.copy(self.conn, sql, file)
        except self._driver.Error as error:
            self._database.fail(self.conn, error, changes=False)

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        name = f"pq_{self._depth}"
        self.run(f"savepoint {name}")
        self._depth += 1
        try:
            yield
        except BaseException:
            if not self.conn.closed and self._pid == os.getpid():
                self.run(f"rollback to savepoint {name}; release savepoint {name}")
            raise
        else:
            self.run(f"release savepoint {name}")
        finally:
            self._depth -= 1

    def commit(self) -> None:
        self._check_process()
        try:
            if not self._driver.alive(self.conn):
                self._driver.raise_lost(None)
            self._driver.commit(self.conn)
        except BaseException as error:
            self._driver.rollback(self.conn)
            self._database.fail(self.conn, error, changes=True)
        finally:
            self._end()
        if self.changed:
            self._source.changed()

    def rollback(self) -> None:
        if self._pid != os.getpid():
            return  # it is the parent's
        try:
            self._driver.rollback(self.conn)
        finally:
            self._end()

    def _check_process(self) -> None:
        if self._pid != os.getpid():
            self._driver.raise_forked("the transaction belongs to the process that this one was forked from")

    def _end(self) -> None:
        self._source.transaction = None
        self._source.release(self.conn, bool(self.conn.closed))
