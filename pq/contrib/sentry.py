"""Errors and traces for Sentry: the extra ``pq[sentry]``.

    import sentry_sdk
    from pq.contrib import sentry

    sentry_sdk.init(…)
    pq.instrument(sentry.Instrument())
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import sentry_sdk
from sentry_sdk.integrations.logging import ignore_logger
from sentry_sdk.scope import use_isolation_scope

from .._args import check_word
from .._jobs.delivery import attempt_of, ready_at, taken_at
from ..errors import LeaseLost, Retry

if TYPE_CHECKING:
    from ..worker import Event

__all__ = ["Instrument"]

ORIGIN = "auto.queue.pq"

#: Which events of a worker are reported.
REPORTED: dict[str, tuple[str, ...]] = {"dead": ("dead",), "failed": ("dead", "retry"), "nothing": ()}


class Instrument:
    """Errors and traces for Sentry, for `PQ.instrument`.

    Each attempt has an isolation scope of its own, with the tags ``pq.queue`` and ``pq.task``, and is a transaction
    with the name of the task, in the trace of the put. The data of jobs is not sent.

    :param report: ``'dead'``: the error of a job that is given up, ``'failed'``: of each attempt that fails, or
        ``'nothing'``. Only a worker reports.
    :raises ValueError: `report` is another word.

    The worker's log says the same, so Sentry's logging integration ignores the logger ``pq.tasks`` from then on.
    """

    def __init__(self, report: str = "dead") -> None:
        self._reported = REPORTED[check_word("report", report, tuple(REPORTED))]
        self._scopes: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()  # of the attempts that have ended
        ignore_logger("pq.tasks")

    def headers(self, queue: str) -> dict[str, str]:
        """Return what Sentry hands on."""
        found = {"sentry-trace": sentry_sdk.get_traceparent(), "baggage": sentry_sdk.get_baggage()}
        return {name: value for name, value in found.items() if value}

    @contextmanager
    def sending(self, queue: str) -> Iterator[Callable[[int, int | None], None]]:
        """A span for a put, where there is a transaction."""
        with sentry_sdk.start_span(op="queue.publish", name=queue, origin=ORIGIN) as span:
            span.set_data("messaging.system", "pq")
            span.set_data("messaging.destination.name", queue)

            def sent(count: int, id: int | None) -> None:
                if id is not None:
                    span.set_data("messaging.message.id", str(id))
                else:
                    span.set_data("messaging.batch.message_count", count)

            yield sent

    @contextmanager
    def around(self, job: Any, task: str) -> Iterator[None]:
        """A scope and a transaction for an attempt."""
        with sentry_sdk.isolation_scope() as scope:
            _describe(scope, job, task)
            transaction = sentry_sdk.continue_trace(
                dict(job.headers or {}), op="queue.task", name=task, source="task", origin=ORIGIN
            )
            self._scopes[job] = scope
            with (
                sentry_sdk.start_transaction(transaction) as whole,
                sentry_sdk.start_span(op="queue.process", name=task, origin=ORIGIN) as span,
            ):
                for name, value in _data(job).items():
                    span.set_data(name, value)
                yield
                whole.set_status("ok")

    def event(self, event: Event) -> None:
        """Report an error, when it is known what becomes of the job."""
        if event.name == "start":
            return
        scope = self._scopes.pop(event.job, None)
        error = event.error
        if event.name not in self._reported or error is None or isinstance(error, (Retry, LeaseLost)):
            return
        if scope is None:  # the handler was not called
            with sentry_sdk.isolation_scope() as scope:
                _describe(scope, event.job, event.task)
                sentry_sdk.continue_trace(dict(event.job.headers or {}))
        scope.set_tag("pq.outcome", event.name)
        with use_isolation_scope(scope):
            sentry_sdk.capture_exception(error)


def _describe(scope: Any, job: Any, task: str) -> None:
    scope.set_transaction_name(task, source="task")
    scope.set_tag("pq.queue", job.queue.name)
    scope.set_tag("pq.task", task)
    scope.set_context("pq", {"queue": job.queue.name, "task": task, "job_id": job.id, "attempt": attempt_of(job)})


def _data(job: Any) -> dict[str, Any]:
    """Return what Sentry's page of queues shows. The latency is in milliseconds."""
    return {
        "messaging.system": "pq",
        "messaging.destination.name": job.queue.name,
        "messaging.message.id": str(job.id),
        "messaging.message.body.size": job.size,
        "messaging.message.retry.count": attempt_of(job) - 1,
        "messaging.message.receive.latency": (taken_at(job) - ready_at(job)).total_seconds() * 1000,
    }
