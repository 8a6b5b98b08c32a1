"""Errors and traces, with Sentry's SDK and a transport that collects."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support import wait_until
from support.tasks import working

from pq import PQ, Discard, Retry, Worker, tasks

pytest.importorskip("sentry_sdk")
import sentry_sdk
from sentry_sdk.integrations.logging import LoggingIntegration
from sentry_sdk.transport import Transport

from pq.contrib import sentry

Sql = Callable[..., list[tuple[Any, ...]]]


class Collecting(Transport):
    """Keeps what is sent."""

    def __init__(self) -> None:
        super().__init__()
        self.items: list[Any] = []

    def capture_envelope(self, envelope: Any) -> None:
        for item in envelope.items:
            self.items.append(item.payload.json)

    @property
    def errors(self) -> list[Any]:
        return [item for item in self.items if item and "exception" in item]

    @property
    def transactions(self) -> list[Any]:
        return [item for item in self.items if item and item.get("type") == "transaction"]


@pytest.fixture
def sent() -> Iterator[Collecting]:
    transport = Collecting()
    sentry_sdk.init(
        dsn="http://key@localhost/1", transport=transport, traces_sample_rate=1.0, default_integrations=False,
        integrations=[LoggingIntegration()], auto_session_tracking=False, enable_backpressure_handling=False,
    )  # fmt: skip
    yield transport
    sentry_sdk.get_client().close()
    sentry_sdk.get_global_scope().set_client(None)
    sentry_sdk.get_isolation_scope().clear()


@pytest.fixture
def pq(dsn: str, sent: Collecting) -> Iterator[PQ]:
    with tasks.PQ(dsn) as made:
        yield made


def run(pq: PQ) -> None:
    Worker(pq, burst=True).run()


def data(span: Any) -> dict[str, Any]:
    return {name: value for name, value in span["data"].items() if name.startswith("messaging.")}


def test_one_trace(pq: PQ, sent: Collecting) -> None:
    pq.instrument(sentry.Instrument())

    @pq["mails"].task(name="send_mail")
    def send_mail(job_id: int, to: str) -> None:
        sentry_sdk.set_tag("mine", "yes")
        with sentry_sdk.start_span(op="smtp"):
            pass

    with sentry_sdk.start_transaction(op="http", name="request"):
        id = send_mail("secret@example.org")
    run(pq)
    request, attempt = sent.transactions
    (publish,) = request["spans"]
    process, smtp = sorted(attempt["spans"], key=lambda span: span["op"])
    trace = attempt["contexts"]["trace"]
    assert publish["op"] == "queue.publish" and process["op"] == "queue.process" and smtp["op"] == "smtp"
    assert (attempt["transaction"], trace["op"], trace["status"]) == ("send_mail", "queue.task", "ok")
    assert {request["contexts"]["trace"]["trace_id"], publish["trace_id"], smtp["trace_id"]} == {trace["trace_id"]}
    assert trace["parent_span_id"] == publish["span_id"] and smtp["parent_span_id"] == process["span_id"]
    assert data(publish) == {
        "messaging.system": "pq", "messaging.destination.name": "mails", "messaging.message.id": str(id),
    }  # fmt: skip
    told = data(process)
    assert 0 <= told.pop("messaging.message.receive.latency") < 60_000
    assert told == {
        **data(publish), "messaging.message.body.size": pq["mails"][id].size, "messaging.message.retry.count": 0,
    }  # fmt: skip
    assert attempt["tags"]["mine"] == "yes" and attempt["tags"]["pq.queue"] == "mails"
    assert "secret" not in str(sent.items), "no data of jobs"
    sentry_sdk.capture_message("later")
    assert "mine" not in sent.items[-1].get("tags", {}), "the scope was the job's own"


@pytest.mark.parametrize(("report", "count"), [("dead", 1), ("failed", 2), ("nothing", 0)])
def test_which_errors_are_reported(pq: PQ, sent: Collecting, report: str, count: int) -> None:
    pq.instrument(sentry.Instrument(report))

    @pq["q"].task(name="t", max_retries=1, retry_in="0s")
    def fail(job_id: int) -> None:
        sentry_sdk.set_tag("mine", "yes")
        raise KeyError("a")

    id = fail()
    run(pq)
    assert len(sent.errors) == count
    for number, error in enumerate(sent.errors, 3 - count):
        assert error["exception"]["values"][-1]["type"] == "KeyError"
        assert error["exception"]["values"][-1]["stacktrace"]["frames"][-1]["function"] == "fail"
        assert error["contexts"]["pq"] == {"queue": "q", "task": "t", "job_id": id, "attempt": number}
        assert error["tags"] == {
            "pq.queue": "q", "pq.task": "t", "mine": "yes", "pq.outcome": "retry" if number == 1 else "dead",
        }  # fmt: skip
        assert error["transaction"] == "t"
        traces = [each["contexts"]["trace"]["trace_id"] for each in sent.transactions]
        assert error["contexts"]["trace"]["trace_id"] in traces
    assert [each["contexts"]["trace"]["status"] for each in sent.transactions] == ["internal_error"] * 2


def test_ends_that_are_no_errors(pq: PQ, sent: Collecting) -> None:
    pq.instrument(sentry.Instrument("failed"))
    ends: list[BaseException | None] = [Retry("0s"), None, Discard("enough")]

    @pq["q"].task(name="t")
    def end(job_id: int) -> None:
        if (error := ends.pop(0)) is not None:
            raise error

    end()
    run(pq)
    assert sent.errors == []
    end()
    run(pq)
    assert [each["exception"]["values"][-1]["type"] for each in sent.errors] == ["Discard"]


def test_a_job_whose_handler_was_not_called(pq: PQ, sent: Collecting) -> None:
    pq.instrument(sentry.Instrument("failed"))
    with sentry_sdk.start_transaction(op="http", name="request"):
        pq["q"].put({"function": "no.such", "args": [], "kwargs": {}})
    assert Worker(pq["q"]).run_once()
    (error,) = sent.errors
    assert error["exception"]["values"][-1]["type"] == "TaskNotFound" and error["tags"]["pq.task"] == "no.such"
    assert error["contexts"]["trace"]["trace_id"] == sent.transactions[0]["contexts"]["trace"]["trace_id"]


def test_a_handler_that_hangs(pq: PQ, sent: Collecting) -> None:
    """Reported at its timeout, with its scope, before it ends."""
    pq.instrument(sentry.Instrument())
    released: list[int] = []

    @pq["q"].task(name="t", timeout="100ms")
    def hang(job_id: int) -> None:
        wait_until(lambda: released, "the end of the test")

    hang()
    with working(Worker(pq)):
        wait_until(lambda: sent.errors, "the report")
        assert sent.errors[0]["exception"]["values"][-1]["type"] == "TaskTimeout"
        assert sent.errors[0]["contexts"]["pq"]["task"] == "t"
        released.append(1)
    assert len(sent.errors) == 1


def test_what_is_logged_is_not_reported_twice(pq: PQ, sent: Collecting) -> None:
    pq.instrument(sentry.Instrument())
    pq["q"].task(name="t")(lambda job_id: 1 / 0)()
    run(pq)
    assert len(sent.errors) == 1
    logging.getLogger("mine").error("that of others is")
    assert any((item.get("logentry") or {}).get("message") == "that of others is" for item in sent.items)


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="report must be one of 'dead', 'failed', 'nothing', not 'all'"):
        sentry.Instrument("all")


def test_beside_opentelemetry(pq: PQ, sent: Collecting, sql: Sql) -> None:
    """Both hand on their own headers."""
    pytest.importorskip("opentelemetry.sdk")
    from opentelemetry import baggage, context
    from opentelemetry.sdk.trace import TracerProvider

    from pq.contrib import otel

    pq.instrument(sentry.Instrument())
    pq.instrument(otel.Instrument(TracerProvider()))
    token = context.attach(baggage.set_baggage("tenant", "acme"))
    with sentry_sdk.start_transaction(op="http", name="request"):
        pq["q"].task(name="t")(lambda job_id: None)()
    context.detach(token)
    ((headers,),) = sql("select headers from queue")
    assert set(headers) == {"sentry-trace", "traceparent", "baggage"}
    assert "sentry-trace_id=" in headers["baggage"] and "tenant=acme" in headers["baggage"]
    run(pq)
    assert len({each["contexts"]["trace"]["trace_id"] for each in sent.transactions}) == 1
