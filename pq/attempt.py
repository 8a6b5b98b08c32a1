"""One delivery of a job to its task, from the handler's call to what becomes of the job."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from .errors import CommitUnknown, ConnectionFailed, ConnectionLost, LeaseExpired, LeaseLost, PQError
from .lease import LeasedJob
from .retry import Policy, RetryIn

if TYPE_CHECKING:
    from .queue import Queue

#: How often the lease of a job may expire beyond the failures that it is allowed: a job that kills whoever runs it must
#: not go on for ever, and one whose worker was killed by others must not be given up.
EXPIRIES = 3

#: How a job was settled when the answer to the COMMIT was lost, and the job is not ours any more.
UNSURE = "settled, it seems: the connection broke at the commit,"

#: The pause after a transaction that the database broke off.
BREAK = timedelta(seconds=1)

_running: ContextVar[LeasedJob | None] = ContextVar("pq_running", default=None)


def current() -> LeasedJob:
    """The job that this thread is running as a task: its `id`, `attempts`, `extend`, `progress`, and in a transactional
    task its `cursor`.

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
    """

    def __init__(self, job: LeasedJob, resolve: Callable[[Any], Call]) -> None:
        self.job = job
        self.options = Options()
        self.error: BaseException | None = None
        self._call: Call | None = None
        self._problem: BaseException | None = None
        data = job.data if isinstance(job.data, Mapping) else {}
        self.name = str(data.get("function", "?"))[:200]
        try:
            self._call = resolve(job.data)
            self.options = self._call.options
        except Exception as error:
            self._problem = error
        job.policy = self._policy(data)
        if job.attempts > job.policy.max_retries + 1 + EXPIRIES:
            self._problem = LeaseExpired(attempt=job.attempts)

    def _policy(self, data: Mapping[str, Any]) -> Policy:
        """What stands in the row counts, as for pq 1.9.1; but a list or a function of the task's can't stand there."""
        options = self.options
        retried, retries, retry_in = (data.get(name) for name in ("retried", "max_retries", "retry_in"))
        try:
            policy = Policy(options.max_retries if retries is None else retries, retry_in)
        except (TypeError, ValueError):  # nobody but a person wrote that
            policy = Policy(options.max_retries, options.retry_in)
        if self._call is not None and not isinstance(options.retry_in, (str, timedelta, type(None))):
            policy = Policy(policy.max_retries, options.retry_in)
        if isinstance(retried, int):
            policy.max_retries = max(0, policy.max_retries - retried)
        return policy

    def run(self) -> Callable[[], str]:
        """Call the handler.

        :returns: settles the job accordingly when it is called, and says how: ``'done'``, ``'retry'`` or ``'dead'``. It
            may be called again if the database could not be reached. It may raise `LeaseLost`.
        """
        try:
            if self._problem is not None:
                raise self._problem
            assert self._call is not None
            if self.options.transactional:
                return self._run_in_transaction(self.job.queue, self._call)
            result = self._run(self._call)
        except Exception as error:
            return self.end(error)
        return lambda: self._done(result)

    def end(self, error: BaseException) -> Callable[[], str]:
        """Settle after this error, as `run` returns it."""
        self.error = error
        return lambda: self.job.failed(error)

    def _done(self, result: Any) -> str:
        driver = self.job.queue._db.driver
        try:
            self.job.done(result if self.options.result else None)
        except (PQError, driver.Error, driver.PoolError):
            raise
        except Exception as error:  # a result that can't be encoded, for which encoders raise anything
            self.error = error
            return self.job.failed(error)
        return "done"

    def _run(self, call: Call) -> Any:
        with running(self.job):
            return call.handler(self.job.id, *call.args, **call.kwargs)

    def _run_in_transaction(self, queue: Queue, call: Call) -> Callable[[], str]:
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
        except LeaseLost as lost:
            error = lost  # for the nested function: "lost" is gone when it is called

            def give_up() -> str:
                raise error

            return give_up
        except (ConnectionFailed, ConnectionLost, CommitUnknown) as error:
            if failed:  # by a connection of its own
                raise
            return self._again(error)
        return lambda: "done"

    def _again(self, error: Exception) -> Callable[[], str]:
        """The database broke off the transaction, which is no fault of the task's."""
        self.error = error

        def settle() -> str:
            try:
                self.job.retry(BREAK, error)
                return "retry"
            except LeaseLost:
                if isinstance(error, CommitUnknown):  # if nobody else has it, it was committed
                    return UNSURE
                raise

        return settle


@contextmanager
def running(job: LeasedJob) -> Iterator[None]:
    """What `current` returns inside."""
    token = _running.set(job)
    try:
        yield
    finally:
        _running.reset(token)
