"""What a worker does to the records of jobs, each in a short transaction of its own.

Of the jobs with one cursor at most one is running or lost. The index of these sees to that in any case; that nobody
meets it, and that nobody waits in vain, is due to the lock of the cursor: whoever begins a job, or ends one, holds it.
So who finds the cursor busy drops its delivery: who ends the job before will put one for the next.

The locks are taken in one order: of the cursor, of the record. Programs take that of the record alone.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from .delivery import AGAIN, JOB, NOW, deliver, now_on

log: logging.Logger = logging.getLogger("pq.contrib.mq")

#: The first half of the key of the lock of a cursor; the other one is a hash of the cursor's key.
LOCK_SPACE = 0x706D71

#: Keys and ids are compared with columns of four bytes.
_POSITIVE = 2**31 - 1


class JobContext:
    """What ``execute_job`` gets.

    :ivar args: the arguments of the call.
    :ivar cursor: with a cursor key: a dict, which is stored when the job is completed, and handed on to the next job.
    :ivar trace: what was given to `MQSource.call`.
    :ivar listener_ids: of the listeners that asked for the job; or None.
    :ivar schedule_ids: of the schedules that asked for the job; or None.
    """

    def __init__(
        self,
        *,
        id: int,
        queue: str,
        method: str,
        args: Any,
        cursor_key: str | None = None,
        cursor: Any = None,
        listener_ids: list[int] | None = None,
        schedule_ids: list[int] | None = None,
        trace: Any = None,
    ) -> None:
        self.id: int = id
        self.queue: str = queue
        self.method: str = method
        self.args: Any = args
        self.cursor_key: str | None = cursor_key
        self.cursor: Any = cursor
        self.listener_ids: list[int] | None = listener_ids
        self.schedule_ids: list[int] | None = schedule_ids
        self.trace: Any = trace

    def extend(self, **kw: Any) -> None:
        """Set attributes, for your methods to use."""
        vars(self).update(kw)


class FailedJobError(Exception):
    """Raised by ``execute_job``: the job has failed, with this result.

    :param result: what JSON can hold.
    :param update_cursor: store ``job.cursor`` nevertheless.
    """

    message = "The job has given itself up."

    def __init__(self, result: Any, *, update_cursor: bool = False) -> None:
        super().__init__(self.message)
        self.result = result
        self.update_cursor = update_cursor


@dataclass(frozen=True)
class Holder:
    """A worker, as the records know it.

    :ivar queues: the names of the queues that it serves.
    """

    name: str
    queues: list[str]


def lock_id_of(delivery: int) -> int:
    """Return what the record of a running job has as ``lock_id``: who comes with the same delivery again knows that the
    worker which began the job is gone."""
    return delivery & _POSITIVE


def begin(source: Any, holder: Holder, job_id: int, lock_id: int) -> JobContext | None:
    """Have a pending job run, and return it; or None: it is not to run now, or not by this delivery."""
    db, Job, states = source.dbsession, source.model.Job, source.model.JobStates
    seen = db.execute(sa.select(Job.queue, Job.cursor_key).where(Job.id == job_id)).one_or_none()
    if seen is None:
        return None
    key, job = seen.cursor_key, None
    if key is None or db.scalar(sa.select(sa.func.pg_try_advisory_xact_lock(*_lock_of(key)))):
        job = db.scalars(sa.select(Job).where(Job.id == job_id).with_for_update(skip_locked=True)).one_or_none()
    if job is None:  # another transaction is about to change it, or has
        deliver(db, source.model, JOB, seen.queue, job_id, now_on(db) + AGAIN)
        return None
    if job.state == states.RUNNING and job.lock_id == lock_id:
        _lose(source, job)
    if job.state != states.PENDING:
        return None
    now = now_on(db)
    if job.scheduled_time > now:
        deliver(db, source.model, JOB, job.queue, job.id, job.scheduled_time)
        return None
    cursor = None
    if key is not None:
        if not _is_first(source, holder, job):
            return None
        found = source.dbsession.get(source.model.JobCursor, key)
        job.cursor_snapshot = None if found is None else found.properties
        cursor = {} if found is None else found.properties
    job.state, job.start_time, job.lock_id, job.worker = states.RUNNING, now, lock_id, holder.name
    trace = job.trace or {}
    return JobContext(
        id=job.id,
        queue=job.queue,
        method=job.method,
        args=job.args,
        cursor_key=job.cursor_key,
        cursor=cursor,
        listener_ids=trace.get("mq_listener_ids"),
        schedule_ids=trace.get("mq_schedule_ids"),
        trace=job.trace,
    )


def finish(source: Any, context: JobContext, lock_id: int, state: str, result: Any, cursor: Any = None) -> None:
    """End a running job, store its cursor, tell the listeners, and have the next job of the cursor begin.

    :param cursor: None: it is not stored.
    """
    db, Job, states = source.dbsession, source.model.Job, source.model.JobStates
    job_id, key = context.id, context.cursor_key
    if key is not None:
        db.execute(sa.select(sa.func.pg_advisory_xact_lock(*_lock_of(key))))
    # a job that was taken for lost has ended after all; but what its program has made of it since then stays
    held = sa.and_(Job.id == job_id, Job.lock_id == lock_id, Job.state.in_([states.RUNNING, states.LOST]))
    job = db.scalars(sa.select(Job).where(held).with_for_update()).one_or_none()
    if job is None:
        log.warning("job %s has ended as %s, but is no longer held: this changes nothing", job_id, state)
        return
    if cursor is not None and key is not None:
        _store(source, key, cursor, job_id)
    elif cursor is not None:
        log.warning("the cursor of job %s is not stored: the job has no cursor_key", job_id)
    job.state, job.result, job.end_time, job.lock_id = state, result, now_on(db), None
    db.flush()
    source.emit_event(*finished_event(job, state, result=result))
    if key is not None:
        wake_next(source, key)


def wake_next(source: Any, key: str) -> None:
    """Put deliveries for those jobs of a cursor that can be next: the first one of each queue, since nobody knows which
    queues have a worker."""
    for first in _firsts(source, key):
        deliver(source.dbsession, source.model, JOB, first.queue, first.id, first.scheduled_time)


def finished_event(job: Any, state: str, **more: Any) -> tuple[str, dict[str, Any]]:
    """Return the name and the data of the event that tells of the end of a job."""
    data = {
        "job" if state == "lost" else "id": job.id,
        "queue": job.queue,
        "method": job.method,
        "start_time": job.start_time.isoformat(),
        "end_time": job.end_time.isoformat(),
    }
    return f"mq.job_finished.{state}.{job.queue}.{job.method}", {**data, **more}


def blocking(source: Any, queues: Iterable[str]) -> list[tuple[int, str, datetime]]:
    """Return the lost jobs of these queues that keep others of their cursor from running: id, key, and since when."""
    Job, states = source.model.Job, source.model.JobStates
    lost = sa.select(Job.id, Job.cursor_key, Job.end_time).where(
        Job.state == states.LOST, Job.cursor_key.is_not(None), Job.queue.in_(queues)
    )
    return [tuple(row) for row in source.dbsession.execute(lost)]


def _lose(source: Any, job: Any) -> None:
    """Its worker is gone, and nobody knows how far it came: the job is lost, and does not run again by itself."""
    job.state, job.end_time = source.model.JobStates.LOST, now_on(source.dbsession)
    source.dbsession.flush()
    log.error("job %s in queue %s is lost: its worker %s is gone", job.id, job.queue, job.worker)
    source.emit_event(*finished_event(job, "lost"))


def _is_first(source: Any, holder: Holder, job: Any) -> bool:
    """Whether a job is the next one of its cursor. If another one is, that one gets a delivery; if one runs, or is
    lost, its end will put one."""
    db, Job, states = source.dbsession, source.model.Job, source.model.JobStates
    active = sa.select(Job.id).where(Job.cursor_key == job.cursor_key, Job.state.in_([states.RUNNING, states.LOST]))
    if db.scalar(active) is not None:
        return False
    here = [first for first in _firsts(source, job.cursor_key) if first.queue in holder.queues]
    first = min(here, key=lambda each: (each.scheduled_time, each.created_time, each.id))
    if first.id != job.id:
        deliver(db, source.model, JOB, first.queue, first.id, first.scheduled_time)
    return bool(first.id == job.id)


def _firsts(source: Any, key: str) -> list[Any]:
    """Return the first pending job of a cursor in each queue, if it is due. One look into the index finds each of
    them, however many jobs there are."""
    db, Job, states = source.dbsession, source.model.Job, source.model.JobStates
    waiting = (
        sa.select(Job.id, Job.queue, Job.scheduled_time, Job.created_time, (Job.scheduled_time <= NOW).label("is_due"))
        .where(Job.cursor_key == key, Job.state == states.PENDING)
        .order_by(Job.queue, Job.scheduled_time, Job.created_time, Job.id)
        .limit(1)
    )
    found = []
    row = db.execute(waiting).one_or_none()
    while row is not None:
        found.append(row)
        row = db.execute(waiting.where(Job.queue > row.queue)).one_or_none()
    return [row for row in found if row.is_due]


def _store(source: Any, key: str, cursor: Any, job_id: int) -> None:
    Cursor = source.model.JobCursor
    found = source.dbsession.get(Cursor, key, with_for_update=True)
    if found is None:
        source.dbsession.add(Cursor(key=key, properties=cursor, updated_job_id=job_id))
    elif found.properties != cursor:
        found.properties, found.updated_job_id = cursor, job_id


def _lock_of(key: str) -> tuple[Any, Any]:
    return sa.literal(LOCK_SPACE), sa.func.hashtext(key)
