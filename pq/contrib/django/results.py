"""What became of a task of ``django.tasks``, read from the row of its job.

The row tells of the last attempt. What is to be told of those that failed before it stands in the job's data, as
``attempts``: a worker writes it there when an attempt fails.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from traceback import format_exception
from types import SimpleNamespace
from typing import Any

from django.conf import settings
from django.utils import timezone as zones

from pq import Failure, JobInfo, LeasedJob
from pq._looks.times import aware

from .compat import TaskError, TaskResult, TaskResultStatus
from .queues import MARK

#: Of priority 0; each day before it is one step of priority more.
NO_PRIORITY = datetime(2000, 1, 1, tzinfo=timezone.utc)

#: In place of the name of a worker that was killed, and could not note it.
UNKNOWN = "?"

_STATUS = {
    "running": TaskResultStatus.RUNNING,
    "dead": TaskResultStatus.FAILED,
    "finished": TaskResultStatus.SUCCESSFUL,
}


def expected_at(priority: int) -> datetime:
    """Return the time by which pq orders the jobs of a priority: those of one priority keep their order."""
    return NO_PRIORITY - timedelta(days=priority)


def priority_of(expected: datetime | None) -> int:
    """Return the priority for such a time; others, which somebody else has set, are taken for the nearest one."""
    if expected is None:
        return -100
    days = (NO_PRIORITY.replace(tzinfo=None) - expected) // timedelta(days=1)
    return max(-100, min(100, days))


def shown(moment: datetime | None) -> datetime | None:
    """Return a time as Django has them.

    :param moment: naive and in UTC, or aware.
    """
    if moment is None:
        return None
    found: datetime = aware(moment)
    return found if settings.USE_TZ else zones.make_naive(found)


def attempt_of(error: BaseException, worker: str, started_at: datetime) -> dict[str, Any]:
    """Return what is kept of an attempt that failed."""
    kind = type(error)
    return {
        "worker": worker,
        "started_at": started_at.astimezone(timezone.utc).isoformat(),
        "error": f"{kind.__module__}.{kind.__qualname__}",
        "traceback": "".join(format_exception(error))[-20_000:],
    }


def earlier(data: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what is kept of the attempts that failed."""
    return [each for each in data[MARK].get("attempts", ()) if isinstance(each, dict)]


def workers(data: dict[str, Any], count: int, last: str | None) -> list[str]:
    """Return the names of the workers of all attempts.

    :param count: the number of attempts.
    :param last: the worker of the last one.
    """
    names = [str(each.get("worker")) for each in earlier(data)]
    if len(names) < count:
        names += [UNKNOWN] * (count - len(names) - 1) + [last or UNKNOWN]
    return names[:count]


def enqueued(info: JobInfo | None) -> SimpleNamespace:
    """Return what `result_of` asks of a `JobInfo`, for a job that was just put.

    A worker may have it already, or have ended it, and not everybody keeps finished jobs.

    :param info: None: it is gone.
    """
    how = {"state": "ready", "cancelled": False, "error": None, "attempts": 0, "worker": None}
    enqueued_at = zones.now() if info is None else info.enqueued_at
    return SimpleNamespace(enqueued_at=enqueued_at, dequeued_at=None, finished_at=None, **how)


def running(job: LeasedJob, worker: str) -> SimpleNamespace:
    """Return what `result_of` asks of a `JobInfo`, for a job that runs here."""
    times = {name: getattr(job, name) for name in ("enqueued_at", "schedule_at", "expected_at", "dequeued_at")}
    how = {"state": "running", "cancelled": False, "error": None, "attempts": job.attempts}
    return SimpleNamespace(**times, **how, finished_at=None, worker=worker)


def result_of(task: Any, backend: str, id: str, info: Any, data: dict[str, Any], value: Any) -> Any:
    """Return the `TaskResult` of a job.

    :param task: as it was enqueued.
    :param info: a `pq.JobInfo`, or what `running` returned.
    :param value: what it returned, if it has.
    """
    before = earlier(data)
    errors = [TaskError(exception_class_path=each["error"], traceback=each["traceback"]) for each in before]
    status = TaskResultStatus.FAILED if info.cancelled else _STATUS.get(info.state, TaskResultStatus.READY)
    if info.cancelled:
        errors.append(TaskError(exception_class_path="pq.errors.JobCancelled", traceback="The job was cancelled.\n"))
    elif info.error is not None and len(before) < info.attempts:
        errors.append(_error_of(info.error))  # of pq's own: the worker was killed, or the task took too long
    begun = [datetime.fromisoformat(each["started_at"]) for each in before]
    ended_here = info.state == "dead" or info.cancelled  # then the time that it was taken has been replaced
    taken = None if ended_here or info.attempts == 0 else info.dequeued_at
    last = taken or (begun[-1] if begun else None)
    result = TaskResult(
        task=task,
        id=id,
        status=status,
        enqueued_at=shown(info.enqueued_at),
        started_at=shown(begun[0] if begun else last),
        finished_at=shown(info.finished_at),
        last_attempted_at=shown(last),
        args=data["args"],
        kwargs=data["kwargs"],
        backend=backend,
        errors=errors,
        worker_ids=workers(data, info.attempts, info.worker),
    )
    object.__setattr__(result, "_return_value", value)
    return result


def _error_of(failure: Failure) -> Any:
    path = failure.type if "." in failure.type else f"builtins.{failure.type}"
    return TaskError(exception_class_path=path, traceback=failure.traceback or f"{failure}\n")
