"""``python -m pq.contrib.mq URL``: goes on with the tables of psycopg2_mq where its workers have stopped."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy import orm

from .delivery import JOB, NOW, SCHEDULE, Missing, now_on, pq_of, pq_on, put_missing
from .model import make_default_model

#: The first half of the keys of the advisory locks that psycopg2_mq's workers hold, unless they were told another.
LOCK_KEY = 1250360252


class StillRunning(RuntimeError):
    """A worker of psycopg2_mq holds a job."""


def take_over(engine: Any, schema: str | None = None, lock_key: int = LOCK_KEY) -> Counter[str]:
    """Make what pq needs beside the tables of psycopg2_mq 0.13, and have pq's workers see what is there. Nothing is
    copied: pending jobs, cursors, schedules and listeners stay where they are. It may be repeated.

    :param schema: of the tables; None: the search path decides.
    :param lock_key: the `lock_key` of the old workers.
    :returns: how many jobs are pending, how many are lost with this, and how many schedules are enabled.
    :raises StillRunning: an old worker holds a job; nothing was changed.
    :raises ValueError: a column is missing; nothing was changed.
    """
    metadata = sa.MetaData(schema=schema)
    model = make_default_model(metadata)
    with orm.Session(engine) as db, db.begin():
        _check(db, metadata)
        metadata.create_all(db.connection())
        for index in model.Job.__table__.indexes:
            index.create(db.connection(), checkfirst=True)
        counts = Counter(lost=_lose(db, model, lock_key))
        Job, Schedule = model.Job, model.JobSchedule
        pending = sa.select(Job.queue, Job.id, Job.scheduled_time).where(Job.state == model.JobStates.PENDING)
        enabled = sa.select(Schedule.queue, Schedule.id, Schedule.next_execution_time).where(
            Schedule.is_enabled, Schedule.next_execution_time.is_not(None)
        )
        now = now_on(db)
        jobs = [Missing(JOB, queue, id, at, at <= now) for queue, id, at in db.execute(pending)]
        schedules = [Missing(SCHEDULE, queue, id, at, at <= now) for queue, id, at in db.execute(enabled)]
    with pq_of(engine, schema) as pq:
        put_missing(pq, model, jobs + schedules)
    counts.update(pending=len(jobs), schedules=len(schedules))
    return counts


def _check(db: orm.Session, metadata: sa.MetaData) -> None:
    """Refuse tables of an older version."""
    inspector = sa.inspect(db.connection())
    for table in metadata.sorted_tables:
        if inspector.has_table(table.name, schema=table.schema):
            there = {column["name"] for column in inspector.get_columns(table.name, schema=table.schema)}
            missing = {column.name for column in table.columns} - there
            if missing:
                names = ", ".join(sorted(missing))
                raise ValueError(f"table {table.name} lacks {names}: first bring it to the state of psycopg2_mq 0.13")


def _lose(db: orm.Session, model: Any, lock_key: int) -> int:
    """The jobs of workers of psycopg2_mq that are gone are lost, as by the next of its workers."""
    lost = 0
    Job, states = model.Job, model.JobStates
    locks = sa.table("pg_locks", *map(sa.column, ("locktype", "classid", "objid")))
    advisory = sa.and_(locks.c.locktype == "advisory", sa.cast(locks.c.classid, sa.BigInteger) == lock_key)
    held = set(db.scalars(sa.select(sa.cast(locks.c.objid, sa.BigInteger)).where(advisory)))
    pq = pq_on(db, model.schema)
    for job in db.scalars(sa.select(Job).where(Job.state == states.RUNNING).with_for_update()):
        if job.lock_id in held:
            raise StillRunning(f"worker {job.worker} still runs job {job.id}: stop the workers of psycopg2_mq first")
        if _is_ours(pq[model.channel_prefix + job.queue], job.lock_id):
            continue
        job.state, job.lock_id, job.end_time = states.LOST, None, NOW
        lost += 1
    return lost


def _is_ours(queue: Any, delivery: int) -> bool:
    """Whether a worker of pq runs a job by this delivery."""
    try:
        return bool(queue[delivery].state == "running")
    except LookupError:
        return False


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m pq.contrib.mq", description=take_over.__doc__.split("\n\n")[0])  # type: ignore[union-attr]
    parser.add_argument("url", help="of the database, as for SQLAlchemy: postgresql+psycopg2://…")
    parser.add_argument("--schema", help="of the tables; default: the search path decides")
    parser.add_argument("--lock-key", type=int, default=LOCK_KEY, help="the lock_key of the old workers")
    given = parser.parse_args(arguments)
    try:
        engine = sa.create_engine(given.url)
    except (ImportError, ValueError, sa.exc.ArgumentError) as error:  # its driver is not installed; it is no URL
        print(error, file=sys.stderr)
        return 1
    try:
        counts = take_over(engine, given.schema, given.lock_key)
    except (StillRunning, ValueError, sa.exc.OperationalError) as error:
        print(getattr(error, "orig", error), file=sys.stderr)
        return 1
    finally:
        engine.dispose()
    print("{pending} pending jobs, {schedules} schedules, {lost} jobs of dead workers lost".format(**counts))
    return 0


if __name__ == "__main__":
    sys.exit(main())
