"""The transactions that pq begins and ends."""

from __future__ import annotations

import os
import sys
import threading
import time
from typing import Any

from .._logs import queue_log as logger
from .drivers.base import Params, Rows, Statement
from .execute import is_hot
from .known import doubt, known
from .loan import Loan
from .scope import tell
from .sources.base import Source
from .transaction import Transaction


class OwnTransaction(Transaction):
    """A transaction that pq begins and ends.

    Where the connection has just answered, it begins with the first statement, in one message. If that is the
    application's, the driver begins it, outside of autocommit mode; so there is no message for nothing.
    """

    def __init__(self, source: Source, table: str) -> None:
        super().__init__(source, table)
        self._loan = Loan(source, begins=True)
        self._asked_to_commit = False
        self._last: dict[tuple[Any, ...], tuple[str, Params]] = {}
        self._is_put_off = False

    def begin(self, first: Statement | None = None) -> Rows:
        """Begin with a first statement, and return its rows; on another connection if the first turns out to be lost.
        Call `end` whatever this raises."""
        source = self._source
        once_more = source.replaceable
        while True:
            try:
                self.conn = self._loan.acquire()
                source.begun[self] = threading.get_ident()
                self._is_put_off = first is None and source.puts_off(self.conn, is_hot(self.conn))
                rows: Rows = []
                if first is not None:
                    rows = self._begin_with(*first)
                elif not self._is_put_off:
                    self.driver.begin(self.conn, now=source.replaceable)
                break
            except BaseException as error:
                conn = self._loan.conn
                if conn is None:
                    raise
                lost = self.driver.is_lost(conn, error)
                self.driver.rollback(conn)  # interrupted, it may have begun
                self._release(lost)
                if not lost or not once_more:
                    self.driver.raise_meaning(self.conn, error, False, self._table)
            once_more = False
        self.enter()
        return rows

    def run(
        self, sql: str, params: Params | None = None, limit: float | None = None, prepare: bool = False
    ) -> Rows:
        if not self._is_put_off:
            return super().run(sql, params, limit)
        self._check_process()
        if not self.driver.idle(self.conn):  # the application was first
            self._is_put_off = False
            return super().run(sql, params, limit)
        try:
            rows = self._run_first(sql, params, limit, prepare)
        except self.driver.Error as error:
            if self.driver.is_lost(self.conn, error):
                doubt()
            self._fail(error)
        known(self.conn).answered_at = time.monotonic()
        return rows

    def _run_first(self, sql: str, params: Params | None, limit: float | None, prepare: bool) -> Rows:
        """Begin with the first statement; a prepared one if it is repeated.

        Nothing else was executed, so that one which the server has forgotten is no loss.
        """
        driver, conn = self.driver, self.conn
        if not (prepare and params and not self._source.session(conn).hidden):
            return self._begin_with(sql, params, limit)
        prepared = known(conn).prepared
        before, execute = prepared.whole(sql, params, lambda: driver.mogrify(conn, sql, params))
        try:
            if before:
                driver.committed(conn, driver.run, before)
            if execute:
                return self._begin_with(execute, None, limit)
        except driver.Error as error:
            if not (driver.is_unprepared(error) and prepared.lost()):
                raise
            driver.rollback(conn)
        return self._begin_with(sql, params, limit)

    def _begin_with(self, sql: str, params: Params | None, limit: float | None = None) -> Rows:
        """Begin, and execute the first statement, in one message."""
        source, driver, conn = self._source, self.driver, self.conn
        try:
            if source.owned:  # else the driver begins
                conn.autocommit = True
            if begin := driver.beginning(conn):
                sql = f"{begin}; {sql}"
            if limit is None:
                return source.run_patiently(conn, sql, params)
            return driver.run(conn, sql, params, limit)
        finally:
            if conn.closed or not driver.idle(conn):
                self._is_put_off = False
            elif source.owned:  # interrupted, say: the next one begins
                conn.autocommit = False

    def before_commit(self, name: tuple[Any, ...], sql: str, params: Params) -> None:
        """Execute a statement at the end of the transaction, if it is committed; under one name once."""
        self._last[name] = sql, params

    def end(self, error: BaseException | None) -> None:
        """Commit or, after an error, roll back. A second call does nothing.

        :raises BlockError: the block is left at the wrong place or in the wrong order; it was rolled back.
        """
        if self._loan.conn is None:  # it has not begun, or has ended
            self.leave()
            return
        if self._pid != os.getpid():  # the connection is the parent's
            self.over = True
            if error is None:
                self._check_process()
            return
        if sys.is_finalizing():
            return  # see Driver.rollback
        if self.conn is None:  # none could be had
            self.over = True
            self._release(False)
            return
        committed = False
        if error is not None:
            self._source.note(self.conn, error)
        try:
            mistake = self.mistake() or self.broken
            if mistake is None and error is None and self.top is not self:
                mistake = "a block of pq was left before another one that was entered inside of it"
            if not self._asked_to_commit:
                self._check_open()
            if mistake is None and error is None:
                self._asked_to_commit = True
                self._commit()
                committed = True
                self._source.committed(self.conn)
        finally:
            try:
                if not committed:
                    self.driver.rollback(self.conn)
            finally:
                self._close()
        if mistake is not None:
            tell(mistake, error)

    def _commit(self) -> None:
        try:
            if not self.driver.alive(self.conn):
                self.driver.raise_lost(None)
            if self._last and self.driver.works(self.conn):
                for sql, params in self._last.values():
                    self.driver.run(self.conn, sql, params)
            self.driver.commit(self.conn)
            known(self.conn).answered_at = time.monotonic()
        except BaseException as error:
            self.driver.rollback(self.conn)
            self.driver.raise_meaning(self.conn, error, True, self._table)

    def _check_open(self) -> None:
        """By SQL the application may have ended what we began. It is too late for an error: what followed is done."""
        if self.conn.autocommit and not self.conn.closed and self.driver.idle(self.conn):
            logger.warning("a transaction was ended within its block: what followed was committed at once")

    def _close(self) -> None:
        """With it end the savepoints inside of it."""
        scope: Any = self.top
        while scope is not self:
            scope.over = True
            scope = scope._below
        self.leave()
        self._release(bool(self.conn.closed))

    def _release(self, lost: bool) -> None:
        self._source.begun.pop(self, None)
        self._loan.release(lost)
