"""The base of the parts of `Queue`: its options and transactions."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from logging import Logger, getLogger
from typing import Any

from .._db import block_of
from .._table.puts import PutRows
from .._times import Delay
from ..errors import BlockError
from ..retry import Policy, RetryIn, exponential, retries_from


class QueueBase(PutRows):
    """The options of a queue."""

    #: Seconds that `get` and iteration wait for a job; None waits without end.
    timeout: Delay | None = 1

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
        self._policy = Policy(retries_from(self.max_retries, self.max_attempts), self.retry_in)
        self._entered: list[Any] = []  # the blocks of this queue that are open, in all threads

    # -- transactions

    def __enter__(self) -> Any:
        """Begin a transaction for all that the current thread or coroutine does with this PQ, and return a cursor."""
        block = self._transaction(self)
        block.frame = sys._getframe(1)
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
            _block = self._block_of(sys._getframe(1))
            _block.end(error)
            self._entered.remove(_block)
        except BaseException as problem:  # perhaps an interrupt: a block that has ended is not ended again
            _block = _block or self._block_of(sys._getframe(1))
            _block.end(problem)
            if _block in self._entered:
                self._entered.remove(_block)
            raise

    def _block_of(self, frame: Any) -> Any:
        """Return the block that the code of this frame leaves.

        Mostly that is the innermost one of the context. But generators, say, may leave theirs in any order, and a
        context may not see it: then it is the one that the frame has entered.
        """
        innermost = next(reversed(self._entered), None) if self._db.is_view else block_of(self)
        if innermost is not None and innermost.frame is frame:
            return innermost
        for block in reversed(self._entered):
            if block.frame is frame:
                return block
        if innermost is None:
            if len(self._entered) != 1:
                raise BlockError("a block of pq was left that was entered in another context. Use pq.bind(conn) there.")
            return self._entered[0]
        return innermost

    def _transaction(self, opener: object = None) -> Any:
        return self._db.transaction(opener, **self.cursor_kwargs)
