"""What is to be put, and when; and what the table says of it."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from .._args import check_text, check_word
from .._table import Table
from .._table.instruments import with_headers
from .._table.rows import QueueRows
from .._times import Delay, delay_of, positive_delay
from .._unique import Unique, key_of, tag, unique_of
from ..errors import ScheduleNotFound
from ..sql import array
from . import rules

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

#: What becomes of times at which nobody was there to put the job.
MISSED = ("once", "skip", "all")

#: Characters of a rule.
LONGEST_RULE = 5_000


@dataclass(frozen=True)
class Schedule:
    """A job that is to be put again and again, for `pq.PQ.schedules`. It is checked where it is assigned there.

    :param queue: a `Queue`, or its name.
    :param data: the data of each job.
    :param cron: the times, as ``'0 3 * * *'``: minute, hour, day, month, weekday. Needs the extra ``pq[schedules]``.
    :param rrule: the times, as an RRULE of RFC 5545, ``'FREQ=MONTHLY;BYDAY=-1FR;BYHOUR=9;BYMINUTE=0'``, perhaps after
        ``'DTSTART:20300131T090000'``; without a DTSTART it begins with the next minute. Needs the extra, too.
    :param every: or an interval, as ``'5m'``, a timedelta or seconds, from now on; at least 100 milliseconds.
    :param zone: the time zone of `cron` or `rrule`, as ``'Europe/Berlin'``. Default: UTC.
    :param missed: what becomes of times at which no program was there to put the job. ``'once'``: one job for all of
        them; ``'skip'``: none, unless it is late by less than a minute; ``'all'``: one for each, at most the last
        1,000.
    :param jitter: delay each job by up to so long, as ``'10m'``, a timedelta or seconds: by always the same time for
        one name and moment.
    :param key: the key of the jobs.
    :param unique: a token, or a `Unique`: nothing is put as long as a job of the queue has it. True: the token is a
        digest of the data. A `Unique` with a window, or one that changes the other job, is not for schedules.
    """

    queue: Any
    data: Any
    _: KW_ONLY
    cron: str | None = None
    rrule: str | None = None
    every: Delay | None = None
    zone: str | None = None
    missed: str = "once"
    jitter: Delay | None = None
    key: str | None = None
    unique: str | bool | Unique | None = None


class Checked(NamedTuple):
    """What a schedule says, in order, as it is stored."""

    rule: str
    zone: str | None
    missed: str
    jitter: float | None
    key: str | None
    unique: Unique | None


def check_schedule(schedule: Schedule, queue: str) -> Checked:
    """Check all but the queue and the data.

    :param queue: the name of the queue.
    :raises TypeError: not exactly one of `cron`, `rrule` and `every` is given, `zone` stands beside `every`, or
        something has another type.
    :raises ValueError: a rule can't be read or fires at no time; a zone or a word is unknown; a time is out of range.
    :raises ImportError: an extra is missing.
    """
    given = {name: getattr(schedule, name) for name in ("cron", "rrule", "every")}
    found = {name: value for name, value in given.items() if value is not None}
    if len(found) != 1:
        raise TypeError(f"a schedule has one of cron=, rrule= and every=, not {' and '.join(found) or 'none of them'}")
    ((kind, value),) = found.items()
    zone = schedule.zone
    if kind == "every":
        if zone is not None:
            raise TypeError("every= counts from now, and has no zone=")
        rule = rules.every(positive_delay("every", value))
    else:
        zone = check_text("zone", "UTC" if zone is None else zone)
        if len(check_text(kind, value)) > LONGEST_RULE:
            raise ValueError(f"{kind} must have at most {LONGEST_RULE} characters, not {len(value)}")
        rule = rules.cron(value) if kind == "cron" else rules.rrule(value, rules.zone_of(zone))
        rules.zone_of(zone)
    check_word("missed", schedule.missed, MISSED)
    jitter = None if schedule.jitter is None else delay_of("jitter", schedule.jitter)
    if jitter is not None and jitter > rules.LONGEST:
        raise ValueError(f"jitter must be at most {rules.LONGEST.days} days: {jitter}")
    unique = unique_of(schedule.unique, queue)
    if unique is not None and (unique.until is None or unique.on_duplicate != "keep"):
        raise ValueError(f"the unique= of a schedule has until=, and on_duplicate='keep': {unique!r}")
    return Checked(
        rule,
        zone,
        schedule.missed,
        jitter.total_seconds() if jitter else None,
        key_of(schedule.key, queue),
        unique,
    )


def check_name(name: object) -> str:
    """Return the name of a schedule.

    :raises TypeError: it is not a str.
    :raises ValueError: it is empty, too long, or has characters that PostgreSQL can't hold.
    """
    return tag("the name of a schedule", name)


@dataclass(frozen=True)
class ScheduleInfo:
    """A schedule as it was when it was looked at. Times are naive and in UTC.

    :ivar name: its name.
    :ivar queue: the name of the queue.
    :ivar rule: the times: ``'cron 0 3 * * *'``, ``'rrule FREQ=DAILY'`` or ``'every 5m'``.
    :ivar zone: the time zone of the rule; None for an interval.
    :ivar missed: ``'once'``, ``'skip'`` or ``'all'``.
    :ivar jitter: by how much a job is delayed at most, or None.
    :ivar key: the key of the jobs, or None.
    :ivar unique: the `Unique` of the jobs, or None.
    :ivar paused: whether nothing is put at the times of the rule.
    :ivar declared: True: a task has it, by ``@queue.task(cron=…)``; False: one had it, and the worker that was started
        last no longer knows it; None: it was assigned.
    :ivar next_at: the next time of the rule; None: there is no further one.
    :ivar last_at: the time for which a job was put last, or None.
    :ivar last_job: the id of that job, or None.
    :ivar error: why nothing could be put the last time, or None.
    :ivar text: the data, as it stands in the table.
    """

    name: str
    queue: str
    rule: str
    zone: str | None
    missed: str
    jitter: timedelta | None
    key: str | None
    unique: Unique | None
    paused: bool
    declared: bool | None
    next_at: datetime | None
    last_at: datetime | None
    last_job: int | None
    error: str | None
    text: str = field(repr=False)
    _queue: QueueRows = field(repr=False, compare=False)
    _table: Table = field(repr=False, compare=False)

    @property
    def data(self) -> Any:
        """The decoded data of the jobs."""
        return self._queue.loads(self._queue.decode(self.text))

    def pause(self) -> None:
        """Put nothing at the times of the rule, until `resume`. `next_at` stays.

        :raises ScheduleNotFound: it was removed.
        """
        self._run("pause")

    def resume(self) -> None:
        """End a pause. If times have passed meanwhile, `missed` says what becomes of them.

        :raises ScheduleNotFound: it was removed.
        """
        self._run("resume")

    def fire(self) -> int | None:
        """Put the job now, also during a pause. `next_at` stays.

        :returns: the id of the job; None if one with the token `unique` waits already.
        :raises ScheduleNotFound: it was removed.
        """
        params = {"name": self.name, "times": array([None])}
        if self.unique is not None:
            release(self._table, self.name)
        with self._table.instruments.sending(self.queue) as sending:
            sql = self._table.statements("schedules.sql", **with_headers(sending.headers))
            ((found, id),) = self._table.execute(sql["fire_now"], {**params, "headers": sending.headers})
            if not found:
                raise ScheduleNotFound(schedule=self.name)
            sending.sent(int(id is not None), id)
        return None if id is None else int(id)

    def _run(self, statement: str) -> None:
        if not self._table.execute(self._table.statements("schedules.sql")[statement], {"name": self.name}):
            raise ScheduleNotFound(schedule=self.name)


def release(table: Table, name: str, lock_timeout: float | None = None) -> None:
    """Take the token of a schedule from a job whose window is over.

    The right to change jobs, which those who only put some need not have, is needed only where there is one.
    """
    sql, params = table.statements("schedules.sql"), {"name": name}
    if table.execute(sql["over"], params):
        table.execute(sql["release"], params, lock_timeout=lock_timeout)


def zone_or_utc(name: str | None) -> ZoneInfo:
    """Return the zone that a row names."""
    return rules.zone_of("UTC" if name is None else name)
