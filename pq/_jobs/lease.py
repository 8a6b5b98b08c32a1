"""The class `LeasedJob`: a job that runs under a lease, and the ways to end it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sized
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from .._args import check_error, integer
from .._db import Rows
from .._logs import queue_log as logger
from .._table import Table
from .._table.rows import QueueRows
from .._text import is_a
from .._times import Delay, delay_of
from ..errors import BatchLost, Discard, LeaseLost, Retry
from ..retry import Policy
from . import outcome
from .job import Job
from .key_state import KeyState, check_alone, check_key, checked
from .settlement import Settlement, about, applies, note_cancelled, settle
from .steps import Steps, call, check
from .track import tracked

if TYPE_CHECKING:
    from typing_extensions import Self

T = TypeVar("T")


class LeasedJob(Job):
    """A job as ``Queue.get(lease=…)`` returns it. No other consumer gets the job until the lease expires.

    End the job by `done`, `retry`, `fail` or `release`, or let ``with job:`` choose. Each call is one statement, which
    takes effect only while this delivery holds the job. An expired lease is still held until the job is delivered
    again. Inside ``with queue as cursor`` the call is part of that transaction; with ``conn=`` it is part of the
    transaction that is open there, see `PQ.using`.

    :param job: the arguments of `Job`.
    :ivar attempts: the number of this delivery: 1, 2, …
    :ivar expiries: how many leases of the job in a row have expired before this one.
    :ivar dequeued_at: when this delivery began, as an aware datetime.
    :ivar lease: the length of the lease.
    :ivar policy: how often the job is tried again, and after what pause.
    :ivar cursor: in a transactional task, and in `Queue.item`, a cursor of the transaction; otherwise None.
    :ivar cancelled: whether the job is known to be cancelled. A worker notices that at its next heartbeat; without a
        worker it is known when `extend`, `progress` or a call that ends the job has raised `LeaseLost`.
    :ivar settled: whether the job has ended; None if it has ended in a transaction that may still be open.
    """

    __slots__ = (
        "_key_state", "_steps", "attempts", "cancelled", "cursor", "dequeued_at", "expiries", "lease", "policy",
        "settled",
    )  # fmt: skip

    def __init__(
        self, queue: QueueRows, id: int, data: Any, size: int, enqueued_at: datetime, schedule_at: datetime | None,
        expected_at: datetime | None, key: str | None, headers: str | None, attempts: int, expiries: int,
        dequeued_at: datetime, lease: timedelta, policy: Policy,
    ) -> None:  # fmt: skip
        # not by Job.__init__: another call would cost each job of a worker 3 % of its time
        self._queue, self._data, self._size, self._headers = queue, data, size, headers
        self.id: int = id
        self.enqueued_at: datetime = enqueued_at
        self.schedule_at: datetime | None = schedule_at
        self.expected_at: datetime | None = expected_at
        self.key: str | None = key
        self.attempts: int = attempts
        self.expiries: int = expiries
        self.dequeued_at: datetime = dequeued_at
        self.lease: timedelta = lease
        self.policy: Policy = policy
        self.cursor: Any = None
        self.settled: bool | None = False
        self.cancelled: bool = False
        self._steps: Steps | None = None
        self._key_state: KeyState | None = None

    def done(self, result: Any = None, *, conn: Any = None) -> None:
        """Finish the job.

        :param result: a result to keep in the row, encoded like data; `Queue.result` reads it.
        :param conn: end the job in the transaction that is open there: a connection, cursor or session.
        :raises LeaseLost: this delivery no longer holds the job; nothing was changed.
        """
        self.settle(outcome.done(self, result), conn)

    def retry(self, in_: Delay | None = None, error: BaseException | str | None = None, *, conn: Any = None) -> None:
        """Try the job again, however many retries the policy allows.

        :param in_: the pause, as ``'30s'``, a timedelta or seconds. None means the pause of the retry policy for this
            attempt, and no pause if a function chooses it, because that would need an error.
        :param error: the reason, to keep in the row.
        :param conn: as for `done`.
        :raises LeaseLost: as for `done`.
        :raises TypeError: `in_` has another type.
        :raises ValueError: `in_` has another form or is out of range.
        """
        self.settle(outcome.retried(self, in_, error), conn)

    def fail(self, error: BaseException | str, *, conn: Any = None) -> None:
        """Give the job up: it is dead at once, with this error; see `Queue.dead`.

        :param error: an exception, or a reason in words.
        :param conn: as for `done`.
        :raises LeaseLost: as for `done`.
        :raises TypeError: the error is something else.
        """
        check_error(error)
        self.settle(outcome.dead(self, error), conn)

    def release(self, *, conn: Any = None) -> None:
        """Make the job ready again as if it had not been delivered: the attempt does not count.

        :param conn: as for `done`.
        :raises LeaseLost: as for `done`.
        """
        self.settle(Settlement(self, "released"), conn)

    def settle(self, settlement: Settlement, conn: Any = None) -> None:
        """Execute a settlement of this job.

        :raises LeaseLost: this delivery no longer holds the job.
        """
        if settle([settlement], table=self._table(conn)):
            self._lost()

    # -- while it runs

    def extend(self, by: Delay | None = None, *, conn: Any = None) -> None:
        """Let the lease end this much later than now, also where more time is left.

        :param by: as ``'5m'``, a timedelta or seconds; None: the length that the lease had at first.
        :param conn: as for `done`.
        :raises LeaseLost: as for `done`.
        :raises TypeError: `by` has another type.
        :raises ValueError: `by` has another form, is negative or out of range.
        """
        lease = self.lease if by is None else delay_of("by", by)
        self._change("extend", conn, lease=lease.total_seconds())

    def progress(self, data: Any, text: str | None = None, *, conn: Any = None) -> None:
        """Keep data in the row that tells others how far the job is, until it ends; `Queue.progress` reads it.

        ``pq show --follow`` draws a bar for a number from 0 to 1, and for an object with such a number as ``done``.

        :param data: encoded like the data of jobs.
        :param text: words about it: ``progress(0.3, "peeled")`` keeps ``{"done": 0.3, "text": "peeled"}``.
        :param conn: as for `done`.
        :raises LeaseLost: as for `done`.
        """
        kept = data if text is None else {"done": data, "text": text}
        self._change("progress", conn, result=self._queue._encoded(kept))

    def track(self, items: Iterable[T], total: int | None = None) -> Iterator[T]:
        """Return an iterator over the items that notes, as `progress` does and at most once a second, how far it is::

            for row in current().track(rows):
                ...

        It keeps ``{"done": 0.25, "text": "50 of 200"}``, or the text alone if nobody knows how many items there are. In
        a transaction, where nobody else could see it, it keeps nothing. While the database is away, the loop goes on.

        :param total: the number of items; default: their ``len()``, if they have one.
        :raises LeaseLost: while iterating: this delivery no longer holds the job. So the loop of a job that was
            cancelled ends.
        :raises TypeError: `items` is not iterable; `total` is not an int.
        :raises ValueError: `total` is negative.
        """
        if total is None:
            total = len(items) if isinstance(items, Sized) else None
        return tracked(iter(items), None if total is None else integer("total", total), self._tell)

    def _tell(self, progress: dict[str, Any]) -> None:
        if self._table().database.in_transaction:
            return
        try:
            self.progress(progress)
        except LeaseLost:
            raise
        except Exception as error:  # of pq or the application's pool: the loop matters more
            logger.warning("the progress of job %s was not noted (%s)", self.id, type(error).__name__)

    def step(self, name: str, function: Callable[[], Any], *, conn: Any = None) -> Any:
        """Return what a step has returned in an earlier delivery of the job; if there is nothing, call the function,
        keep what it returns in the row, and return that::

            charge = job.step("charge", lambda: payments.charge(order))
            job.step("mail", lambda: mails.send(order, charge))

        So a delivery after a failure or a crash does not repeat the steps that are done. In a transaction, such as a
        transactional task, a step is kept together with what the function has written there, or neither is. Outside of
        one the function is called once more if the program ends between its end and the statement that keeps it.

        Steps stay in the row, whatever becomes of the job: a dead job that is retried goes on behind them, too. A step
        that raises an exception keeps nothing, and may be called again.

        :param name: of the step. A delivery can call each name once, and a job can have 1,000 steps.
        :param function: called without arguments. What it returns is encoded like the data of jobs, and comes back
            decoded, the first time as well. All results of a job together can have 1 MB.
        :param conn: as for `done`.
        :raises LeaseLost: as for `done`; nothing was kept.
        :raises TypeError: the name is not a str; the function can't be called, or is async; its result can't be
            encoded.
        :raises ValueError: the name is empty, or was used before in this delivery; there are too many steps, or they
            are too long.
        """
        check(name, function)
        if self._steps is None:
            ((kept,),) = self._change("steps", conn)
            self._steps = self._steps or Steps(kept)
        with self._steps.called(name) as text:
            if text is None:
                text = self._queue._encoded(call(name, function)) or "null"
                self._steps.add(name, text, lambda entry: self._change("add_step", conn, entry=entry))
            return None if text == "null" else self._queue._decoded(self.id, text)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> bool:
        """End the job as `done` does, or on an exception as the retry policy says.

        The exception goes on, unless it is `Retry` or `Discard`. One that is not an `Exception`, such as
        `KeyboardInterrupt`, releases the job.
        """
        if error is None:
            if self._is_unsettled():
                self.done()
            return False
        if is_a(error, LeaseLost) and not is_a(error, BatchLost):
            return False
        try:
            if not self._is_unsettled():
                return False
            if is_a(error, Exception):
                self.settle(outcome.failed(self, error))
            else:
                self.release()
        except Exception:  # raise the application's error, not this one
            logger.exception("could not settle job %s in queue %r; its lease will expire", self.id, self._queue.name)
            return False
        return is_a(error, (Retry, Discard))

    @property
    def key_state(self) -> dict[str, Any]:
        """The state that the jobs of its key hand on: a dict that you change, or another one that you assign.

        It is read at the first access, empty at first, and saved by the statement that settles the job as done, if it
        has changed; by `Retry` and `Discard` if these say ``save_state=True``. A delivery that has lost its lease saves
        nothing. `PQ.key_state` reads and deletes it from outside.

        :raises TypeError: the job has no key; the limit of its queue lets several jobs of a key run at once; what is
            assigned is not a dict. JSON does not have something in it: then `done` raises this.
        :raises LeaseLost: at the first access, as for `done`.
        """
        return self._read_key_state().data

    @key_state.setter
    def key_state(self, state: dict[str, Any]) -> None:
        self._read_key_state().data = checked(state)

    def _read_key_state(self) -> KeyState:
        if self._key_state is None:
            check_key(self.id, self.key)
            ((kept, is_shared),) = self._change("key_state", None)
            check_alone(self.id, is_shared)
            self._key_state = KeyState(kept)
        return self._key_state

    def _write(self, text: str) -> None:
        """Replace the data of the row.

        :raises LeaseLost: this delivery no longer holds the job: another one may.
        """
        self._change("write_ended" if self.settled else "write", None, data=text)

    def _is_unsettled(self) -> bool:
        """Whether the job still has to be settled.

        After a settlement in a transaction the row says whether that was committed. An open transaction has the row
        locked, and this thread may be the one to commit it: so this never waits.
        """
        return not self.settled and (self.settled is False or applies("free", self, self._table()))

    def _table(self, conn: Any = None) -> Table:
        table: Table = self._queue._table
        return table if conn is None else table.bind(conn)

    def _change(self, statement: str, conn: Any, **params: Any) -> Rows:
        rows = about(statement, self, table := self._table(conn), **params)
        if not rows:
            note_cancelled([self], table)
            self._lost()
        return rows

    def _lost(self) -> NoReturn:
        raise LeaseLost(job_id=self.id, queue=self._queue.name, attempt=self.attempts)
