"""Handling each job in one transaction: `Queue.item` and `Queue.items`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import Any, TypeVar

from .._jobs.lease import LeasedJob
from .._logs import queue_log as logger
from .._times import Delay, wait_of
from .._wait import wait_for
from ..errors import LoopLeft, PQError
from .base import QueueBase
from .claim import Claim

#: No other session sees this lease: the transaction that begins it also ends it, or is rolled back.
LEASE = timedelta(hours=1)

SAVEPOINT = "savepoint pq_item"


J = TypeVar("J", bound=LeasedJob)


def delivered_as(kind: type[J], job: LeasedJob) -> J:
    """Return a job of another class for the same delivery."""
    columns = (job.id, job.data, job.size, job.enqueued_at, job.schedule_at, job.expected_at, job.key, job._headers)
    delivery: dict[str, Any] = {name: getattr(job, name) for name in ("attempts", "expiries", "dequeued_at")}
    return kind(job.queue, *columns, **delivery, lease=job.lease, policy=job.policy)


class ItemJob(LeasedJob):
    """A job whose transaction ends together with it."""

    __slots__ = ()

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> bool:
        """End the job as `LeasedJob` does; on an exception, first undo what the transaction has done since it began."""
        if error is None and self.settled is None:
            return False  # the block has settled the job
        if error is not None:
            try:
                self.queue._db.execute(f"rollback to {SAVEPOINT}")
            except Exception:  # raise the application's error, not this one
                logger.exception("could not undo what was done with job %s in queue %r", self.id, self.queue.name)
                return False
            self.settled = False
        return super().__exit__(kind, error, traceback)


class ItemBlock:
    """A context manager for the transaction around the next job of a queue; its value is the job, or None.

    :param timeout: how long to wait for a job, as ``'5s'``, a timedelta or seconds; None means the queue's `timeout`.
    """

    def __init__(self, queue: Items, timeout: Delay | None) -> None:
        self._queue = queue
        self._wait = wait_of(queue.timeout if timeout is None else timeout)
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
        try:
            return self.job is not None and self._end(error)
        except BaseException as problem:  # perhaps an interrupt: what has ended is not ended again
            self._leave(problem)
            raise

    def _begin(self, timeout: float) -> bool:
        """Take the next job; if there is none, leave no transaction open."""
        self._is_outermost = not self._queue._db.in_transaction
        try:
            self._take(timeout)
        except self._queue._db.driver.Error as error:
            if not self._is_outermost or not self._queue._db.driver.is_unsupported(error):
                raise
            self._take(timeout, "set transaction isolation level read committed")  # the default is another one
        return self.job is not None

    def _take(self, timeout: float, first: str | None = None) -> None:
        self._block = self._queue._transaction()
        try:
            cursor = self._block.__enter__()
            if first is not None:
                self._queue._db.execute(first)
            for job in self._queue._claims.take(self._queue, 1, timeout, LEASE):
                self._queue._db.execute(SAVEPOINT)
                item = delivered_as(ItemJob, job)
                item.cursor = cursor
                self.job = item
        except BaseException as error:
            self._leave(error)
            raise
        if self.job is None:
            self._leave(None)

    def _leave(self, error: BaseException | None) -> None:
        """End the transaction, if one is open."""
        if self._block is not None:
            self._block.end(error)

    def _end(self, error: BaseException | None) -> bool:
        """Settle the job by its outcome, and commit.

        :returns: True for `Retry` and `Discard`: swallow the exception.
        :raises BlockError: the block was entered in another context or order; the job is unchanged.
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
                except (self._queue._db.driver.Error, TypeError, ValueError) as failure:
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
            logger.exception("could not settle job %s in queue %r; it is unchanged", self.job.id, self._queue.name)
            known = False
        if late is not None:
            raise late
        return known

    def _settle(self, job: ItemJob, error: BaseException | None) -> bool:
        """Settle the job in the transaction; return what `_end` returns.

        :raises Error: an error of the driver for what the block has done: the block went on after a failed statement,
            or violated a deferred constraint. Or a TypeError or ValueError: it has put into `LeasedJob.key_state` what
            JSON does not have. Each attempt would raise it again, so the attempt must count.
        """
        known = job.__exit__(type(error), error, None)
        if job.settled is False:
            raise _Undone
        check = "set constraints all immediate; " if self._is_outermost else ""  # otherwise the application checks them
        self._queue._db.execute(f"{check}release {SAVEPOINT}")
        return known


class _Undone(Exception):
    """Rolls the transaction back."""


class Items(QueueBase):
    """Handles the jobs of a queue in one transaction each."""

    _claims: Claim

    def item(self, timeout: Delay | None = None) -> AbstractContextManager[LeasedJob | None]:
        """Return a context manager for one transaction around one job::

            with queue.item() as job:
                if job is not None:
                    job.cursor.execute(...)

        The end of the block finishes the job, and commits that together with all that the block has done with
        ``job.cursor`` or with this PQ. An exception, also one of a deferred constraint, undoes all of that. In the same
        transaction pq keeps the error and counts the attempt: the job is tried again after the pause of the queue's
        `retry_in` or, after `max_retries` retries, is dead. Then the exception goes on, unless it is `Retry` or
        `Discard`. If the program or the connection breaks, or on an exception that is not an `Exception`, such as
        Ctrl-C, the job is unchanged, and the attempt does not count.

        You can also end the job inside the block, by `LeasedJob.done` with a result, `LeasedJob.retry` and so on.

        The job's lease never expires, but a transaction that is open for long holds up VACUUM. In a transaction of
        yours, all of this is part of it: if that is rolled back, the job is unchanged.

        :param timeout: how long to wait for a job, outside of any transaction, as ``'5s'``, a timedelta or seconds; 0
            does not wait; None means the queue's `timeout`.
        :returns: a context manager, whose value is None if there was no job in time.
        :raises ValueError: the timeout is negative or NaN.
        :raises TypeError: the timeout is not a number.
        :raises CommitUnknown: the connection broke at the commit: the job is done, with its effects, or unchanged.

        A job that can't be decoded raises no error here: its attempt has failed, and the next job is taken.
        """
        return ItemBlock(self, timeout)

    def items(self, timeout: Delay | None = None) -> Iterator[LeasedJob | None]:
        """Iterate jobs without end, each in its own transaction; yield None whenever there was none in time::

            for job in queue.items():
                if job is not None:
                    with job:
                        job.cursor.execute(...)

        ``with job:`` ends the job as `item` does, and the transaction is committed when the loop goes on or is left.
        Without it, the job is done when the loop goes on. An iterator can't see why its loop was left, by an exception
        or by ``break``: the work is then undone, and the attempt has failed, with the error `LoopLeft`.

        After an exception, if a variable refers to the iterator, and on PyPy, Python may close the iterator late; the
        transaction is open until then. ``contextlib.closing`` closes it in time.

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
