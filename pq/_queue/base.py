"""The base of the parts of `Queue`: its options and transactions."""

from __future__ import annotations

from collections.abc import Mapping
from logging import Logger, getLogger
from typing import Any

from .._args import integer
from .._table.rows import QueueRows
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

    def _transaction(self, opener: object = None) -> Any:
        return self._db.transaction(opener, **self.cursor_kwargs)
