"""The dead jobs of a queue: they are kept until a person decides on them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from .._args import job_ids, limit_of
from .._db import Rows
from .._jobs.dead import DeadJob
from .._table.rows import QueueRows
from .._times import Delay, delay_of
from ..errors import JobNotFound
from ..sql import array

#: How many jobs iteration reads at a time.
PAGE = 100

_Jobs = list[DeadJob]  # inside of the class below, "list" is a method


class Dead:
    """The dead jobs of a queue: ``queue.dead``. Iteration goes from the oldest to the newest.

    A job that is retried in the loop and dies again does not come a second time.
    """

    def __init__(self, queue: QueueRows) -> None:
        self._queue = queue

    def __len__(self) -> int:
        ((count,),) = self._queue._run(self._queue._statements("browse.sql")["count_dead"])
        return int(count)

    def __bool__(self) -> bool:
        return True  # it is there, however many jobs are in it: "if queue.dead" must not count them

    def __iter__(self) -> Iterator[DeadJob]:
        ((begun,),) = self._run("begun")
        jobs = self.list(limit=PAGE, newest=False)
        while jobs:
            yield from jobs
            jobs = self._jobs("next", begun=begun, died_at=jobs[-1]._place, id=jobs[-1].id, limit=PAGE)

    def list(self, limit: int = 100, newest: bool = True) -> _Jobs:
        """Return some of the jobs.

        :param limit: how many at most.
        :param newest: True for those that died last, the last one first; False for the oldest, the first one first.
        :raises TypeError: `limit` is not an int.
        :raises ValueError: `limit` is negative.
        """
        return self._jobs("newest" if newest else "oldest", limit=limit_of(limit))

    def get(self, job_id: int) -> DeadJob:
        """Return the dead job of that id.

        :raises JobNotFound: there is none.
        :raises TypeError: the id is not an int.
        """
        jobs = [job for id in job_ids([job_id]) for job in self._jobs("find", id=id)]
        if not jobs:
            raise JobNotFound(job_id=job_id, queue=self._queue.name)
        return jobs[0]

    def retry(self, ids: int | Iterable[int] | None = None, *, all: bool = False, in_: Delay | None = None) -> int:
        """Make jobs ready again, as if they had never been tried. They keep their ids.

        :param ids: one id, or several. Ids of other than dead jobs are passed over.
        :param all: retry all dead jobs.
        :param in_: how long to wait before, as ``'30s'``, a timedelta or seconds; None: not at all.
        :returns: how many jobs were retried.
        :raises TypeError: neither ids nor `all` is given, or both; an argument of another type.
        :raises ValueError: `in_` of another form or out of range.
        """
        delay = None if in_ is None else delay_of("in_", in_).total_seconds()
        return self._act("retry", ids, all, delay=delay)

    def _retry_each(self, ids: Sequence[int], delays: Sequence[float]) -> int:
        """Make jobs ready again, each after so many seconds, and return how many these were."""
        return len(self._run("retry_each", "these", patient=True, ids=array(ids), delays=array(delays)))

    def discard(self, ids: int | Iterable[int] | None = None, *, all: bool = False) -> int:
        """Delete jobs.

        :param ids: one id, or several. Ids of other than dead jobs are passed over.
        :param all: delete all dead jobs.
        :returns: how many jobs were deleted.
        :raises TypeError: neither ids nor `all` is given, or both; an id is not an int.
        """
        return self._act("discard", ids, all)

    def _act(self, statement: str, ids: int | Iterable[int] | None, all: bool, **params: Any) -> int:
        if (ids is None) is not all:
            raise TypeError("ids or all=True is needed, and not both")
        which = {} if all else {"ids": job_ids(ids)}
        return len(self._run(statement, some="all" if all else "these", patient=True, **which, **params))

    def _jobs(self, statement: str, **params: Any) -> _Jobs:
        return [DeadJob(self._queue, row, self._retry_one) for row in self._run(statement, **params)]

    def _retry_one(self, id: int, in_: Delay | None) -> int:
        return self.retry(id, in_=in_)

    def _run(self, statement: str, some: str = "all", **params: Any) -> Rows:
        return self._queue._run(self._queue._statements("dead.sql", some=some)[statement], **params)

    def __repr__(self) -> str:
        return f"<pq.Dead of {self._queue!r}>"
