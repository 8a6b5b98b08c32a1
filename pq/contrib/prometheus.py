"""Metrics for Prometheus: the extra ``pq[prometheus]``.

    from prometheus_client import REGISTRY
    from pq.contrib import prometheus

    pq.instrument(prometheus.Metrics())       # in each process: what it puts and performs
    REGISTRY.register(prometheus.Collector(pq))  # in one process: what is in the queues
"""

from __future__ import annotations

import threading
import time
from collections import Counter as Numbers
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily

from .._jobs.delivery import ready_at, taken_at
from .._logs import queue_log as logger
from .._looks.overview import COUNTED
from ..errors import TaskNotFound

if TYPE_CHECKING:
    from ..worker import Event

__all__ = ["Collector", "Metrics"]

#: The largest number of queues, and of tasks, that have series of their own. What is more has the label `OTHER`.
MOST = 200
OTHER = "other"

#: Seconds from one examination by the doctor to the next.
EXAMINE = 60.0

#: Seconds: from a task that only writes a row to one that runs for an hour.
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600)


class Collector:
    """What is in the queues, at each scrape; at the cost of `PQ.overview`.

    :param pq: the `PQ`.
    :param cap: as for `PQ.overview`.
    :param findings: whether to have the doctor examine the table, at most once a minute.

    While the database can't be read, ``pq_up`` is 0, and the other metrics are missing.
    """

    def __init__(self, pq: Any, cap: int = 1000, findings: bool = True) -> None:
        self._pq = pq
        self._cap = cap
        self._examines = findings
        self._lock = threading.Lock()
        self._labels = _Labels()
        self._findings: Numbers[tuple[str, str]] = Numbers()
        self._examine_at = 0.0

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """Return the metrics without values: registering executes no SQL."""
        return _Families().all

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Return the metrics."""
        found = _Families()
        with self._lock:
            try:
                self._look(found)
            except Exception as error:  # others' metrics are in the same scrape
                self._tell("metrics", error)
                found = _Families()
                found.up.add_metric([], 0)
                return [found.up]
            try:
                if self._examines:
                    for both, number in self._examined().items():
                        found.findings.add_metric(both, number)
            except Exception as error:  # the jobs were counted
                self._tell("findings", error)
        return found.all

    def _look(self, found: _Families) -> None:
        overview = self._pq.overview(self._cap)
        found.up.add_metric([], 1)
        labels = sorted(self._labels.seen(queue.name for queue in overview.queues))
        jobs = {(label, state): 0 for label in labels for state in COUNTED}
        waiting, paused, ages = dict.fromkeys(labels, 0), dict.fromkeys(labels, 0), dict.fromkeys(labels, 0.0)
        for queue in overview.queues:
            label = self._labels.of(queue.name)
            for state in COUNTED:
                jobs[label, state] += getattr(queue, state)
            waiting[label] += queue.waiting
            paused[label] += queue.paused
            if queue.next_age is not None:
                ages[label] = max(queue.next_age, ages[label])
        for both, number in jobs.items():
            found.jobs.add_metric(both, number)
        for label in labels:
            found.waiting.add_metric([label], waiting[label])
            found.paused.add_metric([label], paused[label])
            found.age.add_metric([label], ages[label])
        found.bytes.add_metric([], overview.table.bytes)
        found.dead_rows.add_metric([], overview.table.dead_rows)
        found.transaction.add_metric([], overview.table.oldest_transaction or 0.0)

    def _tell(self, what: str, error: Exception) -> None:
        logger.warning("the %s of %r can't be read: %s", what, self._pq, type(error).__name__)

    def _examined(self) -> Numbers[tuple[str, str]]:
        """Return the numbers of findings; 0 of those that are over."""
        if time.monotonic() >= self._examine_at:
            self._findings = Numbers(dict.fromkeys(self._findings, 0))
            self._findings.update((finding.name, finding.severity) for finding in self._pq.doctor())
            self._examine_at = time.monotonic() + EXAMINE
        return self._findings


class _Families:
    """The metrics of a `Collector`."""

    def __init__(self) -> None:
        queue = ["queue"]
        self.up = GaugeMetricFamily("pq_up", "Whether the queues could be read.", labels=[])
        self.jobs = GaugeMetricFamily("pq_jobs", "Jobs, up to the cap.", labels=["queue", "state"])
        self.age = GaugeMetricFamily("pq_next_job_age_seconds", "How long the next job has been ready.", labels=queue)
        self.waiting = GaugeMetricFamily("pq_consumers_waiting", "Sessions that wait for jobs.", labels=queue)
        self.paused = GaugeMetricFamily("pq_paused", "Whether the queue is paused.", labels=queue)
        self.findings = GaugeMetricFamily("pq_findings", "What the doctor has found.", labels=["name", "severity"])
        self.bytes = GaugeMetricFamily("pq_table_bytes", "The size of the table with its indexes.", labels=[])
        self.dead_rows = GaugeMetricFamily("pq_dead_rows", "Rows that a vacuum would remove.", labels=[])
        self.transaction = GaugeMetricFamily(
            "pq_oldest_transaction_seconds", "How long the oldest transaction has been open.", labels=[]
        )

    @property
    def all(self) -> list[GaugeMetricFamily]:
        return list(vars(self).values())


class Metrics:
    """What this process puts and performs: an instrument, see `PQ.instrument`.

    :param registry: where its metrics are registered.
    :param buckets: the upper limits of the histograms, in seconds.
    """

    def __init__(self, registry: CollectorRegistry = REGISTRY, buckets: Iterable[float] = BUCKETS) -> None:
        limits = tuple(buckets)
        task = ["queue", "task"]
        self._queues, self._tasks = _Labels(), _Labels()
        self._puts = Counter("pq_puts", "Jobs that were put.", ["queue"], registry=registry)
        self._attempts = Counter("pq_attempts", "Attempts that ended.", [*task, "outcome"], registry=registry)
        self._seconds = Histogram(
            "pq_job_seconds", "How long attempts ran.", task, buckets=limits, registry=registry
        )
        self._wait = Histogram(
            "pq_wait_seconds", "How long jobs were ready before their first attempt.", ["queue"], buckets=limits,
            registry=registry,
        )  # fmt: skip

    @contextmanager
    def sending(self, queue: str) -> Iterator[Callable[[int, int | None], None]]:
        """Count what is put."""
        yield lambda count, id: self._puts.labels(self._queues.of(queue)).inc(count)

    def event(self, event: Event) -> None:
        """Count what a worker tells."""
        queue = self._queues.of(event.job.queue.name)
        if event.name == "start":
            if event.job.attempts == 1:
                waited = (taken_at(event.job) - ready_at(event.job)).total_seconds()
                self._wait.labels(queue).observe(max(0.0, waited))
            return
        # of an unknown task, the name is what the row says: it could be any
        task = "?" if isinstance(event.error, TaskNotFound) else self._tasks.of(event.task)
        self._attempts.labels(queue, task, event.name).inc()
        self._seconds.labels(queue, task).observe(event.seconds)


class _Labels:
    """Labels for names: their own for the first `MOST` of them, and `OTHER` for the rest."""

    def __init__(self) -> None:
        self._known: set[str] = set()

    def of(self, name: str) -> str:
        if name not in self._known:
            if len(self._known) >= MOST:
                return OTHER
            self._known.add(name)
        return name

    def seen(self, names: Iterable[str]) -> set[str]:
        """Return the labels of these names, and of all before: a queue without jobs has numbers, too, which are 0."""
        return {self.of(name) for name in names} | self._known
