"""Queues on a server without the extension: streams of pq."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from .. import PQ
from .._db.given import Given
from ..errors import EventsLost, StreamMissing, StreamRestored, SubscriptionNotFound
from ..sql import TableName, bind, bound, statements, stream_object
from .backend import BATCH, Backend, Fields, copy
from .checks import SETTINGS
from .rows import RowLines
from .settings import Settings, checked

#: The table of the jobs, beside which the streams are.
TABLE = TableName("queue").quoted

_SQL = statements("pgqueue.sql")

#: The largest number of events in a batch, unless a consumer wants more.
BATCH_EVENTS = 500

#: What stands behind the name of a stream to say that its data is text; it is no part of the name.
_TEXT = "/text"

#: How long nobody else gets the batch of a subconsumer.
_LEASE = "1 hour"

_ALL = 2**62

#: Events that are retried are batches here, not jobs of a queue.
_NO_JOBS = {"queue": "", "past_retries": True, "past_open": False}

#: The columns of an event that can be copied.
_COPIED = ("type", "data", "extra1", "extra2", "extra3", "extra4", "time")


class Streams(Backend):
    """A queue is the stream of its name, a consumer a subscription of it that is shared."""

    def __init__(self, given: Given) -> None:
        super().__init__(given)
        self._taken: dict[int, list[Fields]] = {}

    def _sql(self, queue: str) -> Mapping[str, str]:
        instead = {"event_columns": "its_columns", "lease_end": "its_lease_end"}
        return bound("pgqueue_stream.sql", TABLE, stream_of(queue), **instead)

    def _run(self, queue: str, statement: str, params: Mapping[str, Any], predicate: str | None = None) -> list[Any]:
        sql = self._sql(queue)[statement]
        if predicate is not None:
            sql = bind(_SQL["stream_filter"], {"events": sql, "predicate": predicate.replace("%", "%%")})
        try:
            return self.given.run(sql, params)
        except self.given.driver.Error as error:
            raise self._meaning(queue, error) from error

    def _meaning(self, queue: str, error: Exception) -> Exception:
        if not self.given.driver.table_is_missing(error):
            return error
        database = self.given.driver.database_name(self.given.conn)
        return StreamMissing(stream=stream_of(queue), table=TABLE, database=database)

    # -- queues

    def version(self) -> str:
        return "3.5"

    def create(self, queue: str, settings: Mapping[str, str]) -> int:
        with self.given.atomic():
            pq = self._pq()
            pq.create()
            stream = pq.streams[queue]
            made = not stream.version()
            if made:
                usual = SETTINGS["rotation_period"]
                settings = {**settings, "rotation_period": settings.get("rotation_period", usual)}
            found, period = checked(self.given, self._sql(queue), settings)
            if period is None:
                stream.create()
            else:
                stream.create(retain=period)
            if found:
                self._settings(queue).change(found)
        return int(made)

    def configure(self, queue: str, name: str, value: str) -> int:
        self._run(queue, "consumers", {})  # if there is no such queue, this says so
        self.create(queue, {name: value})
        return 1

    def drop(self, queue: str, force: bool) -> int:
        with self.given.atomic():
            consumers = [row[0] for row in self._run(queue, "consumers", {})]
            if consumers and not force:
                raise ValueError(
                    f"queue {queue!r} has consumers: {', '.join(map(repr, consumers))}; force=True drops it with them"
                )
            self._pq().streams[queue].drop(force=True)
        return 1

    def queue_info(self, queue: str | None) -> list[Any]:
        streams = self._pq().streams
        names = sorted(streams) if queue is None else [stream_of(queue)]
        found = [self._info(name) for name in names if queue is None or name in streams]
        return self.given.rows(self._sql("")["queue_info"], {"queues": json.dumps(found)})

    def _info(self, name: str) -> dict[str, Any]:
        settings = {f"queue_{key}": value for key, value in self._settings(name).read().items()}
        return {"queue_name": name, "queue_ntables": 3, **settings}

    def _settings(self, queue: str) -> Settings:
        return Settings(self.given, TABLE, stream_of(queue), self._sql(queue))

    def _pq(self) -> PQ:
        return PQ(self.given.conn).bind(self.given.conn)

    # -- events

    def insert(self, queue: str, event: Mapping[str, Any]) -> int:
        return int(self._run(queue, "publish", event)[0][0])

    def insert_many(self, queue: str, rows: Iterable[Iterable[Any]], columns: list[str]) -> None:
        unknown = [name for name in columns if name not in _COPIED]
        if unknown:
            raise ValueError(f"without the extension pgq the {unknown[0]} of an event can't be given")
        targets = ["type", "key", "data", "headers", *(["at"] if "time" in columns else [])]
        with self.given.atomic():
            log = stream_object(TABLE, "log", stream_of(queue))
            sql = bind(_SQL["stream_copy"], {"log": log, "columns": ", ".join(targets)})
            try:
                copy(self.given, sql, RowLines(rows, columns, _converted))
            except self.given.driver.Error as error:
                raise self._meaning(queue, error) from error

    def external_tick(self, queue: str, tick: int, time: Any, seq: int) -> int:
        raise ValueError("without the extension pgq there are no ticks")

    # -- consumers

    def register(self, queue: str, consumer: str, tick: int | None, subconsumer: str | None = None) -> int:
        if tick is not None:
            raise ValueError(f"without the extension pgq there are no ticks: tick_id must be None, not {tick}")
        wanted = {
            "subscription": consumer, "types": None, "partitions": 1, "shared": True, "after": None,
            "max_retries": None, "ordered": None, "queue": "",
        }  # fmt: skip
        return int(bool(self._run(queue, "subscribe_consumer", wanted)))

    def unregister(self, queue: str, consumer: str, subconsumer: str | None = None) -> int:
        if subconsumer is not None:  # nothing is kept of it
            return int(bool(self._run(queue, "consumer_info", {"queue": queue, "consumer": consumer})))
        with self.given.atomic():
            self._run(queue, "lock_consumer", {"subscription": consumer})
            return len(self._run(queue, "unsubscribe_consumer", {"subscription": consumer}))

    def consumer_info(self, queue: str | None, consumer: str | None) -> list[Any]:
        streams = self._pq().streams
        names = sorted(streams) if queue is None else [stream_of(queue)]
        found: list[Any] = []
        for name in names:
            if queue is None or name in streams:
                params = {"queue": name, "consumer": consumer}
                found += self.given.rows(self._sql(name)["consumer_info"], params)
        return found

    def next(self, queue: str, consumer: str, wants: Mapping[str, Any]) -> dict[str, Any]:
        shared = wants["subconsumer"] is not None
        params: dict[str, Any] = {
            **_NO_JOBS, "subscription": consumer, "partition": 0, "n": max(BATCH_EVENTS, wants["count"] or 0),
            "lease": (wants["dead"] or _LEASE) if shared else "0 s",
        }  # fmt: skip
        if not self._are_enough(queue, wants, params):
            return dict.fromkeys(BATCH)
        while True:
            rows = self._run(queue, "next", params)
            if not rows:
                known = ", ".join(repr(row[0]) for row in self._run(queue, "consumers", {}))
                raise SubscriptionNotFound(stream=queue, subscription=consumer, known=known or "none")
            at_home, lost, is_due, again = rows[0][:4]
            if not at_home:
                raise StreamRestored(stream=queue)
            if lost:
                self._run(queue, "tell_lost", {"subscription": consumer})
                raise EventsLost(stream=queue, subscription=consumer, count=lost)
            found = [row[4:] for row in rows]
            if is_due:
                found = self._run(queue, "reopen_leased" if shared else "reopen", {**params, "n": _ALL})
            batch, _, event = found[0][:3] if found else (None, None, None)
            if event is not None:
                return self._batch(found)
            if batch is not None:  # its events are gone
                self._run(queue, "finish", {"batch": batch, "retries": "[]"})
            elif not again:
                return dict.fromkeys(BATCH)

    def _are_enough(self, queue: str, wants: Mapping[str, Any], params: dict[str, Any]) -> bool:
        """Whether there are as many events as a batch must have; reduces `n` to those that are old enough."""
        asked = {name: wants[name] for name in ("lag", "count", "interval")}
        if all(value is None for value in asked.values()):
            return True
        rows = self._run(queue, "enough", {**params, **asked})
        if not rows or rows[0][2]:  # there is no such consumer, or an open batch
            return True
        old, enough, _ = rows[0]
        if wants["lag"] is not None:
            params["n"] = old
        return bool(old and enough)

    def _batch(self, rows: list[Any]) -> dict[str, Any]:
        events = [_fields(row) for row in rows]
        batch = rows[0][0]
        self._taken = {batch: events}
        times = [event[2] for event in events]
        values = (batch, None, None, max(times), min(times), events[-1][0], events[0][0] - 1)
        return dict(zip(BATCH, values, strict=True))

    def events(self, batch: int, queue: str, size: int | None, predicate: str | None) -> Iterator[list[Fields]]:
        found = self._taken.get(batch)
        if found is None or predicate is not None:
            rows = self._run(queue, "events", {"batch": batch, "partition": 0, "n": _ALL}, predicate)
            found = self._taken[batch] = [_fields(row) for row in rows]
        step = size or max(1, len(found))
        for first in range(0, len(found), step):
            yield found[first : first + step]

    def finish(self, batch: int, queue: str, consumer: str, retries: list[tuple[float, Fields]], shared: bool) -> int:
        again = json.dumps(_runs(self._taken.get(batch, []), retries))
        return len(self._run(queue, "finish", {"batch": batch, "retries": again}))

    # -- the ticker

    def lock(self) -> bool:
        return bool(self.given.run(self._sql("")["lock"])[0][0])

    def tick(self) -> Any:
        return None

    def maintenance(self) -> list[tuple[str, Any]]:
        streams = self._pq().streams
        return [(f"rotate {name}", name) for name in streams]

    def maintain(self, operation: Any) -> None:
        PQ(self.given.conn).streams[operation].rotate()

    def retry(self) -> int:
        return 0


def stream_of(queue: str) -> str:
    """Return the name of the stream that a queue is."""
    return queue.removesuffix(_TEXT) or queue


def _fields(row: Any) -> Fields:
    _, attempts, id, time, txid, *rest = row
    return (id, txid, time, *rest, attempts - 1)


def _runs(events: list[Fields], retries: list[tuple[float, Fields]]) -> list[dict[str, Any]]:
    """Return which parts of a batch come again: neighbours that come at one time are one batch."""
    again = {fields[0]: (seconds, fields[9]) for seconds, fields in retries}
    runs: list[dict[str, Any]] = []
    before = None
    for event in events:
        now = again.get(event[0])
        if now is not None and now == before:
            runs[-1]["last"] = event[0]
        elif now is not None:
            # a loop over batches ends, even if its events come again at once
            pause = max(1.0, now[0])
            runs.append({"first": event[0], "last": event[0], "seconds": pause, "attempts": now[1] + 2})
        before = now
    return runs


def _converted(row: Mapping[str, str | None]) -> list[str | None]:
    headers: dict[str, Any] = {name: row[name] for name in ("extra2", "extra3", "extra4") if row.get(name) is not None}
    if row.get("type") is None:
        headers["untyped"] = True
    text = json.dumps(headers) if headers else None
    line = [row.get("type") or "", row.get("extra1"), json.dumps(row.get("data")), text]
    return [*line, row["time"]] if "time" in row else line
