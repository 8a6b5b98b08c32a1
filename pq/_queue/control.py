"""Changing jobs of a queue from outside: cancel, reschedule, move; pausing the queue."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any, overload

from .._args import UNSET, Unset, job_ids
from .._table import bulk as _bulk
from .._table.rows import QueueRows
from .._times import TimeSpec, When, when
from .._unique import MOST_BYTES, check_room, key_of, room_beside
from ..sql import array

#: Seconds between tries at a row that is locked. A claim or a heartbeat has it for a moment, a block for long.
PAUSES = (0.005, 0.01, 0.02, 0.04)


class Control(QueueRows):
    """Changes the jobs of a queue from outside."""

    def cancel(self, ids: int | Iterable[int] = (), *, key: str | None = None) -> int:
        """Finish jobs without performing them, and delete dead ones, as `Dead.discard` does. Finished jobs are kept as
        long as the retention says.

        The program that runs a cancelled job under a lease no longer holds it: ending the job raises `LeaseLost`, and
        `LeasedJob.cancelled` is true. That program goes on with its work until it notices.

        A job that another program has taken in a transaction (``with queue``) is skipped, not waited for.

        :param ids: an id, or several. Those of jobs that are finished, or not there, are passed over.
        :param key: cancel all jobs of this key that are there now, too.
        :returns: how many were cancelled.
        :raises TypeError: an id is not an int, or the key not a str.
        :raises ValueError: the key is empty or too long.
        """
        ids = job_ids(ids)  # before any SQL
        if key is not None:
            ids += [id for (id,) in self._run(self._statements("browse.sql")["ids_of_key"], key=key_of(key))]
        removes = "does_remove" if self._table.retention().deletes_on_completion else "removes"
        return self._change("cancel", ids, which="unfinished", removes=removes)

    @overload
    def reschedule(
        self, id: int, schedule_at: TimeSpec | Unset = ..., expected_at: TimeSpec | Unset = ...
    ) -> bool: ...
    @overload
    def reschedule(
        self, id: Iterable[int], schedule_at: TimeSpec | Unset = ..., expected_at: TimeSpec | Unset = ...
    ) -> int: ...

    def reschedule(
        self, id: int | Iterable[int], schedule_at: TimeSpec | Unset = UNSET, expected_at: TimeSpec | Unset = UNSET
    ) -> int:
        """Change the times of a job, or of several, that are ready, scheduled or held.

        If its lease has expired, its former holder loses it.

        :param id: an id, or several.
        :param schedule_at: as for `put`; None makes the job ready now. By default this time does not change.
        :param expected_at: as for `put`; None removes the priority. By default this time does not change.
        :returns: whether there was such a job, or of several, how many; a job that another program has in a transaction
            does not count.
        :raises TypeError: neither time is given; an argument has another type.
        :raises ValueError: a time has another form or is out of range.
        """
        if schedule_at is UNSET and expected_at is UNSET:
            raise TypeError("schedule_at or expected_at is needed")
        schedule = When() if isinstance(schedule_at, Unset) else when("schedule_at", schedule_at)
        expected = When() if isinstance(expected_at, Unset) else when("expected_at", expected_at)
        given: dict[str, Any] = {"schedules": schedule_at is not UNSET, "expects": expected_at is not UNSET}
        count = self._change("reschedule", id, **given, **_bulk.times(schedule, expected))
        return count if isinstance(id, Iterable) else bool(count)

    @overload
    def move(self, id: int, queue: str) -> bool: ...
    @overload
    def move(self, id: Iterable[int], queue: str) -> int: ...

    def move(self, id: int | Iterable[int], queue: str) -> int:
        """Move a job, or several, that are ready, scheduled or held to another queue; each keeps its id, its times and
        its data.

        The other queue can't read a signed pickle, because the signature is valid for one queue only.

        :param id: an id, or several.
        :param queue: the name of the other queue, as for `PQ`: ``jobs/pickle`` means the queue ``jobs``.
        :returns: as for `reschedule`.
        :raises TypeError: the id is not an int, or the name is not a str.
        :raises ValueError: PostgreSQL can't hold the name, alone or together with the key or token of the job.
        """
        target, _ = self._split(queue)
        room = room_beside(target)
        ids = job_ids(id)
        count = self._change("move", ids, which="fits", target=target, room=room)
        if count < len(set(ids)) and room < MOST_BYTES:
            for (size,) in self._run(self._statements("control.sql")["longest"], ids=array(ids), room=room):
                check_room("the key or token of the job", size, target)
        return count if isinstance(id, Iterable) else bool(count)

    def pause(self) -> None:
        """Stop delivering jobs of this queue, in all processes, until `resume`: the queue looks empty.

        The pause is stored in the table. Jobs can still be put, and jobs that were taken are not affected. A `get` that
        is under way may still return a job, and workers perform the few jobs that they have fetched. pq 1.9.1 does not
        know pauses, and goes on.
        """
        self._run(self._statements("control.sql")["pause"])

    def resume(self) -> None:
        """End the pause, and wake waiting consumers."""
        self._run(self._statements("control.sql")["resume"])

    @property
    def paused(self) -> bool:
        """Whether the queue is paused."""
        ((paused,),) = self._run(self._statements("control.sql")["paused"])
        return bool(paused)

    def _change(
        self, statement: str, ids: Any, which: str = "which", removes: str = "removes", **params: Any
    ) -> int:
        """Return how many rows were changed."""
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
