"""What a worker tells of its jobs: to the log, to counters, and to functions of the application's."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

from .._jobs.lease import LeasedJob
from .run import Run

logger = logging.getLogger("pq.tasks")

#: The events, and the level at which they are logged.
LEVELS = {
    "start": logging.INFO,
    "done": logging.INFO,
    "retry": logging.WARNING,
    "dead": logging.ERROR,
    "lost": logging.ERROR,
    "cancelled": logging.INFO,
}


class Event(NamedTuple):
    """What a worker tells of a job; see `Worker.on`.

    :ivar name: ``'start'``, ``'done'``, ``'retry'``, ``'dead'``, ``'lost'``: the lease, to another delivery, or
        ``'cancelled'``: the job, while it ran.
    :ivar seconds: since the handler was called.
    :ivar error: the exception that the attempt ended with, if any.
    """

    name: str
    job: LeasedJob
    task: str
    seconds: float
    error: BaseException | None


class Events:
    """:ivar counts: how many there were of each."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._functions: dict[str, list[Callable[[Event], Any]]] = {name: [] for name in LEVELS}
        self.counts = dict.fromkeys(LEVELS, 0)

    def on(self, name: str, function: Callable[[Event], Any]) -> None:
        if name not in LEVELS:
            raise ValueError(f"event must be one of {', '.join(LEVELS)}, not {name!r}")
        self._functions[name].append(function)

    def tell(self, name: str, run: Run, error: BaseException | None = None) -> None:
        """It has happened, and is committed.

        :param error: default: that of the attempt.
        """
        error = error or run.error
        if name == "lost" and run.job.cancelled:
            name = "cancelled"
        log(LEVELS[name], name, run, error)
        with self._lock:
            self.counts[name] += 1
        for function in self._functions[name]:
            try:
                function(Event(name, run.job, run.task, run.seconds, error))
            except Exception:
                logger.exception("what was to be called on %r failed", name)


def log(level: int, what: str, run: Run, error: BaseException | None = None) -> None:
    """A line with all that helps to find the job, but not its data."""
    if not logger.isEnabledFor(level):
        return
    job = run.job
    extra = {
        "queue": job.queue.name,
        "job_id": job.id,
        "task": run.task,
        "attempt": job.attempts,
        "seconds": round(run.seconds, 6),
    }
    text = "%(queue)s: job %(job_id)s, %(task)s, attempt %(attempt)s: " + what
    if what != "start":
        text += " after %(seconds).3f s"
    traceback = error if error is not None and job.queue.keep_traceback else None
    logger.log(level, text, extra, extra=extra, exc_info=traceback)
