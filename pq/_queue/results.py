"""What became of jobs: results, progress, and the errors that stand in the place of results."""

from __future__ import annotations

import reprlib
from typing import Any

from .._args import JOB_IDS
from .._jobs.failure import Failure
from .._table.rows import QueueRows
from .._times import Delay, patience
from .._wait import Wait
from ..errors import JobCancelled, JobFailed, JobNotFound, JobPending


class Results(QueueRows):
    """Results and progress of the jobs of a queue."""

    def result(self, job_id: int, timeout: Delay | None = None) -> Any:
        """Wait until a job has ended, and return its result; None if it has left none.

        Wait after the put was committed: else nobody can have the job. Inside ``with queue`` the transaction stays open
        meanwhile, and at REPEATABLE READ it does not see how the job goes on.

        :param timeout: the longest time to wait, as ``'30s'``, a timedelta or seconds; 0 looks once, ``math.inf``
            waits without end. None does not wait either, and then this returns what the row holds: the result of a
            finished job, the progress of any other one, or None.
        :raises JobPending: with a timeout: the job has not ended in time; a `TimeoutError`.
        :raises JobFailed: with a timeout: the job is dead.
        :raises JobCancelled: with a timeout: the job was cancelled.
        :raises JobNotFound: this queue has no such job, or none any more: with ``retain=0`` that is so at its end.
        :raises DecodeError: the result can't be decoded.
        :raises ValueError: the timeout is negative or NaN, or has another form.
        :raises TypeError: the timeout has another type.
        """
        number = number_of(job_id)
        if timeout is None:
            rows = [] if number is None else self._run(self._sql["result"], id=number)
            if not rows:
                raise JobNotFound(job_id=job_id, queue=self.name)
            ((text,),) = rows
            return None if text is None else self._decoded(job_id, text)
        seconds = patience("timeout", timeout)
        if number is None:
            raise JobNotFound(job_id=job_id, queue=self.name)
        return outcome(self, number, self._table.ends([number], seconds, self.name))

    def progress(self, job_id: int) -> Any:
        """Return what a running job has noted by `LeasedJob.progress` or `LeasedJob.track`.

        :returns: None if it has noted nothing, or is not running.
        :raises JobNotFound: this queue has no such job.
        """
        number = number_of(job_id)
        rows = [] if number is None else self._run(self._statements("browse.sql")["progress"], id=number)
        if not rows:
            raise JobNotFound(job_id=job_id, queue=self.name)
        ((text,),) = rows
        return None if text is None else self._decoded(job_id, text)


def number_of(job_id: Any) -> int | None:
    """The id as an int, also of a text, as in 1.9.1; None if no job can have it.

    :raises TypeError: it is no number.
    :raises ValueError: it is a text of something else, an infinity or NaN.
    """
    try:
        number = int(job_id)
    except (OverflowError, ValueError):
        raise ValueError(f"a job id must be an int, not {reprlib.repr(job_id)}") from None
    return number if number in JOB_IDS and (number == job_id or isinstance(job_id, str)) else None


def outcome(queue: QueueRows | None, id: int, wait: Wait) -> Any:
    """Return the result of a job for whose end somebody has waited.

    :param queue: that of the job; None if no look has found it.
    :raises JobPending: it has not ended. The other errors are those of `Results.result`.
    """
    row = wait.rows.get(id)
    if row is None or queue is None:
        name = None if queue is None else queue.name
        if id in wait.pending:
            raise JobPending("The server did not answer in time.", job_id=id, queue=name, state=None)
        raise JobNotFound(None if name is not None else f"There is no job {id}.", job_id=id, queue=name)
    _, pending, name, state, cancelled, attempts, text, error = row
    if pending:
        raise JobPending(job_id=id, queue=name, state=state)
    if state == "dead":
        raise JobFailed(job_id=id, queue=name, attempts=attempts, error=Failure.loads(error))
    if cancelled:
        raise JobCancelled(job_id=id, queue=name)
    if text is None:
        return None
    return queue._decoded(id, text) if queue.name == name else queue.decode(text)
