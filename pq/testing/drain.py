"""Performing the jobs that a test has put, in its own thread and, mostly, in its own transaction."""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from .._args import integer
from .._jobs.lease import LeasedJob
from .._jobs.settlement import Settlement
from .._queue.claim import Claim
from .._times import Delay, positive_delay
from ..errors import Discard, LeaseLost, Retry
from ..worker.execution import Execution
from ..worker.queues import choose
from .clock import Clock
from .events import put_jobs_of_events

#: The lease of a job while it is performed. Nobody else sees the job.
LEASE = timedelta(hours=1)


@dataclass(frozen=True)
class Performed:
    """An attempt of a job that `drain` has performed.

    :ivar id: the id of the job.
    :ivar queue: the name of its queue.
    :ivar task: the name of the task; ``'?'`` if the job names none.
    :ivar data: the data of the job; None if it can't be decoded.
    :ivar attempt: the number of the attempt: 1, 2, …
    :ivar outcome: ``'done'``, ``'retry'`` or ``'dead'``; ``'lost'`` if the job was cancelled while it ran.
    :ivar error: what the task raised, or None.
    """

    id: int
    queue: str
    task: str
    data: Any
    attempt: int
    outcome: str
    error: BaseException | None


def drain(
    pq: Any,
    conn: Any = None,
    *,
    queues: Iterable[Any] | None = None,
    until: Delay | None = None,
    raises: bool = True,
    limit: int = 1000,
) -> list[Performed]:
    """Perform the jobs that are ready, and those that they put, until none is left; return what was performed.

    ::

        def test_signup(pq, conn):
            signup(conn, "ann@example.org")
            drain(pq, conn)
            assert mails == ["ann@example.org"]

    Jobs are performed in this thread, one after the other, as a worker performs them: with their attempts, retries,
    keys, limits, followers and results. What else uses `pq` meanwhile uses the transaction, too, as in `PQ.using`.

    :param pq: a `PQ`, or one of its queues.
    :param conn: where the test's transaction is open: as for `PQ.bind`. All that is done stays in there. Default: the
        connections of `pq`, where each step is committed.
    :param queues: queues or their names; default: those that have tasks in this process.
    :param until: turn the clock forward by so long, as ``'2h'``, a timedelta or seconds, and perform what is due by
        then, in order: retries, scheduled jobs and the times of schedules. See `advance`.
    :param raises: raise the first error of a task, after its attempt was settled. `Retry` and `Discard` are none.
    :param limit: attempts at most: a job that puts another one each time would go on for ever.
    :raises AssertionError: there were more.
    :raises ValueError: no queue has tasks; `until` is not positive.
    :raises TypeError: `conn` is no connection; an argument has another type.
    """
    left = 0.0 if until is None else positive_delay("until", until).total_seconds()
    integer("limit", limit, 1)
    run = Drain(pq, choose(pq, queues), raises, limit)
    with run.using(conn):
        while True:
            run.perform_ready()
            if left <= 0:
                return run.performed
            wait = run.clock.wait()
            step = left if wait is None else min(left, wait)
            run.clock.turn(step)
            left -= step


def advance(pq: Any, by: Delay, conn: Any = None) -> None:
    """Turn the clock of a test forward, for all jobs and schedules of the table; perform nothing.

    Nobody can turn the server's clock. So what is to come moves towards now: jobs that are scheduled or wait for a
    retry, leases, the windows of tokens, and the rates of limits. Schedules fire in `drain`, by the clock that was
    turned; store them before you turn it.

    :param by: as ``'2h'``, a timedelta or seconds.
    :param conn: as for `drain`. Without it all that is in the table moves, for all programs.
    :raises ValueError: `by` is not positive; a TypeError if it has another type.
    """
    seconds = positive_delay("by", by).total_seconds()
    with pq.using(conn):
        Clock(pq, []).turn(seconds)


class _Failed(Exception):
    """A statement of the task has failed, and with it the transaction."""


class Drain:
    """Performs jobs in this thread.

    :ivar performed: what was performed.
    """

    def __init__(self, pq: Any, queues: list[Any], raises: bool, limit: int) -> None:
        self._queues = queues
        self._database = pq._table.database
        self._sql = pq._table.statements("testing.sql")
        self._heal = pq._table.statements("keys.sql")["heal"]
        self._raises = raises
        self._limit = limit
        self._claim = Claim()
        self._claim.limited.alone = True
        self._busy = False
        self.clock: Clock = Clock(pq, [queue.name for queue in self._queues])
        self.performed: list[Performed] = []

    def using(self, conn: Any) -> Any:
        """Return a context manager: inside, all of `pq` uses the transaction of the test."""
        return self._database.using(conn)

    def perform_ready(self) -> None:
        """Perform what is ready, and what is put meanwhile. Of each queue one job, then of the next one.

        What a task puts is not performed inside of that task."""
        if self._busy:
            return
        self._busy = True
        try:
            self.clock.fire()
            found = True
            while found:
                found = False
                for queue in self._queues:
                    put_jobs_of_events(queue)
                    found = self._next(queue) or found
        finally:
            self._busy = False

    def _next(self, queue: Any) -> bool:
        """Perform the next job of a queue; return whether there was one."""
        if self._database.in_transaction:
            self._database.execute(self._sql["unlock"], {})
        return self._take(queue) or (self._healed() and self._take(queue))

    def _take(self, queue: Any) -> bool:
        jobs, refused = self._claim.fetch(queue, 1, 0.0, LEASE)
        for job in jobs:
            self._perform(job)
        for job, outcome, error in refused:
            self._note(Performed(job.id, queue.name, "?", None, job.attempts, outcome, error))
        return bool(jobs or refused)

    def _healed(self) -> bool:
        """Do what a line of a key has left to do, as a worker does within a second; return whether there was some."""
        return bool(self._database.execute(self._heal, {"limit": 1000})[0][0])

    def _perform(self, job: LeasedJob) -> None:
        if len(self.performed) >= self._limit:
            raise AssertionError(
                f"{self._limit} attempts were performed, and there are more jobs: job {job.id} of queue "
                f"{job.queue.name!r} is next; raise limit= if that is right"
            )
        execution = Execution(job, time.monotonic())
        execution.begin()
        try:
            settlement = self._attempt(execution)
            if settlement is not None:
                job.settle(settlement)
            outcome = "done" if settlement is None else settlement.outcome
        except LeaseLost:
            outcome = "lost"
        self._note(Performed(job.id, job.queue.name, execution.task, job.data, job.attempts, outcome, execution.error))

    def _note(self, performed: Performed) -> None:
        self.performed.append(performed)
        error = performed.error
        if error is not None and self._raises and not isinstance(error, (Retry, Discard)):
            raise error

    def _attempt(self, execution: Execution) -> Settlement | None:
        """Run a job. What a failed attempt has written stays, unless the transaction would refuse all else."""
        if not self._database.in_transaction:
            return _run(execution)
        settlement = None
        with suppress(_Failed), self._database.transaction():
            settlement = _run(execution)
            if self._database.current.failed:
                raise _Failed
        return settlement


def _run(execution: Execution) -> Settlement | None:
    try:
        return execution.run()
    except (Exception, KeyboardInterrupt):
        raise
    except BaseException as error:  # sys.exit() and the like: a failed attempt, as in a worker
        return execution.failed(error)
