"""The benchmark: what it makes of figures, and that it runs."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from pathlib import Path

import psutil
import pytest
from support import wait_until

from benchmarks import limits, plot, report, stats
from benchmarks.__main__ import GENERATED
from benchmarks.server import statements
from benchmarks.sizes import FULL, QUICK, TINY, amount

ROOT = Path(__file__).parents[2]

RESULTS = {"put": {"1 producer": {"raw": [4.0, 1.0, 5.0], "pq": [3.0, 9.0, 2.0]}}}

FOUND = {
    "size": "tiny",
    "seconds": 90,
    "backlog": {"10": 10, "1k": 1000},
    "versions": {"pq": "2"},
    "machine": "1 processor",
    "server": {"fsync": "on"},
    "figures": [
        {
            "name": "backlog", "what": "get", "unit": "jobs/s", "seconds": 1.5,
            "cases": {"10 ready": {"raw": [20.0, 10.0, 30.0], "pq": [18.0]}, "1k ready": {"pq": [17.0], "raw": [19.0]}},
        },
        {"name": "settings", "what": "put", "unit": "", "seconds": 1, "cases": {"put": {"as above": [5.0]}}},
    ],
    "limits": [
        {"figure": "get", "case": "get", "peer": "pq", "wanted": "at least 2", "reached": 3.0, "met": True},
        {"figure": "get", "case": "put", "peer": "pq", "wanted": "at least 4", "reached": 3.5, "met": False},
        {"figure": "get", "case": "idle", "peer": "pq", "wanted": "at most 1", "reached": None, "met": False},
    ],
    "notes": ["graphile is absent: there is no Node.js"],
}  # fmt: skip


class TestStats:
    @pytest.mark.parametrize(("percent", "value"), [(0, 1), (50, 5), (51, 6), (95, 10), (100, 10)])
    def test_a_percentile_is_one_of_the_values(self, percent: float, value: float) -> None:
        assert stats.percentile([10, 9, 8, 7, 6, 5, 4, 3, 2, 1], percent) == value

    @pytest.mark.parametrize(("values", "percent"), [([], 50), ([1], 101), ([1], -1)])
    def test_there_is_no_such_percentile(self, values: list[float], percent: float) -> None:
        with pytest.raises(ValueError, match="percentile"):
            stats.percentile(values, percent)

    @pytest.mark.parametrize(
        ("value", "text"),
        [(0, "0"), (0.01234, "0.0123"), (1.5, "1.50"), (12.34, "12.3"), (123.6, "124"), (1234567.8, "1,234,568")],
    )
    def test_three_digits_at_least(self, value: float, text: str) -> None:
        assert stats.shown(value) == text

    def test_median_with_least_and_most(self) -> None:
        assert stats.spread([300, 100, 200]) == "200 (100–300)"
        assert stats.spread([300]) == "300"

    def test_the_interval_is_around_the_median(self) -> None:
        assert stats.interval([3.0, 1.0, 2.0]) == "2.000 [1.000 3.000]"
        assert stats.interval([float(n) for n in range(1, 41)]) == "20.500 [14.000 27.000]"


class TestPairs:
    @pytest.mark.skipif(not ((ROOT / ".git").exists() and shutil.which("git")), reason="no repository")
    def test_it_compares_with_a_revision(self) -> None:
        command = [sys.executable, "-m", "benchmarks.pairs", "HEAD", "put", "block", "work", "--pairs", "1"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
        assert re.findall(r"^(\w+) +rate [\d.]+ ", done.stdout, re.MULTILINE) == ["put", "block", "work"], done.stderr


    @pytest.mark.parametrize(
        ("part", "operations"),
        [
            ("running-index", ["put", "lease"]),
            ("otel", ["put"]),
            ("ahead", ["jobs"]),
            ("psycopg3", ["put-conn", "get-conn"]),
            ("raw", ["put", "get", "get_many", "block", "lease"]),
        ],
    )
    def test_it_compares_with_one_of_its_parts_left_out(self, part: str, operations: list[str]) -> None:
        if part == "otel":
            pytest.importorskip("opentelemetry.sdk")
        if part == "psycopg3":
            pytest.importorskip("psycopg")
        command = [sys.executable, "-m", "benchmarks.pairs", part, *operations, "--pairs", "1"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
        assert re.findall(r"^([\w-]+) +rate [\d.]+ ", done.stdout, re.MULTILINE) == operations, done.stderr


class TestLimits:
    def test_a_ratio_is_that_of_the_medians(self) -> None:
        limit = limits.Limit("put", "1 producer", 0.7, "raw")
        assert limit.reached(RESULTS) == 3 / 4
        assert limit.wanted == "at least 0.7 × raw"

    @pytest.mark.parametrize(
        "limit",
        [
            limits.Limit("get", "1 producer", 1),
            limits.Limit("put", "2 producers", 1),
            limits.Limit("put", "1 producer", 1, peer="graphile"),
            limits.Limit("put", "1 producer", 1, "graphile"),
            limits.Limit("put", "1 producer", 1, "raw", "2 producers"),
        ],
    )
    def test_what_was_not_measured_has_not_reached_anything(self, limit: limits.Limit) -> None:
        assert limit.reached(RESULTS) is None

    @pytest.mark.parametrize(("reached", "least", "most"), [(1, False, True), (2, True, True), (3, True, False)])
    def test_bounds_belong_to_what_is_met(self, reached: float, least: bool, most: bool) -> None:
        assert limits.Limit("put", "all", 2).met(reached) is least
        assert limits.Limit("put", "all", 2, most=True).met(reached) is most

    def test_a_limit_of_a_million_jobs_is_not_held_against_fewer(self) -> None:
        assert [limit.bound for limit in limits.limits(FULL) if limit.bound == 500] == [500]
        assert not [limit for limit in limits.limits(QUICK) if limit.bound == 500]


class TestReport:
    def test_the_text_holds_figures_limits_and_what_is_missing(self) -> None:
        text = report.text(FOUND)
        lines = [re.split(" {2,}", line) for line in text.splitlines()]
        assert ["10 ready", "20.0 (10.0–30.0)", "18.0"] in lines
        assert ["1k ready", "19.0", "17.0"] in lines
        assert ["get, put", "at least 4", "3.50", "missed"] in lines
        assert "1 of 3 limits are met" in text
        assert "there is no Node.js" in text

    def test_tables_for_the_documentation(self) -> None:
        files = report.files(FOUND)
        assert set(files) == {
            "performance-run.rst", "performance-limits.rst", "performance-figures.rst", "performance-settings.rst",
            "backlog.svg",
        }  # fmt: skip
        assert {path.name for path in GENERATED.iterdir()} == set(files), "and nothing else is there"
        assert "   * - 10 ready\n     - 20.0 (10.0–30.0)\n     - 18.0\n" in files["performance-figures.rst"]
        assert "   * -\n     - as above\n" in files["performance-settings.rst"]

    def test_files_whose_figures_were_not_measured_stay_as_they_are(self) -> None:
        files = report.files({**FOUND, "figures": FOUND["figures"][1:], "limits": []})
        assert "backlog.svg" not in files
        assert "performance-limits.rst" not in files

    def test_the_series_is_in_the_order_of_the_backlog(self) -> None:
        assert report.series(FOUND) == {"raw": [(10, 20), (1000, 19)], "pq": [(10, 18), (1000, 17)]}


class TestPlot:
    def test_logarithms(self) -> None:
        root = ET.fromstring(plot.svg({"pq <2>": [(10, 100), (100, 1000), (1000, 10000)]}, "ready", "get"))
        lines = [e.get("points").split() for e in root.iter() if e.tag.endswith("polyline")]
        ((first, middle, last),) = ([tuple(map(float, point.split(","))) for point in line] for line in lines)
        assert middle == pytest.approx(((first[0] + last[0]) / 2, (first[1] + last[1]) / 2), abs=0.2)
        assert first[0] < last[0]
        assert first[1] > last[1]
        texts = [element.text for element in root.iter() if element.tag.endswith("text")]
        assert {"10", "1k", "10k", "pq <2>", "ready", "get"} <= set(texts)

    @pytest.mark.parametrize(
        ("values", "powers"), [([1], (0, 1)), ([5, 20], (0, 2)), ([10, 1000], (1, 3)), ([0.5, 4], (-1, 1))]
    )
    def test_axes_end_at_powers_of_ten(self, values: list[float], powers: tuple[int, int]) -> None:
        assert plot.decades(values) == powers

    def test_labels_do_not_cover_each_other(self) -> None:
        assert plot.apart([(50, "b"), (49, "a"), (200, "c")], 14) == {"a": 49, "b": 63, "c": 200}


@pytest.mark.parametrize(("number", "text"), [(7, "7"), (1000, "1k"), (1500, "1500"), (200_000, "200k"), (10**6, "1M")])
def test_amounts(number: int, text: str) -> None:
    assert amount(number) == text


def test_statements_are_those_of_the_database_without_the_control_of_transactions() -> None:
    log = (
        "one|7|LOG:  statement: BEGIN\none|7|LOG:  statement: select 1\n\tfrom x\none|7|LOG:  execute a: select 2\n"
        "two|8|LOG:  statement: select 3\none|7|LOG:  statement: begin; select 4\none|7|ERROR:  no\n"
        "one|7|LOG:  statement: commit\n"
    )
    assert statements(log, "one") == ["select 1", "select 2", "begin; select 4"]


#: One of each kind.
FIGURES = ("put", "get", "work", "wakeup", "xmin", "memory")


def commands(folder: Path) -> list[str]:
    """Processes that have something to do with the folder: the server's."""
    lines = (" ".join(process.info["cmdline"] or []) for process in psutil.process_iter(["cmdline"]))
    return [line for line in lines if str(folder) in line]


class TestRun:
    @pytest.fixture
    def folder(self) -> Path:
        """Where the benchmark has its folders; the path of a socket is short."""
        with tempfile.TemporaryDirectory(prefix="pqb") as name:
            os.chmod(name, 0o711)
            yield Path(name)

    def start(self, folder: Path, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "benchmarks", "--tiny", "--peers", "raw", "pq", *arguments], cwd=ROOT,
            env={**os.environ, "TMPDIR": str(folder)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8",
        )  # fmt: skip

    def test_it_measures_and_leaves_nothing(self, folder: Path) -> None:
        file = folder / "found.json"
        with self.start(folder, "--json", str(file), "--only", *FIGURES) as process:
            out, progress = process.communicate(timeout=120)
        assert process.returncode == 0, progress
        found = json.loads(file.read_text("utf-8"))
        file.unlink()
        measured = {figure["name"]: figure["cases"] for figure in found["figures"]}
        assert set(measured) == set(FIGURES)
        assert len(measured["put"]["1 producer"]["raw"]) == TINY.rounds
        assert min(measured["get"]["get"]["pq"]) > 0
        assert out.rstrip("\n") == report.text(found)
        assert "put: round 1/1" in progress
        assert list(folder.iterdir()) == []

    def test_an_interrupt_leaves_nothing(self, folder: Path) -> None:
        with self.start(folder, "--only", "work") as process:
            assert any("work: round" in line for line in process.stderr)
            wait_until(lambda: psutil.Process(process.pid).children() and commands(folder))
            family = psutil.Process(process.pid).children(recursive=True)
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=60)
        assert process.returncode == 130
        wait_until(lambda: not any(child.is_running() for child in family) and not commands(folder))
        assert list(folder.iterdir()) == []
