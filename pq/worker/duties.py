"""What some process must do now and then, for all: whoever is there does it, and nothing depends on any one process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from .._logs import worker_log as logger
from .._loop import Loop
from .._schedules import Ticker, declare
from .._table.retention import PASS_PAUSE, Pruner
from .._text import describe
from .queues import TaskQueue

#: Seconds until the first look: a worker that has just begun has better things to do.
BEGIN = 1.0

#: Names of queues in one warning.
SHOWN = 5


class Duties:
    """One thread, which deletes the rows whose retention is over. First it tells of queues that look like a mistake.

    :param on_error: called with an error that the thread did not expect.
    """

    def __init__(self, queues: Sequence[TaskQueue], on_error: Callable[[BaseException], object]) -> None:
        self.loop: Loop = Loop(self.run_once, "pq duties", on_error=on_error)
        self._queues: Sequence[TaskQueue] | None = queues
        self._table = queues[0]._table
        self._pruner = Pruner(self._table.database)
        self._told = False

    def run_once(self) -> float:
        """Do the next step; return the seconds until this is to be called again."""
        try:
            if self._queues is not None:
                queues, self._queues = self._queues, None
                self._look_at(queues)
                return BEGIN
            with self._table.database.source.briefly():
                self._pruner.run_once()
        except Exception as error:  # no right to delete; or no connection, of which other threads tell
            if not self._told:
                logger.warning("rows whose retention is over can't be deleted: %s", describe(error))
            self._told = True
            return PASS_PAUSE
        return self._pruner.pause

    def _look_at(self, queues: Sequence[TaskQueue]) -> None:
        sql = self._table.statements("queue.sql")["has_jobs"]
        without = [
            repr(queue.name)
            for queue in queues
            if not queue._has_tasks and not self._table.execute(sql, {"queue": queue.name})[0][0]
        ]
        if without:
            shown = ", ".join(without[:SHOWN]) + (f" and {len(without) - SHOWN} more" if len(without) > SHOWN else "")
            logger.warning("no jobs, and no tasks in this process, for %s: is the name right?", shown)


class Clock:
    """One thread, which fires the schedules of the table. First it stores those that the tasks of the worker have.

    :param on_error: called with an error that the thread did not expect.
    """

    def __init__(self, queues: Sequence[TaskQueue], on_error: Callable[[BaseException], object]) -> None:
        self.loop: Loop = Loop(self.run_once, "pq schedules", on_error=on_error)
        self._queues: Sequence[TaskQueue] | None = queues
        self._table = queues[0]._table
        self._ticker = Ticker(self._table)

    def run_once(self) -> float:
        """Do the next step; return the seconds until this is to be called again."""
        if self._queues is not None and self._ticker.guarded(partial(self._declare, self._queues)):
            self._queues = None
        with self._table.database.source.briefly():
            return self._ticker.run_once()

    def _declare(self, queues: Sequence[TaskQueue]) -> None:
        schedules = {name: schedule for queue in queues for name, schedule in queue._declared.items()}
        declare(self._table, [queue.name for queue in queues], schedules)
