"""The transactions that statements belong to, and savepoints in them."""

from __future__ import annotations

import os
import sys
from typing import Any, NoReturn

from .._logs import queue_log as logger
from ..errors import BlockError
from .drivers.base import Driver, Params, Rows, Statement
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

    def run(
        self, sql: str, params: Params | None = None, limit: float | None = None, prepare: bool = False
    ) -> Rows:
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
