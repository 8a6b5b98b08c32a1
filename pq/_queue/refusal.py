"""Jobs that a claim has taken, and whose data can't be decoded."""

from __future__ import annotations

from typing import Any, NamedTuple

from .._db import Rows
from .._jobs.job import decode
from .._jobs.lease import LeasedJob
from .._jobs.outcome import failed
from .._jobs.row import ATTEMPTS, DEQUEUED_AT, ENQUEUED_AT, EXPECTED_AT, ID, OWN, SCHEDULE_AT, TEXT
from .._jobs.settlement import Settlement, settle
from ..errors import DecodeError
from .base import QueueBase

#: Behind the columns of a job: whether its row is deleted.
REMOVED = OWN


class Refusal(NamedTuple):
    """A job whose data could not be decoded.

    :ivar outcome: what became of it: ``'left'`` where it is or, under a lease, ``'retry'`` or ``'dead'``, or
        ``'stuck'`` if that could not be written.
    """

    job: Any
    outcome: str
    error: DecodeError


def decode_all(queue: QueueBase, jobs: list[Any], rows: Rows) -> list[Refusal]:
    """Replace text by data, and return a refusal for each job for which that can't be done; it has been settled."""
    refused: list[Refusal] = []
    try:
        for job, row in zip(jobs, rows, strict=True):
            try:
                decode(job)
            except DecodeError as error:
                refused.append(_refused(queue, job, row, error))
    except BaseException:  # such as Ctrl-C: nobody has seen these jobs
        settled = {refusal.job for refusal in refused}
        unseen = [(job, row) for job, row in zip(jobs, rows, strict=True) if job not in settled]
        _give_back(queue, [job for job, _ in unseen], [row for _, row in unseen])
        raise
    return refused


_FATES = {
    "retry": "it will be tried again",
    "dead": "it is dead",
    "left": "it was left where it is",
    "stuck": "it could not be settled, and comes back when its lease has expired",
}


def _refused(queue: QueueBase, job: Any, row: tuple[Any, ...], error: DecodeError) -> Refusal:
    outcome = "left"
    if isinstance(job, LeasedJob):
        try:
            settlement = failed(job, error)
            job.settle(settlement)
            outcome = settlement.outcome
        except Exception as problem:  # the others, taken by the same claim, are not to suffer
            if queue._db.in_transaction:
                raise
            queue.logger.error("job %s can't be decoded, nor settled", job.id, exc_info=problem)
            outcome = "stuck"
    else:
        _give_back(queue, [job], [row])
    fate = _FATES[outcome]
    told = DecodeError(job_id=job.id, queue=queue.name, reason=error.reason, fate=fate)
    told.__cause__ = error.__cause__
    return Refusal(job, outcome, told)


def _give_back(queue: QueueBase, jobs: list[Any], rows: Rows) -> None:
    if isinstance(jobs[0], LeasedJob):
        settle([Settlement(job, "released") for job in jobs])
        return
    for row in rows:
        if len(row) > REMOVED and row[REMOVED]:
            times = {name: row[at] for name, at in _TIMES.items()}
            kept = {"id": row[ID], "text": row[TEXT], "attempts": row[ATTEMPTS], "headers": row[-1]}
            queue._run(queue._sql["put_back"], **kept, **times)
        else:
            queue._run(queue._sql["give_back"], id=row[ID], dequeued_at=row[DEQUEUED_AT])


_TIMES = {"enqueued_at": ENQUEUED_AT, "schedule_at": SCHEDULE_AT, "expected_at": EXPECTED_AT}
