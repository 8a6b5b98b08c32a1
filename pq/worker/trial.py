"""A job's task is tried: run here, in a transaction that is rolled back."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from operator import sub
from typing import Any

from .._jobs import outcome
from .._jobs.failure import Failure
from .._jobs.settlement import Settlement
from .._jobs.tried import TriedJob
from ..errors import PQError, TaskNotFound
from .execution import Execution
from .handler import call_handler

#: How many of the jobs that were put are shown.
MAX_PUTS = 1000


@dataclass(frozen=True)
class TriedPut:
    """A job that a trial has put.

    :ivar queue: the name of its queue.
    :ivar text: its data as it would stand in the table.
    :ivar key: its key, or None.
    :ivar due_at: when it would become ready by itself, or None; naive, in UTC.
    """

    queue: str
    text: str
    key: str | None
    due_at: datetime | None


@dataclass(frozen=True)
class TriedWrites:
    """The rows of one table that a trial has written.

    :ivar table: its name.
    :ivar inserted: how many were inserted; of jobs none, since these are among the `Trial.puts`.
    :ivar updated: how many were updated.
    :ivar deleted: how many were deleted.
    """

    table: str
    inserted: int
    updated: int
    deleted: int


@dataclass(frozen=True)
class Trial:
    """What came of trying a job.

    :ivar task: the name of the task.
    :ivar outcome: what would become of the job: ``'done'``, ``'retry'``, ``'dead'`` or ``'released'``.
    :ivar delay: the pause before the retry, a timedelta, or None.
    :ivar result: what the function has returned; None if it has failed.
    :ivar error: the `Failure`, or None.
    :ivar seconds: for how long the function has run.
    :ivar writes: a `TriedWrites` for each table, by name. Of a function that has failed: what it had written until
        then, if the transaction could still tell.
    :ivar puts: a `TriedPut` for each job that it has put, in order; 1,000 at most.
    """

    task: str
    outcome: str
    delay: timedelta | None
    result: Any
    error: Failure | None
    seconds: float
    writes: tuple[TriedWrites, ...]
    puts: tuple[TriedPut, ...]


class _Over(Exception):
    """Rolls the transaction back."""


def try_job(queue: Any, id: int, force: bool) -> Trial:
    """Try a job of this queue; see `pq.Queue.try_`."""
    trial: Trial | None = None
    try:
        with queue._transaction() as cursor:
            trial = _Trial(queue, id, cursor).run(force)
            raise _Over
    except _Over:
        pass
    assert trial is not None
    return trial


class _Trial:
    """One trial, inside of its transaction."""

    def __init__(self, queue: Any, id: int, cursor: Any) -> None:
        self._queue = queue
        self._cursor = cursor
        self._sql: Mapping[str, str] = queue._table.statements("trial.sql")
        ((_, self._last, now),) = self._run("begin")
        self._run("mark")
        self._job = TriedJob(queue, queue[id], now)
        self._before = self._written()
        self._undone = False

    def run(self, force: bool) -> Trial:
        job = self._job
        execution = Execution(job, time.monotonic())
        execution.begin()
        if not (execution.options.transactional or force or execution._problem):
            raise ValueError(
                f"task `{execution.task}` is not transactional, so it may have effects that are not rolled back, such"
                " as a mail, or what it does on a connection of its own: force=True tries it nevertheless"
            )
        if isinstance(execution._problem, TaskNotFound):
            raise execution._problem
        if execution.options.transactional:
            job.cursor = self._cursor
        result = None
        try:
            if execution._problem is not None or execution._call is None:
                raise execution._problem or TaskNotFound("the job is no call of a task")
            result = call_handler(job, execution._call)
            ending = job.ending or outcome.done(job, result if execution.options.result else None)
            self._check(execution.task)
            self._run("check")  # deferred constraints
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # sys.exit() and the like, as in a worker
            with suppress(self._queue._table.database.driver.Error):
                self._check(execution.task)
            result, ending = None, execution.failed(error)
        execution.ended = time.monotonic()
        return self._told(execution, ending, result)

    def _told(self, execution: Execution, ending: Settlement, result: Any) -> Trial:
        database = self._queue._table.database
        writes: tuple[TriedWrites, ...] = ()
        puts: tuple[TriedPut, ...] = ()
        try:
            with database.transaction():
                writes = () if self._undone else tuple(self._writes())
                rows = () if self._undone else self._run("puts", last=self._last, limit=MAX_PUTS)
                puts = tuple(TriedPut(queue, text, key, due_at) for _, queue, text, key, due_at in rows)
        except database.driver.Error:
            if ending.error is None:
                raise  # otherwise the connection is gone
        error = None if ending.error is None else Failure.loads(ending.error)
        return Trial(execution.task, ending.outcome, ending.delay, result, error, execution.seconds, writes, puts)

    def _check(self, task: str) -> None:
        """Check that the transaction goes on.

        :raises PQError: it does not.
        :raises Error: it does, of the driver: but a statement has failed, or the connection is gone.
        """
        driver = self._queue._table.database.driver
        failure = None
        try:
            ((goes_on,),) = self._run("goes_on")
        except driver.Error as failed:  # a statement has failed: only a savepoint tells whether in the same transaction
            try:
                self._run("undo")
            except driver.Error as error:
                goes_on = not driver.savepoint_is_missing(error)  # or the connection is gone
            else:
                goes_on = self._undone = True
            failure = failed
        if not goes_on:
            raise PQError(f"task `{task}` has ended the transaction itself: what it did before that may be committed")
        if failure is not None:
            raise failure

    def _writes(self) -> Iterator[TriedWrites]:
        for table, after in sorted(self._written().items()):
            before = self._before.get(table, (0, 0, 0))
            if after != before:
                yield TriedWrites(table, *map(sub, after, before))

    def _written(self) -> dict[str, tuple[int, ...]]:
        table = self._queue._table.quoted
        return {table: tuple(counts) for table, *counts in self._run("writes", table=table)}

    def _run(self, statement: str, **params: Any) -> Any:
        return self._queue._table.execute(self._sql[statement], params)
