"""The statements that take events of one partition, and what their answers mean."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, NamedTuple

from .._args import JOB_IDS
from .._table import Table
from ..errors import EventsLost, StreamRestored
from .event import Event
from .log import Log

#: The columns of a row: what `stream_take.sql` tells, then the batch, then the event.
AT_HOME, PAUSED, LOST, DUE_IN, AGAIN, HAS_RETRIES, NUMBER, DELIVERY, ATTEMPTS, EVENT = range(10)


class Lease(NamedTuple):
    """A delivery of a batch under a lease.

    :ivar number: of the batch.
    :ivar delivery: which no other delivery of it shares.
    :ivar attempts: how often it was delivered as it is now; a part of it counts anew.
    """

    number: int
    delivery: int
    attempts: int


class Taken(NamedTuple):
    """What a take has found.

    :ivar lease: None if the position has moved in the transaction of the caller.
    :ivar due_in: seconds until a batch that holds up the partition is due; None if none does.
    :ivar has_retries: whether an event that was set aside is to be tried again.
    """

    events: list[Event]
    lease: Lease | None = None
    due_in: float | None = None
    has_retries: bool = False


def take(
    stream: Log, table: Table, subscription: str, partition: int, n: int, lease: timedelta | None,
    timeout: float | None = None,
) -> Taken:  # fmt: skip
    """Take the next events of a partition.

    :param n: how many at most.
    :param lease: how long nobody else gets them; None: the position moves in the transaction that is open.
    :param timeout: the seconds that the caller has, for `Database.execute`.
    :raises SubscriptionNotFound: there is no such subscription.
    :raises StreamRestored: the stream is one of a restored dump.
    :raises EventsLost: events were removed before it has read them; this is told once.
    """
    sql = table.statements("stream_take.sql", stream.name)
    params: dict[str, Any] = {
        "subscription": subscription, "partition": partition, "n": n,
        "lease": None if lease is None else lease.total_seconds(), "queue": retries_of(stream.name, subscription),
    }  # fmt: skip
    statement = sql["take" if lease is None else "take_leased"]
    while True:
        rows = stream._execute(statement, params, prepare=True, timeout=timeout)
        if not rows:
            raise stream._unknown(subscription)
        told = rows[0]
        if not told[AT_HOME]:
            raise StreamRestored(stream=stream.name)
        if told[LOST] and not told[PAUSED]:
            tell_lost(stream, table, subscription)
        if told[HAS_RETRIES] and not told[PAUSED] and told[EVENT] is None:
            return Taken([], has_retries=True)
        if told[EVENT] is not None:
            attempts = 1 if lease is None else told[ATTEMPTS]
            held = None if lease is None else Lease(told[NUMBER], told[DELIVERY], told[ATTEMPTS])
            return Taken(events(stream, rows, attempts), held, None, bool(told[HAS_RETRIES]))
        due_in = told[DUE_IN]
        if due_in is not None and due_in <= 0 and not told[PAUSED]:
            again = take_again(stream, table, sql["take_again"], params, timeout)
            if again is not None:
                return again
            due_in = 0.05  # another consumer has it, or its transaction is open
        elif told[AGAIN]:
            continue
        return Taken([], due_in=due_in)


def take_again(
    stream: Log, table: Table, sql: str, params: dict[str, Any], timeout: float | None
) -> Taken | None:
    """Take a batch that was delivered before, and is due; None if there is none to be had."""
    here = params["lease"] is None
    given = {**params, "n": JOB_IDS.stop - 1, "lease": 3600.0 if here else params["lease"]}
    rows = stream._execute(sql, given, timeout=timeout)
    if not rows:
        return None
    number, delivery, attempts, *_ = rows[0]
    lease = Lease(number, delivery, attempts)
    if here:  # nobody sees the lease: the batch is done as the transaction is committed
        table.execute(table.statements("stream_take.sql", stream.name)["done"], lease._asdict())
    found = [] if rows[0][3] is None else [stream._codec.event(row[3:], attempts) for row in rows]
    return Taken(found, None if here else lease)


def events(stream: Log, rows: list[tuple[Any, ...]], attempts: int) -> list[Event]:
    return [stream._codec.event(row[EVENT:], attempts) for row in rows]


def tell_lost(stream: Log, table: Table, subscription: str) -> None:
    """
    :raises EventsLost: events were removed that the subscription had not read.
    """
    rows = table.execute(table.statements("stream.sql", stream.name)["told_lost"], {"subscription": subscription})
    for (count,) in rows:
        raise EventsLost(stream=stream.name, subscription=subscription, count=count)


def retries_of(stream: str, subscription: str) -> str:
    """Return the name of the queue that holds the events which a subscription has set aside."""
    return f"{stream}:{subscription}"
