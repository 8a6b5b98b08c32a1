"""`PQ.history`: what has ended lately, by minute, queue and task."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from .._table import Table
from .._table.look import look
from ..sql import array
from .times import aware, task_name


@dataclass(frozen=True)
class Minute:
    """The jobs of one queue and task that ended in one minute.

    :ivar at: when the minute began, by the server's clock; in UTC.
    :ivar queue: the name of the queue.
    :ivar task: the name of the task; None for jobs that are no calls of tasks.
    :ivar finished: how many were finished; those that were cancelled do not count.
    :ivar retried: how many of these had more than one attempt.
    :ivar dead: how many died.
    :ivar waited: for how many seconds those that were finished had been ready when they were taken for the last time:
        the mean; None if none was finished.
    :ivar waited_most: the longest of these.
    :ivar ran: for how many seconds their last attempts ran: the mean; None if that is known of none, since they were
        taken without a lease.
    :ivar ran_most: the longest of these.
    """

    at: datetime
    queue: str
    task: str | None
    finished: int
    retried: int
    dead: int
    waited: float | None
    waited_most: float | None
    ran: float | None
    ran_most: float | None


@dataclass(frozen=True)
class History:
    """What has ended, as far as it was seen: iteration yields each `Minute`.

    :ivar minutes: by time, queue and task; minutes in which nothing ended are not among them.
    :ivar looked_at: how many rows were looked at.
    :ivar since: what was put since then was looked at, and of what was put before only some; in UTC. None: all rows of
        the table were looked at.
    """

    minutes: Sequence[Minute]
    looked_at: int
    since: datetime | None

    @property
    def is_cut(self) -> bool:
        """Whether there are further rows."""
        return self.since is not None

    def __iter__(self) -> Iterator[Minute]:
        return iter(self.minutes)


def history(table: Table, queue: str | None, minutes: int, cap: int) -> History:
    """Look at the rows below those next to which jobs have ended."""
    sql = table.statements("looks.sql")
    fronts = shares([id for (id,) in look(table, sql["fronts"], {"queue": queue})], cap)
    if not fronts:
        return History((), 0, None)
    ids, limits = (array(column) for column in zip(*fronts, strict=True))
    params = {"queue": queue, "minutes": minutes, "ids": ids, "limits": limits}
    (_, _, _, looked_at, newest, *_, oldest), *rows = look(table, sql["history"], params)
    found = tuple(Minute(aware(at), name, task_name(task), *rest) for at, name, task, *rest, _ in rows)
    return History(found, looked_at, aware(oldest) if newest >= fronts[0][1] else None)


def finished_lately(found: History, now: datetime) -> dict[str, int]:
    """Return how many jobs of each queue were finished in the last whole minute, of those that were looked at."""
    minute = now.replace(second=0, microsecond=0) - timedelta(minutes=1)
    counts: dict[str, int] = {}
    for each in found:
        if each.at == minute:
            counts[each.queue] = counts.get(each.queue, 0) + each.finished
    return counts


def shares(ids: Sequence[int], cap: int) -> list[tuple[int, int]]:
    """Return from which ids down to look at how many rows, in all `cap` of them.

    :param ids: the highest first. Those that the look from a higher one reaches anyway add their share to that look's.
    """
    share = max(1, cap // max(len(ids), 1))
    found: list[tuple[int, int]] = []
    for id in ids[:cap]:
        if found and found[-1][0] - found[-1][1] <= id:
            found[-1] = found[-1][0], found[-1][1] + share
        else:
            found.append((id, share))
    return found
