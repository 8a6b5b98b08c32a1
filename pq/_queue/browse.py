"""Looking at the jobs of a queue, for people and for monitoring. Nothing is taken or locked."""

from __future__ import annotations

import builtins
from typing import Any

from .._args import job_ids, limit_of
from .._jobs.info import JobInfo
from .._table.rows import QueueRows
from .._unique import key_of
from ..errors import JobNotFound

#: In the order in which `Browse.list` goes through them. The last one holds history: only who names it is shown it.
STATES = ("ready", "scheduled", "held", "running", "dead", "finished")
_LIVE = 5

_BEFORE_ALL = -(2**63)


class Browse(QueueRows):
    """Looks at the jobs of a queue."""

    def list(
        self,
        state: str | None = None,
        limit: int = 100,
        after: JobInfo | int | None = None,
        *,
        key: str | None = None,
    ) -> builtins.list[JobInfo]:
        """Return jobs as they are now, in the order in which `get` takes them: ready jobs, then scheduled ones by their
        time, then held ones, by their ids, then running and dead ones, the longest first. Finished jobs are listed, by
        their ids, only if you ask for that state, which may read the whole table.

        A job that another program has in a transaction is listed as if it did not.

        :param state: list only this state: ``'ready'``, ``'scheduled'``, ``'held'``, ``'running'``, ``'dead'`` or
            ``'finished'``.
        :param limit: the largest number of jobs.
        :param after: the last job of the previous page, to go on behind the place where it was then; or an id, to go on
            behind the place where that job is now.
        :param key: list the jobs of this key instead, in the order in which they are to run, then the scheduled ones.
        :raises ValueError: there is no such state; `limit` is negative; `after` was in none of the states asked for.
        :raises TypeError: `limit` is not an int; `after` is neither a `JobInfo` nor an int; `key` is not a str, or is
            given together with a state or `after`.
        :raises JobNotFound: there is no job with that id any more.
        """
        limit = limit_of(limit)
        if key is not None:
            if state is not None or after is not None:
                raise TypeError("key can't be combined with state or after")
            return [JobInfo.of(self, row) for row in self._browse("list_key", key=key_of(key), limit=limit)]
        first, last = (1, _LIVE) if state is None else (_rank(state), _rank(state))
        keys: dict[str, str | int | None] = {"untimed_id": _BEFORE_ALL}
        for each in STATES:
            keys |= {f"{each}_key": "-infinity", f"{each}_id": _BEFORE_ALL}
        if after is not None:
            job = after if isinstance(after, JobInfo) else self[after]
            if not first <= _rank(job.state) <= last:
                raise ValueError(f"job {job.id}, after which to go on, is {job.state}")
            first = _rank(job.state)
            keys |= {f"{job.state}_key": job._place, f"{job.state}_id": job.id}
            if job.state == "ready" and job.expected_at is None:
                keys["untimed_id"] = job.id
        rows = self._browse("list", first=first, last=last, limit=limit, **keys)
        return [JobInfo.of(self, row) for row in rows]

    def peek(self) -> JobInfo | None:
        """Return the first ready job: `get` takes it next, unless a transaction has it or the queue is paused."""
        return next(iter(self.list("ready", 1)), None)

    def count(self, state: str | None = None, *, conn: Any = None) -> int:
        """Return the number of jobs.

        :param state: count the jobs in this state, as for `list`; counting finished jobs scans the table. Default: all
            jobs that are not finished.
        :param conn: count what the transaction that is open there sees; see `PQ.using`.
        :raises ValueError: there is no such state.
        """
        if state is not None:
            _rank(state)
        queue = self if conn is None else self._bind(conn)
        ((count,),) = queue._browse("count" if state is None else f"count_{state}")
        return int(count)

    def counts(self, *, conn: Any = None) -> dict[str, int]:
        """Return the number of jobs in each state, including finished ones, which scans the table.

        :param conn: as for `count`.
        """
        queue = self if conn is None else self._bind(conn)
        return dict.fromkeys(STATES, 0) | dict(queue._browse("counts"))

    def find(self, id: int) -> JobInfo | None:
        """Return the job with that id, in any state; None if this queue has no such job.

        :raises TypeError: the id is not an int.
        """
        rows = [row for number in job_ids([id]) for row in self._browse("find", id=number)]
        return JobInfo.of(self, rows[0]) if rows else None

    def __getitem__(self, id: int) -> JobInfo:
        """Return the job with that id, in any state.

        :raises JobNotFound: this queue has no such job; a `LookupError`.
        :raises TypeError: the id is not an int.
        """
        job = self.find(id)
        if job is None:
            raise JobNotFound(job_id=id, queue=self.name)
        return job

    def _browse(self, statement: str, **params: Any) -> builtins.list[tuple[Any, ...]]:
        return self._run(self._statements("browse.sql")[statement], **params)


def _rank(state: str) -> int:
    if state not in STATES:
        raise ValueError(f"state must be one of {', '.join(STATES)}, not {state!r}")
    return STATES.index(state) + 1
