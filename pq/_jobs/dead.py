"""The class `DeadJob`: a job that was given up."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from .._table.rows import QueueRows
from .._times import Delay
from ..errors import JobNotFound
from .failure import Failure
from .job import Job
from .row import ATTEMPTS, DEQUEUED_AT, ENQUEUED_AT, EXPECTED_AT, ID, KEY, OWN, SCHEDULE_AT, TEXT


class DeadJob(Job):
    """A dead job.

    :ivar attempts: how often it was delivered.
    :ivar error: the `Failure` of its last attempt.
    :ivar first_failed_at: when an attempt failed for the first time; naive, in UTC.
    :ivar died_at: when the last one failed; naive, in UTC.
    """

    __slots__ = ("_place", "_retry", "attempts", "died_at", "error", "first_failed_at")

    def __init__(self, queue: QueueRows, row: tuple[Any, ...], retry: Callable[[int, Delay | None], int]) -> None:
        """Read a row of ``dead.sql``.

        :param retry: makes the dead job of an id ready again, and returns whether there was one.
        """
        text = row[TEXT]
        error, failed_at, place, headers = row[OWN:]
        times = row[ENQUEUED_AT], row[SCHEDULE_AT], row[EXPECTED_AT]
        super().__init__(queue, row[ID], text, len(text), *times, row[KEY], headers)
        self.attempts: int = row[ATTEMPTS]
        self.error: Failure = Failure.loads(error)
        self.died_at: datetime = row[DEQUEUED_AT]
        self.first_failed_at: datetime = self.died_at if failed_at is None else failed_at
        self._place: str = place
        self._retry = retry

    @property  # type: ignore[misc]
    def data(self) -> Any:
        """The decoded data. To repair what the job died of, use ``queue.update(job.id, data)``.

        :raises DecodeError: the data can't be decoded, which may be what the job died of; `text` has it.
        """
        return self._queue._decoded(self.id, self._data)

    @property
    def text(self) -> str:
        """The data as it stands in the table."""
        return str(self._data)

    def retry(self, in_: Delay | None = None) -> None:
        """Make the job ready again; see `Dead.retry`.

        :raises JobNotFound: it is not dead any more.
        """
        if not self._retry(self.id, in_):
            raise JobNotFound(job_id=self.id, queue=self._queue.name)
