"""Spans and metrics, with the SDK of OpenTelemetry."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support import wait_until
from support.tasks import working

from pq import PQ, Discard, Retry, Schedule, Worker, tasks

pytest.importorskip("opentelemetry.sdk")
from opentelemetry import baggage, context, propagate, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from pq.contrib import otel
from pq.contrib.otel import names

Sql = Callable[..., list[tuple[Any, ...]]]


class Kit:
    """Where spans and metrics end."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer = self.provider.get_tracer("test")
        self.reader = InMemoryMetricReader()
        self.meters = MeterProvider([self.reader])

    def instrument(self) -> otel.Instrument:
        return otel.Instrument(self.provider, self.meters)

    @property
    def spans(self) -> list[ReadableSpan]:
        """In the order in which they ended."""
        return list(self.exporter.get_finished_spans())

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.spans if span.name == name]

    def metrics(self) -> dict[str, dict[tuple[tuple[str, Any], ...], Any]]:
        """By name and attributes: the value of a counter, how many values a histogram has."""
        data = self.reader.get_metrics_data()
        return {
            metric.name: {
                tuple(sorted(point.attributes.items())): getattr(point, "value", None) or getattr(point, "count", None)
                for point in metric.data.data_points
            }
            for resource in (data.resource_metrics if data else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }


@pytest.fixture
def kit() -> Iterator[Kit]:
    made = Kit()
    yield made
    made.meters.shutdown()
    made.provider.shutdown()


@pytest.fixture
def pq(dsn: str, kit: Kit) -> Iterator[PQ]:
    with tasks.PQ(dsn) as made:
        made.instrument(kit.instrument())
        yield made


def run(pq: PQ) -> None:
    Worker(pq, burst=True).run()


def parent(span: ReadableSpan) -> int | None:
    return None if span.parent is None else span.parent.span_id


def test_one_trace_from_the_request_to_the_handler(pq: PQ, kit: Kit) -> None:
    current: list[Any] = []

    @pq["mails"].task(name="send_mail")
    def send_mail(job_id: int) -> None:
        current.append(trace.get_current_span().get_span_context().span_id)
        current.append(baggage.get_baggage("tenant"))
        with kit.tracer.start_as_current_span("smtp"):
            pass

    with kit.tracer.start_as_current_span("request") as current_request:
        token = context.attach(baggage.set_baggage("tenant", "acme"))
        id = send_mail()
        assert trace.get_current_span() is current_request
        context.detach(token)
    assert Worker(pq).run_once()  # in this thread
    send, request, smtp, process = kit.spans
    assert [span.name for span in kit.spans] == ["send mails", "request", "smtp", "process mails"]
    assert len({span.context.trace_id for span in kit.spans}) == 1
    assert parent(send) == request.context.span_id
    assert parent(process) == send.context.span_id and process.parent.is_remote  # type: ignore[union-attr]
    assert parent(smtp) == process.context.span_id
    assert current == [process.context.span_id, "acme"]
    assert (send.kind, process.kind) == (SpanKind.PRODUCER, SpanKind.CONSUMER)
    assert dict(send.attributes or {}) == {"pq.queue": "mails", "pq.job.id": id}
    assert dict(process.attributes or {}) == {
        "pq.queue": "mails", "pq.job.id": id, "pq.task": "send_mail", "pq.attempt": 1,
    }  # fmt: skip
    assert process.status.status_code == StatusCode.UNSET
    assert trace.get_current_span() is trace.INVALID_SPAN, "nothing is left behind"


def test_a_retry_is_a_trace_of_its_own_with_a_link(pq: PQ, kit: Kit) -> None:
    @pq["q"].task(name="t", max_retries=1, retry_in="0s", transactional=True)
    def fail(job_id: int) -> None:
        raise KeyError("a")

    fail()
    run(pq)
    (send,) = kit.named("send q")
    first, second = kit.named("process q")
    assert parent(first) == send.context.span_id and not first.links
    assert second.parent is None and second.context.trace_id != send.context.trace_id
    assert [link.context.span_id for link in second.links] == [send.context.span_id]
    assert [span.attributes["pq.attempt"] for span in (first, second)] == [1, 2]  # type: ignore[index]
    for span in (first, second):
        assert span.status.status_code == StatusCode.ERROR
        assert span.attributes["error.type"] == "KeyError"  # type: ignore[index]
        (event,) = span.events
        assert event.name == "exception"
        told = dict(event.attributes or {})
        lines = str(told.pop("exception.stacktrace")).splitlines()
        assert lines[0] == "Traceback (most recent call last):" and lines[-1] == "KeyError: 'a'"
        assert [line.rpartition(" in ")[2] for line in lines if line.startswith("  File")] == ["fail"]
        assert told == {"exception.type": "KeyError", "exception.message": "'a'"}


def test_an_old_job_too(pq: PQ, kit: Kit, sql: Sql) -> None:
    task = pq["q"].task(name="t")(lambda job_id: None)
    for hours in (0.9, 1.1):
        task()
        sql("update queue set enqueued_at = enqueued_at - %s * interval '1 hour' where dequeued_at is null", (hours,))
        run(pq)
    young, old = kit.named("process q")
    assert young.parent is not None and old.parent is None
    assert [link.context.span_id for link in old.links] == [kit.named("send q")[1].context.span_id]


def test_a_job_without_headers_begins_a_trace(pq: PQ, kit: Kit, sql: Sql) -> None:
    pq["q"].task(name="t", max_retries=1, retry_in="0s")(lambda job_id: 1 / 0)()
    sql("update queue set headers = null")
    run(pq)
    for span in kit.named("process q"):
        assert span.parent is None and not span.links


@pytest.mark.parametrize("text", ['{"traceparent": "junk"}', '{"traceparent": 7}', "[]", '{"baggage": "%%%,="}'])
def test_headers_that_others_have_written(pq: PQ, kit: Kit, sql: Sql, text: str) -> None:
    pq["q"].task(name="t")(lambda job_id: None)()
    sql("update queue set headers = %s", (text,))
    run(pq)
    (span,) = kit.named("process q")
    assert span.parent is None


def test_what_is_an_error(pq: PQ, kit: Kit) -> None:
    ends: list[BaseException] = [Retry("0s"), Discard("why"), SystemExit(3)]

    @pq["q"].task(name="t")
    def end(job_id: int) -> None:
        raise ends.pop(0)

    end()
    run(pq)
    end()
    run(pq)
    retried, discarded, exited = kit.named("process q")
    assert retried.status.status_code == StatusCode.UNSET and "error.type" not in retried.attributes  # type: ignore[operator]
    assert discarded.attributes["error.type"] == "pq.errors.Discard"  # type: ignore[index]
    assert exited.attributes["error.type"] == "SystemExit"  # type: ignore[index]


def test_errors_that_cannot_be_written(pq: PQ, kit: Kit) -> None:
    class Rude(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no")

    @pq["q"].task(name="t")
    def fail(job_id: int) -> None:
        raise Rude

    fail()
    run(pq)
    (span,) = kit.named("process q")
    assert span.status.status_code == StatusCode.ERROR
    assert span.events[0].attributes["exception.stacktrace"].endswith(f"{span.status.description}\n")  # type: ignore[index, union-attr]


def test_around_code_of_ones_own_its_frames_come_first(pq: PQ, kit: Kit) -> None:
    pq["q"].put(1)
    job = pq["q"].get(lease="1m")
    assert job is not None
    with pytest.raises(KeyError), job, kit.instrument().around(job, "t"):
        raise KeyError("a")
    (event,) = kit.named("process q")[0].events
    stack = str(dict(event.attributes or {})["exception.stacktrace"])
    assert stack.count("  File") == 1 and "test_around_code_of_ones_own" in stack


def test_a_queue_that_keeps_no_traceback_tells_no_message(pq: PQ, kit: Kit) -> None:
    @pq["q"].task(name="t")
    def fail(job_id: int) -> None:
        raise KeyError("secret")

    pq["q"].keep_traceback = False
    fail()
    run(pq)
    (span,) = kit.named("process q")
    assert span.attributes["error.type"] == "KeyError" and "secret" not in span.to_json()  # type: ignore[index]


def test_puts_that_fail_or_put_nothing(pq: PQ, kit: Kit) -> None:
    with pytest.raises(TypeError):
        pq["q"].put(object())
    pq["q"].put_many([])
    id = pq["q"].put(1, unique="t")
    pq["q"].put(1, unique="t")
    pq["q"].put_many([1, 2])
    pq["q"].load([1, 2, 3])
    failed, first, second, many, loaded = kit.named("send q")
    assert failed.attributes["error.type"] == "TypeError" and failed.status.status_code == StatusCode.ERROR  # type: ignore[index]
    assert first.attributes["pq.job.id"] == second.attributes["pq.job.id"] == id  # type: ignore[index]
    assert many.attributes == {"pq.queue": "q", "pq.job.count": 2}
    assert loaded.attributes == {"pq.queue": "q", "pq.job.count": 3}


def test_a_batch_has_one_span_that_all_its_jobs_continue(pq: PQ, kit: Kit) -> None:
    pq["q"].task(name="t")(lambda job_id, n: None).put_many([(n,) for n in range(3)])
    run(pq)
    (send,) = kit.named("send q")
    assert [parent(span) for span in kit.named("process q")] == [send.context.span_id] * 3


def test_a_schedule(pq: PQ, kit: Kit) -> None:
    task = pq["q"].task(name="t")(lambda job_id: None)
    pq.schedules["s"] = Schedule("q", task.new_job().data, every="1h")
    pq.schedules["s"].fire()
    run(pq)
    send, process = kit.spans
    assert (send.name, parent(process)) == ("send q", send.context.span_id)


@pytest.mark.parametrize("way", ["publish", "publish_many", "load"])
def test_from_who_publishes_an_event_to_its_function(pq: PQ, kit: Kit, way: str) -> None:
    stream = pq.streams["orders"]
    stream.create()

    @stream.on(subscription="bills", start="beginning", max_retries=1, retry_in="0s")
    def bill(event: Any) -> None:
        if event.attempts == 1:
            raise KeyError("a")

    with kit.tracer.start_as_current_span("request"):
        getattr(stream, way)(*([1] if way == "publish" else [[1]]))
    with working(Worker(pq)):
        wait_until(lambda: len(kit.named("process orders:bills:jobs")) == 2, "both attempts")
    (request,), (send,) = kit.named("request"), kit.named("send orders")
    first, second = kit.named("process orders:bills:jobs")
    assert len(kit.spans) == 4, "that a job is made of the event is no put"
    assert parent(send) == request.context.span_id and parent(first) == send.context.span_id
    assert [link.context.span_id for link in second.links] == [send.context.span_id]
    count = {"pq.job.id": stream.read()[0].id} if way == "publish" else {"pq.job.count": 1}
    assert send.attributes == {"pq.queue": "orders", **count}


def test_metrics(pq: PQ, kit: Kit) -> None:
    task = pq["q"].task(name="t")(lambda job_id, n: 1 / n)
    task.put_many([(1,), (2,), (0,)])
    task(4)
    run(pq)
    done = (("pq.queue", "q"), ("pq.task", "t"))
    failed = (("error.type", "ZeroDivisionError"), *done)
    assert kit.metrics() == {
        "pq.jobs.sent": {(("pq.queue", "q"),): 4},
        "pq.jobs.taken": {done: 3, failed: 1},
        "pq.job.duration": {done: 3, failed: 1},
    }


@pytest.mark.parametrize("words", ["messaging", "http, messaging", "messaging/dup"])
def test_the_names_of_the_conventions(dsn: str, kit: Kit, monkeypatch: pytest.MonkeyPatch, words: str) -> None:
    monkeypatch.setenv(names.OPT_IN, words)
    both = words == "messaging/dup"
    with tasks.PQ(dsn) as pq:
        pq.instrument(kit.instrument())
        task = pq["mails"].task(name="t")(lambda job_id: None)
        id = task()
        task.put_many([()])
        run(pq)
    one, many = kit.named("send mails")
    process = kit.named("process mails")[0]
    constant = {"messaging.system": "pq", "messaging.destination.name": "mails"}
    constant |= {"pq.queue": "mails"} if both else {}
    sends = {**constant, "messaging.operation.name": "send", "messaging.operation.type": "send"}
    takes = {**constant, "messaging.operation.name": "process", "messaging.operation.type": "process"}
    message = {"messaging.message.id": str(id)} | ({"pq.job.id": id} if both else {})
    count = {"messaging.batch.message_count": 1} | ({"pq.job.count": 1} if both else {})
    assert one.attributes == {**sends, **message} and many.attributes == {**sends, **count}
    assert process.attributes == {**takes, **message, "pq.task": "t", "pq.attempt": 1}
    found = set(kit.metrics())
    conventions = {
        "messaging.client.sent.messages", "messaging.client.consumed.messages", "messaging.process.duration",
    }  # fmt: skip
    assert found == conventions | ({"pq.jobs.sent", "pq.jobs.taken", "pq.job.duration"} if both else set())


def test_the_conventions_are_those_of_the_package() -> None:
    """As the real package has them."""
    from opentelemetry.semconv._incubating.attributes import messaging_attributes
    from opentelemetry.semconv._incubating.metrics import messaging_metrics

    values = [*vars(messaging_attributes).values(), *vars(messaging_metrics).values()]
    used = {*dict(names.MESSAGING.constant), *names.MESSAGING.operation, *names.MESSAGING[2:]}
    assert used - {value for value in values if isinstance(value, str)} == set()


PROGRAM = """
import json, sys
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from pq import PQ, Worker
from pq.contrib import otel
exporter = InMemorySpanExporter()
trace.set_tracer_provider(TracerProvider())
trace.get_tracer_provider().add_span_processor(SimpleSpanProcessor(exporter))
with PQ(sys.argv[1]) as pq:
    pq.instrument(otel.Instrument())
    pq["q"].task(name="t")(lambda job_id: None)
    Worker(pq, burst=True).run()
print(json.dumps([json.loads(span.to_json()) for span in exporter.get_finished_spans()]))
"""


def test_across_processes_with_the_global_provider(pq: PQ, kit: Kit, dsn: str) -> None:
    pq["q"].task(name="t")(lambda job_id: None)()
    (send,) = kit.spans
    root = str(Path(__file__).parents[2])
    out = subprocess.run(
        [sys.executable, "-c", PROGRAM, dsn], capture_output=True, text=True, check=True, timeout=60, cwd=root
    )
    (process,) = json.loads(out.stdout)
    assert process["context"]["trace_id"] == f"0x{send.context.trace_id:032x}"
    assert process["parent_id"] == f"0x{send.context.span_id:016x}"


def test_without_an_sdk_it_does_nothing(dsn: str, sql: Sql) -> None:
    """The API alone makes no spans: no header, no error."""
    with tasks.PQ(dsn) as pq:
        pq.instrument(otel.Instrument(trace.NoOpTracerProvider()))
        pq["q"].task(name="t")(lambda job_id: None)()
        run(pq)
    assert sql("select headers, error from queue") == [(None, None)]


def test_another_propagator(pq: PQ, kit: Kit, sql: Sql) -> None:
    """Headers are what the propagators of the process write."""

    class Mine:
        def inject(self, carrier: Any, context: Any = None, setter: Any = None) -> None:
            carrier["mine"] = "x"

        def extract(self, carrier: Any, context: Any = None, getter: Any = None) -> Any:
            assert carrier == {"mine": "x"}
            return context

        fields: set[str] = set()

    before = propagate.get_global_textmap()
    propagate.set_global_textmap(Mine())  # type: ignore[arg-type]
    try:
        pq["q"].task(name="t")(lambda job_id: None)()
        assert sql("select headers from queue") == [({"mine": "x"},)]
        run(pq)
    finally:
        propagate.set_global_textmap(before)
    assert len(kit.named("process q")) == 1
