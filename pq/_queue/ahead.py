"""`Queue.jobs` with ``ahead=True``: one statement ends a job as done and takes the next one."""

from __future__ import annotations

import os
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from .._jobs.lease import LeasedJob
from .._jobs.settlement import Settlement
from .._times import Delay
from ..errors import LeaseLost
from .item import delivered_as
from .iterators import QueueIterator

#: A job that was taken ahead longer ago than this part of its lease gets the whole of it once more.
RENEW_PART = 1 / 3

#: Seconds that the end of a loop waits for the thread that gives a job back. It may need what this thread has.
LEAVE_TIMEOUT = 0.2


class AheadJob(LeasedJob):
    """A job whose end takes the next one, for the loop that has yielded it, unless that has gone on or was left.

    Only the plain case: it is done, outside of a transaction, and has no key, whose next job might be held until this
    one has ended.
    """

    __slots__ = ("_loop", "_turn")

    _loop: weakref.ref[AheadIterator]
    _turn: int

    def settle(self, settlement: Settlement, conn: Any = None) -> None:
        loop = self._loop()
        plain = conn is None and settlement.outcome == "done" and settlement.key_state is None and self.key is None
        if plain and loop is not None and loop.turn == self._turn and not loop.ahead:
            began = time.monotonic()
            found = self._queue._claims.next_after(self._queue, settlement, self.lease)  # type: ignore[attr-defined]
            if found is not None:
                self.settled, job = found
                if job is not None:
                    loop.ahead.append((job, began))
        if not self.settled:
            super().settle(settlement, conn)  # which also tells whether it is lost


class AheadIterator(QueueIterator):
    """Iterates jobs under a lease.

    Jobs may be ended by other threads. One that ends when the loop has gone on, and perhaps waits, takes none ahead.

    :ivar turn: the number of the job that was yielded last; another one while the next is waited for.
    """

    def __init__(self, queue: Any, timeout: Delay | None, lease: Delay) -> None:
        super().__init__(queue, timeout, lease)
        self.turn = 0
        self._ahead: deque[tuple[LeasedJob, float]] = deque()
        self._pid = os.getpid()

    @property
    def ahead(self) -> deque[tuple[LeasedJob, float]]:
        """The job that was taken with the end of the last one, and when, in monotonic seconds. Hardly ever two."""
        if self._pid != os.getpid():
            self._ahead, self._pid = deque(), os.getpid()  # the parent yields those that were taken before the fork
        return self._ahead

    def __next__(self) -> Any:
        self.turn += 1
        job: Any = self._taken() or super().__next__()
        if job is None:
            return None
        made = delivered_as(AheadJob, job)
        made._loop = weakref.ref(self)
        made._turn = self.turn
        return made

    def _taken(self) -> LeasedJob | None:
        """Return a job that was taken ahead and is still held, with most of its lease."""
        while self.ahead:
            job, at = self.ahead[0]
            if time.monotonic() - at > RENEW_PART * job.lease.total_seconds():  # the loop went on late
                try:
                    job.extend()
                except LeaseLost:
                    self.ahead.popleft()
                    continue
            self.ahead.popleft()
            return job
        return None

    def close(self) -> None:
        """Give back what was taken ahead."""
        _give_back(self._drained())

    def _drained(self) -> list[LeasedJob]:
        jobs = [job for job, _ in self.ahead]
        self.ahead.clear()
        return jobs

    def __del__(self) -> None:
        """The loop was left. Or the garbage collector has come by, perhaps in the middle of a statement of this very
        thread, which has the connection and its lock: so another thread gives the job back. In a transaction of the
        application's that is not done: its lease will expire."""
        if sys.is_finalizing() or not hasattr(self, "_pid") or not self.ahead or not self._is_free():
            return
        thread = threading.Thread(target=_give_back, args=(self._drained(),), name="pq release", daemon=True)
        try:
            thread.start()
            thread.join(LEAVE_TIMEOUT)
        except RuntimeError:  # no thread can be started: the lease will expire
            pass

    def _is_free(self) -> bool:
        database = self.queue._db
        with suppress(Exception):  # its connection is closed
            return not database.in_transaction if database.is_view else database.source.rests
        return False


def _give_back(jobs: Iterable[LeasedJob]) -> None:
    for job in jobs:
        try:
            job.release()
        except Exception as error:  # its lease will expire
            job._queue.logger.error("could not give job %s back: %s", job.id, error)  # type: ignore[attr-defined]
