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

import math
from collections.abc import Callable
from datetime import timedelta
from functools import wraps
from logging import getLogger
from pydoc import ErrorDuringImport, locate
from typing import TYPE_CHECKING, Any, ClassVar

from ._when import TimeSpec, when
from .job import Job
from .manager import PQ as BasePQ
from .queue import Queue as BaseQueue

__all__ = ["PQ", "Queue"]

Handler = Callable[..., Any]


class Queue(BaseQueue):
    """A queue whose jobs are calls of tasks.

    `task` decorates a function: calling it puts a job. `work` performs them. A job is taken at most once, as by
    `Queue.get`: one that is being performed when its worker is killed is lost.
    """

    #: Handlers by path. One that is missing here is imported by its path, and called only if it was decorated.
    handler_registry: ClassVar[dict[str, Handler]] = {}

    logger = getLogger("pq.tasks")

    def task(
        self,
        schedule_at: TimeSpec = None,
        expected_at: TimeSpec = None,
        max_retries: int = 0,
        retry_in: str | timedelta | None = "30s",
    ) -> Callable[[Handler], Callable[..., int]]:
        """Decorate a function: calling it puts a job and returns the job's id.

        The function is called with the job's id in front of its arguments, by a worker. It must be importable by its
        path there, unless the worker has it decorated, too. ``_schedule_at`` and ``_expected_at`` at the call override:

        :param schedule_at: as for `Queue.put`.
        :param expected_at: as for `Queue.put`.
        :param max_retries: how often a call that raised an exception is tried again.
        :param retry_in: how long after: as ``'30s'`` or a timedelta (whole seconds); None: at once.
        :raises TypeError: an argument of another type.
        :raises ValueError: a time of another form or out of range; negative `max_retries`.
        """
        when("schedule_at", schedule_at)
        when("expected_at", expected_at)
        if isinstance(max_retries, bool) or not isinstance(max_retries, int):
            raise TypeError(f"max_retries must be an int, not {type(max_retries).__name__}: {max_retries!r}")
        if max_retries < 0:
            raise ValueError(f"max_retries must not be negative: {max_retries}")
        pause = _pause(retry_in)

        def decorate(handler: Any) -> Callable[..., int]:
            handler._path = f"{handler.__module__}.{handler.__qualname__}"
            handler._max_retries = max_retries
            handler._retry_in = pause
            handler._handler = handler
            self.handler_registry[handler._path] = handler

            @wraps(handler)
            def call(*args: Any, _schedule_at: TimeSpec = None, _expected_at: TimeSpec = None, **kwargs: Any) -> int:
                data = {
                    "function": handler._path,
                    "args": args,
                    "kwargs": kwargs,
                    "retried": 0,
                    "retry_in": pause,
                    "max_retries": max_retries,
                }
                return self.put(
                    data,
                    schedule_at if _schedule_at is None else _schedule_at,
                    expected_at if _expected_at is None else _expected_at,
                )

            return call

        return decorate

    def work(self, burst: bool = False) -> None:
        """Perform jobs as they come.

        :param burst: return when there was none for `timeout` seconds.
        """
        self.logger.info("`%s` starting to perform jobs", self.name)
        for job in self:
            if job is not None:
                self.perform(job)
            elif burst:
                return

    def perform(self, job: Job) -> bool:
        """Call the job's task; if that fails, put it again or give it up.

        :returns: whether it succeeded.
        """
        data = job.data
        try:
            path, args, kwargs = data["function"], data["args"], data["kwargs"]
            handler = self._handler(path)
        except Exception as error:
            return self.fail(job, data, error)
        try:
            handler(job.id, *args, **kwargs)
        except Exception as error:
            return self.fail(job, data, error)
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

    def _handler(self, path: str) -> Handler:
        """
        :raises LookupError: nothing importable has that path, or it is no task: whoever can insert a row must not be
            able to call just anything.
        """
        handler = self.handler_registry.get(path)
        if handler is None:
            try:
                found: Any = locate(path)
            except ErrorDuringImport as error:
                raise LookupError(f"Job handler `{path}` cannot be imported") from error
            if found is None:
                raise LookupError(f"Job handler `{path}` not found")
            if getattr(found, "_path", None) != path:
                raise LookupError(f"Job handler `{path}` is not decorated as a task")
            handler = self.handler_registry[path] = found._handler
        return handler


class PQ(BasePQ):
    """A `pq.PQ` whose queues have tasks."""

    queue_class = Queue

    if TYPE_CHECKING:

        def __getitem__(self, name: str) -> Queue: ...


def _pause(retry_in: str | timedelta | None) -> str | None:
    """As it is stored in the job, for any version of pq: text."""
    if retry_in is not None and not isinstance(retry_in, (str, timedelta)):
        raise TypeError(f"retry_in must be a str or timedelta, not {type(retry_in).__name__}: {retry_in!r}")
    delay = when("retry_in", retry_in).delay
    if delay is not None and delay < timedelta():
        raise ValueError(f"retry_in must not be negative: {retry_in}")
    if isinstance(retry_in, timedelta):
        return f"{math.ceil(retry_in.total_seconds())}s"
    return retry_in
