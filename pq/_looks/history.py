"""`PQ.history`: what has ended lately, by minute, queue and task."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from .._table import Table
from .._table.look import look
from .times import aware, task_name


@dataclass(frozen=True)
class Minute:
    """The jobs of one queue and task that ended in one minute.

    :ivar at: when the minute began; in UTC.
    :ivar queue: the name of the queue.
    :ivar task: the name of the task; None for jobs that are no calls of tasks.
    :ivar finished: how many were finished.
    :ivar retried: how many of these had more than one attempt.
    :ivar waited: for how many seconds they had been ready when they were taken for the last time: the mean; or None.
    :ivar waited_most: the longest of these.
    :ivar ran: for how many seconds the last attempt ran: the mean; None if that is not known of any.
    :ivar ran_most: the longest of these.
    """

    at: datetime
    queue: str
    task: str | None
    finished: int
    retried: int
    waited: float | None
    waited_most: float | None
    ran: float | None
    ran_most: float | None


@dataclass(frozen=True)
class History:
    """What has ended, as far as it was seen: iteration yields each `Minute`.

    :ivar minutes: by time, queue and task.
    :ivar looked_at: how many rows were looked at: the newest ones.
    :ivar is_cut: whether there are further rows, so that the first minutes may be incomplete.
    """

    minutes: Sequence[Minute]
    looked_at: int
    is_cut: bool

    def __iter__(self) -> Iterator[Minute]:
        return iter(self.minutes)


def history(table: Table, minutes: int, cap: int) -> History:
    """Look at the newest rows."""
    rows = look(table, table.statements("looks.sql")["history"], {"minutes": minutes, "cap": cap})
    found = [
        Minute(aware(at), queue, task_name(task), finished, retried, waited, waited_most, ran, ran_most)
        for at, queue, task, finished, _, retried, waited, waited_most, ran, ran_most, *_ in rows
    ]
    looked_at = max((row[-2] for row in rows), default=0)
    return History(tuple(found), looked_at, looked_at >= cap)
