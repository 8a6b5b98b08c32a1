"""Deliveries: jobs of pq that tell a worker to look at a record; and times."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta, timezone
from importlib import import_module
from typing import Any, NamedTuple

import sqlalchemy as sa

from ... import PQ, NewJob

#: What a delivery asks for: look at the record of a job, at that of a schedule, at those that wait for a cursor.
JOB, SCHEDULE, CURSOR = "mq.job", "mq.schedule", "mq.cursor"

#: After that a delivery comes again whose record is locked, or that met an error.
AGAIN = timedelta(seconds=1)

#: The time of the server, as the tables have times: UTC, without a zone. That of the statement, not of the transaction.
NOW = sa.func.timezone("UTC", sa.func.statement_timestamp(), type_=sa.DateTime)


def pq_of(engine: Any, schema: str | None, **options: Any) -> PQ:
    """Return a PQ with a pool of its own, like that of an engine. It is to be closed.

    :param schema: of pq's table; None: the search path decides.
    """
    own = sa.engine.Engine(engine.pool.recreate(), engine.dialect, engine.url)
    return PQ(own, schema=schema, converters={}, **options)


def pq_on(given: Any, schema: str | None) -> PQ:
    """Return a PQ in the transaction of a session or connection.

    :param schema: of pq's table; None: the search path decides.
    """
    return PQ("", schema=schema, converters={}).bind(given)


def deliver(db: Any, model: Any, kind: str, queue: str, value: Any, at: datetime | None = None) -> None:
    """Put a delivery in a session's transaction.

    :param kind: `JOB`, `SCHEDULE` or `CURSOR`.
    :param queue: the queue whose workers are to get it.
    :param value: the id of the record, or the key of the cursor.
    :param at: when it is due, and its place among the others; None: now.
    """
    pq_on(db, model.schema)[model.channel_prefix + queue].put(job_of(kind, value), schedule_at=at, expected_at=at)


class Missing(NamedTuple):
    """A delivery that somebody may have failed to put."""

    kind: str
    queue: str
    id: int
    at: datetime
    is_due: bool


def put_missing(pq: PQ, model: Any, missing: Iterable[Missing]) -> None:
    """Put deliveries, but where one waits that was put by this function. They have tokens, so that a put waits for
    another one with the same: so this is done in transactions of pq's own, for which nobody waits.

    What is due is put without a time: a scheduled job that is due would not be joined.
    """
    queues: dict[str, list[NewJob]] = {}
    for kind, queue, id, at, is_due in missing:
        job = NewJob(job_of(kind, id), None if is_due else at, at, unique=f"{kind} {id}")
        queues.setdefault(queue, []).append(job)
    for name, jobs in queues.items():
        pq[model.channel_prefix + name].put_many(jobs)


def job_of(kind: str, value: Any) -> dict[str, Any]:
    """Return the data of a delivery: the call of a task, which is tried until it succeeds."""
    return {"function": kind, "args": [value], "kwargs": {}, "max_retries": 2**31 - 1, "retry_in": "1s"}


def now_on(db: Any) -> datetime:
    """Return the time of the server."""
    found: datetime = db.execute(sa.select(NOW)).scalar()
    return found


def moment(when: Any, now: datetime | None) -> Any:
    """Return a time as the tables have it.

    :param when: a datetime, naive in UTC or aware; a timedelta from `now`; None: `now`.
    :param now: None: the time of the server, as an expression of SQL.
    """
    start: Any = NOW if now is None else now
    if when is None:
        return start
    if isinstance(when, timedelta):
        return start + when
    if not isinstance(when, datetime):
        raise TypeError(f"a time must be a datetime or a timedelta, not {when!r}")
    return when if when.tzinfo is None else when.astimezone(timezone.utc).replace(tzinfo=None)


def next_time(rule: str, start: datetime, after: datetime) -> datetime | None:
    """Return when a rule is due next; None: never again.

    :param rule: as in RFC 5545: ``FREQ=DAILY;BYHOUR=3``, or lines with ``DTSTART`` and ``RRULE``.
    :param start: where the rule begins, unless it says so itself.
    :raises ValueError: this is no rule.
    """
    try:
        found = import_module("dateutil.rrule").rrulestr(rule, dtstart=start)
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"rrule must be a rule as in RFC 5545, not {rule!r} ({error})") from error
    try:
        time = found.after(after)
    except TypeError:  # its DTSTART has a zone, and can't be compared
        time = found.after(after.replace(tzinfo=timezone.utc))
    if time is None or time.tzinfo is None:
        return time  # type: ignore[no-any-return]
    return time.astimezone(timezone.utc).replace(tzinfo=None)  # type: ignore[no-any-return]
