"""Where a subscription is in its stream: looking, and moving it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

from ..errors import EventsLeft, SubscriptionNotFound
from .log import READ_COMMITTED, Log
from .start import start_of


@dataclass(frozen=True)
class Lag:
    """How far a subscription is behind.

    :ivar events: how many events it has not read, or that are not done. It may be too large: ids that were rolled back
        count, types that it does not want, and with `partitions` what was read of the others since a partition was read
        last; `Subscription.lag` can count exactly.
    :ivar age: how long ago the first unread event was published; None if there is none.
    """

    events: int
    age: timedelta | None


@dataclass(frozen=True)
class SubscriptionInfo:
    """A subscription as it was when it was looked at.

    :ivar name: its name.
    :ivar types: the types of events that it wants; None: all.
    :ivar partitions: in how many parts it is read.
    :ivar shared: whether several consumers at a time read it, in no order.
    :ivar max_retries: how often an event that fails is tried again.
    :ivar ordered: what follows then: ``'aside'`` or ``'stop'``.
    :ivar created_at: when it was made, as an aware datetime.
    :ivar paused_at: since when it is paused, or None.
    :ivar lag: how far it is behind.
    """

    name: str
    types: list[str] | None
    partitions: int
    shared: bool
    max_retries: int
    ordered: str
    created_at: datetime
    paused_at: datetime | None
    lag: Lag


class Position:
    """A part of `Subscription`."""

    stream: Log
    name: str

    def lag(self, exact: bool = False) -> Lag:
        """Return how far the subscription is behind.

        :param exact: count the unread events, one by one.
        :raises SubscriptionNotFound: there is no such subscription.
        """
        sql = self.stream._table.statements("stream_upkeep.sql", self.stream.name)["lag"]
        rows = self.stream._execute(sql, {"subscription": self.name, "exact": exact})
        if not rows:
            raise self._unknown()
        ages = [age for _, _, age, _ in rows if age is not None]
        behind = [ids for ids, _, age, _ in rows if age is not None]  # the others have not moved for want of events
        unread = sum(n for _, n, _, _ in rows) if exact else max(behind, default=0)
        return Lag(unread + sum(open for _, _, _, open in rows), timedelta(seconds=max(ages)) if ages else None)

    def info(self) -> SubscriptionInfo:
        """Return what there is to know of the subscription; its errors are those of `lag`."""
        rows = self.stream._run("subscription", subscription=self.name)
        if not rows:
            raise self._unknown()
        name, types, partitions, shared, retries, ordered, created_at, paused_at = rows[0]
        paused = None if paused_at is None else _aware(paused_at)
        return SubscriptionInfo(
            name, types, partitions, shared, retries, ordered, _aware(created_at), paused, self.lag()
        )

    def pause(self) -> None:
        """Deliver no events to it, in no process, until `resume` is called. What is taken already stays taken."""
        self._change("pause", paused=True)

    def resume(self) -> None:
        """Deliver events again."""
        self._change("pause", paused=False)

    def seek(self, to: str | int | timedelta | datetime) -> None:
        """Move the position, forward or back. Batches that are not done are given up: their holders get a `BatchLost`.

        :param to: as for `start` of `Stream.subscribe`: ``'beginning'`` reads all events again.
        :raises SubscriptionNotFound: there is no such subscription. The other errors are those of `Stream.subscribe`.
        """
        after = start_of("to", to).after(self.stream._run)
        with self._in_order():
            self.stream._run("lock_positions", subscription=self.name)
            self._change("seek", after=after)

    def drop(self, force: bool = False) -> None:
        """Remove the subscription. The events stay in the stream for the others.

        :param force: also if it has not read all events.
        :raises EventsLeft: it has unread events, and `force` is false.
        :raises SubscriptionNotFound: there is no such subscription.
        """
        if not force and self.lag(exact=True).events:
            raise EventsLeft(stream=self.stream.name, subscriptions=repr(self.name))
        with self._in_order():
            self.stream._run("lock_positions", subscription=self.name)
            self._change("unsubscribe")

    def _in_order(self) -> AbstractContextManager[Any]:
        """Return a context manager for two statements, of which the second sees what the first has waited for."""
        database = self.stream._table.database
        if database.current is not None:
            return database.transaction() if database.in_transaction else nullcontext()
        return self._at_read_committed()

    @contextmanager
    def _at_read_committed(self) -> Iterator[None]:
        database = self.stream._table.database
        with database.transaction():
            database.execute(READ_COMMITTED)
            yield

    def _change(self, statement: str, **params: Any) -> None:
        if not self.stream._run(statement, subscription=self.name, **params):
            raise self._unknown()

    def _unknown(self) -> SubscriptionNotFound:
        return self.stream._unknown(self.name)


def _aware(moment: datetime) -> datetime:
    return moment.replace(tzinfo=timezone.utc)
