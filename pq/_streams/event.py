"""Events, as they are published and as they are read."""

from __future__ import annotations

import json
import reprlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime, timedelta, timezone
from typing import Any, NamedTuple

from .. import _codec
from .._args import check_error, check_text
from .._table.lines import Lines, line_of
from .._text import describe
from .._times import Delay, delay_of
from ..errors import DecodeError
from ..sql import array
from .aside import Aside, Entry

#: Of instruments, where there are none.
NO_HEADERS: Mapping[str, str] = {}


class NewEvent(NamedTuple):
    """An event for `Stream.publish_many` or `Stream.load`, with a type, key and headers of its own.

    Its fields are arguments of `Stream.publish`.
    """

    data: Any
    type: str = ""
    key: str | None = None
    headers: Mapping[str, Any] | None = None


class Event:
    """An event as a subscription reads it.

    :ivar id: its number: larger than that of any event that was committed before it was published.
    :ivar at: when it was published, as an aware datetime: the start of the statement, by the server's clock.
    :ivar type: the type that it was given; ``''`` if none.
    :ivar key: the key that it was given, or None.
    :ivar data: what was published.
    :ivar headers: a dict, or None.
    :ivar attempts: the number of this delivery: 1, 2, …
    """

    __slots__ = ("_aside", "_text", "at", "attempts", "data", "headers", "id", "key", "type")

    def __init__(
        self, id: int, at: datetime, type: str, key: str | None, data: Any, headers: dict[str, Any] | None,
        attempts: int = 1,
    ) -> None:  # fmt: skip
        self.id: int = id
        self.at: datetime = at
        self.type: str = type
        self.key: str | None = key
        self.data: Any = data
        self.headers: dict[str, Any] | None = headers
        self.attempts: int = attempts
        self._aside: Aside | None = None
        self._text: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the event as the data of a job."""
        return {
            "id": self.id, "at": self.at.isoformat(), "type": self.type, "key": self.key, "data": self.data,
            "headers": self.headers,
        }  # fmt: skip

    @classmethod
    def of(cls, data: Mapping[str, Any], attempts: int = 1) -> Event:
        """Return the event that the data of a job tells of."""
        rest = {name: data[name] for name in ("type", "key", "data", "headers")}
        return cls(data["id"], datetime.fromisoformat(data["at"]), **rest, attempts=attempts)

    def __repr__(self) -> str:
        return f"<pq.Event {self.id} {self.type!r}>"

    def retry(self, in_: Delay | None = None, error: BaseException | str | None = None) -> None:
        """Set the event aside, to be tried again by itself, while the others go on. It is then a job of the queue
        ``orders:billing``, which is put together with the end of the batch, and comes back as a batch of its own.

        :param in_: the pause, as ``'60s'``, a timedelta or seconds; None: that of the retry policy.
        :param error: why, to be kept with the job.
        :raises ValueError: the event is not part of a batch that is open; it was set aside before; `in_` has another
            form or is out of range.
        :raises TypeError: an argument has another type.
        """
        if error is not None:
            check_error(error)
        aside = self._batch()
        pause = aside.usual(self.attempts) if in_ is None else delay_of("in_", in_)
        aside.add(Entry(self.id, self.attempts, pause or timedelta(), error, self._text))

    def fail(self, error: BaseException | str) -> None:
        """Give the event up: it is set aside as a dead job of the queue ``orders:billing``, see `Queue.dead`.

        :param error: an exception, or a reason in words.
        :raises ValueError: as for `retry`.
        :raises TypeError: the error is something else.
        """
        check_error(error)
        self._batch().add(Entry(self.id, self.attempts, None, error, self._text))

    def _batch(self) -> Aside:
        if self._aside is None:
            raise ValueError(f"event {self.id} is not part of a batch, so it can't be set aside")
        return self._aside


class Beside(NamedTuple):
    """What is written beside the data of an event, or of many: the headers are JSON text."""

    type: str
    key: str | None
    headers: str | None

    @classmethod
    def of(cls, type: str, key: str | None, headers: Any, found: Mapping[str, str] = NO_HEADERS) -> Beside:
        """
        :param found: the headers of instruments; its own take precedence.
        :raises TypeError: the type or the key is not a str, or the headers are no dict with keys of str.
        :raises ValueError: PostgreSQL can't hold a text.
        """
        if type != "":
            check_text("type", type)
        if key is not None:
            check_text("key", key)
        if headers is None and not found:
            return cls(type, key, None)
        return cls(type, key, _codec.encode({**found, **_checked({} if headers is None else headers)}))


class Row(NamedTuple):
    """An event as it is written. Events that were published alike share what stands beside."""

    text: str
    beside: Beside


class Codec:
    """The conversion of a stream's data: JSON, or text, which may be None, as it is.

    :param is_text: whether data is text.
    """

    def __init__(self, is_text: bool) -> None:
        self.is_text: bool = is_text
        self.encode: Callable[[Any], str] = _codec.encode
        self.decode: Callable[[str], Any] = _codec.decode

    def text(self, data: Any) -> str:
        """Return the data of an event as it is written.

        :raises TypeError: JSON does not have something in it, or it is no text.
        :raises ValueError: PostgreSQL can't hold it; it has NaN or Infinity.
        """
        if self.is_text and data is not None:
            check_text("data", _codec.check_str(data) or "-")
        if isinstance(data, NewEvent):
            raise TypeError("the data of an event can't be a NewEvent: give that to publish_many or load")
        return self.encode(data)

    def rows(
        self, items: Iterable[Any], type: str, key: str | None, headers: Any, found: Mapping[str, str]
    ) -> Iterator[Row]:
        """Return events as they are written; the errors are those of `text` and `Beside.of`.

        :param items: data, or a `NewEvent`, which has a type, key and headers of its own.
        :param found: the headers of instruments.
        """
        beside = Beside.of(type, key, headers, found)
        for item in items:
            if isinstance(item, NewEvent):
                yield Row(self.text(item.data), Beside.of(item.type, item.key, item.headers, found))
            else:
                yield Row(self.text(item), beside)

    def event(self, columns: tuple[Any, ...], attempts: int = 1) -> Event:
        """Return an event of the columns that SQL calls ``as_read``.

        :raises DecodeError: somebody has written what this codec does not read.
        """
        id, at, type, key, text, headers = columns
        try:
            data = self.decode(text)
            if self.is_text and data is not None:
                _codec.check_str(data)
            beside = None if headers is None else json.loads(headers)
            if beside is not None:
                _checked(beside)
        except Exception as error:
            reason = describe(error)
            raise DecodeError(f"event {id} cannot be decoded ({reason})", job_id=id, reason=reason) from error
        return Event(id, at.replace(tzinfo=timezone.utc), type, key, data, beside, attempts)


def _checked(headers: Any) -> dict[str, Any]:
    if not isinstance(headers, Mapping) or not all(isinstance(name, str) for name in headers):
        raise TypeError(f"headers must be a dict whose keys are str, not {reprlib.repr(headers)}")
    return dict(headers)


def publishing(rows: list[Row]) -> tuple[str, dict[str, Any]]:
    """Return the name of the statement that publishes these, and its parameters."""
    data = array(row.text for row in rows)
    first = rows[0].beside
    if all(row.beside is first for row in rows):
        return "publish_alike", {"data": data, **first._asdict()}
    besides = [row.beside for row in rows]
    return "publish_many", {
        "types": array(beside.type for beside in besides),
        "keys": array(beside.key for beside in besides),
        "data": data,
        "headers": array(beside.headers for beside in besides),
    }


def types_of(types: Iterable[str] | None) -> list[str] | None:
    """Return types of events, each once and sorted; None: all.

    :raises TypeError: they are no iterable of str.
    :raises ValueError: PostgreSQL can't hold one, or there is none.
    """
    if types is None:
        return None
    if isinstance(types, (str, bytes)) or not isinstance(types, Iterable):
        raise TypeError(f"types must be a list of str, not {reprlib.repr(types)}")
    found = {type if type == "" else check_text("type", type) for type in types}
    if not found:
        raise ValueError("types must not be empty: None means all types")
    return sorted(found)


class EventLines(Lines[Row]):
    """A file for COPY: events."""

    _beside: Beside | None = None
    _begin = ""

    def line(self, row: Row) -> str:
        if row.beside is not self._beside:
            self._beside = row.beside
            self._begin = line_of(row.beside)
        return f"{self._begin}\t{line_of([row.text])}"
