"""Metrics, with the client library of Prometheus."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from support import wait_until

from pq import PQ, Worker, tasks

pytest.importorskip("prometheus_client")
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from pq.contrib import prometheus
from pq.contrib.prometheus import Collector, Metrics

Sql = Callable[..., list[tuple[Any, ...]]]


@pytest.fixture
def pq(dsn: str) -> Iterator[PQ]:
    with tasks.PQ(dsn) as made:
        yield made


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry(auto_describe=True)


def scrape(registry: CollectorRegistry) -> dict[tuple[str, ...], float]:
    """As Prometheus reads it: name, values of the labels in the order of their names; without ``_created``."""
    text = generate_latest(registry).decode()
    found: dict[tuple[str, ...], float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = tuple(value for _, value in sorted(sample.labels.items()))
            assert (sample.name, *labels) not in found, "one series twice"
            found[(sample.name, *labels)] = sample.value
    return {name: value for name, value in found.items() if not name[0].endswith(("_created", "_bucket"))}


def of(found: dict[tuple[str, ...], float], name: str) -> dict[tuple[str, ...], float]:
    return {labels: value for (other, *rest), value in found.items() if other == name for labels in [tuple(rest)]}


def test_what_is_in_the_queues(pq: PQ, sql: Sql, registry: CollectorRegistry) -> None:
    registry.register(Collector(pq, findings=False))
    queue = pq["a"]
    queue.put_many([1, 2, 3])
    sql("update queue set enqueued_at = enqueued_at - interval '100 seconds'")
    queue.put(4, "1h")
    queue.put(5, key="k")
    queue.put(6, key="k")
    pq["b"].put(1)
    job = pq["b"].get(lease="1m")
    assert job is not None
    pq["c"].put(1)
    dead = pq["c"].get(lease="1m")
    assert dead is not None
    dead.fail("x")
    pq["b"].pause()
    found = scrape(registry)
    assert of(found, "pq_up") == {(): 1}
    assert {labels: value for labels, value in of(found, "pq_jobs").items() if value} == {
        ("a", "ready"): 4, ("a", "scheduled"): 1, ("a", "held"): 1, ("b", "running"): 1, ("c", "dead"): 1,
    }  # fmt: skip
    assert len(of(found, "pq_jobs")) == 3 * 5, "zeros, too"
    assert of(found, "pq_paused") == {("a",): 0, ("b",): 1, ("c",): 0}
    assert of(found, "pq_consumers_waiting") == {("a",): 0, ("b",): 0, ("c",): 0}
    assert 100 <= of(found, "pq_next_job_age_seconds")["a",] < 160
    assert found["pq_table_bytes",] > 8192 and ("pq_dead_rows",) in found
    assert found["pq_oldest_transaction_seconds",] >= 0


def test_a_queue_that_was_seen_has_zeros(pq: PQ, registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pq._looks.looks.FRESH", 0.0)
    registry.register(Collector(pq, findings=False))
    pq["a"].put(1)
    assert scrape(registry)["pq_jobs", "a", "ready"] == 1
    assert pq["a"].get(block=False) is not None
    found = scrape(registry)
    assert found["pq_jobs", "a", "ready"] == found["pq_next_job_age_seconds", "a"] == 0


def test_numbers_are_cut_at_the_cap(pq: PQ, registry: CollectorRegistry) -> None:
    registry.register(Collector(pq, cap=10, findings=False))
    pq["a"].put_many(range(20))
    assert scrape(registry)["pq_jobs", "a", "ready"] == 10


def test_many_queues(pq: PQ, sql: Sql, registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first ones have series of their own, and keep them; "other" may be one of the rest."""
    monkeypatch.setattr("pq._looks.looks.FRESH", 0.0)
    registry.register(Collector(pq, findings=False))
    sql("insert into queue (q_name, data) select 'q' || lpad(n::text, 4, '0'), '1' from generate_series(1, 300) n")
    found = of(scrape(registry), "pq_jobs")
    names = {queue for queue, _ in found}
    assert len(names) == 201 and "q0200" in names and "q0201" not in names
    assert found["other", "ready"] == 100
    sql("insert into queue (q_name, data) values ('a', '1'), ('other', '1')")
    pq["q0250"].pause()
    sql("update queue set enqueued_at = enqueued_at - interval '50 seconds' where q_name = 'q0260'")
    found = scrape(registry)
    assert {queue for queue, _ in of(found, "pq_jobs")} == names
    assert found["pq_jobs", "other", "ready"] == 102 and found["pq_paused", "other"] == 1
    assert found["pq_next_job_age_seconds", "other"] >= 50


def test_findings(pq: PQ, sql: Sql, registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    registry.register(Collector(pq))
    names = {(finding.name, finding.severity) for finding in pq.doctor()}
    sql("alter table queue disable trigger user")
    wrong = {(finding.name, finding.severity) for finding in pq.doctor()} - names
    assert wrong
    found = of(scrape(registry), "pq_findings")
    assert {labels for labels, value in found.items() if value} == wrong | names
    sql("alter table queue enable trigger user")
    assert of(scrape(registry), "pq_findings") == found, "the doctor comes once a minute"
    monkeypatch.setattr(prometheus, "EXAMINE", 0.0)
    registry2 = CollectorRegistry()
    collector = Collector(pq)
    registry2.register(collector)
    sql("alter table queue disable trigger user")
    scrape(registry2)
    sql("alter table queue enable trigger user")
    over = of(scrape(registry2), "pq_findings")
    assert {over[labels] for labels in wrong} == {0}, "those that are over"


def test_registering_executes_no_sql(pq: PQ, registry: CollectorRegistry, statements: list[str]) -> None:
    registry.register(Collector(pq))
    assert statements == []
    with pytest.raises(ValueError, match="Duplicated timeseries"):
        registry.register(Collector(pq))


def test_jobs_are_counted_though_the_doctor_fails(
    pq: PQ, registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> Any:
        raise RuntimeError("secret")

    pq["a"].put(1)
    registry.register(Collector(pq))
    monkeypatch.setattr(pq, "doctor", fail)
    with caplog.at_level(logging.WARNING, "pq"):
        found = scrape(registry)
    assert of(found, "pq_up") == {(): 1} and of(found, "pq_jobs") != {} and of(found, "pq_findings") == {}
    assert "the findings of" in caplog.text and "secret" not in caplog.text


def test_a_database_that_is_away_fails_no_scrape(
    pq: PQ, registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("secret")

    registry.register(Collector(pq))
    Metrics(registry)
    monkeypatch.setattr(pq, "overview", fail)
    with caplog.at_level(logging.WARNING, "pq"):
        found = scrape(registry)
    assert of(found, "pq_up") == {(): 0} and of(found, "pq_jobs") == {}
    assert "RuntimeError" in caplog.text and "secret" not in caplog.text


def test_a_look_costs_the_database_one_statement_a_second(
    pq: PQ, registry: CollectorRegistry, statements: list[str]
) -> None:
    registry.register(Collector(pq, findings=False))
    for _ in range(3):
        scrape(registry)
    assert len(statements) == 1


# -- workers


def test_what_a_worker_does(pq: PQ, sql: Sql, registry: CollectorRegistry) -> None:
    registry.register(Collector(pq))  # all in one registry
    pq.instrument(Metrics(registry))
    task = pq["q"].task(name="t", max_retries=1, retry_in="0s")(lambda job_id, n: 1 / n)
    task.put_many([(1,), (2,), (0,)])
    sql("update queue set enqueued_at = enqueued_at - interval '10 seconds'")
    pq["q"].put({"function": "made up", "args": [], "kwargs": {}, "max_retries": 0})
    pq["q"].put("no call")
    pq["elsewhere"].load([1, 2])
    for _ in range(6):
        Worker(pq["q"]).run_once()
    found = scrape(registry)
    assert of(found, "pq_puts_total") == {("q",): 5, ("elsewhere",): 2}
    assert of(found, "pq_attempts_total") == {
        ("done", "q", "t"): 2, ("retry", "q", "t"): 1, ("dead", "q", "t"): 1,
        **{labels: value for labels, value in of(found, "pq_attempts_total").items() if labels[2] == "?"},
    }  # fmt: skip
    assert sum(value for labels, value in of(found, "pq_attempts_total").items() if labels[2] == "?") == 2
    assert of(found, "pq_job_seconds_count")["q", "t"] == 4
    assert of(found, "pq_wait_seconds_count") == {("q",): 5}, "first attempts"
    assert 30 <= of(found, "pq_wait_seconds_sum")["q",] < 60


def test_a_scheduled_job_waits_from_its_time_on(pq: PQ, registry: CollectorRegistry, sql: Sql) -> None:
    pq.instrument(Metrics(registry))
    id = pq["q"].task(name="t")(lambda job_id: None)(_schedule_at="1h")
    sql("update queue set enqueued_at = now() - interval '1 day', schedule_at = now() - interval '5 s', due_at = now()")
    assert Worker(pq["q"]).run_once()
    assert pq["q"][id].state == "finished"
    assert 5 <= scrape(registry)["pq_wait_seconds_sum", "q"] < 60


def test_as_many_labels_as_there_may_be(
    pq: PQ, registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prometheus, "MOST", 3)
    pq.instrument(Metrics(registry))
    for n in range(5):
        pq["q"].task(name=f"t{n}")(lambda job_id: None)()
        pq[f"q{n}"].put(1)
    Worker(pq["q"], burst=True).run()
    found = scrape(registry)
    assert of(found, "pq_puts_total") == {("q",): 5, ("q0",): 1, ("q1",): 1, ("other",): 3}
    assert of(found, "pq_attempts_total") == {
        ("done", "q", "t0"): 1, ("done", "q", "t1"): 1, ("done", "q", "t2"): 1, ("done", "q", "other"): 2,
    }  # fmt: skip


APP = """
import os
from pq.contrib import prometheus
from pq import PQ
pq = PQ(os.environ["PQ_DSN"])
pq.instrument(prometheus.Metrics())
prometheus.REGISTRY.register(prometheus.Collector(pq, findings=False))

@pq["q"].task(name="t")
def task(job_id):
    pass
"""


def test_the_command_serves_them(pq: PQ, dsn: str, tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(APP, "utf-8")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    pq["q"].task(name="t")(lambda job_id: None)()
    command = [sys.executable, "-m", "pq", "work", "shop:pq", "--health", f"127.0.0.1:{port}"]
    root = str(Path(__file__).parents[2])
    with subprocess.Popen(command, cwd=tmp_path, env={**os.environ, "PQ_DSN": dsn, "PYTHONPATH": root}) as process:
        try:
            done = 'pq_attempts_total{outcome="done",queue="q",task="t"} 1.0'
            wait_until(lambda: done in metrics(port), "metrics", 30)
            assert "pq_up 1.0" in metrics(port)
        finally:
            process.terminate()


def metrics(port: int) -> str:
    try:
        with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as page:
            text: str = page.read().decode()
    except OSError:  # not yet
        return ""
    return text
