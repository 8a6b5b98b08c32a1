"""The functions of the extension ``pgq``, and those of ``pgq_coop``."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ..sql import bind, quote, statements
from .backend import BATCH, Backend, Fields, copy
from .rows import RowLines

_SQL = statements("pgqueue.sql")


class Extension(Backend):
    """PgQ 3."""

    def _value(self, statement: str, **params: Any) -> Any:
        return self.given.run(_SQL[statement], params)[0][0]

    # -- queues

    def version(self) -> str:
        return str(self._value("version"))

    def create(self, queue: str, settings: Mapping[str, str]) -> int:
        made = int(self._value("create", queue=queue))
        for name, value in settings.items():
            self.configure(queue, name, value)
        return made

    def configure(self, queue: str, name: str, value: str) -> int:
        return int(self._value("config", queue=queue, name=name, value=value))

    def drop(self, queue: str, force: bool) -> int:
        return int(self._value("drop", queue=queue, force=force))

    def queue_info(self, queue: str | None) -> list[Any]:
        return self.given.rows(_SQL["queue_info"], {"queue": queue})

    # -- events

    def insert(self, queue: str, event: Mapping[str, Any]) -> int:
        are_texts = all(value is None or isinstance(value, str) for value in event.values())
        return int(self._value("insert" if are_texts else "insert_cast", queue=queue, **event))

    def insert_many(self, queue: str, rows: Iterable[Iterable[Any]], columns: list[str]) -> None:
        with self.given.atomic():  # the ticker may go on to another table between two transactions
            ((table, now),) = self.given.run(_SQL["table"], {"queue": queue})
            further = {} if "time" in columns else {"time": now}
            lines = RowLines(rows, columns, lambda row: (*row.values(), *further.values()))
            words = {"table": table, "columns": ", ".join(f"ev_{name}" for name in (*columns, *further))}
            copy(self.given, bind(_SQL["copy"], words), lines)

    def external_tick(self, queue: str, tick: int, time: Any, seq: int) -> int:
        return int(self._value("external_tick", queue=queue, tick=tick, time=time, seq=seq))

    # -- consumers

    def register(self, queue: str, consumer: str, tick: int | None, subconsumer: str | None = None) -> int:
        if subconsumer is None:
            return int(self._value("register", queue=queue, consumer=consumer, tick=tick))
        if tick is not None:
            raise ValueError(f"a subconsumer can't begin at a tick: {tick!r}")
        return int(self._value("register_coop", queue=queue, consumer=consumer, subconsumer=subconsumer))

    def unregister(self, queue: str, consumer: str, subconsumer: str | None = None) -> int:
        if subconsumer is None:
            return int(self._value("unregister", queue=queue, consumer=consumer))
        params = {"queue": queue, "consumer": consumer, "subconsumer": subconsumer, "handling": 0}
        return int(self._value("unregister_coop", **params))

    def consumer_info(self, queue: str | None, consumer: str | None) -> list[Any]:
        return self.given.rows(_SQL["consumer_info"], {"queue": queue, "consumer": consumer})

    def next(self, queue: str, consumer: str, wants: Mapping[str, Any]) -> dict[str, Any]:
        statement = "next" if wants["subconsumer"] is None else "next_coop"
        (row,) = self.given.run(_SQL[statement], {"queue": queue, "consumer": consumer, **wants})
        return dict(zip(BATCH, row, strict=True))

    def events(self, batch: int, queue: str, size: int | None, predicate: str | None) -> Iterator[list[Fields]]:
        if size is None:
            words = {"predicate": (predicate or "").replace("%", "%%")}
            condition = bind(_SQL["condition"], words) if predicate else ""
            yield _fields(self.given.run(bind(_SQL["events"], {"condition": condition}), {"batch": batch}))
            return
        cursor = f"batch_walker_{batch}"
        words = {"size": str(size), "cursor": quote(cursor)}
        fetch = bind(_SQL["fetch"], words)
        params = {"batch": batch, "cursor": cursor, "predicate": predicate}
        rows = self.given.run(bind(_SQL["open"], {"fetch": fetch}), params)
        while rows:
            yield _fields(rows)
            if len(rows) < size:
                break
            rows = self.given.run(fetch)
        self.given.run(bind(_SQL["close"], words))

    def finish(self, batch: int, queue: str, consumer: str, retries: list[tuple[float, Fields]], shared: bool) -> int:
        words = {"schema": "pgq_coop" if shared else "pgq"}
        params: dict[str, Any] = {"batch": batch}
        statement = "finish"
        if retries:
            statement = "finish_with_retries"
            events = json.dumps([_object(*each) for each in retries], ensure_ascii=False)
            params |= {"queue": queue, "consumer": consumer, "events": events}
        return int(self.given.run(bind(_SQL[statement], words), params)[0][0])

    # -- the ticker

    def lock(self) -> bool:
        return bool(self._value("lock"))

    def tick(self) -> Any:
        return self._value("tick")

    def maintenance(self) -> list[tuple[str, Any]]:
        return [(f"{row[0]} {row[1] or ''}".rstrip(), row) for row in self.given.run(_SQL["maintenance"])]

    def maintain(self, operation: Any) -> None:
        function, argument, table = operation
        if function.lower().startswith("vacuum"):  # vacuum full, too
            self.given.run(bind(_SQL["vacuum"], {"verb": function, "table": table}))
        elif argument:
            self.given.run(bind(_SQL["maintain_one"], {"function": function}), {"argument": argument})
        else:
            self.given.run(bind(_SQL["maintain"], {"function": function}))

    def retry(self) -> int:
        return int(self._value("retry"))


def _fields(rows: list[tuple[Any, ...]]) -> list[Fields]:
    return [(id, txid, time, *rest, retry or 0) for id, time, txid, retry, *rest in rows]


def _object(seconds: float, fields: Fields) -> dict[str, Any]:
    id, _, time, type, data, *extras, retry = fields
    names = ("seconds", "id", "time", "retry", "type", "data", "extra1", "extra2", "extra3", "extra4")
    values = (seconds, id, time.isoformat(), retry, type, data, *extras)
    return dict(zip(names, values, strict=True))
