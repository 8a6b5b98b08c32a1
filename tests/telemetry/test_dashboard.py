"""The dashboard and the alert rules of the documentation name only metrics and labels that there are."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pq import Worker, tasks

pytest.importorskip("prometheus_client")
from prometheus_client import CollectorRegistry, generate_latest

from pq.contrib.prometheus import Collector, Metrics

FOLDER = Path(__file__).parents[2] / "docs" / "examples"

pytestmark = pytest.mark.skipif(not FOLDER.exists(), reason="tested as installed, without the source tree")

NAME = re.compile(r"\bpq_\w+")
#: A metric, and what stands in the braces behind it.
SELECTOR = re.compile(r"\b(pq_\w+)(?:\{([^}]*)\})?")
LABEL = re.compile(r'(\w+)\s*(?:=~|!~|!=|=)\s*"')
GROUPED = re.compile(r"\b(?:by|on) \(([^)]*)\)")


@pytest.fixture
def labels(dsn: str) -> dict[str, set[str]]:
    """The labels of each metric, as a scrape has them."""
    registry = CollectorRegistry()
    with tasks.PQ(dsn) as pq:
        registry.register(Collector(pq))
        pq.instrument(Metrics(registry))
        pq["q"].task(name="t")(lambda job_id: 1 / 0)()
        Worker(pq, burst=True).run()
        pq["q"].put(1)
        families = list(registry.collect())
    found: dict[str, set[str]] = {}
    for family in families:
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    found.setdefault("pq_findings", {"name", "severity"})  # if nothing is wrong
    return found


def board() -> dict[str, Any]:
    read: dict[str, Any] = json.loads((FOLDER / "grafana.json").read_text("utf-8"))
    return read


def rules() -> list[dict[str, Any]]:
    yaml = pytest.importorskip("yaml")
    (group,) = yaml.safe_load((FOLDER / "alerts.yml").read_text("utf-8"))["groups"]
    found: list[dict[str, Any]] = group["rules"]
    return found


def expressions() -> Iterator[str]:
    for panel in board()["panels"]:
        for target in panel["targets"]:
            yield target["expr"]
    for variable in board()["templating"]["list"]:
        yield variable.get("definition", "")
    for rule in rules():
        yield rule["expr"]


def test_metrics_and_labels(labels: dict[str, set[str]]) -> None:
    used = set()
    for text in expressions():
        assert text.count("(") == text.count(")") and text.count("{") == text.count("}"), text
        known: set[str] = set()
        for name, selected in SELECTOR.findall(text):
            assert name in labels, f"{name} in {text}"
            assert set(LABEL.findall(selected)) <= labels[name], text
            known |= labels[name]
            used.add(name)
        for group in GROUPED.findall(text):
            assert set(re.findall(r"\w+", group)) <= known, text
    missing = {name for name in labels if not name.endswith(("_created", "_count", "_sum"))} - used
    assert missing == set(), "metrics that the dashboard does not show"


def test_the_dashboard() -> None:
    panels = board()["panels"]
    assert len({panel["id"] for panel in panels}) == len({panel["title"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken and place["x"] + place["w"] <= 24, panel["title"]
        taken |= cells
        assert panel["datasource"]["uid"] == "${datasource}", "it is imported into any Grafana"


def test_the_alerts(labels: dict[str, set[str]]) -> None:
    found = rules()
    assert len(found) == len({rule["alert"] for rule in found}) == 4
    for rule in found:
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert rule["annotations"]["summary"] and rule["annotations"]["description"]
        shown = set(re.findall(r"\$labels\.(\w+)", str(rule["annotations"])))
        known = set().union(*(labels[name] for name in NAME.findall(rule["expr"])))
        assert shown <= known, rule["alert"]


#: What Prometheus has scraped, a value a minute; "_" is none.
SERIES = {
    "pq_up": "1x10 0x30",
    'pq_next_job_age_seconds{queue="late"}': "0x5 660+60x30",
    'pq_paused{queue="late"}': "0x40",
    'pq_next_job_age_seconds{queue="paused"}': "700+60x40",
    'pq_paused{queue="paused"}': "1x40",
    'pq_attempts_total{queue="late",task="t",outcome="dead"}': "_x5 1x40",
    'pq_attempts_total{queue="late",task="old",outcome="dead"}': "7x40",
    'pq_findings{name="table_locked",severity="error"}': "0x5 1x40",
    'pq_findings{name="dead_jobs",severity="warning"}': "1x40",
}

#: Which rules fire when, in minutes.
FIRE: dict[int, set[tuple[str, str]]] = {
    4: {("PqJobsDie", "old")},  # Prometheus itself has just begun
    7: {("PqJobsDie", "old"), ("PqJobsDie", "t")},
    19: {("PqIsDown", ""), ("PqJobsWait", ""), ("PqJobsDie", "t"), ("PqDoctorFindsAnError", "")},
    30: {("PqIsDown", ""), ("PqJobsWait", ""), ("PqDoctorFindsAnError", "")},
}


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool, of the package prometheus, is not installed")
def test_prometheus_reads_them(dsn: str, tmp_path: Path) -> None:
    def promtool(*args: str, given: str = "") -> None:
        done = subprocess.run(["promtool", *args], input=given, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr

    registry = CollectorRegistry()
    with tasks.PQ(dsn) as pq:
        registry.register(Collector(pq))
        pq.instrument(Metrics(registry))
        pq["q"].task(name="t")(lambda job_id: None)()
        Worker(pq, burst=True).run()
        promtool("check", "metrics", given=generate_latest(registry).decode())
    promtool("check", "rules", str(FOLDER / "alerts.yml"))
    wanted = [
        {
            "expr": 'count by (alertname, task) (ALERTS{alertstate="firing"})',
            "eval_time": f"{minute}m",
            "exp_samples": [
                {"labels": f'{{alertname="{name}"{f", task={json.dumps(task)}" if task else ""}}}', "value": 1}
                for name, task in fire
            ],
        }
        for minute, fire in FIRE.items()
    ]
    test = {
        "interval": "1m",
        "input_series": [{"series": series, "values": values} for series, values in SERIES.items()],
        "promql_expr_test": wanted,
    }
    file = tmp_path / "test.json"
    rules_and_test = {"rule_files": [str(FOLDER / "alerts.yml")], "evaluation_interval": "1m", "tests": [test]}
    file.write_text(json.dumps(rules_and_test))
    promtool("test", "rules", str(file))
