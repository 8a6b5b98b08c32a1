"""What is in a queue, for people and for monitoring: nothing is taken, and nothing is locked."""

from __future__ import annotations

import builtins
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from .._args import integer, job_ids
from .._jobs.failure import Failure
from .._table.rows import QueueRows
from ..errors import JobNotFound

#: In the order in which `Browse.list` goes through them. The last one holds history: only who names it is shown it.
STATES = ("ready", "scheduled", "running", "dead", "finished")
_LIVE = 4

_BEFORE_ALL = -(2**63)


@dataclass(frozen=True)
class JobInfo:
    """A job as it was when it was looked at. Times are naive and in UTC.

    :ivar id: primary key of the row.
    :ivar state: ``'ready'``, ``'scheduled'``, ``'running'``, ``'dead'`` or ``'finished'``.
    :ivar enqueued_at: when it was put.
    :ivar schedule_at: not to be got before, or None.
    :ivar expected_at: its priority, or None.
    :ivar due_at: when it becomes ready by itself: if it is scheduled or, unless its lease is extended, running. Else
        None.
    :ivar dequeued_at: when it was taken for the last time; if it is dead, or was cancelled, when that was. Else None.
    :ivar attempts: how often it was delivered under a lease.
    :ivar error: the `Failure` of its last attempt, or None.
    :ivar first_failed_at: when an attempt failed for the first time, or None.
    :ivar cancelled: whether `Queue.cancel` finished it.
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
    cancelled: bool
    text: str = field(repr=False)
    _queue: QueueRows = field(repr=False, compare=False)
    _key: str | None = field(repr=False, compare=False)

    @classmethod
    def of(cls, queue: QueueRows, row: tuple[Any, ...]) -> JobInfo:
        """From a row of browse.sql."""
        id, text, _, enqueued, schedule, expected, dequeued, attempts, due, failed, error, state, key = row
        # no other end leaves the time of a failure without the failure
        cancelled = state == "finished" and failed is not None
        return cls(
            id,
            state,
            enqueued,
            schedule,
            expected,
            due,
            dequeued,
            attempts,
            None if error is None else Failure.loads(error),
            None if cancelled else failed,
            cancelled,
            text,
            queue,
            key,
        )

    @property
    def data(self) -> Any:
        """The decoded data.

        :raises DecodeError: it can't be decoded. `text` has it.
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
    :ivar running: how many run under a lease.
    :ivar dead: how many are dead.
    :ivar ready_since: since when the ready job has been that which has been so for the longest, or None; naive, in UTC.
        One that was given back counts from when it was put.
    :ivar next_due: when the first of the scheduled ones becomes ready, or None; naive, in UTC.
    :ivar paused: whether it is.
    """

    name: str
    ready: int
    scheduled: int
    running: int
    dead: int
    ready_since: datetime | None
    next_due: datetime | None
    paused: bool


class Browse(QueueRows):
    """Looks at the jobs of a queue."""

    def list(
        self, state: str | None = None, limit: int = 100, after: JobInfo | int | None = None
    ) -> builtins.list[JobInfo]:
        """Jobs as they are now, in the order in which `get` takes them: ready ones, then scheduled ones by their time;
        then those that run, and dead ones, the longest first. Finished ones are listed, by their ids, only if that
        state is asked for, which may read the whole table.

        A job that somebody has in a transaction is listed as if it was not.

        :param state: only these: ``'ready'``, ``'scheduled'``, ``'running'``, ``'dead'`` or ``'finished'``.
        :param limit: at most so many.
        :param after: the last job of the page before, to go on behind the place where it was then; or an id, to go on
            behind the place where that job is now.
        :raises ValueError: another state; a negative `limit`; `after` was in none of the states asked for.
        :raises TypeError: `limit` is no int; `after` is something else.
        :raises JobNotFound: there is no job of that id any more.
        """
        integer("limit", limit)
        first, last = (1, _LIVE) if state is None else (_rank(state), _rank(state))
        keys: dict[str, str | int | None] = {"untimed_id": _BEFORE_ALL}
        for each in STATES:
            keys |= {f"{each}_key": "-infinity", f"{each}_id": _BEFORE_ALL}
        if after is not None:
            job = after if isinstance(after, JobInfo) else self[after]
            if not first <= _rank(job.state) <= last:
                raise ValueError(f"job {job.id}, after which to go on, is {job.state}")
            first = _rank(job.state)
            keys |= {f"{job.state}_key": job._key, f"{job.state}_id": job.id}
            if job.state == "ready" and job.expected_at is None:
                keys["untimed_id"] = job.id
        rows = self._browse("list", first=first, last=last, limit=limit, **keys)
        return [JobInfo.of(self, row) for row in rows]

    def peek(self) -> JobInfo | None:
        """The job that `get` would take next, unless somebody has it in a transaction, or the queue is paused."""
        return next(iter(self.list("ready", 1)), None)

    def count(self, state: str | None = None, *, conn: Any = None) -> int:
        """How many jobs there are; default: all that are not finished.

        :param state: only these, as for `list`. Finished ones are counted in a scan of the table.
        :param conn: as the transaction that is open there sees them; see `PQ.using`.
        :raises ValueError: another state.
        """
        if state is not None:
            _rank(state)
        queue = self if conn is None else self._bind(conn)
        ((count,),) = queue._browse("count" if state is None else f"count_{state}")
        return int(count)

    def counts(self, *, conn: Any = None) -> dict[str, int]:
        """How many jobs there are in each state, finished ones too: that takes a scan of the table.

        :param conn: as for `count`.
        """
        queue = self if conn is None else self._bind(conn)
        return dict.fromkeys(STATES, 0) | dict(queue._browse("counts"))

    def find(self, id: int) -> JobInfo | None:
        """The job of that id, in whatever state; None if there is none in this queue.

        :raises TypeError: the id is no int.
        """
        (number,) = job_ids([id])
        rows = self._browse("find", id=number) if abs(number) < 2**63 else []
        return JobInfo.of(self, rows[0]) if rows else None

    def __getitem__(self, id: int) -> JobInfo:
        """The same.

        :raises JobNotFound: there is none in this queue, which is a `LookupError`.
        :raises TypeError: the id is no int.
        """
        job = self.find(id)
        if job is None:
            raise JobNotFound(job_id=id, queue=self.name)
        return job

    def _browse(self, statement: str, **params: Any) -> builtins.list[tuple[Any, ...]]:
        return self._run(self._statements("browse.sql")[statement], **params)


def _rank(state: str) -> int:
    if state not in STATES:
        raise ValueError(f"state must be one of {', '.join(STATES)}, not {state!r}")
    return STATES.index(state) + 1
