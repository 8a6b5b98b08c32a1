"""Many jobs at once, as the server reads them: arrays for INSERT, lines for COPY. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta, timezone
from typing import Any, NamedTuple

from .._times import NOW, TimeSpec, When, when
from .._unique import Unique, key_of, unique_of
from ..sql import array
from .lines import Lines, line_of

#: The parameters that `parameters` leaves out where no job has times.
NO_TIMES = dict.fromkeys(("schedule_at", "schedule_in", "expected_at", "expected_in"), "{}")


class NewJob(NamedTuple):
    """A job for `Queue.put_many` or `Queue.load`, with times, a key and a token of its own.

    Its fields are arguments of `Queue.put`. `load` takes no tokens.
    """

    data: Any
    schedule_at: TimeSpec = None
    expected_at: TimeSpec = None
    key: str | None = None
    unique: str | bool | Unique | None = None


class Row(NamedTuple):
    """A job as it is written: JSON text, its times, and what it was given beside."""

    text: str
    schedule: When
    expected: When
    key: str | None = None
    unique: Unique | None = None
    headers: str | None = None


def rows(
    queue: str, items: Iterable[Any], encode: Callable[[Any], str], schedule_at: TimeSpec, expected_at: TimeSpec,
    headers: str | None = None,
) -> Iterator[Row]:  # fmt: skip
    """Encode jobs.

    :param queue: the name of their queue.
    :param items: data, or a `NewJob`, whose times take precedence.
    :param schedule_at: for the jobs that have no such time of their own; likewise `expected_at`.

    :param headers: of all of them, as JSON.

    The times are checked now, and the items as they are read.
    """
    times = when("schedule_at", schedule_at), when("expected_at", expected_at)
    return _rows(queue, iter(items), encode, *times, headers)


def _rows(
    queue: str, items: Iterator[Any], encode: Callable[[Any], str], schedule: When, expected: When,
    headers: str | None,
) -> Iterator[Row]:  # fmt: skip
    for item in items:
        if isinstance(item, NewJob):
            yield Row(
                encode(item.data),
                schedule if item.schedule_at is None else when("schedule_at", item.schedule_at),
                expected if item.expected_at is None else when("expected_at", item.expected_at),
                key_of(item.key, queue),
                unique_of(item.unique, queue),
                headers,
            )
        else:
            yield Row(encode(item), schedule, expected, headers=headers)


def parameters(chunk: list[Row]) -> dict[str, Any]:
    """Return arrays of one length, or empty, for ``put_many``; the data, and
    perhaps headers, alone if no job has times or a key."""
    given = {"data": array([row.text for row in chunk])}
    if chunk[0].headers is not None:  # those of all
        given["headers"] = chunk[0].headers
    if any(row.key is not None for row in chunk):
        given["key"] = array([row.key for row in chunk])
    elif all(row.schedule == NOW and row.expected == NOW for row in chunk):
        return given
    return {
        **given,
        "schedule_at": _column(row.schedule.at for row in chunk),
        "schedule_in": _column(interval(row.schedule.delay) for row in chunk),
        "expected_at": _column(row.expected.at for row in chunk),
        "expected_in": _column(interval(row.expected.delay) for row in chunk),
    }


def _column(values: Iterable[object]) -> str:
    found = list(values)
    return array(found) if any(value is not None for value in found) else "{}"


def times(schedule: When, expected: When) -> dict[str, Any]:
    """Return the parameters that hold the times of one job."""
    return {
        "schedule_at": schedule.at,
        "schedule_in": interval(schedule.delay),
        "expected_at": expected.at,
        "expected_in": interval(expected.delay),
    }


def interval(delay: timedelta | None) -> str | None:
    """Write an interval for the server, each part with a sign: by the SQL standard a first sign counts for the rest."""
    return None if delay is None else f"{delay.days} days +{delay.seconds}.{delay.microseconds:06} seconds"


class JobLines(Lines[Row]):
    """A file for COPY: the jobs of one queue.

    :param now: the server's clock; naive, in UTC.
    :ivar headers: of all jobs, as JSON; or None.
    """

    def __init__(self, queue: str, rows: Iterator[Row], now: datetime, headers: str | None = None) -> None:
        super().__init__(rows)
        self.headers = headers
        self._end = "" if headers is None else f"\t{line_of([headers])}"
        self._queue = line_of([queue])
        self._now = now.replace(tzinfo=timezone.utc)

    def line(self, row: Row) -> str:
        """
        :raises ValueError: the job has a token.
        """
        if row.unique is not None:
            raise ValueError(f"load can't look for duplicates: use put or put_many for {row.unique!r}")
        rest = line_of((row.text, self._moment(row.schedule), self._moment(row.expected), row.key))
        return f"{self._queue}\t{rest}{self._end}"

    def _moment(self, when: When) -> str | None:
        if when.delay is not None:
            try:
                return str(self._now + when.delay)
            except OverflowError:
                return str(_FIRST)
        return None if when.at is None else str(when.at)


#: The earliest time of Python. Where a job is read, an earlier time shows as this one.
_FIRST = datetime.min.replace(tzinfo=timezone.utc)
