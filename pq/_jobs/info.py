"""What `Queue.list` and `PQ.queues` show: a job and a queue as they were at one moment."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from .._table.instruments import headers_of
from .._table.rows import QueueRows
from .failure import Failure
from .row import ATTEMPTS, DEQUEUED_AT, ENQUEUED_AT, EXPECTED_AT, ID, KEY, OWN, SCHEDULE_AT, TEXT


@dataclass(frozen=True)
class JobInfo:
    """A job as it was when it was looked at. Times are naive and in UTC.

    :ivar id: primary key of the row.
    :ivar state: ``'ready'``, ``'scheduled'``, ``'held'``, ``'running'``, ``'dead'`` or ``'finished'``.
    :ivar enqueued_at: when it was put.
    :ivar schedule_at: not to be got before, or None.
    :ivar expected_at: its priority, or None.
    :ivar due_at: when it becomes ready by itself: if it is scheduled or, unless its lease is extended, running. Else
        None.
    :ivar dequeued_at: when it was taken for the last time; if it is dead, or was cancelled, when that was. Else None.
    :ivar attempts: how often it was delivered under a lease.
    :ivar error: the `Failure` of its last attempt, or None.
    :ivar first_failed_at: when an attempt failed for the first time, or None.
    :ivar finished_at: when it ended, whether finished, cancelled or dead; for a job that was taken without a lease,
        when that was. Else None.
    :ivar worker: who has it under a lease, or had it last: the host and the process id, ``'host:pid'``. Or None.
    :ivar cancelled: whether `Queue.cancel` finished it.
    :ivar key: the jobs of a queue with one key run one after the other; or None.
    :ivar waits_for: for how many jobs it still waits, if it was put to run after others; dead ones count. Else None.
    :ivar parents: for how many it was put to wait; None if it does not wait any more.
    :ivar stopped: whether one of these was cancelled or deleted, so that the job waits for a decision.
    :ivar headers: what instruments have put beside its data, such as a ``traceparent``; or None. See `PQ.instrument`.
    :ivar text: its data as it stands in the table.
    """

    id: int
    state: str
    enqueued_at: datetime
    schedule_at: datetime | None
    expected_at: datetime | None
    due_at: datetime | None
    dequeued_at: datetime | None
    attempts: int
    error: Failure | None
    first_failed_at: datetime | None
    finished_at: datetime | None
    worker: str | None
    cancelled: bool
    key: str | None
    waits_for: int | None
    parents: int | None
    stopped: bool
    headers: dict[str, str] | None = field(hash=False)
    text: str = field(repr=False)
    _queue: QueueRows = field(repr=False, compare=False)
    _place: str | None = field(repr=False, compare=False)

    @classmethod
    def of(cls, queue: QueueRows, row: tuple[Any, ...]) -> JobInfo:
        """Read a row of ``browse.sql``."""
        error, failed_at, due_at, state, place, waits_for, parents, stopped, finished_at, worker, headers = row[OWN:]
        cancelled = state == "finished" and failed_at is not None  # only that leaves the time without the error
        return cls(
            id=row[ID],
            state=state,
            enqueued_at=row[ENQUEUED_AT],
            schedule_at=None if state == "held" else row[SCHEDULE_AT],
            expected_at=None if state == "held" and row[EXPECTED_AT] == datetime.max else row[EXPECTED_AT],
            due_at=None if state == "held" else due_at,
            dequeued_at=row[DEQUEUED_AT],
            attempts=row[ATTEMPTS],
            error=None if error is None else Failure.loads(error),
            first_failed_at=None if cancelled else failed_at,
            finished_at=finished_at,
            worker=worker,
            cancelled=cancelled,
            key=row[KEY],
            waits_for=waits_for,
            parents=parents,
            stopped=stopped,
            headers=headers_of(headers),
            text=row[TEXT],
            _queue=queue,
            _place=place,
        )

    @property
    def data(self) -> Any:
        """The decoded data.

        :raises DecodeError: the data can't be decoded; `text` has it.
        """
        return self._queue._decoded(self.id, self.text)

    @property
    def size(self) -> int:
        """Length of the encoded data, in characters."""
        return len(self.text)


@dataclass(frozen=True)
class QueueInfo:
    """A queue as it was when it was looked at.

    :ivar name: its name.
    :ivar ready: how many jobs could be got, if it is not paused.
    :ivar scheduled: how many wait for their time.
    :ivar held: how many wait for other jobs: of their key, or those that they are to follow.
    :ivar running: how many run under a lease.
    :ivar dead: how many are dead.
    :ivar ready_since: when that job became ready which has been so for longest of those that are taken next: of the
        first with a priority, the first without one, and the first that has become due; or None. A job that was given
        back counts from when it was put. Naive, in UTC.
    :ivar next_due: when the first of the scheduled jobs becomes ready, or None; naive, in UTC.
    :ivar paused: whether it is paused.
    """

    name: str
    ready: int
    scheduled: int
    held: int
    running: int
    dead: int
    ready_since: datetime | None
    next_due: datetime | None
    paused: bool
