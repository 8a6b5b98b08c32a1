"""Which job is taken next, and whether one may be."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from .._db import Database
from .._numbers import whole
from ..lease import LeasedJob
from ..retry import Delay, span

if TYPE_CHECKING:
    from ..tasks import Queue


class Intake:
    """Takes jobs from several queues, for all consumers of a worker. The parameters are those of `Worker`.

    :ivar busy_at: when something was taken, or ended, for the last time; monotonic seconds.
    """

    def __init__(self, queues: list[Queue], lease: Delay, strict: bool, burst: bool, max_jobs: int | None) -> None:
        self.queues = queues
        self._lease = span("lease", lease)
        self._strict = strict
        self._burst = burst
        self._tickets = float("inf") if max_jobs is None else whole("max_jobs", max_jobs, 1)
        self._lock = threading.Lock()
        self._turn = 0
        self.busy_at = time.monotonic()

    @property
    def database(self) -> Database:
        return self.queues[0]._db

    def admit(self) -> bool:
        """Whether a consumer may take a job now."""
        with self._lock:
            admitted = self._tickets > 0
            self._tickets -= admitted
        return admitted

    def dismiss(self) -> None:
        """It got none."""
        with self._lock:
            self._tickets += 1

    def claim(self) -> LeasedJob | None:
        """The next job: of the queues in turn, or of the first that has one."""
        first = 0 if self._strict else self._turn % len(self.queues)
        for queue in self.queues[first:] + self.queues[:first]:
            job = queue.get(block=False, lease=self._lease)
            if job is not None:
                self._turn += 1
                self.busy_at = time.monotonic()
                assert isinstance(job, LeasedJob)
                return job
        return None

    def patience(self) -> float:
        """Until when a consumer waits for a job, in monotonic seconds."""
        timeout = self.queues[0].timeout if self._burst else None
        return float("inf") if timeout is None else time.monotonic() + timeout


def choose(pq: Any, given: Iterable[str | Queue] | None) -> list[Queue]:
    """The queues that are meant.

    :param pq: a PQ, or a queue.
    :param given: queues or names of queues of that PQ; None: those that have tasks.
    """
    if isinstance(given, str):
        raise TypeError(f"queues must be a list of queues or names, not a str: {given!r}")
    if hasattr(pq, "perform"):
        if given is not None:
            raise TypeError(f"queues can't be chosen where {pq!r} alone is given")
        chosen = [pq]
    elif given is not None:
        chosen = [pq[item] if isinstance(item, str) else item for item in given]
    else:
        chosen = pq.with_tasks() if hasattr(pq, "with_tasks") else []
    for queue in chosen:
        if not hasattr(queue, "perform"):
            raise TypeError(f"{queue!r} has no tasks: use the PQ of pq.tasks")
    if not chosen:
        raise ValueError("there is no queue to work on: none has tasks here, and none was named")
    return chosen
