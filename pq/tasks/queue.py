"""Queues of tasks, and how their jobs are performed."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Concatenate, overload

from .._args import check_text
from .._calls import check_finished
from .._jobs.job import Job
from .._jobs.lease import LeasedJob
from .._manager import PQ as BasePQ
from .._queue import Queue as BaseQueue
from .._schedules import Schedule, check_schedule
from .._text import is_a
from .._times import Delay, TimeSpec, positive_delay, when
from ..errors import TaskNotFound
from ..retry import Policy, RetryIn, retries_from
from ..worker import Worker
from ..worker.call import Call, Options
from ..worker.execution import Execution
from ..worker.heartbeat import lease_of
from ..worker.intake import Intake
from . import tags
from .importing import NotFound, locate
from .names import MAIN, check_name, normal, path_of
from .streams import Stream, Streams
from .tags import Key, UniqueSpec
from .task import P, R, Task
from .trying import TriedQueue


class Queue(TriedQueue):
    __doc__ = BaseQueue.__doc__

    #: Tasks by name. One that is missing here is imported by its path, and called only if it was decorated. A plain
    #: function may stand here, too.
    handler_registry: ClassVar[dict[str, Any]] = {}

    #: Whether tasks were decorated for this queue in this process, and transactional ones.
    _has_tasks = False
    _has_transactional_tasks = False

    #: The schedules of these tasks, by name.
    _declared: Mapping[str, Schedule] = {}

    #: The subscription of a stream whose events become jobs of this queue, if there is one; see `pq.tasks.streams`.
    _intake: Intake | None = None

    #: The packages from which modules are imported for a task; None: any. ``python -m pq work`` sets it.
    _packages: Sequence[str] | None = None

    #: Whether a job whose task is unknown waits for a deployment. In `work` it does not, as in 1.9.1.
    _waits = True

    @overload
    def task(self, function: Callable[Concatenate[int, P], R], /) -> Task[P, R]: ...
    @overload
    def task(
        self,
        schedule_at: TimeSpec = None,
        expected_at: TimeSpec = None,
        max_retries: int = 0,
        retry_in: RetryIn = "30s",
        *,
        max_attempts: int | None = None, name: str | None = None,
        transactional: bool = False,
        lease: Delay | None = None,
        timeout: Delay | None = None,
        result: bool = False,
        key: Key = None,
        unique: UniqueSpec = None,
        cron: str | None = None, rrule: str | None = None, every: Delay | None = None, zone: str | None = None,
        missed: str | None = None, jitter: Delay | None = None,
    ) -> Callable[[Callable[Concatenate[int, P], R]], Task[P, R]]: ...  # fmt: skip

    def task(
        self,
        schedule_at: Any = None,
        expected_at: TimeSpec = None,
        max_retries: int = 0,
        retry_in: RetryIn = "30s",
        *,
        max_attempts: int | None = None, name: str | None = None,
        transactional: bool = False,
        lease: Delay | None = None,
        timeout: Delay | None = None,
        result: bool = False,
        key: Key = None,
        unique: UniqueSpec = None,
        cron: str | None = None, rrule: str | None = None, every: Delay | None = None, zone: str | None = None,
        missed: str | None = None, jitter: Delay | None = None,
    ) -> Any:
        """Decorate a function: calling it then puts a job and returns the job's id.

        ``@queue.task`` does that with the defaults, ``@queue.task(…)`` with these options. A worker calls the function
        with the job's id in front of its arguments. The function must be importable by its path in the worker's
        process, or be decorated there, too.

        :param schedule_at: as for `Queue.put`; ``_schedule_at`` at the call overrides it.
        :param expected_at: as for `Queue.put`; ``_expected_at`` at the call overrides it.
        :param max_retries: how often a call that raised an exception is tried again; after that the job is dead.
        :param retry_in: the pause before that: ``'30s'``, a timedelta or seconds, a list or a function; see
            `pq.retry.Policy`.
        :param max_attempts: how often it is tried in all; unless it is None it replaces `max_retries`.
        :param name: what jobs name the task by; default: the function's import path. With a name the function can be
            moved, but it must be decorated in the worker's process.
        :param transactional: run it inside a transaction, whose cursor is ``current().cursor``: what it writes there
            and the end of the job are committed together, *exactly once*, or not at all.
        :param lease: how long after its worker was killed the job may come back, as ``'30s'``, a timedelta or seconds;
            default: the worker's lease. At least 100 milliseconds.
        :param timeout: how long it may run, as ``'5m'``, a timedelta or seconds; after that it is tried again, or dead,
            whatever it still does. Default: without end.
        :param result: keep what it returns, for `Queue.result`.
        :param key: as for `Queue.put`, or a function that returns it for the arguments of a call, or None: it is called
            with those that it names. ``_key`` at the call overrides it.
        :param unique: as for `Queue.put`, or such a function; ``_unique`` at the call overrides it.
            True: the token is a digest of the task and its arguments.
        :param cron: have it called without arguments at these times: a worker, when it starts, stores a `Schedule`
            under the task's name. `schedule_at` and `expected_at` are for calls, not for these jobs.
        :param rrule: likewise, as for `Schedule`; so are `every`, `zone`, `missed` and `jitter`.
        :raises ImportError: `cron` or `rrule` needs the extra ``pq[schedules]``.
        :raises TypeError: an argument of another type. When it decorates: the function is async or a generator
            function, it can't take the job's id, or it has no path and no name.
        :raises ValueError: a time of another form or out of range; `max_retries` below 0 or `max_attempts` below 1; an
            empty name. When it decorates: another function has that name in this process. If the module is loaded
            again, the function takes its own place; two functions of one path are warned of.
        """
        if callable(schedule_at):
            return self.task()(schedule_at)
        try:
            when("schedule_at", schedule_at)
        except (TypeError, ValueError) as error:
            if isinstance(schedule_at, str):
                error.args = (f"{error}; the name of a task is given as name={schedule_at!r}",)
            raise
        when("expected_at", expected_at)
        max_retries = retries_from(max_retries, max_attempts)
        Policy(max_retries, retry_in)
        tags.check(self.name, key, unique)
        if name is not None:
            check_text("name", name)
        options = Options(
            max_retries,
            retry_in,
            transactional,
            None if lease is None else lease_of(lease),
            None if timeout is None else positive_delay("timeout", timeout),
            result,
        )
        clock = None
        if any(part is not None for part in (cron, rrule, every, zone, missed, jitter)):
            clock = Schedule(
                self, None, cron=cron, rrule=rrule, every=every, zone=zone, jitter=jitter,
                missed="once" if missed is None else missed,
            )  # fmt: skip
            check_schedule(clock, self.name)

        def decorate(function: Any) -> Task[Any, Any]:
            handler = function._handler if isinstance(function, Task) else function  # one function, two tasks
            path = path_of(handler) if name is None else name
            other = self.handler_registry.get(path)
            if isinstance(other, Task):
                check_name(path, handler, other._handler)
            task = Task(self, handler, path, schedule_at, expected_at, options, key, unique)
            declared = {other: schedule for other, schedule in self._declared.items() if other != path}
            if clock is not None:
                job = task.new_job()
                declared[path] = replace(clock, data=job.data, key=job.key, unique=job.unique)
                check_schedule(declared[path], self.name)
            self._declared, self.handler_registry[path] = declared, task
            self._has_tasks = True
            self._has_transactional_tasks |= transactional
            return task

        return decorate

    def work(self, burst: bool = False) -> None:
        """Perform jobs as they come, with a `Worker` of one thread, until SIGTERM or SIGINT.

        :param burst: return when there was no job for `timeout` seconds.
        """
        self.logger.info("`%s` starting to perform jobs", self.name)
        self._waits = False
        try:
            Worker(self, burst=burst).run()
        finally:
            self._waits = True

    def perform(self, job: Job) -> bool:
        """Call the task of a job, in this thread.

        A job that was got under a lease is settled. A job that is off the queue already is put again if the task fails
        and has retries left, as in 1.9.1.

        :returns: whether the task succeeded.
        """
        if isinstance(job, LeasedJob):
            try:
                return Execution(job, time.monotonic()).perform() == "done"
            except BaseException as error:
                if not isinstance(error, Exception):
                    job.release()
                raise
        try:
            call = self._call(job.data)
        except Exception as error:
            return self.fail(job, job.data, error)
        try:
            run = partial(call.handler, job.id, *call.args, **call.kwargs)
            check_finished(f"task `{call.name}`", self._table.instruments.call(job, call.name, run))
        except Exception as error:
            return self.fail(job, job.data, error)
        return True

    def fail(self, job: Job, data: Any, e: BaseException | None = None) -> bool:
        """Put a failed job again if it has retries left, else log why it is given up; return False."""
        again = self._retry(job, data) if isinstance(data, dict) else None
        if again is None:
            self.logger.error("Failed to perform job %r", job, exc_info=e)
        else:
            self.logger.info("Rescheduled %r as `%s`", job, again)
        return False

    def _retry(self, job: Job, data: dict[str, Any]) -> int | None:
        """Put the job of the next attempt and return its id; return None if there is none."""
        try:
            retried = data.get("retried", 0)
            if data.get("max_retries", 0) <= retried:
                return None
            return self.put({**data, "retried": retried + 1}, data.get("retry_in"), job.expected_at)
        except (TypeError, ValueError):  # a row that no task put, or arguments that the task has changed
            self.logger.exception("Cannot put job %r again", job)
            return None

    def _call(self, data: Any) -> Call:
        """Return the call of a task that a job asks for.

        :raises TaskNotFound: the data is no call of a task, or there is no task of that name.
        """
        name: Any = data.get("function") if type(data) is dict or is_a(data, Mapping) else None
        if not (type(name) is str or is_a(name, str)):
            raise TaskNotFound("the job is no call of a task")
        args, kwargs = data.get("args"), data.get("kwargs")
        if not (type(args) is list or is_a(args, (list, tuple))) or not (type(kwargs) is dict or is_a(kwargs, Mapping)):
            raise TaskNotFound(f"the job is no call of task `{name}`: it has no arguments")
        found = self._find(name)
        if isinstance(found, Task):
            return Call(name, found._handler, args, kwargs, found.options)
        return Call(name, found, args, kwargs, Options())

    def _find(self, name: str) -> Any:
        """Return a task, or a function that somebody has put into the registry.

        :raises TaskNotFound: there is none. What can be imported must be a task: being able to insert a row must not
            mean being able to call just anything.
        """
        found = self.handler_registry.get(name)
        if found is not None:
            return found
        path = normal(name)
        found = self.handler_registry.get(path)
        if found is not None:
            return found
        try:
            found = locate(path, self._packages)
        except NotFound as error:
            script = "; a program that ran as a script put the job: move its task into a module, or give it a name="
            hint = script if name.partition(".")[0] in MAIN else ""
            raise TaskNotFound(f"Job handler `{name}` {error}{hint}", task=name, waits=self._waits) from error.__cause__
        try:
            task = found if isinstance(found, Task) else vars(found).get("_task")
        except TypeError:  # it has no attributes of its own
            task = None
        if not isinstance(task, Task) or task.name != path:
            raise TaskNotFound(f"Job handler `{name}` is not decorated as a task", task=name, waits=self._waits)
        self.handler_registry[name] = task
        return task


class PQ(BasePQ):
    __doc__ = BasePQ.__doc__

    queue_class: type[BaseQueue] | None = Queue

    @property
    def streams(self) -> Streams[Stream]:
        """Logs of events that any number of subscriptions read: ``pq.streams["orders"]``; see :doc:`/howto/streams`."""
        return Streams(self._table, self.__getitem__, Stream)

    def _with_tasks(self) -> list[Queue]:
        """Return the queues for which tasks were decorated in this process."""
        return [queue for queue in self._queues.all() if isinstance(queue, Queue) and queue._has_tasks]

    if TYPE_CHECKING:

        def __getitem__(self, name: str) -> Queue: ...
