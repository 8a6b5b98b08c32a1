"""Schedules that are due, and deliveries that are missing: nobody may have put one, as for a record that was written by
plain SQL, or by psycopg2_mq."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy import orm

from .delivery import AGAIN, JOB, SCHEDULE, Missing, deliver, next_time, now_on
from .records import Holder, blocking, log

#: How many jobs get another delivery at a time.
LIMIT = 1000


def fire(source: Any, schedule_id: int, timeout: timedelta) -> None:
    """Make the job of a schedule that is due, and have a worker wait for the next time.

    :param timeout: times that were missed by more than that are passed over.
    """
    db, Schedule = source.dbsession, source.model.JobSchedule
    found = Schedule.id == schedule_id
    now = now_on(db)
    schedule = db.scalars(sa.select(Schedule).where(found).with_for_update(skip_locked=True)).one_or_none()
    if schedule is None:  # another transaction is about to change it, or it is gone
        for queue in db.scalars(sa.select(Schedule.queue).where(found)):
            deliver(db, source.model, SCHEDULE, queue, schedule_id, now + AGAIN)
        return
    time = schedule.next_execution_time
    if not schedule.is_enabled or time is None:
        return
    try:
        if time < now - timeout:
            schedule.next_execution_time = next_time(schedule.rrule, schedule.created_time, now - timeout)
            log.warning("schedule %s was due at %s, and goes on at %s", schedule.id, time, schedule.next_execution_time)
            time = schedule.next_execution_time
        if time is not None and time <= now:
            next_time(schedule.rrule, schedule.created_time, now)
            source.call_schedule(schedule.id, now=now, when=time, reload=False)
        source.expect_schedule(schedule)
    except ValueError:
        log.exception("schedule %s stands still: its rule can't be read", schedule.id)
        schedule.next_execution_time = None


def missing(source: Any, holder: Holder, timeout: timedelta) -> list[Missing]:
    """Return the deliveries that may be missing, and tell of lost jobs that keep others from running.

    :param timeout: the time until the next look.
    """
    db, now = source.dbsession, now_on(source.dbsession)
    overdue = db.execute(_overdue(source.model, holder, now - timeout))
    found = [Missing(JOB, queue, id, at, True) for queue, id, at in overdue]
    Schedule = source.model.JobSchedule
    soon = sa.select(Schedule.queue, Schedule.id, Schedule.next_execution_time).where(
        Schedule.is_enabled, Schedule.queue.in_(holder.queues), Schedule.next_execution_time < now + timeout
    )
    found += [Missing(SCHEDULE, queue, id, at, at <= now) for queue, id, at in db.execute(soon)]
    for id, key, since in blocking(source, holder.queues):
        log.warning("job %s is lost since %s: no other job of cursor %r runs until fail_lost_job", id, since, key)
    return found


def _overdue(model: Any, holder: Holder, before: datetime) -> Any:
    """Those that have waited for long, and for no other job."""
    Job, states = model.Job, model.JobStates
    other = orm.aliased(Job)
    busy = sa.exists().where(other.cursor_key == Job.cursor_key, other.state.in_([states.RUNNING, states.LOST]))
    return (
        sa.select(Job.queue, Job.id, Job.scheduled_time)
        .where(Job.state == states.PENDING, Job.queue.in_(holder.queues), Job.scheduled_time < before, ~busy)
        .order_by(Job.scheduled_time, Job.id)
        .limit(LIMIT)
    )
