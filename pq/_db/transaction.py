"""The transactions that statements belong to: pq's own, and the application's that pq has joined."""

from __future__ import annotations

import os
import sys
import threading
from typing import Any, NoReturn

from .._logs import queue_log as logger
from ..errors import BlockError
from .drivers.base import Driver, Params, Rows, Statement
from .loan import Loan
from .scope import Scope, tell
from .sources.base import Source


class Transaction(Scope):
    """A transaction, or a connection in autocommit mode.

    :ivar owned: whether it is on a connection of its source.
    :ivar top: the innermost open savepoint, or the transaction itself.
    :ivar broken: why it must not be committed, or None.
    """

    owned = True
    level = 0

    def __init__(self, source: Source, table: str) -> None:
        super().__init__(source)
        self._source = source
        self._table = table
        self.driver: Driver = source.driver
        self.conn: Any = None
        self._top: Scope | None = None
        self.broken: str | None = None
        self._pid = os.getpid()

    @property
    def transaction(self) -> Transaction:
        return self

    @property
    def top(self) -> Scope:
        return self._top or self

    @top.setter
    def top(self, scope: Scope) -> None:
        # no reference to itself: it would keep the connection alive until the garbage collector comes by
        self._top = None if scope is self else scope

    @property
    def commits_at_once(self) -> bool:
        """Whether no transaction is open, so that each statement is committed as it is executed."""
        return False

    def before_commit(self, name: tuple[Any, ...], sql: str, params: Params) -> None:
        """Nobody tells when the application commits."""

    def run(self, sql: str, params: Params | None = None, limit: float | None = None) -> Rows:
        self._check_process()
        try:
            return self.driver.run(self.conn, sql, params, limit)
        except self.driver.Error as error:
            self._fail(error)

    def copy(self, sql: str, file: Any) -> int:
        """COPY from a file; returns the number of rows."""
        self._check_process()
        try:
            return self.driver.copy(self.conn, sql, file)
        except self.driver.Error as error:
            self._fail(error)

    def _fail(self, error: Exception) -> NoReturn:
        self.driver.raise_meaning(self.conn, error, False, self._table)

    @property
    def failed(self) -> bool:
        """Whether it refuses all statements, since one has failed."""
        return not (self.driver.idle(self.conn) or self.driver.works(self.conn))

    def went_back(self) -> None:
        """A savepoint that was made before it failed was rolled back."""

    def _check_process(self) -> None:
        if self._pid != os.getpid():
            self.driver.raise_forked("the transaction belongs to the process that this one was forked from")


class Savepoint(Scope):
    """A block inside of a transaction.

    :param in_context: whether the transaction was found in the current context; one that was passed by `PQ.bind` is not
        there, and neither is its savepoint.
    """

    def __init__(self, transaction: Transaction, in_context: bool) -> None:
        super().__init__(transaction.source)
        self._transaction = transaction
        self._in_context = in_context
        self._below: Any = None
        self._made = False
        self._had_failed = False
        self.level = 0

    @property
    def transaction(self) -> Transaction:
        return self._transaction

    def begin(self, first: Statement | None = None) -> Rows:
        """Make the savepoint, and execute a first statement; return its rows. Call `end` whatever this raises."""
        transaction = self._transaction
        self._below = transaction.top
        self.level = self._below.level + 1
        transaction.top = self
        if self._in_context:
            self.enter()
        self._had_failed = transaction.failed
        transaction.run(f"savepoint pq_{self.level}")
        self._made = True
        return [] if first is None else transaction.run(*first)

    def end(self, error: BaseException | None) -> None:
        """Release the savepoint or, after an error, go back to it. A second call does nothing.

        :raises BlockError: the block is left at the wrong place or in the wrong order; nothing of it is committed.
        """
        transaction = self._transaction
        if self.over:
            if error is None and self._made:
                raise BlockError("the transaction around a block of pq was ended before the block was")
            return
        try:
            mistake = self.mistake()
            if mistake is None and error is None and transaction.top is not self:
                mistake = "a block of pq was left before another one that was entered inside of it"
            if mistake is not None:
                transaction.broken = transaction.broken or mistake
            if mistake is None and error is None:
                transaction.run(f"release savepoint pq_{self.level}")
            elif self._made and not (transaction.over or sys.is_finalizing() or transaction._pid != os.getpid()):
                self._go_back(error)
        finally:
            self._close()
        if mistake is not None:
            tell(mistake, error)

    def _go_back(self, error: BaseException | None) -> None:
        transaction = self._transaction
        if transaction.driver.is_lost(transaction.conn, error):
            return
        try:
            transaction.run(f"rollback to savepoint pq_{self.level}")
            transaction.run(f"release savepoint pq_{self.level}")
            if not self._had_failed:
                transaction.went_back()
        except transaction.driver.Error:
            # the transaction was ended in the block, or the connection is lost: nothing is left to be undone
            logger.warning("could not go back to a savepoint", exc_info=True)

    def _close(self) -> None:
        """With it end the savepoints inside of it."""
        transaction = self._transaction
        scope: Any = transaction.top
        while scope.level > self.level:
            scope.over = True
            scope = scope._below
        if scope is self:
            transaction.top = self._below
        self.leave()


class OwnTransaction(Transaction):
    """A transaction that pq begins and ends."""

    def __init__(self, source: Source, table: str) -> None:
        super().__init__(source, table)
        self._loan = Loan(source, begins=True)
        self._asked_to_commit = False
        self._last: dict[tuple[Any, ...], tuple[str, Params]] = {}

    def begin(self, first: Statement | None = None) -> Rows:
        """Begin with a first statement, and return its rows; on another connection if the first turns out to be lost.
        Call `end` whatever this raises."""
        source = self._source
        once_more = source.replaceable
        while True:
            try:
                self.conn = self._loan.acquire()
                source.begun[self] = threading.get_ident()
                rows = self.driver.begin(self.conn, now=source.replaceable, first=first)
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
