"""The benchmark: what it makes of figures, and that it runs."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from support import wait_until

from benchmarks import install, limits, plot, report, stats, wakeup
from benchmarks.__main__ import GENERATED, parsed
from benchmarks.figures import FIGURES as FIGURES_OF_ALL
from benchmarks.peers import PEERS
from benchmarks.server import Server, statements
from benchmarks.sizes import FULL, QUICK, TINY, amount

ROOT = Path(__file__).parents[2]

RESULTS = {"put": {"1 producer": {"raw": [4.0, 1.0, 5.0], "pq": [3.0, 9.0, 2.0]}}}

FOUND = {
    "size": "tiny",
    "seconds": 90,
    "versions": {"pq": "2"},
    "machine": "1 processor",
    "server": {"fsync": "on"},
    "figures": [
        {
            "name": "backlog", "what": "get", "unit": "jobs/s", "seconds": 1.5,
            "cases": {"10 ready": {"raw": [20.0, 10.0, 30.0], "pq": [18.0]}, "1k ready": {"pq": [17.0], "raw": [19.0]}},
        },
        {"name": "settings", "what": "put", "unit": "", "seconds": 1, "cases": {"put": {"as above": [5.0]}}},
        {"name": "keyed", "what": "keys", "unit": "", "seconds": 1, "cases": {"put": {"of plain jobs": [0.8]}}},
        {"name": "limited", "what": "limits", "unit": "", "seconds": 1, "cases": {"get": {"of plain jobs": [0.9]}}},
        {"name": "profile", "what": "profile", "unit": "µs", "seconds": 1, "cases": {"put: client": {"pq": [9.0]}}},
        {"name": "wakeup", "what": "wake", "unit": "ms", "seconds": 1, "cases": {"p50": {"pq": [2.0], "pgmq": [1.0]}}},
        {"name": "work", "what": "work", "unit": "jobs/s", "seconds": 1,
         "cases": {"1 process": {"pq": [10.0], "graphile": [10.4]}, "4 processes": {"pq": [10.0], "graphile": [12.0]}}},
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

    @pytest.mark.skipif(not ((ROOT / ".git").exists() and shutil.which("git")), reason="no repository")
    def test_it_compares_wake_ups(self) -> None:
        command = [sys.executable, "-m", "benchmarks.pairs", "HEAD", "wakeup", "--pairs", "1"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
        assert re.findall(r"^(p\d+) [\d.]+ ", done.stdout, re.MULTILINE) == ["p50", "p99"], done.stderr

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


class TestWakeup:
    def test_the_steps_of_each_job_make_up_the_whole(self) -> None:
        with Server() as server:
            wakeup.answer(wakeup.start("create", server.dsn(), ROOT))
            rows = wakeup.measured(server.dsn(), ROOT)
        assert len(rows) == wakeup.JOBS - wakeup.COLD
        for *parts, whole in rows:
            assert sum(parts) == pytest.approx(whole)
            assert whole > 0


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
            "performance-keyed.rst", "performance-peers.rst", "performance-profile.rst", "rates.svg",
        }  # fmt: skip
        assert {path.name for path in GENERATED.iterdir()} == set(files), "and nothing else is there"
        assert "   * - 10 ready\n     - 20.0 (10.0–30.0)\n     - 18.0\n" in files["performance-figures.rst"]
        assert "   * -\n     - as above\n" in files["performance-settings.rst"]
        assert "as above" not in files["performance-figures.rst"]
        assert "keys" in files["performance-keyed.rst"]
        assert "limits" in files["performance-keyed.rst"]

    def test_the_documentation_tells_what_each_figure_and_peer_is(self) -> None:
        page = (ROOT / "docs" / "explanation" / "performance.rst").read_text("utf-8")
        told = set(re.findall(r"``([\w.-]+)``", " ".join(re.findall(r"^   \* - (``.*)", page, re.MULTILINE))))
        told |= {f"pgqueuer{name}" for name in told if name.startswith("-1")}
        assert {figure.name for figure in FIGURES_OF_ALL} - told == set()
        assert set(PEERS) - told == {"pgqueuer"}, "of which the row of its variants tells"

    def test_files_whose_figures_were_not_measured_stay_as_they_are(self) -> None:
        files = report.files({**FOUND, "figures": FOUND["figures"][4:], "limits": []})
        assert "rates.svg" not in files
        assert "performance-limits.rst" not in files

    def test_what_the_peers_are_better_in(self) -> None:
        rows = dict(report.better(FOUND))
        assert rows == {"graphile": "*work*: 4 processes 1.20", "pgmq": "*wakeup*: p50 2.00"}, "less is better"
        worse = {**FOUND, "figures": [{**FOUND["figures"][0], "cases": {"10 ready": {"pgmq": [1.0], "pq": [2.0]}}}]}
        assert report.better(worse) == [("pgmq", "nothing that was measured")]

    def test_a_limit_of_a_variant_of_pq_names_it(self) -> None:
        limit = {**FOUND["limits"][0], "peer": "pq-conn"}
        assert report.limit_rows({"limits": [limit]})[1][0] == "get, get, pq-conn"
        assert report.limit_rows({"limits": [{**limit, "peer": "pq"}]})[1][0] == "get, get"

    def test_what_is_drawn_is_in_the_order_of_the_cases(self) -> None:
        ((title, lines),) = report.series(FOUND)
        assert "ready" in title
        assert lines == {"raw": [("10", 20), ("1k", 19)], "pq": [("10", 18), ("1k", 17)]}

    def test_each_figure_that_is_drawn_exists(self) -> None:
        assert set(report.PLOTS) < {figure.name for figure in FIGURES_OF_ALL}


class TestPlot:
    def draw(self, *lines: dict[str, list[tuple[str, float]]]) -> ET.Element:
        return ET.fromstring(plot.svg([plot.Panel(f"title {number}", line) for number, line in enumerate(lines)]))

    def points(self, root: ET.Element) -> list[list[tuple[float, float]]]:
        lines = [e.get("points").split() for e in root.iter() if e.tag.endswith("polyline")]
        return [[tuple(map(float, point.split(","))) for point in line] for line in lines]

    def test_rates_are_logarithmic_and_sizes_are_side_by_side(self) -> None:
        root = self.draw({"pq <2>": [("0", 100), ("4", 1000), ("128", 10000)]})
        ((first, middle, last),) = self.points(root)
        assert middle == pytest.approx(((first[0] + last[0]) / 2, (first[1] + last[1]) / 2), abs=0.2)
        assert first[0] < last[0]
        assert first[1] > last[1]
        texts = [element.text for element in root.iter() if element.tag.endswith("text")]
        assert {"0", "4", "128", "1k", "pq <2>", "title 0"} <= set(texts)

    def test_a_line_without_the_last_size_ends_before_it(self) -> None:
        pq, old = self.points(self.draw({"pq": [("1", 9), ("2", 8)], "pq-1.9.1": [("1", 3)]}))
        assert [x for x, _ in old] == [x for x, _ in pq[:1]]

    def test_panels_do_not_cover_each_other_and_share_their_colours(self) -> None:
        first = {"raw": [("1", 9), ("2", 8)], "pq": [("1", 9)]}
        root = self.draw(first, {"pq": [("1", 5), ("2", 5)]}, {"raw": [("1", 5)]})
        raw, _, second, third = self.points(root)
        assert max(x for x, _ in raw) < min(x for x, _ in second)
        assert max(y for _, y in raw) < min(y for _, y in third)
        colours = [e.get("stroke") for e in root.iter() if e.tag.endswith("polyline")]
        assert colours[1] == colours[2] != colours[0] == colours[3]

    @pytest.mark.parametrize(
        ("rates", "ticks"),
        [
            ([1, 1], [1, 2]),
            ([5, 20], [5, 10, 20]),
            ([10, 1000], [10, 100, 1000]),
            ([0.5, 4], [0.5, 1, 2, 5]),
            ([1500, 4000], [1000, 2000, 5000]),
            ([3, 40_000], [1, 10, 100, 1000, 10_000, 100_000]),
        ],
    )
    def test_the_axis_holds_all_rates(self, rates: list[float], ticks: list[float]) -> None:
        assert plot.ticks(rates) == pytest.approx(ticks)


class TestFiles:
    """A peer that is one file at an address."""

    @pytest.fixture
    def address(self, tmp_path: Path) -> str:
        file = tmp_path / "q.sql"
        file.write_text("-- Version: 1.2\n", "utf-8")
        return file.as_uri()

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        folder = tmp_path / "to"
        folder.mkdir()
        return folder

    def test_it_is_the_one_that_was_looked_at(self, address: str, folder: Path) -> None:
        digest = hashlib.sha256(b"-- Version: 1.2\n").hexdigest()
        assert install.download(address, digest, folder, None) == ""
        assert install.version(PEERS["pgque"], folder) == "1.2"

    def test_another_one_is_absent(self, address: str, folder: Path) -> None:
        assert "another file" in install.download(address, "0" * 64, folder, None)
        assert list(folder.iterdir()) == []

    def test_one_that_is_not_to_be_had_is_absent(self, address: str, folder: Path) -> None:
        assert "no.sql" in install.download(address.replace("q.sql", "no.sql"), "", folder, None)

    def test_one_that_is_here_may_be_any(self, address: str, folder: Path, tmp_path: Path) -> None:
        assert install.download("https://nowhere.invalid/a.sql", "", folder, tmp_path / "q.sql") == ""
        assert (folder / "a.sql").read_bytes() == (tmp_path / "q.sql").read_bytes()


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


def test_the_number_of_rounds_is_part_of_the_size() -> None:
    assert parsed(["--rounds", "1"]).sizes == replace(FULL, rounds=1)
    assert parsed(["--quick"]).sizes == QUICK


#: One of each kind.
FIGURES = (
    *("put", "get", "stream", "work", "wakeup", "statements", "queues", "keys", "crowd", "keyed", "limited"),
    "memory",
)


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
            out, progress = process.communicate(timeout=480)
        assert process.returncode == 0, progress
        found = json.loads(file.read_text("utf-8"))
        file.unlink()
        measured = {figure["name"]: figure["cases"] for figure in found["figures"]}
        assert set(measured) == set(FIGURES)
        assert len(measured["put"]["1 producer"]["raw"]) == TINY.rounds
        assert min(measured["get"]["get"]["pq"]) > 0
        assert out.rstrip("\n") == report.text(found)
        for limit in limits.limits(TINY):
            if limit.figure in FIGURES and limit.peer in ("pq", limits.KEYED, limits.LIMITED):
                for case in {limit.case, limit.to or limit.case} - {"16 threads"}:  # which is not of this size
                    assert limit.peer in measured[limit.figure][case], limit
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
