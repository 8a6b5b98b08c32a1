"""The instrument: a span for each put and each call of a handler."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import timedelta, timezone
from functools import partial
from typing import Any

from opentelemetry import context, metrics, propagate, trace
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode

from ... import __version__
from ..._jobs.delivery import attempt_of, taken_at
from ..._text import message_of, name_of
from ..._traceback import traceback_of
from ...errors import Retry
from ...worker.handler import in_handler
from . import names

#: A job that was put so long ago has a trace of its own.
OLD = timedelta(hours=1)


class Instrument:
    """Spans and metrics of OpenTelemetry, for `PQ.instrument`.

    A put makes a span ``send mails``, and the call of a handler one ``process mails``, whose parent is that of the put:
    so one trace goes through the commit and the processes. A retry, and a job that was put more than an hour ago,
    begins a trace of its own, with a link to the span of the put.

    :param tracer_provider: default: the global one.
    :param meter_provider: likewise.
    """

    def __init__(
        self,
        tracer_provider: trace.TracerProvider | None = None,
        meter_provider: metrics.MeterProvider | None = None,
    ) -> None:
        self._names = names.chosen()
        self._tracer = trace.get_tracer("pq", __version__, tracer_provider)
        meter = metrics.get_meter("pq", __version__, meter_provider)
        self._sent = [meter.create_counter(each.sent, "{job}", "Jobs that were put") for each in self._names]
        self._taken = [meter.create_counter(each.taken, "{job}", "Calls of handlers") for each in self._names]
        self._duration = [meter.create_histogram(each.duration, "s", "Calls of handlers") for each in self._names]

    def headers(self, queue: str) -> dict[str, str]:
        """Return what the propagators of this process say of the current span."""
        carrier: dict[str, str] = {}
        propagate.inject(carrier)
        return carrier

    def sending(self, queue: str) -> AbstractContextManager[Callable[[int, int | None], None]]:
        """The span of a put. A put that puts nothing, such as a schedule's that another worker has fired, has none."""
        return _Sending(self._names, self._tracer, self._sent, queue)

    def around(self, job: Any, task: str) -> AbstractContextManager[None]:
        """The span of one attempt. `Retry` is no error."""
        queue = job.queue
        attempt = attempt_of(job)
        where = propagate.extract(job.headers or {}, context.Context())
        origin = trace.get_current_span(where).get_span_context()
        links: list[Link] = []
        if attempt > 1 or taken_at(job) - job.enqueued_at.replace(tzinfo=timezone.utc) > OLD:
            links = [Link(origin)] if origin.is_valid else []
            where = trace.set_span_in_context(trace.INVALID_SPAN, where)  # what else was handed on, stays
        about = {**names.constant(self._names, "process", queue.name), **names.numbers(self._names, None, job.id)}
        about |= {names.TASK: task, names.ATTEMPT: attempt}
        span = self._tracer.start_span(
            f"process {queue.name}", where, kind=SpanKind.CONSUMER, attributes=about, links=links
        )
        return _Attempt(span, where, queue.keep_traceback, partial(self._count_attempt, queue.name, task))

    def _count_attempt(self, queue: str, task: str, seconds: float, error: dict[str, str]) -> None:
        for counter, histogram, each in zip(self._taken, self._duration, self._names, strict=True):
            what = {**names.constant((each,), "process", queue), names.TASK: task, **error}
            counter.add(1, what)
            histogram.record(seconds, what)


class _Attempt:
    """The span of an attempt. A generator would be a frame of its own in the tracebacks of errors."""

    __slots__ = ("_began", "_count", "_shows", "_span", "_token", "_where")

    def __init__(
        self, span: Span, where: context.Context, shows: bool, count: Callable[[float, dict[str, str]], None]
    ) -> None:
        self._span = span
        self._where = where
        self._shows = shows
        self._count = count

    def __enter__(self) -> None:
        self._began = time.perf_counter()
        self._token = context.attach(trace.set_span_in_context(self._span, self._where))

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: object) -> None:
        context.detach(self._token)
        told = {}
        if error is not None and not isinstance(error, Retry):
            told = {names.ERROR_TYPE: name_of(error)}
            _set_error(self._span, error, self._shows)
        self._span.end()
        self._count(time.perf_counter() - self._began, told)


class _Sending:
    """The span of a put; not made by `contextmanager`, which alone takes as long as the rest of it."""

    __slots__ = ("_count", "_counters", "_id", "_names", "_queue", "_span", "_token", "_tracer")

    def __init__(
        self, chosen: tuple[names.Names, ...], tracer: trace.Tracer, counters: list[metrics.Counter], queue: str
    ) -> None:
        self._names = chosen
        self._tracer = tracer
        self._counters = counters
        self._queue = queue
        self._count = 0
        self._id: int | None = None

    def __enter__(self) -> Callable[[int, int | None], None]:
        about = names.constant(self._names, "send", self._queue)
        self._span = self._tracer.start_span(f"send {self._queue}", kind=SpanKind.PRODUCER, attributes=about)
        self._token = context.attach(trace.set_span_in_context(self._span))
        return self._sent

    def _sent(self, count: int, id: int | None) -> None:
        self._count, self._id = count, id

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: object) -> None:
        context.detach(self._token)
        span = self._span
        if error is not None:
            _set_error(span, error)
            span.end()
            self._add(1, {names.ERROR_TYPE: name_of(error)})
        elif self._count or self._id is not None:
            span.set_attributes(names.numbers(self._names, self._count, self._id))
            span.end()
            self._add(self._count, {})

    def _add(self, count: int, error: dict[str, str]) -> None:
        for counter, each in zip(self._counters, self._names, strict=True):
            about = names.constant((each,), "send", self._queue)
            counter.add(count, {**about, **error} if error else about)


def _set_error(span: Span, error: BaseException, shows: bool = True) -> None:
    """Note an error, as `Span.record_exception` does, which trusts the error, and shows who called the handler.

    :param shows: whether its message and traceback may be noted, too.
    """
    kind = name_of(error)
    span.set_attribute(names.ERROR_TYPE, kind)
    if not shows:
        span.set_status(Status(StatusCode.ERROR))
        return
    message = message_of(error)
    span.set_status(Status(StatusCode.ERROR, message))
    stack = traceback_of(error, in_handler(error)) or ""
    span.add_event(
        "exception", {"exception.type": kind, "exception.message": message, "exception.stacktrace": stack}
    )
