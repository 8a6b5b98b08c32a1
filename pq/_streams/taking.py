"""The statements that take events of one partition, and what their answers mean."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any, NamedTuple

from .._args import JOB_IDS
from .._db import Rows
from ..errors import DecodeError, EventsLost, StreamRestored
from .event import Event
from .log import Log
from .retries import retries_of

#: What a take asks for in a transaction: nobody else sees the lease.
HERE = 3600.0


class Told(NamedTuple):
    """What a take tells in its first row, before the batch.

    :ivar due_in: seconds until a batch that holds up the partition is due; None if none does.
    :ivar again: the position has moved behind events that are not wanted: there may be more.
    :ivar has_retries: an event that was set aside is due, and comes first.
    """

    at_home: bool
    paused: bool
    lost: int
    due_in: float | None
    again: bool
    has_retries: bool
    partitions: int
    shared: bool
    max_retries: int
    stops: bool


TOLD = len(Told._fields)


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

    :ivar refused: the events that can't be decoded.
    :ivar lease: None if the position has moved in the transaction of the caller, or nothing was found.
    :ivar due_in: as told; of a batch in other hands, how long to wait before another look.
    """

    told: Told
    events: list[Event]
    refused: list[DecodeError]
    lease: Lease | None = None
    due_in: float | None = None

    @property
    def found(self) -> bool:
        return bool(self.events or self.refused or self.lease)


class Want(NamedTuple):
    """What is to be taken.

    :ivar n: how many events at most.
    :ivar lease: how long nobody else gets them; None: the position moves in the transaction that is open.
    :ivar timeout: the seconds that the caller has, for `Database.execute`.
    :ivar past_retries: although events that were set aside are due.
    """

    n: int
    lease: timedelta | None
    timeout: float | None = None
    past_retries: bool = False


#: Seconds until another look at a batch that another consumer has, or whose transaction is open.
BUSY = 0.05


def take(log: Log, subscription: str, partition: int, want: Want) -> Taken:
    """Take the next events of a partition.

    :raises SubscriptionNotFound: there is no such subscription.
    :raises StreamRestored: the stream is one of a restored dump.
    :raises EventsLost: events were removed before it has read them; this is told once.
    """
    lease = want.lease
    sql = log._table.statements("stream_take.sql", log.name)
    params: dict[str, Any] = {
        "subscription": subscription, "partition": partition, "n": min(want.n, JOB_IDS.stop - 2),
        "lease": HERE if lease is None else lease.total_seconds(), "queue": retries_of(log.name, subscription),
        "past_retries": want.past_retries, "past_open": False,
    }  # fmt: skip
    statement = sql["take" if lease is None else "take_leased"]
    while True:
        rows = log._execute(statement, params, prepare=True, timeout=want.timeout)
        if not rows:
            raise log._unknown(subscription)
        first = json.loads(rows[0][0])
        told = Told(*first[:TOLD])
        if not told.at_home:
            raise StreamRestored(stream=log.name)
        if told.paused:
            return Taken(told, [], [])
        if told.lost:
            tell_lost(log, subscription)
        if len(rows) > 1:
            held = None if lease is None else Lease(*first[TOLD:])
            return Taken(told, *decoded(log, rows, 1), held)
        if told.has_retries and not want.past_retries:
            return Taken(told, [], [])
        if told.due_in is not None and told.due_in <= 0 and not params["past_open"]:
            if (again := take_again(log, params, told, want)) is not None:
                return again
            if told.shared:
                params["past_open"] = True
                continue
            return Taken(told, [], [], due_in=BUSY)
        if not told.again:
            return Taken(told, [], [], due_in=BUSY if params["past_open"] else told.due_in)


def take_again(log: Log, params: dict[str, Any], told: Told, want: Want) -> Taken | None:
    """Take a batch that was delivered before, and is due; None if there is none to be had."""
    given = {**params, "n": JOB_IDS.stop - 2, "most": params["n"]}
    sql = log._table.statements("stream_take.sql", log.name)["take_again"]
    rows = log._execute(sql, given, timeout=want.timeout)
    if not rows:
        return None
    lease = Lease(*json.loads(rows[0][0]))
    return Taken(told, *decoded(log, rows, lease.attempts), lease)  # perhaps no events: all are gone


def decoded(log: Log, rows: Rows, attempts: int) -> tuple[list[Event], list[DecodeError]]:
    """Return the events that stand in the rows behind the first, and the errors of those that can't be decoded."""
    events: list[Event] = []
    refused: list[DecodeError] = []
    for row in rows[1:]:
        try:
            events.append(log._codec.event(row[1:], attempts))
        except DecodeError as error:
            refused.append(error)
    return events, refused


def tell_lost(log: Log, subscription: str) -> None:
    """
    :raises EventsLost: events were removed that the subscription had not read.
    """
    for (count,) in log._run("told_lost", subscription=subscription):
        raise EventsLost(stream=log.name, subscription=subscription, count=count)
