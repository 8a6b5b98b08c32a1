"""Settlements: how deliveries under a lease end, many of them by one statement."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any, NamedTuple, Protocol

from .._table import Table
from ..errors import LeasesLost, PQError
from ..sql import array

#: The largest number of deliveries that one statement settles.
MOST = 1000


class Delivery(Protocol):
    """One delivery of a job under a lease: a `LeasedJob`."""

    id: int
    attempts: int
    dequeued_at: datetime
    lease: timedelta
    settled: bool | None
    cancelled: bool

    @property
    def queue(self) -> Any: ...
    def _as_done(self, result: Any = None) -> Settlement: ...
    def _as_failed(self, error: BaseException) -> Settlement: ...


class Settlement(NamedTuple):
    """The end of one delivery.

    :ivar outcome: ``'done'``, ``'retry'``, ``'dead'``, ``'released'``, or ``'broken'``: tried again, and counted like a
        lease that has expired.
    :ivar delay: the pause of a retry; None: no pause.
    :ivar error: a `Failure` in the form that the table keeps.
    :ivar result: the result as JSON.
    :ivar counts: whether a retry counts as an attempt.
    """

    job: Delivery
    outcome: str
    delay: timedelta | None = None
    error: str | None = None
    result: str | None = None
    counts: bool = True


def settle(settlements: Sequence[Settlement], lock_timeout: float | None = None, queue: Any = None) -> list[Delivery]:
    """Settle deliveries of queues of one table, each only if it is still held.

    :param lock_timeout: seconds, as for `Database.execute`. A statement whose lock timed out has no effect.
    :param queue: the queue of that table whose connection to use; default: that of the first job.
    :returns: the jobs that are no longer held.
    """
    lost: list[Delivery] = []
    for start in range(0, len(settlements), MOST):
        part = settlements[start : start + MOST]
        lost += _settle(part[0].job.queue if queue is None else queue, part, lock_timeout)
    return lost


def settle_all(table: Table, outcomes: Iterable[tuple[Delivery, BaseException | None]], conn: Any) -> None:
    """Settle jobs by outcome: None means done, an exception means failed.

    :param conn: settle them in the transaction that is open there, as for `Database.using`.
    :raises LeasesLost: some jobs are no longer held.
    :raises TypeError: a job was not taken under a lease.
    :raises ValueError: a job occurs twice, or is in a table of another PQ, or on another connection.
    """
    outcomes = list(outcomes)
    for job, error in outcomes:
        if not hasattr(job, "_as_done"):
            raise TypeError(f"only jobs taken under a lease can be settled, not {type(job).__name__}")
        if error is not None and not isinstance(error, BaseException):
            raise TypeError(f"the outcome of a job must be None (done) or an exception, not {error!r}")
    given = [job._as_done() if error is None else job._as_failed(error) for job, error in outcomes]
    if len({settlement.job for settlement in given}) < len(given):
        raise ValueError("a job can be settled only once")
    if any(not job.queue._table.is_same(table) for job, *_ in given):
        raise ValueError("a job of another PQ can't be settled here")  # nor in `conn`, which the other PQ does not know
    if not given:
        return
    target = table if conn is None else table.bind(conn)
    queue = given[0].job.queue
    lost = settle(given, queue=queue if queue._table is target else queue._on(target))
    if lost:
        first = lost[0]
        ids = [job.id for job in lost]
        raise LeasesLost(job_id=first.id, queue=first.queue.name, attempt=first.attempts, count=len(lost), job_ids=ids)


def _settle(queue: Any, given: Sequence[Settlement], lock_timeout: float | None) -> list[Delivery]:
    sql = queue._statements("lease.sql")
    rows = queue._run(
        sql["settle_and_remove" if queue._table.retention().deletes_on_completion else "settle"],
        prepare=True,
        lock_timeout=lock_timeout,
        **held([settlement.job for settlement in given]),
        outcomes=array(settlement.outcome if settlement.counts else "released" for settlement in given),
        delays=array(None if settlement.delay is None else settlement.delay.total_seconds() for settlement in given),
        errors=array(settlement.error for settlement in given),
        results=array(settlement.result for settlement in given),
    )
    settled = {number - 1 for number, _ in rows}
    open = queue._db.in_transaction
    for number in settled:
        given[number].job.settled = None if open else True
    lost = [settlement.job for number, settlement in enumerate(given) if number not in settled]
    note_cancelled(lost, queue)
    return lost


def note_cancelled(lost: Sequence[Delivery], queue: Any) -> None:
    """Set `cancelled` of the lost jobs.

    An error here is ignored: the deliveries are lost in any case, and the caller must learn that.

    :param queue: as for `settle`.
    """
    if not lost:
        return
    with suppress(PQError, queue._db.driver.Error):
        rows = queue._run(queue._statements("lease.sql")["cancelled"], ids=array(job.id for job in lost))
        found = {id for (id,) in rows}
        for job in lost:
            job.cancelled = job.id in found


def extend(queue: Any, jobs: Sequence[Delivery], exact: Sequence[bool]) -> set[int]:
    """Extend the leases of deliveries, each by its `lease` from now on; return the ids of those that are still held.

    :param queue: as for `settle`.
    :param exact: for each job, whether its lease may also become shorter than it is in the row.
    """
    leases = array(job.lease.total_seconds() for job in jobs)
    sql = queue._statements("lease.sql")["extend_all"]
    return {id for (id,) in queue._run(sql, **held(jobs), leases=leases, exact=array(exact))}


def locked(queue: Any, jobs: Sequence[Delivery], lock_timeout: float) -> set[int]:
    """Return the ids of the deliveries that are held, in rows that another transaction has locked.

    :param queue: as for `settle`.
    :param lock_timeout: seconds, for a lock of the whole table.
    """
    sql = queue._statements("lease.sql")["locked"]
    return {id for (id,) in queue._run(sql, **held(jobs), leases="{}", exact="{}", lock_timeout=lock_timeout)}


def serves(queue: Any, lock_timeout: float) -> None:
    """Check that the database would accept a settlement, without settling anything.

    :param queue: as for `settle`.
    :param lock_timeout: seconds, for a lock of the whole table.
    """
    queue._run(queue._statements("lease.sql")["serves"], lock_timeout=lock_timeout)


def held(jobs: Sequence[Delivery]) -> dict[str, Any]:
    """Return the parameters that identify deliveries."""
    return {
        "ids": array(job.id for job in jobs),
        "attempts": array(job.attempts for job in jobs),
        "dequeued_at": array(job.dequeued_at for job in jobs),
    }
