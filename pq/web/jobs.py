"""The jobs that the pages show: cut by the server, since the data of one may have a gigabyte, and never decoded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from .._jobs.info import JobInfo
from .._looks.times import task_name
from .._manager import PQ
from .._queue import Queue
from .._table.look import look, looking
from ..sql import array
from .words import arguments_of, task_of

#: Bytes of data, and characters of a result, that the page of a job shows.
LONGEST = 65_536

#: Rows that a look without an index reads, and scheduled jobs of all queues among which failed ones are looked for.
CAP = 10_000
SCHEDULED_CAP = 5_000

#: Jobs whose tasks are counted on the page of a queue.
NAMES = 500

LAST = 2**63 - 1


class Shown(Queue):
    """A queue whose jobs are looked at: by the name that stands in the table, with the beginning of their data."""

    _cut = "start_of_data"

    def _browse(self, statement: str, **params: Any) -> list[tuple[Any, ...]]:
        sql = self._statements("browse.sql", data_text=self._cut)[statement]
        return look(self._table, sql, {"queue": self.name, **params})


@dataclass(frozen=True)
class Row:
    """A job in a list.

    :ivar queue: the name of its queue.
    :ivar job: the job, with the beginning of its data.
    """

    queue: str
    job: JobInfo

    @property
    def task(self) -> str | None:
        """The task that it calls, or None."""
        return task_of(self.job.text)

    @property
    def arguments(self) -> str | None:
        """The arguments of that call, or None."""
        return arguments_of(self.job.text)


@dataclass(frozen=True)
class Detail(Row):
    """What the page of a job shows.

    :ivar size: of its data, in bytes.
    :ivar result: the beginning of its result or progress as JSON, or None.
    :ivar result_size: of all of it, in bytes; None if there is none.
    """

    size: int
    result: str | None
    result_size: int | None

    @property
    def is_cut(self) -> bool:
        """Whether not all of the data is there."""
        return len(self.job.text.encode()) < self.size


class Jobs:
    """Looks at jobs of all queues of a table."""

    def __init__(self, pq: PQ) -> None:
        self._table = pq._table

    def queue(self, name: str, cut: str = "start_of_data") -> Shown:
        """Return the queue that has this name in the table, whatever suffix that name has."""
        # without a suffix, and with a source that it does not use: it has the table
        made = Shown(name, "", converters={}, encode=str, decode=str)._on(self._table)
        made._cut = cut
        return made

    def is_paused(self, name: str) -> bool:
        """Whether a queue is paused: a look, unlike `Queue.paused`."""
        return self.queue(name)._on(looking(self._table)).paused

    def job(self, id: int) -> Detail | None:
        """Return a job, whatever its queue."""
        for name, *rest in self._run("place", id=id):
            job = self.queue(name, "most_of_data").find(id)
            if job is not None:
                return Detail(name, job, *rest)
        return None

    def page(self, name: str, state: str, limit: int, after: int | None) -> list[Row]:
        """Return jobs of a queue in a state: dead ones the newest first, others as `Browse.list` does.

        :param after: the id of the last one of the page before; if it is not dead any more, dead ones begin anew.
        :raises JobNotFound: that job is not there any more.
        :raises ValueError: it is in another state by now.
        """
        if state == "dead":
            return self._rows("newest_dead", queue=name, limit=limit, after=after)
        return [Row(name, job) for job in self.queue(name).list(state, limit, after)]

    def tasks(self, name: str, state: str) -> tuple[list[tuple[str, int]], int]:
        """Return which tasks the first jobs of a queue in a state call, the most frequent first, and among how many."""
        jobs = self.queue(name, "name_of_task").list(state, NAMES)
        return Counter(task_name(job.text) or "" for job in jobs).most_common(), len(jobs)

    def retrying(self, names: Collection[str], limit: int) -> tuple[list[Row], int]:
        """Return jobs that wait for their next attempt, and among how many scheduled ones of each queue they are."""
        cap = max(10, SCHEDULED_CAP // max(len(names), 1))
        return self._rows("retrying", queues=array(names), cap=cap, limit=limit), cap

    def newest(
        self,
        limit: int,
        before: int | None = None,
        queue: str | None = None,
        state: str | None = None,
        text: str | None = None,
    ) -> tuple[list[Row], int | None]:
        """Return jobs in a state, or with a text in their data, the newest first, among `CAP` rows.

        :param before: only those with lower ids; None: all.
        :returns: the jobs, and the id before which to go on, or None if there is nothing more.
        """
        before = LAST if before is None else before
        rows = self._rows("newest", before=before, cap=CAP, queue=queue, state=state, text=text, limit=limit)
        if len(rows) == limit:
            return rows, rows[-1].job.id
        ((lowest, count),) = self._run("reach", before=before, cap=CAP)
        return rows, lowest if count == CAP else None

    def matching(self, queue: str, state: str, text: str, limit: int) -> list[Row]:
        """Return jobs of a queue in a state with a text in their data, among the first `CAP` of them."""
        ids = [job.id for job in self.queue(queue, "no_data").list(state, CAP)]
        found = [id for (id,) in self._run("matching", ids=array(ids), text=text, limit=limit)]
        return self._rows("these", ids=array(found))

    def these(self, ids: Collection[int]) -> list[Row]:
        """Return jobs with most of their data, in the order of the ids."""
        return self._rows("these", "most_of_data", ids=array(ids))

    def _rows(self, statement: str, cut: str = "start_of_data", **params: Any) -> list[Row]:
        sql = self._table.statements("browse.sql", data_text=cut)
        queues: dict[str, Shown] = {}
        found = []
        for name, *row in look(self._table, f"{sql['in_order']} {sql[statement]}", params):
            if name not in queues:  # not "or": whether a queue is true is whether it has jobs, which counts them
                queues[name] = self.queue(name)
            found.append(Row(name, JobInfo.of(queues[name], tuple(row))))
        return found

    def _run(self, statement: str, **params: Any) -> Sequence[tuple[Any, ...]]:
        sql = self._table.statements("browse.sql")
        return look(self._table, f"{sql['in_order']} {sql[statement]}", params)
