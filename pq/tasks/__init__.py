"""Tasks: functions whose calls are put on a queue, and performed by a worker.

    from pq import PQ

    pq = PQ("postgresql://localhost/app")
    queue = pq["default"]

    @queue.task(max_retries=2, retry_in="10s")
    def eat(job_id, kind):
        print(f"umm, {kind} apples taste good.")

    eat("Cox")
    queue.work()
"""

from __future__ import annotations

from logging import Logger, getLogger
from typing import TYPE_CHECKING

from .._queue import Queue as BaseQueue
from ..retry import RetryIn
from ..worker import Worker
from ..worker.handler import current
from . import queue
from .task import Task

__all__ = ["PQ", "Queue", "Task", "Worker", "current"]


class Queue(queue.Queue):
    """A `pq.Queue` with the defaults and the logger that queues of tasks have in pq 1.9.1."""

    #: For jobs that are no calls of tasks; tasks have their own.
    max_retries: int = 0
    retry_in: RetryIn = "30s"

    logger: Logger = getLogger("pq.tasks")


class PQ(queue.PQ):
    """A `pq.PQ` whose queues are `pq.tasks.Queue`, as in pq 1.9.1. New programs need only `pq.PQ`."""

    queue_class: type[BaseQueue] | None = Queue

    if TYPE_CHECKING:

        def __getitem__(self, name: str) -> Queue: ...
