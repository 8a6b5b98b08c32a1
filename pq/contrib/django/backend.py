"""The backend of ``django.tasks``::

    TASKS = {"default": {"BACKEND": "pq.contrib.django.backend.PQBackend", "QUEUES": ["default"]}}

A task is a job of the queue of its name, put on Django's connection: it exists if the transaction is committed.
``manage.py pq work`` performs it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextvars import Context
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

from django.apps import apps
from django.core import checks
from django.db import transaction
from django.utils import timezone as zones

from pq import LeaseLost, TaskNotFound
from pq._args import check_text
from pq._db.scope import current as current_scope
from pq._jobs import outcome
from pq._jobs.holder import holder
from pq._jobs.lease import LeasedJob
from pq._times import Delay, positive_delay
from pq.retry import Policy, RetryIn
from pq.tasks import current
from pq.tasks.importing import NotFound, locate
from pq.worker.call import Call, Options
from pq.worker.heartbeat import lease_of

from . import conf, results
from .bases import BaseTaskBackend, Task
from .compat import (
    InvalidTask,
    TaskContext,
    TaskError,
    TaskResultDoesNotExist,
    TaskResultStatus,
    normalize_json,
    task_backends,
    task_enqueued,
    task_finished,
    task_started,
)
from .connections import Inside
from .queues import MARK, PQ, Queue, pqs

#: What OPTIONS can have beside those of a task: ``pq``, the name of an entry in the setting PQ.
OPTIONS: tuple[str, ...] = ("transactional", "max_retries", "retry_in", "lease", "timeout")


@dataclass(frozen=True, slots=True, kw_only=True)
class PQTask(Task):
    """A task. Where Django's ``@task`` takes further arguments (6.1, and django-tasks), these are its own; else they
    are those of OPTIONS. None: as OPTIONS say.

    :ivar transactional: run it inside of ``atomic()``, which commits its effects and its end together: *exactly once*.
    :ivar max_retries: how often it is tried again after an exception; default: 0.
    :ivar retry_in: the pause before that, as for `pq.Queue.task`.
    :ivar lease: how long after its worker was killed it comes back, likewise.
    :ivar timeout: how long it may run, likewise.
    """

    transactional: bool | None = None
    max_retries: int | None = None
    retry_in: RetryIn | None = None
    lease: Delay | None = None
    timeout: Delay | None = None


class PQBackend(BaseTaskBackend):
    """Puts tasks into the queues of an entry of the setting ``PQ``, which OPTIONS may name as ``pq``."""

    #: For `pq.contrib.django.queues.backends`.
    is_of_pq: bool = True

    task_class: Any = PQTask
    supports_defer: bool = True
    supports_async_task: bool = True
    supports_get_result: bool = True
    supports_priority: bool = True

    @property
    def pq(self) -> PQ:
        """The PQ whose queues have the tasks."""
        return pqs[self.options.get("pq", "default")]

    def validate_task(self, task: Any) -> None:
        """
        :raises InvalidTask: the backend can't run the task.
        """
        super().validate_task(task)  # type: ignore[misc]
        try:
            check_text("queue_name", task.queue_name)
            self.options_of(task)
        except (TypeError, ValueError) as error:
            raise InvalidTask(str(error)) from error

    def options_of(self, task: Any) -> Options:
        """Return how workers run a task.

        :raises TypeError: an option has another type; or a ValueError.
        """
        given = {name: self.options[name] for name in OPTIONS if name in self.options}
        own = {name: getattr(task, name, None) for name in OPTIONS}
        given |= {name: value for name, value in own.items() if value is not None}
        retries, retry_in = given.get("max_retries", 0), given.get("retry_in", "30s")
        Policy(retries, retry_in)
        lease, timeout = given.get("lease"), given.get("timeout")
        return Options(
            retries,
            retry_in,
            bool(given.get("transactional", False)),
            None if lease is None else lease_of(lease),
            None if timeout is None else positive_delay("timeout", timeout),
            True,
        )

    def enqueue(self, task: Any, args: Any, kwargs: Any) -> Any:
        """Put the job of a task, on Django's connection.

        :returns: a ``TaskResult``; its id is the name of the queue, a slash and the id of the job.
        """
        self.validate_task(task)
        data = {
            "function": task.module_path,
            "args": normalize_json(list(args)),
            "kwargs": normalize_json(dict(kwargs)),
            MARK: {"backend": self.alias},
        }
        queue = self.pq[task.queue_name]
        run_after = task.run_after
        if run_after is not None and zones.is_naive(run_after):
            run_after = zones.make_aware(run_after)
        number = queue.put(data, run_after, results.expected_at(task.priority))
        enqueued = results.enqueued(queue.find(number))
        result = results.result_of(task, self.alias, f"{queue.name}/{number}", enqueued, data, None)
        task_enqueued.send(type(self), task_result=result)
        return result

    def get_result(self, result_id: str) -> Any:
        """Return what became of a task.

        :raises TaskResultDoesNotExist: there is no such task, or none any more: PQ's retention is over.
        """
        name, _, number = str(result_id).rpartition("/")
        if not re.fullmatch("[1-9][0-9]{0,18}", number):  # as `enqueue` writes it; int() reads more than that
            raise TaskResultDoesNotExist(result_id)
        try:
            queue = self.pq[name]
            info = queue.find(int(number))
        except ValueError:
            raise TaskResultDoesNotExist(result_id) from None
        data: Any = None if info is None else info.data
        if info is None or not _is_of(data, self.alias):
            raise TaskResultDoesNotExist(result_id)
        value = queue.result(info.id) if info.state == "finished" else None
        task = self.as_enqueued(_task(queue, data["function"]), queue.name, info)
        return results.result_of(task, self.alias, f"{queue.name}/{info.id}", info, data, value)

    def check(self, **kwargs: Any) -> Iterator[Any]:
        """Check the settings."""
        if not apps.is_installed("pq.contrib.django"):
            yield checks.Error("INSTALLED_APPS must have 'pq.contrib.django'.", id="pq.E101")
            return
        name = self.options.get("pq", "default")
        if name not in conf.read():
            yield checks.Error(f"TASKS[{self.alias!r}]: the setting PQ has no entry {name!r}.", id="pq.E102")
        for option in self.options.keys() - {"pq", *OPTIONS}:
            hint = f"These are known: {', '.join(('pq', *OPTIONS))}."
            yield checks.Error(f"TASKS[{self.alias!r}]: there is no option {option!r}.", hint, id="pq.E103")
        try:
            self.options_of(None)
        except (TypeError, ValueError) as error:
            yield checks.Error(f"TASKS[{self.alias!r}]: {error}", id="pq.E104")

    def as_enqueued(self, task: Any, queue: str, job: Any) -> Any:
        """Return a task as it was when it was enqueued.

        :param job: a `JobInfo`, or a job.
        """
        run_after, priority = results.shown(job.schedule_at), results.priority_of(job.expected_at)
        changed = {"queue_name": queue, "backend": self.alias, "priority": priority, "run_after": run_after}
        found = object.__new__(type(task))  # not checked anew: meanwhile QUEUES may have lost its queue
        _set(found, **{field.name: getattr(task, field.name) for field in fields(task)} | changed)
        return found


def call_of(queue: Queue, data: dict[str, Any]) -> Call:
    """Return the call of the task that a job stands for.

    :raises TaskNotFound: there is no such task here.
    """
    name = str(data.get("function"))
    alias = data[MARK].get("backend") if isinstance(data[MARK], dict) else None
    if not _is_of(data, alias):
        raise TaskNotFound(f"the job is no call of task `{name}`")
    task = _task(queue, name)
    try:
        backend = task_backends[alias]
    except Exception as error:
        reason = f"Task `{name}` is for the backend {alias!r}, which the setting TASKS does not have here"
        raise TaskNotFound(reason, task=name, waits=queue._waits) from error
    if not isinstance(backend, PQBackend):
        raise TaskNotFound(f"Task `{name}`: the backend {alias!r} is none of pq's", task=name, waits=queue._waits)
    options = backend.options_of(task)
    return Call(name, partial(_perform, backend, task, data), data["args"], data["kwargs"], options)


def _is_of(data: Any, alias: Any) -> bool:
    return (
        isinstance(data, dict)
        and isinstance(data.get(MARK), dict)
        and data[MARK].get("backend") == alias
        and isinstance(data.get("args"), list)
        and isinstance(data.get("kwargs"), dict)
    )


def _task(queue: Queue, path: str) -> Any:
    """Return the task of a path. What is found must be a task: a row must not be able to call just anything.

    :raises TaskNotFound: there is none.
    """
    try:
        found = locate(path, queue._packages)
    except NotFound as error:
        raise TaskNotFound(f"Task `{path}` {error}", task=path, waits=queue._waits) from error.__cause__
    if not isinstance(found, Task):
        raise TaskNotFound(f"`{path}` is no task of django.tasks", task=path, waits=queue._waits)
    return found


# -- in a worker


def _perform(backend: PQBackend, task: Any, data: dict[str, Any], job_id: int, /, *args: Any, **kwargs: Any) -> Any:
    """Run a task, and tell of it by Django's signals."""
    job = current()
    queue: Queue = job.queue
    task = backend.as_enqueued(task, queue.name, job)
    here = results.running(job, holder())
    result = results.result_of(task, backend.alias, f"{queue.name}/{job_id}", here, data, None)
    task_started.send(type(backend), task_result=result)
    try:
        context = [TaskContext(task_result=result)] if task.takes_context else []
        value = normalize_json(task.call(*context, *args, **kwargs))
        json.dumps(value, allow_nan=False)
    except (KeyboardInterrupt, LeaseLost):
        raise
    except BaseException as error:
        _failed(backend, job, data, result, error)
        raise
    _set(result, status=TaskResultStatus.SUCCESSFUL, finished_at=zones.now(), _return_value=value)
    tell = partial(task_finished.send, type(backend), task_result=result)
    if backend.options_of(task).transactional:
        transaction.on_commit(tell, using=queue._db.alias, robust=True)
    else:
        tell()
    return value


def _failed(backend: PQBackend, job: LeasedJob, data: dict[str, Any], result: Any, error: BaseException) -> None:
    """Note that an attempt has failed."""
    attempt = results.attempt_of(error, holder(), job.dequeued_at)
    noted = {**data, MARK: {**data[MARK], "attempts": [*results.earlier(data), attempt]}}
    inside = current_scope(job.queue._table.database.source)
    note = partial(_note, job, noted)
    if isinstance(inside, Inside):
        inside.after_rollback = note
    else:
        note()
    if outcome.failed(job, error).outcome == "dead":
        _set(result, status=TaskResultStatus.FAILED, finished_at=zones.now())
        result.errors.append(TaskError(exception_class_path=attempt["error"], traceback=attempt["traceback"]))
        task_finished.send(type(backend), task_result=result)


def _note(job: LeasedJob, data: dict[str, Any]) -> None:
    """Write it into the row, by a connection of the worker's: the task may have broken Django's."""
    try:
        Context().run(setattr, job, "data", data)
    except Exception:  # how the job goes on does not depend on it
        job.queue.logger.warning("what failed could not be noted in job %s", job.id, exc_info=True)


def _set(result: Any, **values: Any) -> None:
    for name, value in values.items():
        object.__setattr__(result, name, value)


Queue.call_of_django = staticmethod(call_of)
