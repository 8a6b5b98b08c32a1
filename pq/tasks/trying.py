"""Queues whose jobs can be tried."""

from __future__ import annotations

from .._queue import Queue as BaseQueue
from ..worker.trial import Trial, try_job


class TriedQueue(BaseQueue):
    """The part of a queue of tasks that tries its jobs."""

    def try_(self, job_id: int, *, force: bool = False) -> Trial:
        """Run the task of a job here, in a transaction that is rolled back, and return what came of it::

            trial = pq["orders"].try_(17)
            print(trial.outcome, trial.error, trial.writes, trial.puts)

        The job stays as it is, whatever its state, and no worker waits for it. The task sees the attempt that would be
        the next one; what it does with its job, such as `progress`, has no effect. Ids that sequences have given are
        not given again.

        :param force: try a task that is not transactional, too: what it does elsewhere than in pq's transaction is not
            rolled back.
        :raises JobNotFound: this queue has no such job.
        :raises TaskNotFound: the job is no call of a task, or this process does not know the task.
        :raises ValueError: the task is not transactional, and `force` is false.
        :raises DecodeError: the data of the job can't be decoded.
        :raises PQError: the task has ended the transaction itself.
        """
        return try_job(self, job_id, force)
