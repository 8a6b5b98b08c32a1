"""`PQ.running` and `PQ.workers`: which jobs run, who runs them, and who waits for jobs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from .._table import Table
from .._table.look import look
from .times import aware, task_name


@dataclass(frozen=True)
class RunningJob:
    """A job that runs under a lease.

    :ivar id: its id.
    :ivar queue: the name of its queue.
    :ivar task: the name of the task that it calls; None if it is no call of a task.
    :ivar worker: who has it, as ``host:pid``; None if that is not known.
    :ivar attempts: how often it was delivered, this time included.
    :ivar since: when it was taken; in UTC.
    :ivar lease_ends: when its lease ends, unless that is extended; in UTC.
    :ivar progress: what it has told of its progress, or None; a text that is no JSON, or a pickle, as it is.
    """

    id: int
    queue: str
    task: str | None
    worker: str | None
    attempts: int
    since: datetime
    lease_ends: datetime
    progress: Any


@dataclass(frozen=True)
class WorkerOverview:
    """A session that waits for jobs, or a process that runs some.

    :ivar worker: the process that runs jobs, as ``host:pid``; None of a session that waits.
    :ivar pid: the server process of a session that waits; None of a process that runs jobs.
    :ivar application: the ``application_name`` of the session.
    :ivar host: the address from which the session has connected; None: by a local socket, or not to be seen.
    :ivar waits_for: the queues that it waits for, of those that have jobs that are not finished, or are paused.
    :ivar runs: the jobs that it runs.
    """

    worker: str | None
    pid: int | None
    application: str | None
    host: str | None
    waits_for: Sequence[str]
    runs: Sequence[RunningJob]


def running(table: Table, limit: int) -> list[RunningJob]:
    """Return jobs that run, the longest first."""
    rows = look(table, table.statements("looks.sql")["running"], {"limit": limit})
    return [_job(*row) for row in rows]


def _job(
    id: int, queue: str, task: str | None, worker: str | None, attempts: int, since: datetime, ends: datetime,
    progress: str | None,
) -> RunningJob:  # fmt: skip
    return RunningJob(id, queue, task_name(task), worker, attempts, aware(since), aware(ends), told(progress))


def told(text: str | None) -> Any:
    """Return what a job has told of its progress, of what is stored: a text that is no JSON as it is."""
    try:
        return None if text is None else json.loads(text)
    except (ValueError, RecursionError):
        return text


def workers(table: Table, limit: int) -> list[WorkerOverview]:
    """Return who runs jobs, and who waits for them."""
    by_worker: dict[str | None, list[RunningJob]] = {}
    for job in running(table, limit):
        by_worker.setdefault(job.worker, []).append(job)
    found = [WorkerOverview(name, None, None, None, (), tuple(jobs)) for name, jobs in by_worker.items()]
    rows = look(table, table.statements("looks.sql")["sessions"], {"table": table.quoted})
    return found + [
        WorkerOverview(None, pid, application, host, tuple(queues), ()) for pid, application, host, queues in rows
    ]
