"""What puts the jobs of schedules. Any number of processes do so at once: for each time, one of them wins."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any, NamedTuple, TypeVar

from .._logs import queue_log as logger
from .._table import Table
from .._table.instruments import with_headers
from .._text import describe
from ..errors import PQError
from ..sql import array
from .rules import UnknownZone, missed, times
from .schedule import release, zone_or_utc

#: Seconds between two looks at most: a new schedule fires that much later.
PAUSE = 10.0

#: Seconds until a schedule is looked at again that could not be fired here, and between looks that fail.
AGAIN = 10.0

#: When to look again if somebody else has fired it, or is about to change it.
LOST = timedelta(seconds=1)

#: Seconds that a statement waits for a lock, such as that of an open put with the token of the schedule.
LOCK_TIMEOUT = 5.0

#: A job is missed if it is late by more.
LATE = timedelta(minutes=1)

#: Jobs that are put for missed times of a schedule at most.
MOST = 1000

#: Schedules that one look reads.
ROWS = 1000


T = TypeVar("T")


class Due(NamedTuple):
    """A schedule as the look has found it. Times are in UTC."""

    name: str
    queue: str
    rule: str
    zone: str | None
    missed: str
    jitter: float | None
    has_token: bool
    anchor: datetime
    was: datetime
    now: datetime


class Ticker:
    """Fires the schedules of a table.

    :param table: where.
    """

    def __init__(self, table: Table) -> None:
        self._table = table
        self._not_before: dict[str, float] = {}  # monotonic seconds, by name: of those that can't be fired here
        self._told = False

    def run_once(self) -> float:
        """Fire what is due; return the seconds until this is to be called again. An error is logged once."""
        rest = self._table.schedules_rest(PAUSE)
        if rest > 0:
            return rest
        return AGAIN if (pause := self.guarded(self.look)) is None else pause[0]

    def guarded(self, function: Callable[[], T]) -> tuple[T] | None:
        """Return what a function returns; None if it has raised an error, of which the first one is logged."""
        try:
            found = function()
        except Exception as error:  # no connection, of which others tell; no right; an older table
            if not self._told and not self._table.closed:
                logger.warning("schedules can't be looked at: %s", describe(error))
            self._told = True
            return None
        self._told = False
        return (found,)

    def look(self) -> float:
        """Fire what is due; return the seconds until the next one is, at most `PAUSE`."""
        now = time.monotonic()
        self._not_before = {name: until for name, until in self._not_before.items() if until > now}
        rows = self._run("look", skipped=array(self._not_before), limit=ROWS)
        pause = PAUSE
        for name, queue, rule, zone, policy, jitter, has_token, *moments in rows:
            anchor, was, now_there = (moment.replace(tzinfo=timezone.utc) for moment in moments)
            due = Due(name, queue, rule, zone, policy, jitter, has_token, anchor, was, now_there)
            if due.was > due.now:
                return min(pause, (due.was - due.now).total_seconds())
            following = self._fire(due)
            if following is not None:
                pause = min(pause, max(0.0, (following - due.now).total_seconds()))
        return pause if len(rows) < ROWS else 0.0

    def _fire(self, due: Due) -> datetime | None:
        """Fire one that is due; return when it is due again, or None if that is not known."""
        try:
            zone = zone_or_utc(due.zone)
            following = next(times(due.rule, zone, due.anchor, due.now), None)
            most = MOST if due.missed == "all" else 1
            moments = [due.was, *missed(due.rule, zone, due.anchor, due.was, due.now, most)][-most:]
            if due.missed == "skip" and due.now - moments[-1] > LATE:
                moments = []
            starts = [at + delay(due, at) for at in moments]
        except (ImportError, UnknownZone) as error:  # another machine may have it
            self._skip(due, error)
            return None
        except Exception as error:
            self._pause(due, error)
            return None
        try:
            if due.has_token:
                release(self._table, due.name, LOCK_TIMEOUT)
            guard = {**self._guard(due), "following": following, "last": moments[-1] if moments else None}
            fired = bool(self._put(due.queue, starts, guard) if starts else self._run("fire", **guard, times="{}"))
        except PQError:
            raise  # of the connection: it concerns all
        except self._table.database.driver.Error as error:  # a trigger of the user's, say
            self._skip(due, error)
            return None
        return following if fired else due.now + LOST

    def _put(self, queue: str, starts: list[datetime], guard: dict[str, Any]) -> Any:
        """Fire a schedule whose jobs are to start at these times."""
        with self._table.instruments.sending(queue) as sending:
            fired = self._run("fire", sending.headers, **guard, times=array(starts))
            sending.sent(len(starts) if fired else 0)
        return fired

    def _skip(self, due: Due, error: BaseException) -> None:
        """Note why it can't be fired here and now, and go on with the others."""
        self._not_before[due.name] = time.monotonic() + AGAIN
        if self._run("note", **self._guard(due), error=describe(error), stops=False):
            logger.warning("schedule %r can't be fired here: %s", due.name, describe(error))

    def _pause(self, due: Due, error: BaseException) -> None:
        if self._run("note", **self._guard(due), error=describe(error), stops=True):
            logger.error("schedule %r is paused: its rule can't be evaluated: %s", due.name, describe(error))

    def _guard(self, due: Due) -> dict[str, Any]:
        return {"name": due.name, "rule": due.rule, "zone": due.zone, "was": due.was}

    def _run(self, statement: str, headers: str | None = None, **params: Any) -> Any:
        sql = self._table.statements("schedules.sql", **with_headers(headers))[statement]
        return self._table.execute(
            sql, {**params, "headers": headers}, lock_timeout=LOCK_TIMEOUT if statement == "fire" else None
        )


def delay(due: Due, at: datetime) -> timedelta:
    """Return by how much the job of that time is delayed: less than the jitter, and always the same."""
    if not due.jitter:
        return timedelta()
    digest = hashlib.sha256(f"{due.name} {at.isoformat()}".encode()).digest()
    return timedelta(seconds=due.jitter) * (int.from_bytes(digest[:6], "big") / 2**48)
