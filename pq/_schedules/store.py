"""The schedules that a table has."""

from __future__ import annotations

import builtins
import reprlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import timedelta, timezone
from typing import Any

from .._logs import queue_log as logger
from .._loop import Loop
from .._table import Table
from .._table.rows import QueueRows
from .._unique import UNTIL_TIMES, Unique, digest
from ..errors import ScheduleNotFound
from ..sql import array
from .rules import anchor_of, times
from .schedule import Schedule, ScheduleInfo, check_name, check_schedule, zone_or_utc
from .ticker import LOCK_TIMEOUT, Ticker

#: Seconds between two looks of `Schedules.run` whether it is to stop.
_LOOK = 0.1


class Schedules:
    """The schedules of a `PQ`, by name: ``pq.schedules``.

    Each time of a schedule puts one job, however many programs are there to do so: each worker does, and `run`.
    """

    def __init__(self, table: Table, queue_of: Callable[[str], QueueRows]) -> None:
        self._table = table
        self._queue_of = queue_of

    def __setitem__(self, name: str, schedule: Schedule) -> None:
        """Store a schedule, in place of one of that name.

        If that has the same rule and zone, `next_at` stays. A pause stays, too, unless an error was the cause.

        :raises TypeError: not exactly one of `cron`, `rrule` and `every` is given, `zone` stands beside `every`, or
            something has another type.
        :raises ValueError: a rule can't be read or fires at no time; a zone or a word is unknown; a time is out of
            range; the queue is one of another `PQ`. Nothing was stored. The other errors are those of `Queue.put`.
        :raises ImportError: a rule needs the extra ``pq[schedules]``.
        """
        if not isinstance(schedule, Schedule):
            kind = type(schedule).__name__
            raise TypeError(f"what is assigned to pq.schedules is a pq.Schedule, not {kind}: {reprlib.repr(schedule)}")
        queue = schedule.queue
        if isinstance(queue, str):
            queue = self._queue_of(queue)
        elif not isinstance(queue, QueueRows):
            raise TypeError(f"queue must be a queue or the name of one, not {type(queue).__name__}: {queue!r}")
        elif not queue._table.is_same(self._table):
            raise ValueError(f"{queue!r} is a queue of another PQ")
        write(self._table, name, queue, schedule)

    def __getitem__(self, name: str) -> ScheduleInfo:
        """Return the schedule of that name, as it is now.

        :raises ScheduleNotFound: there is none; a `LookupError`.
        """
        found = self._list("one", name=check_name(name))
        if not found:
            raise ScheduleNotFound(schedule=name)
        return found[0]

    def __delitem__(self, name: str) -> None:
        """Remove a schedule. The jobs that it has put stay.

        :raises ScheduleNotFound: there is none.
        """
        if not self._run("remove", name=check_name(name)):
            raise ScheduleNotFound(schedule=name)

    def __contains__(self, name: object) -> bool:
        """Whether there is a schedule of that name."""
        try:
            return bool(self._list("one", name=check_name(name)))
        except (TypeError, ValueError):
            return False  # none can have that name

    def __iter__(self) -> Iterator[str]:
        """Iterate the names, sorted."""
        return iter([schedule.name for schedule in self.list()])

    def __len__(self) -> int:
        """The number of schedules."""
        return len(self.list())

    def list(self) -> list[ScheduleInfo]:
        """Return all schedules as they are now, sorted by their names."""
        return self._list("all")

    def run(self, stop: threading.Event | None = None) -> None:
        """Put jobs at the times of the schedules, in this thread, as each worker does.

        Errors after the first look are logged; it goes on. It can be killed at any moment: nothing is put twice, and
        nothing is lost.

        :param stop: ends it when it is set, from any thread or signal handler. Default: it goes on until the PQ is
            closed.
        :raises TableMissing: call `PQ.create` first. The other errors of the first look are those of `Queue.put`.
        """
        ticker = Ticker(self._table)
        ticker.look()
        loop = Loop(ticker.run_once, "pq schedules")
        try:
            loop.start()
            while not self._table.closed and not (stop is not None and stop.is_set()):
                time.sleep(_LOOK)
        finally:
            loop.stop()

    def _list(self, statement: str, **params: Any) -> builtins.list[ScheduleInfo]:
        return [self._read(row) for row in self._run(statement, **params)]

    def _read(self, row: tuple[Any, ...]) -> ScheduleInfo:
        name, queue, rule, zone, missed, seconds, key, token, is_done, *rest = row
        jitter = None if seconds is None else timedelta(seconds=seconds)
        unique = None if token is None else Unique(token, "done" if is_done else "started")
        values: builtins.list[Any] = [name, queue, rule, zone, missed, jitter, key, unique, *rest]
        values += [self._queue_of(queue), self._table]
        return ScheduleInfo(*values)

    def _run(self, statement: str, **params: Any) -> Any:
        return self._table.execute(self._table.statements("schedules.sql")[statement], params)


def write(table: Table, name: str, queue: QueueRows, schedule: Schedule, declared: bool | None = None) -> None:
    """Store a schedule; the errors are those of `Schedules.__setitem__`.

    :param declared: whether a task has it.
    """
    check_name(name)
    found = check_schedule(schedule, queue.name)
    text = queue._text(schedule.data)
    statements = table.statements("schedules.sql")
    ((now,),) = table.execute(statements["now"], {})
    now = now.replace(tzinfo=timezone.utc)
    zone = zone_or_utc(found.zone)
    anchor = anchor_of(found.rule, zone, now)
    # an RRULE without a DTSTART begins at its anchor, which is to come
    next_at = next(times(found.rule, zone, anchor, now), None)
    if next_at is None and not declared:
        raise ValueError(f"schedule {name!r} would never fire: the last time of {found.rule!r} is over")
    unique = found.unique
    token = unique and (digest(queue.name, text) if unique.token is True else unique.token)
    params = {
        "name": name, "queue": queue.name, "data": text, "declared": declared, "anchor": anchor, "next_at": next_at,
        "unique": token, "until": unique and UNTIL_TIMES[str(unique.until)],
    }  # fmt: skip
    table.execute(statements["write"], {**found._asdict(), **params}, lock_timeout=LOCK_TIMEOUT)


def declare(table: Table, queues: Iterable[str], schedules: Mapping[str, Schedule]) -> None:
    """Store the schedules of tasks, and tell of those that no task of these queues has any more.

    One that can't be stored is logged, and the others are stored.

    :param queues: the names of the queues.
    :param schedules: by the names of the tasks.
    """
    for name, schedule in schedules.items():
        try:
            write(table, name, schedule.queue, schedule, True)
        except (TypeError, ValueError, ImportError) as error:
            logger.error("the schedule of task %s can't be stored", name, exc_info=error)
    rows = table.execute(
        table.statements("schedules.sql")["undeclare"],
        {"queues": array(queues), "names": array(schedules)},
    )
    for (name,) in rows:
        logger.warning(
            "no task here has the schedule %r any more: it still fires; del pq.schedules[%r], or pq schedules remove",
            name,
            name,
        )
