"""Iterators over the jobs of a queue, one by one or in batches. They never end, and go on after an error."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, Protocol

from .._jobs.job import Job
from .._times import Delay


class Getter(Protocol):
    """A queue, as the iterators use it."""

    logger: Any

    @property
    def _db(self) -> Any: ...
    def get(self, *, timeout: Delay | None, lease: Delay | None = None) -> Job | None: ...
    def get_many(self, n: int, *, timeout: Delay | None, lease: Delay | None) -> list[Any]: ...


class QueueIterator(Iterator["Job | None"]):
    """Iterates the jobs of a queue, and can go on after an error.

    :ivar timeout: how long to wait for a job before it yields None, as ``'5s'``, a timedelta or seconds; None means
        the queue's `timeout`.
    :ivar lease: the lease of the jobs; None: they are taken without a lease.
    """

    timeout: Delay | None = None

    def __init__(self, queue: Getter, timeout: Delay | None = None, lease: Delay | None = None) -> None:
        self.queue = queue
        self.timeout = timeout
        self.lease = lease

    def __next__(self) -> Job | None:
        if self.lease is None:
            return self.queue.get(timeout=self.timeout)
        return self.queue.get(timeout=self.timeout, lease=self.lease)


class BatchIterator(Iterator["list[Any]"]):
    """Iterates lists of jobs of a queue.

    :param linger: seconds to wait for more jobs after the first one of a batch.
    """

    def __init__(self, queue: Getter, n: int, linger: float, timeout: Delay | None, lease: Delay | None) -> None:
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
                raise  # the rollback puts the jobs back
            # Raising would lose the jobs that are here. A lasting error is raised by the next batch.
            self._queue.logger.error("%s", error)
        return batch
