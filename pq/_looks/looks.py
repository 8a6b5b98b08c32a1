"""What `PQ` has to look at all queues."""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from .._args import check_text, integer, limit_of
from .._jobs.info import QueueInfo
from .._queue import Queue
from .._table import Table
from . import groups as _groups
from . import history as _history
from . import overview as _overview
from . import running as _running
from .times import naive

#: Seconds for which `PQ.overview` answers from memory.
FRESH = 1.0

#: The largest cap: a look is to stay short.
MOST = 100_000


class Looks:
    """A part of `PQ`."""

    _table: Table

    if TYPE_CHECKING:

        def __getitem__(self, name: str) -> Queue: ...

    def overview(self, cap: int = 1000, exact: bool = False) -> _overview.Overview:
        """Return what is in the queues now, at the cost of some milliseconds, whatever the size of the table.

        Outside of a transaction, a process looks at a table at most once a second with each cap, whoever asks; until
        then it answers from memory.

        :param cap: count no more jobs than this of each queue and state, from 1 to 100,000.
        :param exact: count all jobs that are not finished, which reads all of these, or their entries in an index.
        :raises TypeError: `cap` is not an int.
        :raises ValueError: `cap` is out of range.
        :raises StatementTimeout: the server took longer than a second or, with `exact`, than other statements may take.
        """
        most = None if exact else _cap(cap)
        database = self._table.database
        if database.is_view or database.in_transaction or database.stays_open:
            return _overview.read(self._table, most)
        return _recent.setdefault(self._table, _Recent()).get(self._table, most)

    def queues(self) -> list[QueueInfo]:
        """Return the queues that iteration names, with their numbers of jobs, and since and until when these wait.

        This counts all jobs that are not finished, within the indexes; `overview` is quicker, and says more.
        """
        return [
            QueueInfo(
                each.name, int(each.ready), int(each.scheduled), int(each.held), int(each.running), int(each.dead),
                naive(each.ready_since), naive(each.next_due), each.paused,
            )
            for each in _overview.read(self._table, None).queues
        ]

    def running(self, limit: int = 100) -> list[_running.RunningJob]:
        """Return jobs of all queues that run under a lease, those that have run for longest first.

        :param limit: how many at most.
        :raises TypeError: `limit` is not an int.
        :raises ValueError: `limit` is negative.
        :raises StatementTimeout: the server took longer than a second.
        """
        return _running.running(self._table, limit_of(limit))

    def workers(self, limit: int = 1000) -> list[_running.WorkerOverview]:
        """Return who runs jobs, and who waits for them.

        :param limit: look at this many running jobs at most. The errors are those of `running`.
        """
        return _running.workers(self._table, limit_of(limit))

    def dead_groups(self, queue: str | None = None, cap: int = 1000) -> list[_groups.DeadGroup]:
        """Return the dead jobs in groups, the largest first: those of one queue and task that died of the same type of
        error, with the same message but for numbers.

        :param queue: the name of a queue; None: all queues.
        :param cap: look at this many jobs of each queue at most, the newest, and at five times as many in all, of which
            each queue has its share; from 1 to 100,000.
        :raises TypeError: the queue is not a str, `cap` is not an int.
        :raises ValueError: `cap` is out of range; no queue can have that name.
        :raises StatementTimeout: the server took longer than a second.
        """
        return _groups.groups(self._table, self.__getitem__, self._stored_name(queue), _cap(cap))

    def history(self, queue: str | None = None, minutes: int = 60, cap: int = 10_000) -> _history.History:
        """Return what has ended lately, by minute, queue and task: how many jobs, and how long they had waited and run.

        No index leads to finished jobs. So this looks at the rows that were put just before those that are taken next,
        or were taken or died last, and says at how many.

        :param queue: the name of a queue; None: all queues.
        :param minutes: how far to look back, from 1 to 1,440.
        :param cap: look at this many rows at most, from 1 to 100,000.
        :raises TypeError: the queue is not a str, or another argument not an int.
        :raises ValueError: an argument is out of range; no queue can have that name.
        :raises StatementTimeout: the server took longer than a second.
        """
        if integer("minutes", minutes, 1) > 1440:
            raise ValueError(f"minutes must be at most 1,440: {minutes}")
        return _history.history(self._table, self._stored_name(queue), minutes, _cap(cap))

    def _stored_name(self, queue: str | None) -> str | None:
        return None if queue is None else self[check_text("queue name", queue)].name


def _cap(cap: int) -> int:
    if integer("cap", cap, 1) > MOST:
        raise ValueError(f"cap must be at most {MOST:,}: {cap}")
    return cap


class _Recent:
    """The overviews of a table that are fresh, one for each cap."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: dict[int | None, tuple[float, _overview.Overview]] = {}
        self._failed: tuple[float, int | None, Exception] | None = None

    def get(self, table: Table, cap: int | None) -> _overview.Overview:
        came = time.monotonic()
        with self._lock:  # one look at a time: who comes meanwhile waits for its answer
            now = time.monotonic()
            self._kept = {each: kept for each, kept in self._kept.items() if now - kept[0] < FRESH}
            if cap not in self._kept:
                found = self._read(table, cap, came)
                self._kept[cap] = time.monotonic(), found
            return self._kept[cap][1]

    def _read(self, table: Table, cap: int | None, came: float) -> _overview.Overview:
        """Look; or raise what a look has raised since `came`: if the database is away, each one takes long to fail."""
        if self._failed is not None:
            at, its_cap, error = self._failed
            if at >= came and its_cap == cap:
                raise error
        self._failed = None
        try:
            return _overview.read(table, cap)
        except Exception as error:
            self._failed = time.monotonic(), cap, error
            raise


_recent: WeakKeyDictionary[Table, _Recent] = WeakKeyDictionary()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_recent.clear)  # a lock may be held by a thread that is not here
