"""Changes to jobs of a queue, and to the queue, that a person or another part of the application makes."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from .._args import UNSET, Unset, job_ids
from .._table import bulk as _bulk
from .._table.rows import QueueRows
from .._times import TimeSpec, When, when
from ..sql import array

#: Seconds between tries at a row that is locked. A claim or a heartbeat has it for a moment, a block for long.
PAUSES = (0.005, 0.01, 0.02, 0.04)


class Control(QueueRows):
    """Changes the jobs of a queue from outside."""

    def cancel(self, ids: int | Iterable[int]) -> int:
        """End jobs without doing them. Dead ones are deleted, as by `Dead.discard`; the others are finished, and kept
        as long as finished jobs are, if at all.

        One that runs under a lease is not ours any more, for whoever runs it: its end raises `LeaseLost`, and
        `LeasedJob.cancelled` says why. What that program is doing goes on, until it looks.

        A job that somebody has in a transaction (``with queue``) is not cancelled, nor waited for.

        :param ids: an id, or several. Those of jobs that are finished, or not there, are passed over.
        :returns: how many were cancelled.
        :raises TypeError: an id is no int.
        """
        removes = "does_remove" if self._table.retention().deletes_on_completion else "removes"
        return self._change("cancel", ids, which="unfinished", removes=removes)

    def reschedule(
        self, id: int, schedule_at: TimeSpec | Unset = UNSET, expected_at: TimeSpec | Unset = UNSET
    ) -> bool:
        """Change the times of a job that is ready or scheduled. After an expired lease its holder has lost it by that.

        :param schedule_at: as for `put`; None: it is ready now. If it is not given, that stays as it is.
        :param expected_at: as for `put`; None: no priority. Likewise.
        :returns: whether there was such a job; one that somebody has in a transaction does not count.
        :raises TypeError: neither time is given; an argument of another type.
        :raises ValueError: a time of another form or out of range.
        """
        if schedule_at is UNSET and expected_at is UNSET:
            raise TypeError("schedule_at or expected_at is needed")
        schedule = When() if isinstance(schedule_at, Unset) else when("schedule_at", schedule_at)
        expected = When() if isinstance(expected_at, Unset) else when("expected_at", expected_at)
        given: dict[str, Any] = {"schedules": schedule_at is not UNSET, "expects": expected_at is not UNSET}
        return bool(self._change("reschedule", [id], **given, **_bulk.times(schedule, expected)))

    def move(self, id: int, queue: str) -> bool:
        """Put a job that is ready or scheduled into another queue; it keeps its id, its times and its data. So a pickle
        that was signed, which holds for one queue only, can't be read in the other.

        :param queue: the other queue's name, as for `PQ`: of ``jobs/pickle`` it is ``jobs``.
        :returns: as for `reschedule`.
        :raises TypeError: the id is no int, or the name no str.
        :raises ValueError: a name that PostgreSQL can't hold.
        """
        target, _ = self._split(queue)
        return bool(self._change("move", [id], target=target))

    def pause(self) -> None:
        """Have nobody get jobs from this queue, in any process, until `resume`: as if it was empty.

        It is stored in the table. Jobs can be put, and those that were taken are not affected. A `get` that is at the
        database just then may still return a job. Workers do what they have taken in advance, which is not much. pq
        1.9.1 knows nothing of this, and goes on.
        """
        self._run(self._statements("control.sql")["pause"])

    def resume(self) -> None:
        """End `pause`: those that wait for jobs get them."""
        self._run(self._statements("control.sql")["resume"])

    @property
    def paused(self) -> bool:
        """Whether the queue is paused."""
        ((paused,),) = self._run(self._statements("control.sql")["paused"])
        return bool(paused)

    def _change(
        self, statement: str, ids: Any, which: str = "which", removes: str = "removes", **params: Any
    ) -> int:
        """Returns how many rows were changed."""
        sql = self._statements("control.sql", which=which, removes=removes)[statement]
        left = set(job_ids(ids))
        count = 0
        for pause in (*PAUSES, None):
            rows = self._run(sql, ids=array(left), **params)
            left = {id for id, changed in rows if not changed}
            count += len(rows) - len(left)
            if not left or pause is None:
                break
            time.sleep(pause)
        return count
