"""Taking the next jobs of a queue, by a statement that stays cheap however many rows there are."""

from __future__ import annotations

import time
from datetime import timedelta, timezone
from itertools import zip_longest
from typing import Any, NamedTuple

from .._db import Rows
from .._jobs.job import Job
from .._jobs.lease import LeasedJob
from .._jobs.settlement import Settlement, settle
from .._wait import wait_for
from ..errors import DecodeError
from .base import QueueBase

#: Ids below the last one taken that the next claim still looks at.
SLACK = 1000

#: Seconds after which it looks at all of them again.
FORGET = 1.0


class Refusal(NamedTuple):
    """A job whose data could not be decoded.

    :ivar outcome: what became of it: ``'left'`` where it is or, under a lease, ``'retry'`` or ``'dead'``.
    """

    job: Any
    outcome: str
    error: DecodeError


class Claim:
    """Takes jobs of one queue.

    While an old transaction is open somewhere, the entries of taken jobs stay in the index, in front of those of ready
    ones, and each claim would step over all of them. So among jobs without priority a claim begins at the *low-water
    mark*: somewhat below the last id that this process took. What is ready below it (put by a long transaction, or
    given back) is seen when the mark is dropped: once a second, and whenever there are not enough above it.
    """

    def __init__(self) -> None:
        # Threads may overwrite each other's: one of their marks is as good as another's.
        self._mark = 0
        self._dropped_at = 0.0  # monotonic seconds

    def take(self, queue: QueueBase, limit: int, timeout: float, lease: timedelta | None = None) -> list[Any]:
        """Take the best jobs of the queue that this belongs to.

        :param limit: how many at most.
        :param timeout: the seconds that the caller has.
        :param lease: None: they are taken for good, or as the transaction ends.
        :raises DecodeError: none of those that are there can be decoded.
        """
        while True:
            jobs, refused = self.fetch(queue, limit, timeout, lease)
            raises = bool(refused) and not jobs and not (lease and queue._db.in_transaction)
            for refusal in refused[1:] if raises else refused:
                queue.logger.error("%s", refusal.error)
            if raises:
                raise refused[0].error
            if jobs or not refused:
                return jobs
            # raised, the error would undo the end of the job that it tells of: on to the next

    def wait(self, queue: QueueBase, limit: int, patience: float, lease: timedelta | None) -> list[Any]:
        """The same; if there are none, wait for the first.

        :param patience: seconds.
        """
        deadline = time.monotonic() + patience
        found = self.take(queue, limit, patience, lease)
        if found or patience == 0:
            return found
        def claim(name: str) -> list[Any]:
            return self.take(queue, limit, max(0.0, deadline - time.monotonic()), lease)

        return wait_for(queue._table.waiter(queue.name), deadline, claim) or []

    def fetch(
        self, queue: QueueBase, limit: int, timeout: float, lease: timedelta | None
    ) -> tuple[list[Any], list[Refusal]]:
        """The same, with those that could not be decoded."""
        rows = self._rows(queue, limit, timeout, lease)
        jobs = [_job(queue, row, lease) for row in rows]
        refused = _decode(queue, jobs, rows)
        good = [job for job, refusal in zip(jobs, refused, strict=True) if refusal is None]
        return good, [refusal for refusal in refused if refusal is not None]

    def _rows(self, queue: QueueBase, limit: int, timeout: float, lease: timedelta | None) -> Rows:
        params = {"queue": queue.name, "lease": None if lease is None else lease.total_seconds()}
        rows: Rows = []
        try:
            statement = _statement(queue, timeout, lease)
            while True:
                mark, wanted = self._low_water(), limit - len(rows)
                found = queue._db.execute(
                    statement, {**params, "mark": mark, "limit": wanted}, timeout=timeout, prepare=True
                )
                rows = sorted(rows + found, key=_order) if rows else found  # what comes second was below the mark
                if len(found) == wanted or not mark:
                    self._saw(found)
                    break
                self._mark = 0
        except TimeoutError:
            pass
        except Exception as error:
            if not rows or queue._db.in_transaction:
                raise
            # raised, it would lose those that are there; what does not pass, the next claim meets
            queue.logger.error("%s", error)
        return rows

    def _low_water(self) -> int:
        now = time.monotonic()
        if now - self._dropped_at > FORGET:
            self._dropped_at = now
            self._mark = 0
        return self._mark

    def _saw(self, rows: Rows) -> None:
        if rows:
            id, *_, expected_at, _, _, _, made_others_ready, _ = rows[-1]
            if expected_at is None and not made_others_ready:
                self._mark = max(self._mark, id - SLACK)


def _order(row: tuple[Any, ...]) -> tuple[Any, ...]:
    id, *_, expected_at, _, _, _, _, _ = row
    return expected_at is None, expected_at, id


def _statement(queue: QueueBase, timeout: float, lease: timedelta | None) -> str:
    how = "leased"
    if lease is None:
        how = "removed" if queue._table.retention(timeout).deletes_on_completion else "taken"
    sql = queue._statements("claim.sql", taken=how, removes="does_remove" if how == "removed" else "removes")
    return sql["claim_in_transaction" if queue._db.in_transaction else "claim"]


def _job(queue: QueueBase, row: tuple[Any, ...], lease: timedelta | None) -> Any:
    *columns, dequeued_at, attempts, expiries, _, _ = row
    if lease is None:
        return Job(queue, *columns)
    held = {"attempts": attempts, "expiries": expiries, "dequeued_at": dequeued_at.replace(tzinfo=timezone.utc)}
    return LeasedJob(queue, *columns, **held, lease=lease, policy=queue._policy)


def _decode(queue: QueueBase, jobs: list[Any], rows: Rows) -> list[Refusal | None]:
    """Replace text by data. Where that can't be done the job is settled, and there is a refusal."""
    refused: list[Refusal | None] = []
    try:
        for job, row in zip(jobs, rows, strict=True):
            try:
                job._data = queue._decoded(job.id, job._data)
                refused.append(None)
            except DecodeError as error:
                refused.append(_refused(queue, job, row, error))
    except BaseException:  # Ctrl-C: nobody has seen them
        unseen = [number for number, (_, refusal) in enumerate(zip_longest(jobs, refused)) if refusal is None]
        _give_back(queue, [jobs[number] for number in unseen], [rows[number] for number in unseen])
        raise
    return refused


def _refused(queue: QueueBase, job: Any, row: tuple[Any, ...], error: DecodeError) -> Refusal:
    outcome = "left"
    if isinstance(job, LeasedJob):
        outcome = job.failed(error)
    else:
        _give_back(queue, [job], [row])
    fate = {"retry": "it will be tried again", "dead": "it is dead", "left": "it was left where it is"}[outcome]
    told = DecodeError(job_id=job.id, queue=queue.name, reason=error.reason, fate=fate)
    told.__cause__ = error.__cause__
    return Refusal(job, outcome, told)


def _give_back(queue: QueueBase, jobs: list[Any], rows: Rows) -> None:
    if isinstance(jobs[0], LeasedJob):
        settle([Settlement(job, "released") for job in jobs])
        return
    for id, text, _, enqueued_at, schedule_at, expected_at, dequeued_at, attempts, _, _, removed in rows:
        if removed:
            times = {"enqueued_at": enqueued_at, "schedule_at": schedule_at, "expected_at": expected_at}
            queue._run(queue._sql["put_back"], id=id, text=text, attempts=attempts, **times)
        else:
            queue._run(queue._sql["give_back"], id=id, dequeued_at=dequeued_at)
