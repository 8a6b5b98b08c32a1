"""The instrument: a span for each put and each call of a handler."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta, timezone
from typing import Any

from opentelemetry import context, metrics, propagate, trace
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode

from ... import __version__
from ..._jobs.delivery import attempt_of, taken_at
from ..._text import name_of
from ...errors import Retry
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

    @contextmanager
    def sending(self, queue: str) -> Iterator[Callable[[int, int | None], None]]:
        """The span of a put. A put that puts nothing, such as a schedule's that another worker has fired, has none."""
        about = names.constant(self._names, "send", queue)
        span = self._tracer.start_span(f"send {queue}", kind=SpanKind.PRODUCER, attributes=about)
        told: list[Any] = []
        token = context.attach(trace.set_span_in_context(span))
        try:
            yield lambda *sent: told.extend(sent)
        except BaseException as error:
            _set_error(span, error)
            span.end()
            self._count_sent(1, queue, {names.ERROR_TYPE: name_of(error)})
            raise
        finally:
            context.detach(token)
        count, id = told or (0, None)
        if count or id is not None:
            span.set_attributes(names.numbers(self._names, count, id))
            span.end()
            self._count_sent(count, queue, {})

    def _count_sent(self, count: int, queue: str, kind: dict[str, str]) -> None:
        for counter, each in zip(self._sent, self._names, strict=True):
            counter.add(count, {**names.constant((each,), "send", queue), **kind})

    @contextmanager
    def around(self, job: Any, task: str) -> Iterator[None]:
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
        began = time.perf_counter()
        kind: dict[str, str] = {}
        token = context.attach(trace.set_span_in_context(span, where))
        try:
            yield
        except BaseException as error:
            if not isinstance(error, Retry):
                kind = {names.ERROR_TYPE: name_of(error)}
                _set_error(span, error, queue.keep_traceback)
            raise
        finally:
            context.detach(token)
            span.end()
            seconds = time.perf_counter() - began
            for counter, histogram, each in zip(self._taken, self._duration, self._names, strict=True):
                what = {**names.constant((each,), "process", queue.name), names.TASK: task, **kind}
                counter.add(1, what)
                histogram.record(seconds, what)


def _set_error(span: Span, error: BaseException, shows: bool = True) -> None:
    """Note an error.

    :param shows: whether its message and traceback may be noted, too.
    """
    span.set_attribute(names.ERROR_TYPE, name_of(error))
    span.set_status(Status(StatusCode.ERROR, str(error) if shows else None))
    if shows:
        span.record_exception(error)
