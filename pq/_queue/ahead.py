"""`Queue.jobs` with ``ahead=True``: one statement ends a job as done and takes the next one."""

from __future__ import annotations

import os
import sys
import weakref
from typing import Any

from .._jobs.lease import LeasedJob
from .._jobs.settlement import Settlement
from .._times import Delay
from .item import delivered_as
from .iterators import QueueIterator


class AheadJob(LeasedJob):
    """A job whose end takes the next one, for the loop that has yielded it, unless that was left.

    Only the plain case: it is done, outside of a transaction, and has no key, whose next job might be held until this
    one has ended.
    """

    __slots__ = ("_loop",)

    _loop: weakref.ref[AheadIterator]

    def settle(self, settlement: Settlement, conn: Any = None) -> None:
        loop = self._loop()
        plain = conn is None and settlement.outcome == "done" and settlement.key_state is None and self.key is None
        found = None
        if plain and loop is not None and loop.ahead is None:
            found = self._queue._claims.next_after(self._queue, settlement, self.lease)  # type: ignore[attr-defined]
        if found is not None and loop is not None:
            self.settled, loop.ahead = found
        if not self.settled:
            super().settle(settlement, conn)  # which also tells whether it is lost


class AheadIterator(QueueIterator):
    """Iterates jobs under a lease.

    :ivar ahead: the job that was taken with the end of the last one.
    """

    ahead: LeasedJob | None = None

    def __init__(self, queue: Any, timeout: Delay | None, lease: Delay) -> None:
        super().__init__(queue, timeout, lease)
        self._pid = os.getpid()

    def __next__(self) -> Any:
        job: Any = self.ahead
        if job is None:
            job = super().__next__()
        if job is None:
            return None
        made = delivered_as(AheadJob, job)
        made._loop = weakref.ref(self)
        self.ahead = None
        return made

    def close(self) -> None:
        """Give the job back that was taken ahead."""
        job, self.ahead = self.ahead, None
        if job is not None and self._pid == os.getpid() and not sys.is_finalizing():
            try:
                job.release()
            except Exception as error:  # its lease will expire
                self.queue.logger.error("could not give job %s back: %s", job.id, error)

    def __del__(self) -> None:
        self.close()
