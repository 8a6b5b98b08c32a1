"""What a delivery under a lease holds: a batch of the log, or the job of an event that was set aside."""

from __future__ import annotations

from collections.abc import Collection
from datetime import timedelta
from typing import Any, NamedTuple, Protocol

from .._db import Rows, Statement
from .._jobs import outcome
from .._jobs.failure import Failure
from .._jobs.lease import LeasedJob
from .._jobs.settlement import Settlement
from .._logs import queue_log as logger
from ..errors import BatchLost, LeaseLost
from ..retry import Policy
from .aside import Entry, parameters
from .log import Log
from .retries import retries_of

#: The pause before an event that stops its partition is tried again, at least; and where the policy gives up.
LEAST, MOST = timedelta(seconds=1), timedelta(minutes=1)


class Hold(Protocol):
    """What a `Batch` is ended by. Each method is one statement, on the connection `conn` if that is not None, and
    raises `BatchLost` if it is no longer held.

    :ivar attempts: the number of this delivery.
    """

    @property
    def attempts(self) -> int: ...
    def done(self, aside: Collection[Entry], conn: Any) -> None: ...
    def release(self, conn: Any) -> None: ...
    def extend(self, length: timedelta, conn: Any) -> None: ...
    def failed(self, error: BaseException | str, pause: timedelta | None, conn: Any) -> None: ...


class Owner(NamedTuple):
    """Whose events they are.

    :ivar policy: how often one that fails is tried again, and after what pause.
    :ivar stops: whether one that fails stops its partition, and is not set aside.
    """

    log: Log
    subscription: str
    policy: Policy
    stops: bool = False

    def lost(self, number: int, attempts: int) -> BatchLost:
        queue = retries_of(self.log.name, self.subscription)
        return BatchLost(
            number=number, subscription=self.subscription, job_id=None, queue=queue, attempt=attempts
        )


class BatchHold:
    """A row of the table of batches.

    :param delivery: which no other delivery of the batch shares.
    :param only: the id of its event, if it has one alone.
    """

    def __init__(self, owner: Owner, number: int, delivery: int, attempts: int, only: int | None) -> None:
        self.attempts = attempts
        self._owner = owner
        self._number = number
        self._delivery = delivery
        self._only = only

    def done(self, aside: Collection[Entry], conn: Any) -> None:
        if aside:
            queue = retries_of(self._owner.log.name, self._owner.subscription)
            self._run("done_and_aside", conn, **parameters(queue, aside))
        else:
            self._run("done", conn)

    def release(self, conn: Any) -> None:
        self._run("release", conn)

    def extend(self, length: timedelta, conn: Any) -> None:
        self._run("extend", conn, lease=length.total_seconds())

    def failed(self, error: BaseException | str, pause: timedelta | None, conn: Any) -> None:
        """Have it delivered again: several events at once, by halves; one event after a pause, and not more often than
        its policy says: then it is a dead job."""
        if pause is None and self._only is not None:
            pause = _pause(self._owner.policy, self.attempts, error)
            if self._owner.stops:
                pause = MOST if pause is None else max(pause, LEAST)
            elif pause is None:
                self.done([Entry(self._only, self.attempts, None, error)], conn)
                return
        seconds = 0.0 if pause is None else pause.total_seconds()
        self._run("failed", conn, pause=seconds, error=Failure.of(error).dumps())

    def statement(self, name: str, **params: Any) -> Statement:
        """Return one of the statements of a batch, for `check` to see what it returns."""
        log = self._owner.log
        sql = log._table.statements("stream_take.sql", log.name)[name]
        return sql, {"number": self._number, "delivery": self._delivery, **params}

    def check(self, rows: Rows) -> None:
        """
        :raises BatchLost: the statement has found that this delivery no longer holds the batch.
        """
        if not rows:
            raise self._owner.lost(self._number, self.attempts)

    def _run(self, name: str, conn: Any, **params: Any) -> None:
        table = self._owner.log._table
        self.check((table if conn is None else table.bind(conn)).execute(*self.statement(name, **params)))


class JobHold:
    """The job of an event that was set aside."""

    def __init__(self, owner: Owner, job: LeasedJob) -> None:
        self.attempts = job.attempts
        self._owner = owner
        self._job = job

    def done(self, aside: Collection[Entry], conn: Any) -> None:
        settlement = outcome.done(self._job)
        for entry in aside:
            if entry.pause is None:
                settlement = outcome.dead(self._job, entry.error or "")
            else:
                settlement = outcome.retried(self._job, entry.pause, entry.error)
        self._settle(settlement, conn)

    def release(self, conn: Any) -> None:
        self._settle(Settlement(self._job, "released"), conn)

    def extend(self, length: timedelta, conn: Any) -> None:
        try:
            self._job.extend(length, conn=conn)
        except LeaseLost as error:
            raise self._owner.lost(self._job.id, self.attempts) from error

    def failed(self, error: BaseException | str, pause: timedelta | None, conn: Any) -> None:
        if pause is not None:
            settlement = outcome.retried(self._job, pause, error)
        else:
            settlement = outcome.failed(self._job, error if isinstance(error, BaseException) else Exception(error))
        self._settle(settlement, conn)

    def _settle(self, settlement: Settlement, conn: Any) -> None:
        try:
            self._job.settle(settlement, conn)
        except LeaseLost as error:
            raise self._owner.lost(self._job.id, self.attempts) from error


def _pause(policy: Policy, attempt: int, error: BaseException | str) -> timedelta | None:
    try:
        return policy.pause(attempt, error if isinstance(error, BaseException) else Exception(error))
    except Exception:  # of the application's function
        logger.exception("the retry policy of a subscription failed")
        return None
