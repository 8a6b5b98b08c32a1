"""Instruments: objects of the application's that are told of each put and each call of a handler; see `PQ.instrument`.

Nothing here is paid for where there are none: who puts or runs a job looks at an empty tuple.
"""

from __future__ import annotations

import json
import re
import reprlib
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, TypeVar

from .._args import check_text
from .._logs import queue_log as logger

if TYPE_CHECKING:
    from typing_extensions import Self

T = TypeVar("T")

#: What an instrument may have.
METHODS = ("headers", "sending", "around", "event")

#: The largest size of the headers of a job, in bytes of JSON.
MOST_BYTES = 16_384

#: Names that begin like this are pq's own.
RESERVED = "pq."


class Instruments:
    """Those of a table, in the order in which they were given.

    :ivar puts: whether some have to do with puts.
    :ivar headers: the methods of that name, each with its instrument.
    :ivar sendings: the methods of that name; likewise `arounds` and `events`.
    """

    def __init__(self) -> None:
        self.puts: bool = False
        self.headers: tuple[tuple[Callable[[str], Any], Any], ...] = ()
        self.sendings: tuple[Callable[[str], Any], ...] = ()
        self.arounds: tuple[Callable[[Any, str], Any], ...] = ()
        self.events: tuple[Callable[[Any], Any], ...] = ()

    def add(self, instrument: Any) -> None:
        """
        :raises TypeError: it has none of the `METHODS`, or one of them can't be called.
        """
        found = {name: getattr(instrument, name) for name in METHODS if hasattr(instrument, name)}
        if not found or isinstance(instrument, type) or not all(map(callable, found.values())):
            raise TypeError(
                f"an instrument must be an object with at least one of the methods {', '.join(METHODS)}, not "
                f"{reprlib.repr(instrument)}"
            )
        if "headers" in found:
            self.headers = (*self.headers, (found["headers"], instrument))
        if "sending" in found:
            self.sendings = (*self.sendings, found["sending"])
        self.puts = bool(self.headers or self.sendings)
        if "around" in found:
            self.arounds = (*self.arounds, found["around"])
        if "event" in found:
            self.events = (*self.events, found["event"])

    def sending(self, queue: str) -> Sending:
        """Return a context manager for a put into a queue."""
        return Sending(self, queue)

    def call(self, job: Any, task: str, function: Callable[[], T]) -> T:
        """Call a function that performs a job, in this thread.

        :param task: the name of the task.
        """
        if not self.arounds:
            return function()
        with ExitStack() as stack:
            for around in self.arounds:
                stack.enter_context(_Guarded(around, job, task))
            return function()


class Sending:
    """One put, of any number of jobs.

    :ivar found: the headers of its jobs, and `headers` the same as JSON, or None.
    """

    __slots__ = ("_entered", "_instruments", "_queue", "_told", "found", "headers")

    def __init__(self, instruments: Instruments, queue: str) -> None:
        self._instruments = instruments
        self._queue = queue
        self._entered: list[_Guarded] = []
        self._told: list[Callable[[int, int | None], Any]] = []
        self.found: dict[str, str] = {}
        self.headers: str | None = None

    def __enter__(self) -> Self:
        """
        :raises TypeError: the headers of an instrument are no mapping of str to str.
        :raises ValueError: one of them can't be stored, or all are too long.
        """
        try:
            for sending in self._instruments.sendings:
                guarded = _Guarded(sending, self._queue)
                told = guarded.__enter__()
                self._entered.append(guarded)
                if callable(told):
                    self._told.append(told)
            self._ask()
        except BaseException:
            self.__exit__(*sys.exc_info())
            raise
        return self

    def __exit__(self, *error: Any) -> None:
        if self._entered:
            try:
                self._entered.pop().__exit__(*error)
            finally:
                self.__exit__(*error)

    def _ask(self) -> None:
        for headers, instrument in self._instruments.headers:
            _add(self.found, headers(self._queue), instrument)
        if self.found:
            self.headers = _encoded(self.found)

    def sent(self, jobs: int | Sequence[int], id: int | None = None) -> None:
        """Tell how many jobs were put.

        :param jobs: their number, or what was returned for them: a `JobId` may be that of a job that was there.
        :param id: of a single job.
        """
        if not self._told:
            return
        count = jobs if isinstance(jobs, int) else sum(getattr(each, "created", True) for each in jobs)
        for told in self._told:
            try:
                told(count, id)
            except Exception:
                logger.exception("an instrument failed")


class _Guarded:
    """A context manager of an instrument's that neither fails nor swallows an exception: what goes wrong is logged."""

    __slots__ = ("_args", "_make", "_manager")

    def __init__(self, make: Callable[..., Any], *args: Any) -> None:
        self._make = make
        self._args = args
        self._manager: Any = None

    def __enter__(self) -> Any:
        try:
            manager = self._make(*self._args)
            value = manager.__enter__()
        except Exception:
            logger.exception("an instrument failed")
            return None
        self._manager = manager
        return value

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        if self._manager is None:
            return
        try:
            self._manager.__exit__(kind, error, traceback)
        except Exception as problem:
            if problem is not error:
                logger.exception("an instrument failed")


def with_headers(headers: str | None) -> dict[str, str]:
    """Return the fragments of SQL that a put with these headers has in place of others; without, its text stays."""
    if headers is None:
        return {}
    return {"headers_column": "headers_column_given", "headers_value": "headers_value_given"}


#: Likewise for jobs that are made of events; see ``common.sql``.
HEADERS_OF_EVENTS: Mapping[str, str] = {
    "headers_column": "headers_column_given", "headers_value": "headers_value_of_event"
}  # fmt: skip


def headers_of(text: str | None) -> dict[str, str] | None:
    """Read what stands in a row, which anybody may have written; what is no text is left out."""
    if text is None:
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return {name: value for name, value in found.items() if type(value) is str} if type(found) is dict else None


def trace_of(headers: Mapping[str, str] | None) -> str | None:
    """Return the id of the trace in which a job was put, by the headers of OpenTelemetry or of Sentry."""
    if not headers:
        return None
    found = (form.match(headers.get(name, "")) for name, form in _TRACES.items())
    return next((match[1] for match in found if match is not None), None)


_TRACES = {
    "traceparent": re.compile("[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-"),
    "sentry-trace": re.compile("([0-9a-f]{32})-[0-9a-f]{16}"),
}


def _add(found: dict[str, str], headers: Any, instrument: Any) -> None:
    if headers is None:
        return
    if not isinstance(headers, Mapping):
        kind = type(headers).__name__
        raise TypeError(f"the headers of {instrument!r} must be a dict of str, not {kind}: {reprlib.repr(headers)}")
    for name, value in headers.items():
        check_text("the name of a header", name)
        if name.startswith(RESERVED):
            raise ValueError(f"header {name!r} of {instrument!r} begins with {RESERVED!r}, which is reserved for pq")
        if value != "":
            check_text(f"header {name!r}", value)
        # the one list among them, of which each instrument has a part
        found[name] = f"{found[name]},{value}" if name == "baggage" and found.get(name) else value


def _encoded(headers: dict[str, str]) -> str:
    text = json.dumps(headers)
    if len(text) > MOST_BYTES:
        sizes = ", ".join(f"{name} {len(value):,}" for name, value in headers.items())
        raise ValueError(
            f"the headers of a job can have {MOST_BYTES:,} bytes of JSON, and these have {len(text):,} ({sizes})"
        )
    return text
