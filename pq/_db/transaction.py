"""The transaction in which a thread executes: one of pq's own, or one of the application's that it has joined."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from logging import getLogger
from typing import Any, NoReturn

from .drivers.base import Driver, Params, Rows
from .sources.base import Source
from .unwrap import begins, connection_of, note_error

logger = getLogger("pq")


class Transaction:
    """What a thread executes in.

    :ivar changed: whether something was put.
    :ivar owned: whether it is on a connection of the thread's source.
    :ivar over: whether the thread that began or joined it has left it.
    :ivar outer: what the thread executed in before.
    """

    owned = True
    outer: Transaction | None = None

    def __init__(self, source: Source, table: str, driver: Driver, conn: Any) -> None:
        self._source = source
        self._table = table
        self.driver = driver
        self.conn = conn
        self.changed = False
        self.over = False
        self._pid = os.getpid()
        self._depth = 0

    @property
    def commits_at_once(self) -> bool:
        """Whether there is no transaction: each statement is committed as it is executed."""
        return False

    def run(self, sql: str, params: Params | None = None) -> Rows:
        self._check_process()
        try:
            return self.driver.run(self.conn, sql, params)
        except self.driver.Error as error:
            self._fail(error)

    def copy(self, sql: str, file: Any) -> int:
        """COPY from a file; returns the number of rows."""
        self._check_process()
        try:
            return self.driver.copy(self.conn, sql, file)
        except self.driver.Error as error:
            self._fail(error)

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        name = f"pq_{self._depth}"
        self.run(f"savepoint {name}")
        self._depth += 1
        try:
            yield
        except BaseException:
            if not (self.conn.closed or sys.is_finalizing()) and self._pid == os.getpid():
                try:
                    self.run(f"rollback to savepoint {name}; release savepoint {name}")
                except self.driver.Error:
                    # the transaction was ended in the block, or the connection is lost: nothing is left to be undone
                    logger.warning("could not go back to a savepoint", exc_info=True)
            raise
        else:
            self.run(f"release savepoint {name}")
        finally:
            self._depth -= 1

    def _fail(self, error: Exception) -> NoReturn:
        self.driver.fail(self.conn, error, False, self._table)

    def _check_process(self) -> None:
        if self._pid != os.getpid():
            self.driver.raise_forked("the transaction belongs to the process that this one was forked from")


class Joined(Transaction):
    """The application's transaction: pq neither begins nor ends it, and its errors are the driver's.

    :param given: what leads to the connection.
    """

    owned = False

    def __init__(self, source: Source, table: str, given: object) -> None:
        super().__init__(source, table, source.driver, None)
        self._given = given
        if not begins(given):  # which the first statement is to do: the application may be about to do it itself
            self._find()

    @property
    def commits_at_once(self) -> bool:
        self._find()
        return bool(self.conn.autocommit) and self.driver.idle(self.conn)

    def run(self, sql: str, params: Params | None = None) -> Rows:
        self._find()
        with self._source.exclusive(self.conn):
            return super().run(sql, params)

    def copy(self, sql: str, file: Any) -> int:
        self._find()
        with self._source.exclusive(self.conn):
            return super().copy(sql, file)

    def _find(self) -> None:
        """A session that has committed meanwhile has given its connection back, and somebody else may have it."""
        self.driver, self.conn = connection_of(self._given)

    def _fail(self, error: Exception) -> NoReturn:
        note_error(self._given)
        if self.driver.table_is_missing(error):
            super()._fail(error)
        raise error


class OwnTransaction(Transaction):
    """A transaction of pq's, from its beginning to its end."""

    def __init__(self, source: Source, table: str) -> None:
        self._source = source
        self._table = table
        super().__init__(source, table, source.driver, self._begin())
        self._source.transaction = self

    def _begin(self) -> Any:
        """Begin, on another connection if the first turns out to be lost."""
        driver = self._source.driver
        replaceable = self._source.replaceable
        once_more = replaceable
        while True:
            conn = self._source.acquire()
            try:
                driver.begin(conn, now=replaceable)
                return conn
            except BaseException as error:
                lost = driver.is_lost(conn, error)
                driver.rollback(conn)  # interrupted, it may have begun
                self._source.release(conn, lost)
                if not lost or not once_more:
                    driver.fail(conn, error, False, self._table)
            once_more = False

    def commit(self) -> None:
        self._check_process()
        self._check_open()
        try:
            if not self.driver.alive(self.conn):
                self.driver.raise_lost(None)
            self.driver.commit(self.conn)
        except BaseException as error:
            self.driver.rollback(self.conn)
            self.driver.fail(self.conn, error, True, self._table)
        finally:
            self._end()
        if self.changed:
            self._source.changed()

    def rollback(self) -> None:
        if self._pid != os.getpid() or sys.is_finalizing():
            return  # it is the parent's; or see Driver.rollback
        self._check_open()
        try:
            self.driver.rollback(self.conn)
        finally:
            self._end()

    def _check_open(self) -> None:
        """By SQL the application may have ended what we began. It is too late for an error: what followed is done."""
        if self.conn.autocommit and not self.conn.closed and self.driver.idle(self.conn):
            logger.warning("a transaction was ended within its block: what followed was committed at once")

    def _end(self) -> None:
        self._source.leave(self)
        self._source.release(self.conn, bool(self.conn.closed))
