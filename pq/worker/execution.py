"""One delivery of a job to this process: what it asks for, the call of its handler, and how it is to be settled."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from datetime import timedelta
from functools import lru_cache
from typing import Any, Protocol

from .. import errors
from .._jobs import outcome
from .._jobs.lease import LeasedJob
from .._jobs.settlement import Settlement
from .._table.instruments import Instruments
from .._text import NAME, attribute, cut, fields_of, is_a, message_of
from .._traceback import stack_of
from ..retry import Policy
from .call import Call, Options
from .handler import call_handler, from_handler

#: How often in a row the lease of a job may expire, unless the job is allowed more retries than that. A job that kills
#: its workers must not go on for ever, and a job whose workers were killed by others must not be given up.
MAX_EXPIRIES = 3

#: How often in a row the database may break off the transaction of a job before that counts as a failed attempt.
MAX_BREAKS = 3

#: The pause after a transaction that the database broke off.
BREAK_PAUSE = timedelta(seconds=1)

CONNECTION_ERRORS = (errors.ConnectionFailed, errors.ConnectionLost, errors.CommitUnknown)
DECISIONS = (errors.Retry, errors.Discard, errors.LeaseLost)

#: Heartbeats for each lease: two of them may fail.
BEATS = 3

_NEVER = float("inf")
_NO_OPTIONS = Options()
_PLAIN = (str, timedelta, int, float, type(None))


class Runner(Protocol):
    """The thread in which an execution runs."""

    @property
    def ident(self) -> int | None: ...


class Execution:
    """A job that the worker holds: waiting in the stock, running, or ended and not yet settled. Times are monotonic.

    :param taken: when the claim that took the job was sent. The lease counts from a later moment, so this is safe.
    :ivar renew_at: when the lease is to be extended.
    :ivar times_out_at: when the timeout of the task is over.
    :ivar started: when the handler was called.
    :ivar ended: when the handler ended; None while it runs.
    :ivar thread: in which the job runs; None: it is in the stock, or there is no worker.
    :ivar lost: the job is known to be lost or cancelled, and that was told.
    :ivar unsure: the job may have been settled already, by a COMMIT whose answer was lost.
    :ivar missed: the heartbeat has not found it; its own transaction may have ended it a moment ago.
    :ivar refused: a statement that was to settle the job failed, so the attempt failed.
    :ivar own_lease: the task has a lease of its own, which the row does not have yet.
    :ivar size: characters of the result and error that wait to be settled.
    :ivar has_place: its queue is limited: somebody may wait for its end.
    :ivar task: the name of the task; of an unknown task, what the job says it is.
    :ivar error: what the attempt ended with.
    """

    __slots__ = (
        "_call", "_problem", "ended", "error", "has_place", "job", "lost", "missed", "options", "own_lease", "refused",
        "renew_at", "size", "started", "taken", "task", "thread", "times_out_at", "unsure",
    )  # fmt: skip

    def __init__(self, job: LeasedJob, taken: float) -> None:
        self.job: LeasedJob = job
        self.taken: float = taken
        self.started: float = taken
        self.renew_at: float = taken + job.lease.total_seconds() / BEATS
        self.times_out_at: float = _NEVER
        self.ended: float | None = None
        self.thread: Runner | None = None
        self.lost: bool = False
        self.missed: bool = False
        self.unsure: bool = False
        self.refused: bool = False
        self.own_lease: bool = False
        self.has_place: bool = False
        self.size: int = 0
        self.task: str = "?"
        self.error: BaseException | None = None
        self.options: Options = _NO_OPTIONS
        self._call: Call | None = None
        self._problem: BaseException | None = None

    def begin(self) -> None:
        """Find out what the job asks for. What is wrong with it, `run` reports as a failed attempt."""
        job = self.job
        self.started = time.monotonic()
        data = job.data
        fields = data if type(data) is dict else fields_of(data)
        try:
            queue = job.queue
            self._call = call = queue._call(data)
            self.task = call.name
            self.options = call.options
        except BaseException as error:  # the module of the task may raise anything when it is imported
            self._problem = error
            self.task = cut(message_of(fields.get("function", "?")), NAME)
        job.policy = self._policy(fields)
        if job.expiries > MAX_EXPIRIES and job.expiries > job.policy.max_retries:
            self._problem = errors.LeaseExpired(attempt=job.attempts)
        options = self.options
        if options.timeout is not None and not options.transactional:
            self.times_out_at = self.started + options.timeout.total_seconds()
        if options.lease is not None:
            job.lease = options.lease
            self.renew_at, self.own_lease = self.started, True

    def _policy(self, fields: dict[str, Any]) -> Policy:
        """Return the retry policy. What stands in the row counts, as for pq 1.9.1, where it can stand there at all."""
        options = self.options
        retries, retried = fields.get("max_retries"), fields.get("retried")
        if self._call is None or isinstance(options.retry_in, _PLAIN):
            retry_in = fields.get("retry_in")
        else:  # a list or a function of the task's
            retry_in = options.retry_in
        try:
            policy = _usual_policy(options.max_retries if retries is None else retries, retry_in)
        except (TypeError, ValueError):  # what can't be hashed; and a row that was written by hand
            policy = _policy(options.max_retries if retries is None else retries, retry_in, options)
        return policy.after(retried) if retried and isinstance(retried, int) and retried > 0 else policy

    # -- the end

    def refuse(self, reason: str) -> None:
        """Do not call the handler: this worker can't. The job waits for one that can, as for an unknown task."""
        why = f"Job handler `{cut(self.task, NAME)}` {reason}"
        self._problem = errors.TaskNotFound(why, task=self.task, waits=True)

    def run(self, watch: Callable[[Execution], object] = id) -> Settlement | None:
        """Call the handler, in this thread.

        :param watch: called when the timeout begins, unless it began with `begin`.
        :returns: how the job is to be settled; None: it is done, and that was committed with its effects.
        :raises LeaseLost: the job went to another delivery, and the effects were rolled back.
        """
        job, call = self.job, self._call
        try:
            if self._problem is not None:
                raise self._problem
            assert call is not None
            instruments = job.queue._table.instruments
            if instruments.arounds:
                return self._run_instrumented(instruments, call, watch)
            return self._run_call(call, watch)
        except Exception as error:
            lost = attribute(error, "job_id") if is_a(error, errors.LeaseLost) else None
            if is_a(lost, int) and lost == job.id:
                raise
            return self.failed(error)

    def _run_call(self, call: Call, watch: Callable[[Execution], object]) -> Settlement | None:
        if call.options.transactional:
            return self._run_in_transaction(call, watch)
        result = call_handler(self.job, call)
        self._call = None  # what waits to be settled keeps the garbage collector busy
        return outcome.done(self.job, result if call.options.result else None)

    def _run_instrumented(
        self, instruments: Instruments, call: Call, watch: Callable[[Execution], object]
    ) -> Settlement | None:
        ended: list[Settlement | None] = []

        def run() -> None:
            ended.append(self._run_call(call, watch))
            if self.error is not None:  # the database broke off the transaction, which instruments are to see
                raise self.error

        try:
            instruments.call(self.job, call.name, run)
        except BaseException as error:
            if not ended or error is not self.error:
                raise
        return ended[0]

    def _run_in_transaction(self, call: Call, watch: Callable[[Execution], object]) -> Settlement | None:
        """Run the handler in a transaction, of which the end of the job is the last statement.

        A connection that fails at the start, or is lost, is no failure of the task's, whatever error tells of it. The
        thread may wait for a connection, behind other handlers: the timeout is not for that.
        """
        job = self.job
        lost: bool | None = None  # the handler has not failed
        try:
            with job.queue._transaction() as cursor:
                job.cursor = cursor
                if self.options.timeout is not None:
                    self.times_out_at = time.monotonic() + self.options.timeout.total_seconds()
                    watch(self)
                try:
                    result = call_handler(job, call)
                except Exception as error:
                    lost = bool(cursor.connection.closed) and not is_a(error, DECISIONS)
                    raise
                job.done(result if self.options.result else None)
        except Exception as error:
            if lost is False:  # not even after one of CONNECTION_ERRORS: the handler may have connections of its own
                raise
            driver = job.queue._table.database.source.driver
            if job.cursor is None and isinstance(error, (errors.ConnectionFailed, driver.PoolError, TimeoutError)):
                self.error = error
                # the handler was not even called
                return outcome.retried(job, BREAK_PAUSE, error)._replace(counts=False)
            if lost or isinstance(error, CONNECTION_ERRORS) or (job.cursor is None and isinstance(error, driver.Error)):
                return self._broken(error)
            raise
        return None

    def _broken(self, error: Exception) -> Settlement:
        """Return how to settle a job whose transaction the database broke off.

        That is mostly no fault of the task's: the server was restarted. But a server that ends sessions which are idle
        in a transaction, or transactions that last, does so each time: then it is a failed attempt.
        """
        self.unsure = isinstance(error, errors.CommitUnknown)
        if self.job.expiries + 1 >= MAX_BREAKS:
            reason = errors.ConnectionLost(
                f"the database broke off the task's transaction {MAX_BREAKS} times in a row: {error} (The settings of "
                "the server idle_in_transaction_session_timeout and transaction_timeout bound how long a task may "
                "take.)"
            )
            reason.__cause__ = error
            return self.failed(reason)
        self.error = error
        return outcome.retried(self.job, BREAK_PAUSE, error)._replace(outcome="broken")

    def failed(self, error: BaseException) -> Settlement:
        """Return how to settle the job after an attempt that ended with this error."""
        self.error = error
        from_handler(error)
        return outcome.failed(self.job, error)

    def time_out(self) -> Settlement:
        """Return how to settle the job now that its timeout is over; the error says where the thread is."""
        error = errors.TaskTimeout(timeout=self.options.timeout)
        frame = None if self.thread is None else sys._current_frames().get(self.thread.ident or 0)
        if frame is not None:
            error.stack = stack_of(frame)
        self.unsure = self.options.transactional  # its transaction may be committing the end of the job just now
        return self.failed(error)

    def perform(self) -> str:
        """Run the job and settle it, without a worker; return ``'done'``, ``'retry'`` or ``'dead'``."""
        self.begin()
        settlement = self.run()
        if settlement is None:
            return "done"
        self.job.settle(settlement)
        return "retry" if settlement.outcome == "broken" else settlement.outcome

    # -- to tell of it

    @property
    def seconds(self) -> float:
        """How long the handler has run, or ran."""
        return (time.monotonic() if self.ended is None else self.ended) - self.started

    def describe(self) -> dict[str, Any]:
        """Return what `Worker.status` says of a running job."""
        return {
            "queue": self.job.queue.name,
            "job_id": self.job.id,
            "task": self.task,
            "attempt": self.job.attempts,
            "seconds": round(self.seconds, 3),
        }


def _policy(max_retries: Any, retry_in: Any, options: Options) -> Policy:
    try:
        return Policy(max_retries, retry_in)
    except (TypeError, ValueError):
        return Policy(options.max_retries, options.retry_in)


_usual_policy = lru_cache(maxsize=256, typed=True)(Policy)
