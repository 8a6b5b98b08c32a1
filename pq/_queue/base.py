"""The base of the parts of `Queue`: its options and transactions."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from logging import Logger, getLogger
from typing import Any

from .._args import integer
from .._db import block_of
from .._table.rows import QueueRows
from ..errors import BlockError
from ..retry import Policy, RetryIn, exponential


class QueueBase(QueueRows):
    """The options of a queue."""

    #: Seconds that `get` and iteration wait for a job; None waits without end.
    timeout: float | None = 1

    #: Keyword arguments for the cursor that ``with queue as cursor`` gives.
    cursor_kwargs: Mapping[str, Any] = {}

    #: How often a job under a lease is tried again, and after what pause; see `pq.retry.Policy`. `max_attempts` counts
    #: the first attempt, too; unless it is None it replaces `max_retries`.
    max_retries: int = 3
    max_attempts: int | None = None
    retry_in: RetryIn = exponential()

    logger: Logger = getLogger("pq")

    def __init__(self, name: str, *args: Any, **options: Any) -> None:
        super().__init__(name, *args, **options)
        again = self.max_retries if self.max_attempts is None else integer("max_attempts", self.max_attempts, 1) - 1
        self._policy = Policy(again, self.retry_in)
        self._entered: list[Any] = []  # the blocks of this queue that are open, in all threads

    # -- transactions

    def __enter__(self) -> Any:
        """Begin a transaction for all that the current thread or coroutine does with this PQ, and return a cursor."""
        block = self._transaction(self)
        block.frame = id(sys._getframe(1))
        try:
            self._entered.append(block)
            return block.__enter__()
        except BaseException as error:
            block.end(error)
            if block in self._entered:
                self._entered.remove(block)
            raise

    def __exit__(
        self, kind: object, error: BaseException | None, traceback: object, *, _block: Any = None
    ) -> None:
        """Commit, or roll back on an exception.

        :raises BlockError: the block was entered in another thread, context or order; it was rolled back.
        """
        try:
            _block = self._innermost_block() or self._lost_block(id(sys._getframe(1)))
            _block.end(error)
            self._entered.remove(_block)
        except BaseException as problem:  # perhaps an interrupt: a block that has ended is not ended again
            _block = _block or self._innermost_block() or self._lost_block(id(sys._getframe(1)))
            _block.end(problem)
            if _block in self._entered:
                self._entered.remove(_block)
            raise

    def _innermost_block(self) -> Any:
        if self._db.is_view:
            return self._entered[-1] if self._entered else None
        return block_of(self)

    def _lost_block(self, frame: int) -> Any:
        """The block to be left, which this context does not see. Mostly the frame tells which one it is."""
        blocks = [block for block in self._entered if block.frame == frame] or self._entered
        if len(blocks) != 1:
            raise BlockError("a block of pq was left that was entered in another context. Use pq.bind(conn) there.")
        return blocks[0]

    def _transaction(self, opener: object = None) -> Any:
        return self._db.transaction(opener, **self.cursor_kwargs)
