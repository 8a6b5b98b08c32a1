"""The queue of the events that a subscription has set aside: ``orders:billing``."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, ClassVar

from .._jobs.lease import LeasedJob
from .._logs import queue_log as logger
from .._queue import Queue
from .._table import Table
from ..errors import DecodeError, LeaseExpired
from ..retry import Policy
from .event import Event


def retries_of(stream: str, subscription: str) -> str:
    """Return the name of the queue: no two subscriptions share one, whatever they and their streams are called. So a
    colon in the name of a subscription is ``%3A`` there."""
    return f"{stream}:{subscription.replace('%', '%25').replace(':', '%3A')}"


class Retries(Queue):
    """The queue as a subscription reads it: in JSON, whatever the application's queues are written in.

    :param policy: how often an event is tried again, and after what pause.
    """

    converters: ClassVar[Mapping[str, Any]] = {}  # nothing in the name of a stream or a subscription chooses a codec

    def __init__(self, table: Table, name: str, policy: Policy) -> None:
        super().__init__(name, table.database.conn, table.database.pool, table.name.name, table.name.schema)
        self._table = table
        self._policy = policy

    def next(self, lease: timedelta) -> tuple[LeasedJob, Event] | None:
        """Take the next job, and return it as an event. What is no event is dead."""
        while True:
            try:
                job = self.get(block=False, lease=lease)
            except DecodeError as error:
                logger.error("%s", error)
                continue
            if not isinstance(job, LeasedJob):
                return None
            if job.expiries and job.attempts > self._policy.max_retries + 1:
                job.fail(LeaseExpired(attempt=job.attempts))
                continue
            try:
                return job, event_of(job)
            except (TypeError, ValueError, KeyError):
                logger.error("job %s in queue %r is no event: it is dead", job.id, self.name)
                job.fail(f"this is no event that was set aside: {reprlib.repr(job.data)}")


def event_of(job: LeasedJob) -> Event:
    """Return the event that was put as a job.

    :raises TypeError: it is none; or a ValueError or KeyError.
    """
    event = Event.of(job.data, job.attempts)
    if not isinstance(event.id, int) or not isinstance(event.headers, (dict, type(None))):
        raise TypeError
    return event
