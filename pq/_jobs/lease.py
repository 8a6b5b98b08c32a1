"""A job that is running under a lease, and the ways in which that ends."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NoReturn

from .._logs import queue_log as logger
from .._text import attribute, is_a
from .._times import Delay, delay_of
from .._traceback import cause_of
from ..errors import Discard, LeaseLost, Retry, TaskNotFound
from ..retry import Policy
from .failure import Failure
from .job import Job
from .settlement import Settlement, note_cancelled, settle

if TYPE_CHECKING:
    from typing_extensions import Self

#: The pause after an attempt whose task this process does not know: another version of the program may be on its way.
DEPLOYMENT = timedelta(seconds=30)


class LeasedJob(Job):
    """A job as ``Queue.get(lease=…)`` returns it: running, and invisible to others until the lease expires.

    It ends by one of `done`, `retry`, `fail` and `release`; or ``with job:`` chooses one by what happens inside. Each
    is one statement, which takes effect only while the lease is held: also after its time, until the job is made ready
    for another delivery. Inside ``with queue as cursor`` it is part of that transaction, and with ``conn=`` of the one
    that is open there: see `PQ.using`.

    :param job: the arguments of `Job`.
    :ivar attempts: which delivery of the job this is: 1, 2, …
    :ivar expiries: how often in a row its lease has expired before.
    :ivar dequeued_at: when this delivery began; an aware datetime.
    :ivar lease: how long it was leased for.
    :ivar policy: how often it is tried again, and after what pause.
    :ivar cursor: in a transactional task, and in `Queue.item`: a cursor of the transaction; else None.
    :ivar cancelled: whether it is known that somebody has cancelled it: if a worker runs it, from its next heartbeat
        on; else when `extend`, `progress` or an end of it has raised `LeaseLost`.
    :ivar settled: whether it has ended; None: in a transaction, of which nobody knows yet how it ends.
    """

    __slots__ = ("attempts", "cancelled", "cursor", "dequeued_at", "expiries", "lease", "policy", "settled")

    def __init__(
        self, *job: Any, attempts: int, expiries: int, dequeued_at: datetime, lease: timedelta, policy: Policy
    ) -> None:
        super().__init__(*job)
        self.attempts: int = attempts
        self.expiries: int = expiries
        self.lease: timedelta = lease
        self.cursor: Any = None
        self.dequeued_at: datetime = dequeued_at
        self.policy: Policy = policy
        self.settled: bool | None = False
        self.cancelled: bool = False

    @property
    def queue(self) -> Any:
        """The `Queue` that the job is in."""
        return self._queue

    # -- the ways in which it ends

    def done(self, result: Any = None, *, conn: Any = None) -> None:
        """It is finished.

        :param result: kept in the row, as the queue encodes data; `Queue.result` reads it.
        :param conn: end it in the transaction that is open there. As for all that follow here.
        :raises LeaseLost: the job is not ours any more; nothing was changed. As for all that follow.
        """
        self.settle(self.success(result), conn)

    def retry(self, in_: Delay | None = None, error: BaseException | str | None = None, *, conn: Any = None) -> None:
        """It is to be tried again.

        :param in_: after this time, as ``'30s'`` or a timedelta; None: the pause of the retry policy for this attempt,
            however many retries it allows; at once if a function chooses it, which would need an error.
        :param error: why; kept in the row.
        :raises TypeError: `in_` of another type.
        :raises ValueError: `in_` of another form or out of range.
        """
        self.settle(self.again(in_, error), conn)

    def fail(self, error: BaseException | str, *, conn: Any = None) -> None:
        """It is dead at once, with this error; see `Queue.dead`."""
        self.settle(Settlement(self, "dead", error=self._failure(error)), conn)

    def release(self, *, conn: Any = None) -> None:
        """It is ready again, as if it had not been delivered: the attempt does not count."""
        self.settle(Settlement(self, "released"), conn)

    def failed(self, error: BaseException, *, conn: Any = None) -> str:
        """An attempt has ended with this exception: end it as that says, or as the retry policy does.

        :returns: what was done: ``'retry'`` or ``'dead'``.
        """
        settlement = self.failure(error)
        self.settle(settlement, conn)
        return settlement.outcome

    # -- the same, to be settled later

    def success(self, result: Any = None) -> Settlement:
        """As `done`."""
        return Settlement(self, "done", result=self._queue._encoded(result))

    def failure(self, error: BaseException) -> Settlement:
        """As `failed`."""
        # subclasses of the application's may lack these attributes, or have properties of their names
        if is_a(error, Retry):
            try:
                return self.again(attribute(error, "in_"), cause_of(error))
            except Exception as bad:
                error = bad
        if is_a(error, Discard):
            return Settlement(self, "dead", error=self._failure(attribute(error, "reason") or error))
        pause = self._pause(error)
        if is_a(error, TaskNotFound) and attribute(error, "waits") is True:
            longer = max(pause or DEPLOYMENT, DEPLOYMENT)
            if self._failed_lately():
                return Settlement(self, "retry", longer, self._failure(error), counts=False)
            pause = None if pause is None else longer
        if pause is None:
            return Settlement(self, "dead", error=self._failure(error))
        return Settlement(self, "retry", pause or None, self._failure(error))

    def again(self, in_: Delay | None, error: BaseException | str | None) -> Settlement:
        """As `retry`."""
        pause = self.policy.usual(self.attempts) if in_ is None else delay_of("in_", in_)
        return Settlement(self, "retry", pause or None, None if error is None else self._failure(error))

    def settle(self, settlement: Settlement, conn: Any = None) -> None:
        """End it like this."""
        if settle([settlement], queue=self._queue if conn is None else self._queue._bind(conn)):
            self._lost()

    # -- while it runs

    def extend(self, by: Delay | None = None, *, conn: Any = None) -> None:
        """Hold the lease from now on for this long; None: for as long as it was at first."""
        lease = self.lease if by is None else delay_of("by", by)
        self._change("extend", conn, lease=lease.total_seconds())

    def progress(self, data: Any, *, conn: Any = None) -> None:
        """Keep something in the row that tells how far it is, until it is done; `Queue.result` reads it."""
        self._change("progress", conn, result=self._queue._encoded(data))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> bool:
        """Done; or on an exception: retried, or dead, as `failed`; it goes on, unless it is `Retry` or `Discard`.

        What is no `Exception`, such as `KeyboardInterrupt`, releases the job.
        """
        if error is None:
            if self._is_unsettled():
                self.done()
            return False
        if is_a(error, LeaseLost):
            return False
        try:
            if not self._is_unsettled():
                return False
            if is_a(error, Exception):
                self.failed(error)
            else:
                self.release()
        except Exception:  # the error that the application made is the one to tell of
            logger.exception("could not settle job %s in queue %r; its lease will expire", self.id, self._queue.name)
            return False
        return is_a(error, (Retry, Discard))

    # -- inside

    def _write(self, text: str) -> None:
        """Replace the data of the row, unless the lease is lost: the job may be somebody else's."""
        self._change("write", None, data=text)

    def _is_unsettled(self) -> bool:
        """After a settlement in a transaction that depends on how that has ended. While it is open it has the row
        locked: if it is the application's, we would wait for it for ever."""
        return not self.settled and (self.settled is False or self._execute("free", self._queue))

    def _pause(self, error: BaseException) -> timedelta | None:
        try:
            return self.policy.pause(self.attempts, error)
        except KeyboardInterrupt:
            raise
        except BaseException:
            logger.exception("the retry policy of queue %r failed; job %s is dead", self._queue.name, self.id)
            return None

    def _failed_lately(self) -> bool:
        """Whether the job failed for the first time less than an hour ago, by the server's clock, or not at all yet."""
        try:
            return self._execute("failed_lately", self._queue)
        except Exception:  # then it is settled later, and must not be given up for this
            return True

    def _failure(self, error: BaseException | str) -> str:
        return Failure.of(error, self._queue.keep_traceback).dumps()

    def _change(self, statement: str, conn: Any, **params: Any) -> None:
        queue = self._queue if conn is None else self._queue._bind(conn)
        if not self._execute(statement, queue, **params):
            note_cancelled([self], queue)
            self._lost()

    def _execute(self, statement: str, queue: Any, **params: Any) -> bool:
        held: dict[str, Any] = {"id": self.id, "attempts": self.attempts, "dequeued_at": self.dequeued_at}
        return bool(queue._run(queue._statements("lease.sql")[statement], **held, **params))

    def _lost(self) -> NoReturn:
        raise LeaseLost(job_id=self.id, queue=self._queue.name, attempt=self.attempts)
