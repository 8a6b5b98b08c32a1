"""One delivery of a job to a worker."""

from __future__ import annotations

import sys
import time
import traceback
from typing import TYPE_CHECKING, Any

from .._jobs.failure import TRACEBACK
from .._jobs.lease import LeasedJob
from ..errors import TaskTimeout
from .attempt import Attempt

if TYPE_CHECKING:
    from .thread import Consumer

#: Heartbeats for each lease: two may fail.
BEATS = 3


class Run:
    """A job that the worker holds: in stock, until a consumer begins it.

    :ivar taken: when it was claimed; monotonic seconds, as all.
    :ivar beats: when its lease is to be extended.
    :ivar ends: when its timeout is over.
    :ivar ended: when its handler did.
    :ivar lost: its lease; that has been told.
    """

    __slots__ = ("_attempt", "beats", "consumer", "ended", "ends", "job", "lost", "started", "taken")

    def __init__(self, job: LeasedJob, now: float) -> None:
        self.job = job
        self.taken = now
        self.started = now
        self.ended: float | None = None
        self.ends = float("inf")
        self.beats = now + self.interval
        self.consumer: Consumer | None = None
        self.lost = False
        self._attempt: Attempt | None = None

    def begin(self, consumer: Consumer, attempt: Attempt) -> None:
        """From now on it is the consumer's."""
        now = time.monotonic()
        self._attempt = attempt
        self.started = now
        options = attempt.options
        if options.timeout is not None:
            self.ends = now + options.timeout.total_seconds()
        if options.lease is not None:
            self.job.lease = options.lease
            self.beats = now
        self.consumer = consumer

    @property
    def attempt(self) -> Attempt:
        """:raises AttributeError: it has not begun."""
        if self._attempt is None:
            raise AttributeError("this job has not begun")
        return self._attempt

    @property
    def task(self) -> str:
        return "?" if self._attempt is None else self._attempt.name

    @property
    def error(self) -> BaseException | None:
        return None if self._attempt is None else self._attempt.error

    @property
    def unsure(self) -> bool:
        """Whether it may have been settled already, by a COMMIT whose answer was lost."""
        return self._attempt is not None and self._attempt.unsure

    @property
    def interval(self) -> float:
        return self.job.lease.total_seconds() / BEATS

    @property
    def seconds(self) -> float:
        """For which the handler has run."""
        return (time.monotonic() if self.ended is None else self.ended) - self.started

    def describe(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "queue": self.job.queue.name,
            "job_id": self.job.id,
            "task": self.task,
            "attempt": self.job.attempts,
            "seconds": round(self.seconds, 3),
        }

    def overdue(self) -> TaskTimeout:
        """Its timeout is over: says so, with where the thread is now for a traceback."""
        error = TaskTimeout(timeout=self.attempt.options.timeout)
        frame = sys._current_frames().get(self.consumer.ident or 0) if self.consumer else None
        if frame is not None:
            error.stack = "".join(traceback.format_stack(frame))[-TRACEBACK:]
        return error
