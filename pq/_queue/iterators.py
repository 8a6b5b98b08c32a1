"""Jobs of a queue one after the other, or batch by batch: without end, and on after an error."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, Protocol

from .._jobs.job import Job
from .._times import Delay


class Source(Protocol):
    """The queue that is iterated."""

    logger: Any

    @property
    def _db(self) -> Any: ...
    def get(self, *, timeout: float | None, lease: Delay | None = None) -> Job | None: ...
    def get_many(self, n: int, *, timeout: float | None, lease: Delay | None) -> list[Any]: ...


class QueueIterator(Iterator["Job | None"]):
    """Iterates the jobs of a queue, also after an error.

    :ivar timeout: seconds until None is returned when there is no job; None: the queue's `timeout`.
    :ivar lease: under which jobs are taken; None: under none.
    """

    timeout: float | None = None

    def __init__(self, queue: Source, timeout: float | None = None, lease: Delay | None = None) -> None:
        self.queue = queue
        self.timeout = timeout
        self.lease = lease

    def __next__(self) -> Job | None:
        if self.lease is None:
            return self.queue.get(timeout=self.timeout)
        return self.queue.get(timeout=self.timeout, lease=self.lease)


class BatchIterator(Iterator["list[Any]"]):
    """Iterates lists of jobs of a queue.

    :param linger: seconds.
    """

    def __init__(self, queue: Source, n: int, linger: float, timeout: float | None, lease: Delay | None) -> None:
        self._queue = queue
        self._n = n
        self._linger = linger
        self._timeout = timeout
        self._lease = lease

    def __next__(self) -> list[Any]:
        batch = self._queue.get_many(self._n, timeout=self._timeout, lease=self._lease)
        until = time.monotonic() + self._linger
        try:
            while batch and len(batch) < self._n and (remaining := until - time.monotonic()) > 0:
                batch += self._queue.get_many(self._n - len(batch), timeout=remaining, lease=self._lease)
        except Exception as error:
            if self._queue._db.in_transaction:
                raise  # which puts them back
            # raised, it would lose those that are there; what does not pass, the next batch meets
            self._queue.logger.error("%s", error)
        return batch
