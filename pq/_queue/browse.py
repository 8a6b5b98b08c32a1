"""What is in a queue, for people and for monitoring: nothing is taken, and nothing is locked."""

from __future__ import annotations

import builtins
from typing import Any

from .._args import job_ids, limit_of
from .._jobs.info import JobInfo
from .._table.rows import QueueRows
from ..errors import JobNotFound

#: In the order in which `Browse.list` goes through them. The last one holds history: only who names it is shown it.
STATES = ("ready", "scheduled", "running", "dead", "finished")
_LIVE = 4

_BEFORE_ALL = -(2**63)


class Browse(QueueRows):
    """Looks at the jobs of a queue."""

    def list(
        self, state: str | None = None, limit: int = 100, after: JobInfo | int | None = None
    ) -> builtins.list[JobInfo]:
        """Jobs as they are now, in the order in which `get` takes them: ready ones, then scheduled ones by their time;
        then those that run, and dead ones, the longest first. Finished ones are listed, by their ids, only if that
        state is asked for, which may read the whole table.

        A job that somebody has in a transaction is listed as if it was not.

        :param state: only these: ``'ready'``, ``'scheduled'``, ``'running'``, ``'dead'`` or ``'finished'``.
        :param limit: at most so many.
        :param after: the last job of the page before, to go on behind the place where it was then; or an id, to go on
            behind the place where that job is now.
        :raises ValueError: another state; a negative `limit`; `after` was in none of the states asked for.
        :raises TypeError: `limit` is no int; `after` is something else.
        :raises JobNotFound: there is no job of that id any more.
        """
        limit = limit_of(limit)
        first, last = (1, _LIVE) if state is None else (_rank(state), _rank(state))
        keys: dict[str, str | int | None] = {"untimed_id": _BEFORE_ALL}
        for each in STATES:
            keys |= {f"{each}_key": "-infinity", f"{each}_id": _BEFORE_ALL}
        if after is not None:
            job = after if isinstance(after, JobInfo) else self[after]
            if not first <= _rank(job.state) <= last:
                raise ValueError(f"job {job.id}, after which to go on, is {job.state}")
            first = _rank(job.state)
            keys |= {f"{job.state}_key": job._key, f"{job.state}_id": job.id}
            if job.state == "ready" and job.expected_at is None:
                keys["untimed_id"] = job.id
        rows = self._browse("list", first=first, last=last, limit=limit, **keys)
        return [JobInfo.of(self, row) for row in rows]

    def peek(self) -> JobInfo | None:
        """The job that `get` would take next, unless somebody has it in a transaction, or the queue is paused."""
        return next(iter(self.list("ready", 1)), None)

    def count(self, state: str | None = None, *, conn: Any = None) -> int:
        """How many jobs there are; default: all that are not finished.

        :param state: only these, as for `list`. Finished ones are counted in a scan of the table.
        :param conn: as the transaction that is open there sees them; see `PQ.using`.
        :raises ValueError: another state.
        """
        if state is not None:
            _rank(state)
        queue = self if conn is None else self._bind(conn)
        ((count,),) = queue._browse("count" if state is None else f"count_{state}")
        return int(count)

    def counts(self, *, conn: Any = None) -> dict[str, int]:
        """How many jobs there are in each state, finished ones too: that takes a scan of the table.

        :param conn: as for `count`.
        """
        queue = self if conn is None else self._bind(conn)
        return dict.fromkeys(STATES, 0) | dict(queue._browse("counts"))

    def find(self, id: int) -> JobInfo | None:
        """The job of that id, in whatever state; None if there is none in this queue.

        :raises TypeError: the id is no int.
        """
        rows = [row for number in job_ids([id]) for row in self._browse("find", id=number)]
        return JobInfo.of(self, rows[0]) if rows else None

    def __getitem__(self, id: int) -> JobInfo:
        """Return the job of that id, in whatever state.

        :raises JobNotFound: there is none in this queue, which is a `LookupError`.
        :raises TypeError: the id is no int.
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
