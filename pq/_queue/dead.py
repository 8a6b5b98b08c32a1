"""Dead jobs: given up after their last attempt, and kept until a person decides."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

from .._args import integer, job_ids
from .._db import Rows
from .._jobs.failure import Failure
from .._jobs.job import Job
from .._table.rows import QueueRows
from .._times import Delay, delay_of
from ..errors import JobNotFound

#: How many jobs iteration reads at a time.
PAGE = 100


class DeadJob(Job):
    """A dead job.

    :ivar attempts: how often it was delivered.
    :ivar error: the `Failure` of its last attempt.
    :ivar first_failed_at: when an attempt failed for the first time; naive, in UTC.
    :ivar died_at: when the last one failed; naive, in UTC.
    """

    __slots__ = ("attempts", "died_at", "error", "first_failed_at")

    def __init__(self, queue: QueueRows, row: tuple[Any, ...]) -> None:
        *columns, dequeued_at, attempts, error, failed_at = row
        super().__init__(queue, *columns)
        self.attempts: int = attempts
        self.error: Failure = Failure.loads(error)
        self.died_at: datetime = dequeued_at
        self.first_failed_at: datetime = self.died_at if failed_at is None else failed_at

    @property  # type: ignore[misc]
    def data(self) -> Any:
        """The decoded data. To repair what it died of: ``queue.update(job.id, data)``.

        :raises DecodeError: it can't be decoded, which may be what the job died of. `text` has it.
        """
        return self._queue._decoded(self.id, self._data)

    @property
    def text(self) -> str:
        """The data as it stands in the table."""
        return str(self._data)

    def retry(self, in_: Delay | None = None) -> None:
        """See `Dead.retry`.

        :raises JobNotFound: it is not dead any more.
        """
        if not Dead(self._queue).retry(self.id, in_=in_):
            raise JobNotFound(job_id=self.id, queue=self._queue.name)


_Jobs = list[DeadJob]  # inside of the class below, "list" is a method


class Dead:
    """The dead jobs of a queue: ``queue.dead``. Iteration goes from the oldest to the newest."""

    def __init__(self, queue: QueueRows) -> None:
        self._queue = queue

    def __len__(self) -> int:
        ((count,),) = self._run("count")
        return int(count)

    def __bool__(self) -> bool:
        return True  # it is there, however many jobs are in it: "if queue.dead" must not count them

    def __iter__(self) -> Iterator[DeadJob]:
        jobs = self.list(limit=PAGE, newest=False)
        while jobs:
            yield from jobs
            jobs = self._jobs("next", dequeued_at=jobs[-1].died_at, id=jobs[-1].id, limit=PAGE)

    def list(self, limit: int = 100, newest: bool = True) -> _Jobs:
        """Some of them.

        :param limit: at most so many.
        :param newest: those that died last, and the last one first; else from the oldest on.
        :raises TypeError: `limit` is no int.
        :raises ValueError: `limit` is negative.
        """
        return self._jobs("newest" if newest else "oldest", limit=integer("limit", limit))

    def get(self, job_id: int) -> DeadJob:
        """The dead job of that id.

        :raises JobNotFound: there is none.
        :raises TypeError: the id is no int.
        """
        (number,) = job_ids([job_id])
        jobs = self._jobs("find", id=number)
        if not jobs:
            raise JobNotFound(job_id=job_id, queue=self._queue.name)
        return jobs[0]

    def retry(self, ids: int | Iterable[int] | None = None, *, all: bool = False, in_: Delay | None = None) -> int:
        """Make them ready again, as if they had never been tried; they keep their ids.

        :param ids: an id, or several. Those of no dead job are passed over.
        :param all: all of them.
        :param in_: after this time, as ``'30s'`` or a timedelta; None: at once.
        :returns: how many there were.
        :raises TypeError: neither ids nor `all`, or both; an argument of another type.
        :raises ValueError: `in_` of another form or out of range.
        """
        delay = None if in_ is None else delay_of("in_", in_).total_seconds()
        return self._act("retry", ids, all, delay=delay)

    def discard(self, ids: int | Iterable[int] | None = None, *, all: bool = False) -> int:
        """Delete them.

        :param ids: an id, or several. Those of no dead job are passed over.
        :param all: all of them.
        :returns: how many there were.
        :raises TypeError: neither ids nor `all`, or both; an id is no int.
        """
        return self._act("discard", ids, all)

    def _act(self, statement: str, ids: int | Iterable[int] | None, all: bool, **params: Any) -> int:
        if (ids is None) is not all:
            raise TypeError("ids or all=True is needed, and not both")
        which = {} if all else {"ids": [id for id in job_ids(ids) if abs(id) < 2**63]}
        return len(self._run(statement, some="all" if all else "these", **which, **params))

    def _jobs(self, statement: str, **params: Any) -> _Jobs:
        return [DeadJob(self._queue, row) for row in self._run(statement, **params)]

    def _run(self, statement: str, some: str = "all", **params: Any) -> Rows:
        return self._queue._run(self._queue._statements("dead.sql", some=some)[statement], **params)

    def __repr__(self) -> str:
        return f"<pq.Dead of {self._queue!r}>"


