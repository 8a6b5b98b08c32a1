"""Tasks: functions whose calls are put on a queue, and performed by a worker.

    from pq.tasks import PQ

    pq = PQ("postgresql://localhost/app")
    queue = pq["default"]

    @queue.task(max_retries=2, retry_in="10s")
    def eat(job_id, kind):
        print(f"umm, {kind} apples taste good.")

    eat("Cox")
    queue.work()
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import update_wrapper
from logging import getLogger
from pydoc import ErrorDuringImport, locate
from typing import TYPE_CHECKING, Any, ClassVar

from ._args import check_text
from ._jobs.job import Job
from ._jobs.lease import LeasedJob
from ._manager import PQ as BasePQ
from ._queue import Queue as BaseQueue
from ._times import Delay, TimeSpec, positive_delay, when
from .errors import TaskNotFound
from .retry import Policy, RetryIn
from .worker import Worker
from .worker.attempt import Attempt, Call, Options, current, retry_in_text

__all__ = ["PQ", "Queue", "Task", "Worker", "current"]

Handler = Callable[..., Any]


class Task:
    """A decorated function: calling it puts a job.

    :ivar name: what the job names it by.
    """

    def __init__(
        self,
        queue: Queue,
        handler: Any,
        name: str | None,
        schedule_at: TimeSpec,
        expected_at: TimeSpec,
        options: Options,
    ) -> None:
        update_wrapper(self, handler)
        self.name = f"{handler.__module__}.{handler.__qualname__}" if name is None else name
        self.options = options
        self._queue = queue
        self._schedule_at = schedule_at
        self._expected_at = expected_at
        self._retry_in = retry_in_text(options.retry_in)
        # the names of 1.9.1, on both
        self._handler = handler._handler = handler
        self._path = handler._path = self.name
        handler._task = self

    def __call__(
        self, *args: Any, _schedule_at: TimeSpec = None, _expected_at: TimeSpec = None, _conn: Any = None, **kwargs: Any
    ) -> int:
        """Put a job that calls the function with these arguments; returns the job's id.

        :param _schedule_at: instead of the task's.
        :param _expected_at: instead of the task's.
        :param _conn: put the job in the transaction that is open there; see `PQ.bind`.
        """
        data = {
            "function": self.name,
            "args": args,
            "kwargs": kwargs,
            "retried": 0,
            "retry_in": self._retry_in,
            "max_retries": self.options.max_retries,
        }
        queue = self._queue if _conn is None else self._queue._bind(_conn)
        return queue.put(
            data,
            self._schedule_at if _schedule_at is None else _schedule_at,
            self._expected_at if _expected_at is None else _expected_at,
        )

    def call(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function here and now, with None for the job's id."""
        return self._handler(None, *args, **kwargs)

    def __repr__(self) -> str:
        return f"<pq.Task {self.name!r} of queue {self._queue.name!r}>"


class Queue(BaseQueue):
    """A queue whose jobs are calls of tasks.

    `task` decorates a function: calling it puts a job. `work`, or a `Worker`, performs them *at least once*: a job is
    leased, and the one whose worker was killed runs again.
    """

    #: Handlers by name. One that is missing here is imported by its path, and called only if it was decorated.
    handler_registry: ClassVar[dict[str, Handler]] = {}

    #: For what is no call of a task; tasks say it themselves.
    max_retries = 0
    retry_in = "30s"

    #: Whether tasks were decorated for it in this process.
    has_tasks = False

    logger = getLogger("pq.tasks")

    def task(
        self,
        schedule_at: TimeSpec = None,
        expected_at: TimeSpec = None,
        max_retries: int = 0,
        retry_in: RetryIn = "30s",
        *,
        name: str | None = None,
        transactional: bool = False,
        lease: Delay | None = None,
        timeout: Delay | None = None,
        result: bool = False,
    ) -> Callable[[Handler], Task]:
        """Decorate a function: calling it puts a job and returns the job's id.

        The function is called with the job's id in front of its arguments, by a worker. It must be importable by its
        path there, unless the worker has it decorated, too. ``_schedule_at`` and ``_expected_at`` at the call override:

        :param schedule_at: as for `Queue.put`.
        :param expected_at: as for `Queue.put`.
        :param max_retries: how often a call that raised an exception is tried again. After that it is dead.
        :param retry_in: how long after; see `pq.retry.Policy`.
        :param name: what jobs name the task by; default: the function's path. With a name the function can be moved,
            but it must be decorated in the worker's process, too.
        :param transactional: run it inside a transaction, whose cursor is ``current().cursor``: what it writes there
            and the end of the job are committed together, *exactly once*, or not at all.
        :param lease: how long after its worker was killed the job may come back; default: the worker's.
        :param timeout: how long it may run: then it is tried again, or dead, whatever it still does. Default: no bound.
        :param result: keep what it returns; `Queue.result` reads it.
        :raises TypeError: an argument of another type.
        :raises ValueError: a time of another form or out of range; negative `max_retries`; an empty name. When it
            decorates: another function has that name in this process; the same one, after a reload, takes its place.
        """
        when("schedule_at", schedule_at)
        when("expected_at", expected_at)
        Policy(max_retries, retry_in)
        if name is not None:
            check_text("name", name)
        options = Options(
            max_retries,
            retry_in,
            transactional,
            None if lease is None else positive_delay("lease", lease),
            None if timeout is None else positive_delay("timeout", timeout),
            result,
        )

        def decorate(handler: Any) -> Task:
            other = None if name is None else self.handler_registry.get(name)
            if not _replaces(handler, other):
                raise ValueError(f"two tasks have the name {name!r}: {_path(other)} and {_path(handler)}")
            task = Task(self, handler, name, schedule_at, expected_at, options)
            self.handler_registry[task.name] = handler
            self.has_tasks = True
            return task

        return decorate

    def work(self, burst: bool = False) -> None:
        """Perform jobs as they come, until SIGTERM or SIGINT: a `Worker` of one thread.

        :param burst: return when there was none for `timeout` seconds.
        """
        self.logger.info("`%s` starting to perform jobs", self.name)
        Worker(self, burst=burst).run()

    def attempt(self, job: LeasedJob) -> Attempt:
        """This delivery of a job, to be run."""
        return Attempt(job, self._call)

    def perform(self, job: Job) -> bool:
        """Call the job's task, in this thread.

        A job that was got under a lease is settled. One that is off the queue is put again if that fails and it has
        retries left, as in 1.9.1.

        :returns: whether it succeeded.
        """
        if isinstance(job, LeasedJob):
            try:
                return self.attempt(job).settle() == "done"
            except BaseException as error:
                if not isinstance(error, Exception):
                    job.release()
                raise
        try:
            call = self._call(job.data)
        except Exception as error:
            return self.fail(job, job.data, error)
        try:
            call.handler(job.id, *call.args, **call.kwargs)
        except Exception as error:
            return self.fail(job, job.data, error)
        return True

    def fail(self, job: Job, data: Any, e: BaseException | None = None) -> bool:
        """Put a failed job again if it has retries left, else log why it is given up. Returns False."""
        again = self._retry(job, data) if isinstance(data, dict) else None
        if again is None:
            self.logger.error("Failed to perform job %r", job, exc_info=e)
        else:
            self.logger.info("Rescheduled %r as `%s`", job, again)
        return False

    def _retry(self, job: Job, data: dict[str, Any]) -> int | None:
        """The id of the next attempt; None if there is none."""
        try:
            retried = data.get("retried", 0)
            if data.get("max_retries", 0) <= retried:
                return None
            return self.put({**data, "retried": retried + 1}, data.get("retry_in"), job.expected_at)
        except (TypeError, ValueError):  # a row that no task put, or arguments that the task has changed
            self.logger.exception("Cannot put job %r again", job)
            return None

    def _call(self, data: Any) -> Call:
        """
        :raises TaskNotFound: the data is no call of a task, or there is no task of that name.
        """
        if not isinstance(data, Mapping) or not isinstance(data.get("function"), str):
            raise TaskNotFound("the job is no call of a task")
        name, args, kwargs = data["function"], data.get("args"), data.get("kwargs")
        if not isinstance(args, (list, tuple)) or not isinstance(kwargs, Mapping):
            raise TaskNotFound(f"the job is no call of task `{name}`: it has no arguments")
        handler = self._handler(name)
        task = getattr(handler, "_task", None)
        return Call(name, handler, args, kwargs, Options() if task is None else task.options)

    def _handler(self, path: str) -> Handler:
        """
        :raises TaskNotFound: nothing importable has that path, or it is no task: whoever can insert a row must not be
            able to call just anything.
        """
        handler = self.handler_registry.get(path)
        if handler is None:
            try:
                found: Any = locate(path)
            except ErrorDuringImport as error:
                raise TaskNotFound(f"Job handler `{path}` cannot be imported") from error
            if found is None:
                raise TaskNotFound(f"Job handler `{path}` not found")
            if getattr(found, "_path", None) != path:
                raise TaskNotFound(f"Job handler `{path}` is not decorated as a task")
            handler = self.handler_registry[path] = found._handler
        return handler


class PQ(BasePQ):
    """A `pq.PQ` whose queues have tasks."""

    queue_class = Queue

    def with_tasks(self) -> list[Queue]:
        """The queues for which tasks were decorated in this process."""
        return [queue for queue in self._queues.values() if isinstance(queue, Queue) and queue.has_tasks]

    if TYPE_CHECKING:

        def __getitem__(self, name: str) -> Queue: ...


def _path(handler: Any) -> str:
    qualname = getattr(handler, "__qualname__", None)  # a partial has none
    return repr(handler) if qualname is None else f"{handler.__module__}.{qualname}"


def _replaces(handler: Any, other: Any) -> bool:
    """Whether one may take the place of the other, a task or None: if it is the same, defined once more."""
    if not hasattr(other, "_task"):
        return True  # what somebody has put into the registry by hand
    return bool(handler == other or _origins(handler) & _origins(other))


def _origins(handler: Any) -> set[Any]:
    """Its module, or its file: a program's main module may be imported by its name as well."""
    code = getattr(handler, "__code__", None)
    return {_path(handler), (getattr(handler, "__qualname__", None), code and code.co_filename)} - {(None, None)}
