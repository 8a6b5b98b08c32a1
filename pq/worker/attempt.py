"""One delivery of a job to its task, from the handler's call to what becomes of the job."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from datetime import timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from .._calls import check_finished
from .._jobs.lease import LeasedJob
from .._jobs.settlement import Settlement
from .._text import NAME, attribute, cut, fields_of, is_a, message_of
from .._times import delay_of
from ..errors import CommitUnknown, ConnectionFailed, ConnectionLost, LeaseExpired, LeaseLost
from ..retry import Policy, RetryIn

if TYPE_CHECKING:
    from .._queue import Queue

#: How often in a row the lease of a job may expire, unless it is allowed more retries than that: a job that kills
#: whoever runs it must not go on for ever, and one whose worker was killed by others must not be given up.
EXPIRIES = 3

#: How a job was settled when the answer to the COMMIT was lost, and the job is not ours any more.
UNSURE = "settled, it seems: the connection broke at the commit,"

#: The pause after a transaction that the database broke off.
BREAK = timedelta(seconds=1)

_running: ContextVar[LeasedJob | None] = ContextVar("pq_running", default=None)


def current() -> LeasedJob:
    """The job that this thread is running as a task: its `id`, `attempts`, `extend`, `progress`; whether it was
    `cancelled`; and in a transactional task its `cursor`.

    :raises LookupError: it is running none.
    """
    job = _running.get()
    if job is None:
        raise LookupError("no task is running here")
    return job


class Options(NamedTuple):
    """What a task says about how it is run; see `pq.tasks.Queue.task`."""

    max_retries: int = 0
    retry_in: RetryIn = "30s"
    transactional: bool = False
    lease: timedelta | None = None
    timeout: timedelta | None = None
    result: bool = False


class Call(NamedTuple):
    """What a job asks for: a handler and its arguments."""

    name: str
    handler: Callable[..., Any]
    args: Any
    kwargs: Any
    options: Options


class Attempt:
    """A delivery of a job under a lease.

    :param resolve: finds out what the job's data asks for.
    :ivar error: what it ended with.
    :ivar name: the task's name or, when there is no such task, what the job says it is.
    :ivar unsure: the answer to a COMMIT was lost: if the job is not ours any more, and nobody else has it, it is done.
    """

    def __init__(self, job: LeasedJob, resolve: Callable[[Any], Call]) -> None:
        self.job = job
        self.options = Options()
        self.error: BaseException | None = None
        self.unsure = False
        self._call: Call | None = None
        self._problem: BaseException | None = None
        try:
            self._call = call = resolve(job.data)
            self.name = call.name
            self.options = call.options
        except Exception as error:
            self._problem = error
            self.name = cut(message_of(self._data.get("function", "?")), NAME)
        job.policy = self._policy()
        if job.expiries > max(EXPIRIES, job.policy.max_retries):
            self._problem = LeaseExpired(attempt=job.attempts)

    @property
    def _data(self) -> Mapping[str, Any]:
        data = self.job.data
        return fields_of(data)

    def _policy(self) -> Policy:
        """What stands in the row counts, as for pq 1.9.1; but a list or a function of the task's can't stand there."""
        data, options = self._data, self.options
        retries = data.get("max_retries")
        if self._call is None or isinstance(options.retry_in, (str, timedelta, type(None))):
            retry_in = data.get("retry_in")
        else:
            retry_in = options.retry_in
        try:
            policy = _policy(options.max_retries if retries is None else retries, retry_in)
        except (TypeError, ValueError):  # nobody but a person wrote that
            policy = _policy(options.max_retries, options.retry_in)
        retried = data.get("retried")
        return policy.after(retried) if isinstance(retried, int) and retried > 0 else policy

    def run(self) -> Settlement | None:
        """Call the handler.

        :returns: how the job is to be settled; None: it is done, and that was committed with its effects.
        :raises LeaseLost: it is not ours any more, and its effects were rolled back.
        """
        try:
            if self._problem is not None:
                raise self._problem
            assert self._call is not None
            if self.options.transactional:
                return self._run_in_transaction(self.job.queue, self._call)
            result = self._run(self._call)
            return self.job.success(result if self.options.result else None)
        except Exception as error:
            lost = attribute(error, "job_id") if is_a(error, LeaseLost) else None
            if is_a(lost, int) and lost == self.job.id:
                raise
            return self.end(error)

    def end(self, error: BaseException) -> Settlement:
        """How it is to be settled after this error."""
        self.error = error
        return self.job.failure(error)

    def settle(self) -> str:
        """Call the handler, and settle the job accordingly: ``'done'``, ``'retry'`` or ``'dead'``."""
        settlement = self.run()
        if settlement is None:
            return "done"
        self.job.settle(settlement)
        return settlement.outcome

    def _run(self, call: Call) -> Any:
        token = _running.set(self.job)
        try:
            result = call.handler(self.job.id, *call.args, **call.kwargs)
            return check_finished(f"task `{cut(call.name, NAME)}`", result)
        finally:
            _running.reset(token)

    def _run_in_transaction(self, queue: Queue, call: Call) -> Settlement | None:
        """The job is done in the handler's own transaction: committed with its effects, or not at all."""
        failed = False
        try:
            with queue._transaction() as cursor:
                self.job.cursor = cursor
                try:
                    result = self._run(call)
                except Exception:
                    failed = not cursor.connection.closed
                    raise
                self.job.done(result if self.options.result else None)
        except (ConnectionFailed, ConnectionLost, CommitUnknown) as error:
            if failed:  # by a connection of its own
                raise
            # the database broke off the transaction, which is no fault of the task's
            self.error = error
            self.unsure = isinstance(error, CommitUnknown)
            return self.job.again(BREAK, error)
        return None


def retry_in_text(retry_in: RetryIn) -> str | None:
    """As it is stored in the job, for any version of pq; of a list its first pause, of a function none."""
    if isinstance(retry_in, (list, tuple)):
        return retry_in_text(retry_in[0])
    if isinstance(retry_in, str) and "ms" in retry_in:  # pq 1.9.1 has no such unit
        retry_in = delay_of("retry_in", retry_in)
    if isinstance(retry_in, timedelta):
        return f"{math.ceil(retry_in.total_seconds())}s"
    return retry_in if isinstance(retry_in, str) else None


def _policy(max_retries: Any, retry_in: Any) -> Policy:
    try:
        return _usual_policy(max_retries, retry_in)
    except TypeError:  # what can't be hashed
        return Policy(max_retries, retry_in)


_usual_policy = lru_cache(maxsize=256, typed=True)(Policy)
