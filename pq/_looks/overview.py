"""`PQ.overview`: the queues and their numbers of jobs, at one moment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from .._table import Table
from .._table.look import SECONDS, look
from .times import aware, seconds_between

#: The states of which `QueueOverview` has numbers, by the names of its fields.
COUNTED = ("ready", "scheduled", "held", "running", "dead")


class Count(int):
    """A number of jobs. ``str()`` shows one that is cut as ``1,000+``.

    :ivar is_cut: whether there are more: counting stopped there.
    """

    is_cut: bool

    def __new__(cls, number: int, is_cut: bool = False) -> Count:
        count = super().__new__(cls, number)
        count.is_cut = is_cut
        return count

    @classmethod
    def up_to(cls, number: int, cap: int | None, is_cut: bool = False) -> Count:
        """Return a number that was counted up to one more than a cap; None: there was none.

        :param is_cut: whether the look that counted has ended before.
        """
        return cls(number, is_cut) if cap is None or number <= cap else cls(cap, True)

    def __str__(self) -> str:
        return f"{int(self):,}+" if self.is_cut else f"{int(self):,}"

    def __getnewargs__(self) -> tuple[int, bool]:  # type: ignore[override]
        return int(self), self.is_cut


@dataclass(frozen=True)
class QueueOverview:
    """A queue as it was when it was looked at.

    :ivar name: its name.
    :ivar ready: how many jobs could be got, if it were not paused; a `Count`, like the next four.
    :ivar scheduled: how many wait for their time.
    :ivar held: how many wait for other jobs.
    :ivar running: how many run under a lease.
    :ivar dead: how many are dead.
    :ivar ready_since: when that job became ready which has been so for longest of those that are taken next: of the
        first with a priority, the first without one, and the first that has become due; or None. A job that was given
        back counts from when it was put. In UTC.
    :ivar next_age: the seconds since then, or None.
    :ivar next_due: when the first of the scheduled jobs becomes ready, or None; in UTC.
    :ivar paused: whether it is paused.
    :ivar limited: whether it has a limit; see `PQ.limits`.
    :ivar waiting: how many sessions wait for its jobs now. A process has one, however many threads wait; a worker whose
        threads are all busy does not wait; nor is a session seen that polls, behind a transaction pooler or in a
        transaction, or one of a paused queue.
    """

    name: str
    ready: Count
    scheduled: Count
    held: Count
    running: Count
    dead: Count
    ready_since: datetime | None
    next_age: float | None
    next_due: datetime | None
    paused: bool
    limited: bool
    waiting: int


@dataclass(frozen=True)
class TableOverview:
    """The table as it was when it was looked at.

    :ivar bytes: its size, with its indexes.
    :ivar dead_rows: how many rows a vacuum would remove, by the server's statistics.
    :ivar inserted: how many rows were inserted since these statistics began: two looks tell how many jobs were put
        between them, to about a second.
    :ivar oldest_transaction: seconds for which the oldest transaction of this database has been open, or None.
    :ivar server_version: PostgreSQL's, such as ``'18.0'``.
    """

    bytes: int
    dead_rows: int
    inserted: int
    oldest_transaction: float | None
    server_version: str


@dataclass(frozen=True)
class Overview:
    """All queues at one moment.

    :ivar at: when that was, by the server's clock; in UTC.
    :ivar queues: those that have ready, scheduled, held, running or dead jobs, or are paused; by name.
    :ivar table: the table in which they are.
    :ivar cap: at which number of jobs counting stopped; None: not at all.
    """

    at: datetime
    queues: Sequence[QueueOverview]
    table: TableOverview
    cap: int | None


def read(table: Table, cap: int | None) -> Overview:
    """Look at the queues.

    :param cap: count no more jobs than this of a queue and state; None: count all, which reads all of them.
    :raises StatementTimeout: with a cap: it took longer than a second; else, than other statements may take.
    """
    if cap is None:
        sql = table.statements("looks.sql", count_parts="count_exactly", counted="counted_exactly")["overview"]
        rows = look(table, sql, {"table": table.quoted}, None)
    else:
        sql = table.statements("looks.sql")["overview"]
        rows = look(table, sql, {"table": table.quoted, "cap": cap}, SECONDS)
    at, size, dead_rows, inserted, oldest, version, *_ = rows[0]
    now = aware(at)
    about = TableOverview(int(size), int(dead_rows), int(inserted), oldest, str(version))
    return Overview(now, tuple(_queue(row[6:], cap, now) for row in rows if row[6] is not None), about, cap)


def _queue(row: tuple[Any, ...], cap: int | None, now: datetime) -> QueueOverview:
    name, ready, scheduled, held, running, dead, scheduled_is_cut, running_is_cut, *rest = row
    since, next_due, paused, limited, waiting = rest
    return QueueOverview(
        name,
        Count.up_to(ready, cap),
        Count.up_to(scheduled, cap, scheduled_is_cut),
        Count.up_to(held, cap),
        Count.up_to(running, cap, running_is_cut),
        Count.up_to(dead, cap),
        aware(since),
        seconds_between(aware(since), now),
        aware(next_due),
        paused,
        limited,
        waiting,
    )
