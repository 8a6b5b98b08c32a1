"""The class `Stream`: publishing, and the subscriptions that read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import timezone
from itertools import chain
from typing import Any

from .._args import UNSET, Unset, integer, limit_of
from .._table.lines import chunks
from .._times import Delay
from ..errors import EventsLeft
from ..sql import stream_object
from . import schema
from .event import Beside, Event, EventLines, Row, publishing, types_of
from .info import StreamInfo
from .position import SubscriptionInfo
from .subscribing import Subscribing
from .upkeep import rebase, rotate


class Stream(Subscribing):
    """The base of `pq.Stream`: all but the functions that workers call."""

    # -- the tables

    def create(self, *, retain: Delay | Unset = UNSET, retain_unread: Delay | Unset | None = UNSET) -> None:
        """Create the tables of the stream, or upgrade them. It is safe to repeat, by many processes at once.

        The two times are stored with the stream and apply to all programs that use it.

        :param retain: how long an event is kept once all subscriptions have read it, as ``'1d'``, a timedelta or
            seconds; it is removed within twice that time. By default the time does not change, and is one day for a new
            stream.
        :param retain_unread: how long an event is kept that a subscription has not read, in the same forms; it is
            removed within three times that time, and the subscription told by `EventsLost`. None: for ever. By default
            the time does not change, and is None for a new stream.
        :raises TypeError: a time has another type.
        :raises ValueError: a time has another form, is out of range, or has fractions of a second.
        :raises TableMissing: call `PQ.create` first.
        :raises SchemaError: a table of such a name is there, or was in use for too long.
        """
        schema.create(self._table, self.name, retain, retain_unread)

    def version(self) -> int:
        """Return the version of the stream's tables; 0 if there is no such stream."""
        found = schema.find(self._table, self.name)
        return 0 if found is None else found.version

    def drop(self, force: bool = False) -> None:
        """Drop the stream with its events and subscriptions; do nothing if there is none.

        :param force: also if a subscription has not read all events.
        :raises EventsLeft: there is such a subscription, and `force` is false.
        :raises SchemaError: the tables were in use for too long.
        """
        schema.drop(self._table, self.name, None if force else self._refuse_unread)

    def rotate(self) -> bool:
        """Remove old events that all subscriptions have read, as consumers do each minute; return whether some were.

        :raises StreamMissing: there is no such stream.
        :raises StreamRestored: it is one of a restored dump.
        :raises ValueError: a transaction is open, which would hold up the stream until its end.
        """
        return rotate(self)

    def rebase(self) -> bool:
        """Let a stream from a restored dump be read again; return whether that was to be done.

        There the numbers of transactions begin anew, and positions would mean something else: so no event is delivered
        until this is called. No event is lost, and none delivered twice.

        :raises StreamMissing: there is no such stream.
        """
        return rebase(self)

    def info(self) -> StreamInfo:
        """Return what there is to know of the stream.

        :raises StreamMissing: there is no such stream.
        """
        found = schema.find(self._table, self.name)
        if found is None:
            raise self._missing()
        ((size, oldest_at, first, last),) = self._run("size", log=stream_object(self._table.quoted, "log", self.name))
        events = 0 if first is None else last - first + 1
        oldest = None if oldest_at is None else oldest_at.replace(tzinfo=timezone.utc)
        names = [row[0] for row in self._run("all_subscriptions")]
        readers = [self.subscription(name).info() for name in names]
        return StreamInfo(self.name, found.version, found.retain, found.retain_unread, events, size, oldest, readers)

    def subscriptions(self) -> list[SubscriptionInfo]:
        """Return the subscriptions as they are now, sorted by their names."""
        return self.info().subscriptions

    def _refuse_unread(self) -> None:
        behind = [row[0] for row in self._run("all_subscriptions") if self.subscription(row[0]).lag(exact=True).events]
        if behind:
            raise EventsLeft(stream=self.name, subscriptions=", ".join(map(repr, behind)))

    # -- publishing

    def publish(
        self,
        data: Any,
        type: str = "",
        key: str | None = None,
        headers: Mapping[str, Any] | None = None,
        *,
        conn: Any = None,
    ) -> int:
        """Publish an event and return its id.

        :param data: what JSON can hold.
        :param type: what kind of event it is, by which subscriptions choose.
        :param key: events of one key are read in order, also where partitions are read side by side.
        :param headers: a dict of what JSON can hold. Those of instruments, such as a ``traceparent``, stand beside; see
            `PQ.instrument`.
        :param conn: publish it in the transaction that is open there: a connection, cursor or session; see `PQ.using`.
        :raises TypeError: the type or key is not a str, the headers are no dict, or JSON does not have something.
        :raises ValueError: PostgreSQL can't hold a text; the data has NaN or Infinity.
        :raises StreamMissing: call `create` first. The errors of the connection are those of `Queue.put`.
        """
        stream = self if conn is None else self._bind(conn)
        if stream._table.instruments.puts:
            with stream._table.instruments.sending(self.name) as sending:
                id = stream._publish_one(data, Beside.of(type, key, headers, sending.found))
                sending.sent(1, id)
            return id
        return stream._publish_one(data, Beside.of(type, key, headers))

    def publish_many(
        self,
        items: Iterable[Any],
        type: str = "",
        key: str | None = None,
        headers: Mapping[str, Any] | None = None,
        *,
        conn: Any = None,
    ) -> list[int]:
        """Publish events, all of them or none, and return their ids, in order.

        :param items: data, or a `NewEvent` for data with a type, key and headers of its own. More than 1,000 events
            take several statements in one transaction.
        :param type: as for `publish`, for the items that are no `NewEvent`; likewise `key` and `headers`.
        :param conn: as for `publish`. After an error, your rollback undoes what was published before.
        """
        stream = self if conn is None else self._bind(conn)
        with stream._table.instruments.sending(self.name) as sending:
            parts = chunks(self._codec.rows(items, type, key, headers, sending.found))
            first, second = next(parts, None), next(parts, None)
            if first is None:
                ids = []
            elif second is None:
                ids = stream._publish(first)
            else:
                with stream._table.database.grouped():
                    ids = [id for part in chain([first, second], parts) for id in stream._publish(part)]
            sending.sent(ids)
        return ids

    def load(
        self,
        items: Iterable[Any],
        type: str = "",
        key: str | None = None,
        headers: Mapping[str, Any] | None = None,
    ) -> int:
        """Publish events by COPY, all of them or none, and return their number. This is faster than `publish_many`.

        The arguments are those of `publish_many`. The connection is busy meanwhile: `items` must not use this PQ.
        """
        database = self._table.database
        with self._table.instruments.sending(self.name) as sending:
            lines = EventLines(self._codec.rows(items, type, key, headers, sending.found))
            with database.grouped():
                try:
                    count = database.copy(self._sql["load"], lines)
                except database.driver.Error as error:
                    if lines.error is not None:
                        raise lines.error from lines.error.__cause__
                    raise self._meaning(error) from error
            sending.sent(count)
        return count

    def _publish_one(self, data: Any, beside: Beside) -> int:
        text = self._codec.text(data)
        if beside.key is None and beside.headers is None:
            rows = self._run("publish_plain", prepare=True, type=beside.type, data=text)
        else:
            rows = self._run("publish", prepare=True, data=text, **beside._asdict())
        return int(rows[0][0])

    def _publish(self, rows: list[Row]) -> list[int]:
        statement, params = publishing(rows)
        return [id for (id,) in self._run(statement, prepare=True, **params)]

    # -- looking

    def read(self, after: int = 0, limit: int = 100, types: Sequence[str] | None = None) -> list[Event]:
        """Return events by their ids, whoever has read them; this moves nothing.

        :param after: only events with larger ids.
        :param limit: the largest number of events.
        :param types: only events of these types.
        """
        integer("after", after)
        rows = self._run("read", after=after, limit=limit_of(limit, 1), types=types_of(types))
        return [self._codec.event(row) for row in rows]
