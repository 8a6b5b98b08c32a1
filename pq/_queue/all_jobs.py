"""What a PQ does with jobs of several queues."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from .._args import UNSET, Unset, job_ids
from .._codec import encode
from .._db import Database
from .._jobs.key_state import KeyState, checked
from .._jobs.lease import LeasedJob
from .._jobs.outcome import settle_all
from .._table import Table
from .._table.rows import QueueRows
from .._times import Delay, patience
from .._unique import tag
from .._wait import QUEUE
from ..errors import PQError
from .results import outcome

if TYPE_CHECKING:
    from .queue import Queue


class AllJobs:
    """A part of `PQ`."""

    _db: Database
    _table: Table
    _sql: Mapping[str, str]

    if TYPE_CHECKING:

        def __getitem__(self, name: str) -> Queue: ...

    def done(self, jobs: Iterable[LeasedJob], *, conn: Any = None) -> None:
        """Finish leased jobs of several queues; the arguments and errors are those of `Queue.done`."""
        self.settle(((job, None) for job in jobs), conn=conn)

    def settle(self, outcomes: Iterable[tuple[LeasedJob, BaseException | None]], *, conn: Any = None) -> None:
        """Settle leased jobs of several queues; the arguments and errors are those of `Queue.settle`."""
        settle_all(self._table, outcomes, conn)

    def results(self, ids: int | Iterable[int], timeout: Delay = 0) -> dict[int, Any]:
        """Wait until jobs of any queues have ended, and return a dict with the result of each, in the order of the ids.

        In place of a result stands the error that `Queue.result` would raise: a `JobPending` for a job that has not
        ended in time, a `JobFailed`, `JobCancelled`, `JobNotFound` or `DecodeError`. None of these is raised.

        Pickles are not loaded: a result of a queue such as ``jobs/pickle`` is the text of the pickle here.

        :param ids: the ids of the jobs.
        :param timeout: the longest time to wait for all of them, as for `Queue.result`; 0 looks once.
        :raises TypeError: an id is not an int; the timeout has another type.
        :raises ValueError: the timeout is negative or NaN, or has another form.
        """
        wanted = list(ids) if isinstance(ids, Iterable) else [ids]
        wait = self._table.ends(job_ids(wanted), patience("timeout", timeout))
        found: dict[int, Any] = {}
        for id in wanted:
            row = wait.rows.get(id)
            try:
                found[id] = outcome(None if row is None else self[row[QUEUE]], id, wait)
            except PQError as error:
                found[id] = error.with_traceback(None)  # which would refer to this dict
        return found

    def key_state(
        self, queue: str | Queue, key: str, state: dict[str, Any] | Unset | None = UNSET, *, conn: Any = None
    ) -> dict[str, Any]:
        """Return the state that the jobs of a key hand on, see `LeasedJob.key_state`; ``{}`` if there is none.

        It stays when its jobs are deleted, until you delete it, or by `reset`.

        :param queue: the queue, or its name.
        :param state: set it to this dict; None deletes it. A job of that key that runs meanwhile, and changes the state
            itself, writes over this when it is done.
        :param conn: read or change it in the transaction that is open there; see `PQ.using`.
        :returns: the state as it is then.
        :raises TypeError: the queue is neither a queue nor a str, the key not a str; the state is not a dict, or JSON
            does not have something in it.
        :raises ValueError: the key is empty or too long; NaN or Infinity is in the state.
        """
        if isinstance(queue, str):
            queue = self[queue]
        elif not isinstance(queue, QueueRows):
            raise TypeError(f"queue must be a queue or the name of one, not {type(queue).__name__}")
        name = queue.name
        params: dict[str, Any] = {"queue": name, "key": tag("key", key, name)}
        table = self._table if conn is None else self._table.bind(conn)
        sql = table.statements("states.sql")
        if state is UNSET:
            rows = table.execute(sql["read"], params)
            return KeyState(rows[0][0] if rows else None).data
        if state is None:
            table.execute(sql["remove"], params)
            return {}
        text = encode(checked(state))
        table.execute(sql["write"], {**params, "state": text})
        return KeyState(text).data
