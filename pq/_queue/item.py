"""Jobs that are handled in one transaction each."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import Any

from .._args import timeout_seconds
from .._jobs.lease import LeasedJob
from .._logs import queue_log as logger
from .._wait import wait_for
from ..errors import LoopLeft, PQError
from .base import QueueBase
from .claim import Claim

#: Nobody else sees this lease: the transaction that begins it ends it, or is rolled back.
LEASE = timedelta(hours=1)

SAVEPOINT = "savepoint pq_item"


class ItemJob(LeasedJob):
    """A job in a transaction that ends with it."""

    __slots__ = ()

    @classmethod
    def of(cls, job: LeasedJob, cursor: Any) -> ItemJob:
        columns = (job.id, job.data, job.size, job.enqueued_at, job.schedule_at, job.expected_at)
        held: dict[str, Any] = {name: getattr(job, name) for name in ("attempts", "expiries", "dequeued_at")}
        made = cls(job.queue, *columns, **held, lease=job.lease, policy=job.policy)
        made.cursor = cursor
        return made

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> bool:
        """As of any leased job; but on an exception what was done in the transaction since it began is undone first."""
        if error is None and self.settled is None:
            return False  # by the block itself
        if error is not None:
            try:
                self.queue._db.execute(f"rollback to {SAVEPOINT}")
            except Exception:  # the error that the application made is the one to tell of
                logger.exception("could not undo what was done with job %s in queue %r", self.id, self.queue.name)
                return False
            self.settled = False
        return super().__exit__(kind, error, traceback)


class ItemBlock:
    """The transaction around the next job of a queue: a context manager, whose value is the job, or None.

    :param timeout: seconds to wait for a job; None: the queue's.
    """

    def __init__(self, queue: Items, timeout: float | None) -> None:
        self._queue = queue
        self._wait = timeout_seconds(queue.timeout if timeout is None else timeout)
        self._block: Any = None
        self._is_outermost = True
        self.job: ItemJob | None = None

    def __enter__(self) -> ItemJob | None:
        deadline = time.monotonic() + self._wait
        try:
            if not self._begin(self._wait) and self._wait != 0:
                wait_for(
                    self._queue._table.waiter(self._queue.name),
                    deadline,
                    lambda name: self._begin(max(0.0, deadline - time.monotonic())) or None,
                )
            return self.job
        except BaseException as error:
            self._leave(error)
            raise

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> bool:
        return self.job is not None and self._end(error)

    def _begin(self, timeout: float) -> bool:
        """Take the next job, if there is one; else no transaction stays open."""
        self._is_outermost = not self._queue._db.in_transaction
        self._block = self._queue._transaction()
        try:
            cursor = self._block.__enter__()
            for job in self._queue._claims.take(self._queue, 1, timeout, LEASE):
                self._queue._db.execute(SAVEPOINT)
                self.job = ItemJob.of(job, cursor)
        except BaseException as error:
            self._leave(error)
            raise
        if self.job is None:
            self._leave(None)
        return self.job is not None

    def _leave(self, error: BaseException | None) -> None:
        """End the transaction, if one is open."""
        block, self._block = self._block, None
        if block is not None:
            block.end(error)

    def _end(self, error: BaseException | None) -> bool:
        """Settle the job by how it went, and commit.

        :returns: whether the error only says what is to become of the job, and goes no further.
        :raises BlockError: the block was entered somewhere else, or in another order; the job is as it was.
        """
        assert self.job is not None
        if self._block.mistake() is not None:
            self._leave(None)  # which rolls back, and raises it
        known = False
        late = None
        try:
            try:
                try:
                    known = self._settle(self.job, error)
                except self._queue._db.driver.Error as failure:
                    if error is not None or isinstance(failure, PQError):
                        raise
                    late = failure
                    self._settle(self.job, failure)
            except BaseException as problem:
                self._leave(problem)
                raise
            self._leave(None)
            if self._is_outermost:
                self.job.settled = True
        except _Undone:
            known = False
        except Exception:
            if error is None:
                raise
            logger.exception("could not settle job %s in queue %r; it is as it was", self.job.id, self._queue.name)
            known = False
        if late is not None:
            raise late
        return known

    def _settle(self, job: ItemJob, error: BaseException | None) -> bool:
        """
        :raises Error: the driver's, of what the block has done: it went on after a statement that had failed, or a
            deferred constraint is violated. It would be raised at each try, so it must count.
        """
        known = job.__exit__(type(error), error, None)
        if job.settled is False:
            raise _Undone
        check = "set constraints all immediate; " if self._is_outermost else ""  # else they are the application's
        self._queue._db.execute(f"{check}release {SAVEPOINT}")
        return known


class _Undone(Exception):
    """Roll back."""


class Items(QueueBase):
    """Handles the jobs of a queue in one transaction each."""

    _claims: Claim

    def item(self, timeout: float | None = None) -> AbstractContextManager[LeasedJob | None]:
        """One transaction around one job.

            with queue.item() as job:
                if job is not None:
                    job.cursor.execute(...)

        At the end of the block the job is done, and that is committed together with what else was done in the block
        with ``job.cursor``, or with this PQ by this thread. On an exception, also of a deferred constraint, all of that
        is undone; in the same transaction its error is kept, and it is tried again after the pause of the queue's
        `retry_in` or, after `max_retries` of them, dead. Then the exception goes on, unless it is `Retry` or `Discard`.
        If the program or the connection breaks, or on what is no `Exception`, such as Ctrl-C, the job is as it was, and
        the attempt does not count.

        The job can also be ended in the block, by `LeasedJob.done` with a result, `LeasedJob.retry` and so on.

        Its lease never expires; but a transaction that is open for long holds up VACUUM. In a transaction of yours, all
        of this is part of that: where it is rolled back, the job is as it was.

        :param timeout: seconds to wait for a job, outside of any transaction; 0 does not wait; None: the queue's.
        :returns: a context manager, whose value is None if there was no job in time.
        :raises ValueError: a negative timeout or NaN.
        :raises TypeError: a timeout that is no number.
        :raises CommitUnknown: the connection broke at the commit: the job may be done, with its effects, or as it was.
        :raises DecodeError: never: a job that can't be decoded has failed, and the next is taken.
        """
        return ItemBlock(self, timeout)

    def items(self, timeout: float | None = None) -> Iterator[LeasedJob | None]:
        """Iterate jobs, each in a transaction of its own, without end; None whenever there was none in time.

            for job in queue.items():
                if job is not None:
                    with job:
                        job.cursor.execute(...)

        ``with job:`` does what `item` does, and the transaction is committed when the loop goes on or is left. Without
        it, the job is done when the loop goes on. A loop cannot know why it is left before that, by an exception or by
        ``break``: then what was done is undone, and the attempt has failed, with the error `LoopLeft`.

        The loop may be left late, after an exception, where the iterator is kept in a variable, and on PyPy: the
        transaction is open until then. ``contextlib.closing`` ends it in time.

        :param timeout: as for `item`.
        """
        while True:
            try:
                with self.item(timeout) as job:
                    try:
                        yield job
                    except GeneratorExit:
                        if job is None or job.settled is None:
                            return
                        raise LoopLeft from None
            except LoopLeft:
                return
