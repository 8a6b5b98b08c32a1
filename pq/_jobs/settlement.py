"""Settlements: how deliveries under a lease end, many of them by one statement."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any, NamedTuple, Protocol

from .._db import Rows
from .._table import Table
from ..errors import PQError
from ..retry import Policy
from ..sql import array, numbers
from .key_state import KeyState

#: The largest number of deliveries that one statement settles.
MAX_DELIVERIES = 1000


class Delivery(Protocol):
    """One delivery of a job under a lease: a `LeasedJob`."""

    id: int
    attempts: int
    dequeued_at: datetime
    lease: timedelta
    settled: bool | None
    cancelled: bool
    policy: Policy
    _key_state: KeyState | None

    @property
    def queue(self) -> Any: ...


class Settlement(NamedTuple):
    """The end of one delivery.

    :ivar outcome: ``'done'``, ``'retry'``, ``'dead'``, ``'released'``, or ``'broken'``: tried again, and counted like a
        lease that has expired.
    :ivar delay: the pause of a retry; None: no pause.
    :ivar error: a `Failure` in the form that the table keeps.
    :ivar result: the result as JSON.
    :ivar counts: whether a retry counts as an attempt.
    :ivar key_state: the state of its key as JSON; None: it is not to be saved.
    """

    job: Delivery
    outcome: str
    delay: timedelta | None = None
    error: str | None = None
    result: str | None = None
    counts: bool = True
    key_state: str | None = None

    @property
    def size(self) -> int:
        """The characters that it writes."""
        return len(self.result or "") + len(self.error or "") + len(self.key_state or "")


def settle(
    settlements: Sequence[Settlement], lock_timeout: float | None = None, table: Table | None = None
) -> list[Delivery]:
    """Settle deliveries of queues of one table, each only if it is still held.

    :param lock_timeout: seconds, as for `Database.execute`. A statement whose lock timed out has no effect.
    :param table: that table, on the connection to use; default: as the queue of the first job has it.
    :returns: the jobs that are no longer held.
    """
    lost: list[Delivery] = []
    for start in range(0, len(settlements), MAX_DELIVERIES):
        part = settlements[start : start + MAX_DELIVERIES]
        lost += _settle(part[0].job.queue._table if table is None else table, part, lock_timeout)
    return lost


def _settle(table: Table, given: Sequence[Settlement], lock_timeout: float | None) -> list[Delivery]:
    removes = table.retention().deletes_on_completion
    given = _settle_done(table, given, removes, lock_timeout)
    if not given:
        return []
    saves = any(settlement.key_state is not None for settlement in given)
    instead = {"no_key": "with_key", "no_states": "states"} if saves else {}
    if saves and removes:
        instead["ended"] = "ended_or_removed"
    sql = table.statements("lease.sql", **instead)["settle_and_remove" if removes else "settle"]
    params = {
        **identity([settlement.job for settlement in given]),
        "outcomes": array(settlement.outcome if settlement.counts else "released" for settlement in given),
        "delays": array(None if settlement.delay is None else settlement.delay.total_seconds() for settlement in given),
        "errors": array(settlement.error for settlement in given),
        "results": array(settlement.result for settlement in given),
    }
    if saves:
        params["states"] = array(settlement.key_state for settlement in given)
    rows = table.execute(sql, params, prepare=True, lock_timeout=lock_timeout)
    settled = {number - 1 for number, _ in rows}
    open = table.database.in_transaction
    for number in settled:
        given[number].job.settled = None if open else True
    lost = [settlement.job for number, settlement in enumerate(given) if number not in settled]
    note_cancelled(lost, table)
    return lost


def _settle_done(
    table: Table, given: Sequence[Settlement], removes: bool, lock_timeout: float | None
) -> Sequence[Settlement]:
    """Settle deliveries by a shorter statement, if all are done, as most are. Return those that it has not settled:
    they are not held any more, or their rows have to stay where finished jobs are not kept."""
    first = given[0]
    attempts, at = first.job.attempts, first.job.dequeued_at
    params = {"attempts": attempts, "dequeued_at": at, "result": first.result}
    instead = {}
    if len(given) == 1:
        if first.outcome != "done" or first.key_state is not None:
            return given
        params["id"] = first.job.id
    elif all(
        job.attempts == attempts and job.dequeued_at == at and outcome == "done" and result is key_state is None
        for job, outcome, _, _, result, _, key_state in given
    ):
        instead["is_its_row"] = "is_one_of_claim"
        params["ids"] = numbers(settlement.job.id for settlement in given)
    else:
        return given
    sql = table.statements("lease.sql", **instead)["done_and_remove" if removes else "done"]
    settled = {id for (id,) in table.execute(sql, params, prepare=True, lock_timeout=lock_timeout)}
    open = table.database.in_transaction
    for settlement in given:
        if settlement.job.id in settled:
            settlement.job.settled = None if open else True
    return [settlement for settlement in given if settlement.job.id not in settled]


def note_cancelled(lost: Sequence[Delivery], table: Table) -> None:
    """Set `cancelled` of the lost jobs.

    An error here is ignored: the deliveries are lost in any case, and the caller must learn that.
    """
    if not lost:
        return
    with suppress(PQError, table.database.driver.Error):
        rows = table.execute(table.statements("lease.sql")["cancelled"], {"ids": array(job.id for job in lost)})
        found = {id for (id,) in rows}
        for job in lost:
            job.cancelled = job.id in found


def about(statement: str, job: Delivery, table: Table, **params: Any) -> Rows:
    """Execute a statement of ``lease.sql`` about one delivery; no row: that was not held any more as the statement
    says."""
    params |= {"id": job.id, "attempts": job.attempts, "dequeued_at": job.dequeued_at}
    return table.execute(table.statements("lease.sql")[statement], params)


def applies(statement: str, job: Delivery, table: Table, **params: Any) -> bool:
    """Execute a statement of ``lease.sql`` about one delivery; return whether that was still held as it says."""
    return bool(about(statement, job, table, **params))


def extend(table: Table, jobs: Sequence[Delivery], exact: Sequence[bool]) -> set[int]:
    """Extend the leases of deliveries, each by its `lease` from now on; return the ids of those that are still held.

    :param exact: for each job, whether its lease may also become shorter than it is in the row.
    """
    sql = table.statements("lease.sql")["extend_all"]
    leases = array(job.lease.total_seconds() for job in jobs)
    return {id for (id,) in table.execute(sql, {**identity(jobs), "leases": leases, "exact": array(exact)})}


def locked(table: Table, jobs: Sequence[Delivery], lock_timeout: float) -> set[int]:
    """Return the ids of the deliveries that are held, in rows that another transaction has locked.

    :param lock_timeout: seconds, for a lock of the whole table.
    """
    sql = table.statements("lease.sql")["locked"]
    return {id for (id,) in table.execute(sql, identity(jobs), lock_timeout=lock_timeout)}


def serves(table: Table, lock_timeout: float) -> None:
    """Check that the database would accept a settlement, without settling anything.

    :param lock_timeout: seconds, for a lock of the whole table.
    """
    table.execute(table.statements("lease.sql")["serves"], {}, lock_timeout=lock_timeout)


def identity(jobs: Sequence[Delivery]) -> dict[str, Any]:
    """Return the parameters that tell which deliveries a statement is about."""
    return {
        "ids": numbers(job.id for job in jobs),
        "attempts": numbers(job.attempts for job in jobs),
        "dequeued_at": array(job.dequeued_at for job in jobs),
    }
