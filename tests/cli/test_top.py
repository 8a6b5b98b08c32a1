"""``pq top``: its lines, its keys, and the command itself, in a terminal of tmux."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support import wait_until

import pq as package
from pq import PQ, Count, Overview, QueueOverview, RunningJob, TableOverview
from pq._cli.cells import Column, fit, table, width_of
from pq._cli.main import main
from pq._cli.screen import Screen
from pq._cli.tables import progress
from pq._cli.watch import Snapshot, Watch
from pq._text import size
from pq._times import age_text
from pq.doctor import Finding

ROOT = str(Path(package.__file__).parents[1])
NOW = datetime(2026, 11, 28, 12, 0, 0, tzinfo=timezone.utc)
NASTY = ["a", "日本語キュー" * 5, "e\u0301" * 40, "bad\x1b[2J\nname", "x" * 300, "\ud800"]


def queue(name: str, ready: int = 0, cut: bool = False, **given: Any) -> QueueOverview:
    counts = {each: Count(given.pop(each, 0)) for each in ("scheduled", "held", "running", "dead")}
    rest: dict[str, Any] = dict.fromkeys(("ready_since", "next_age", "next_due"))
    rest |= {"paused": False, "limited": False, "waiting": 0, **given}
    return QueueOverview(name=name, ready=Count(ready, cut), **counts, **rest)


def job(id: int, queue: str = "a", told: Any = None, **given: Any) -> RunningJob:
    since = NOW - timedelta(seconds=90)
    ends = NOW + timedelta(seconds=20)
    return RunningJob(id, queue, given.get("task", "shop.eat"), "host:17", 1, since, ends, told)


def snapshot(*queues: QueueOverview, **given: Any) -> Snapshot:
    return Snapshot(Overview(NOW, queues, TableOverview(24_000_000, 1203, 5, 12.0, "18.0"), 1000), **given)


FINDING = Finding("dead_jobs", "warning", "Queue 'b': 3 jobs are dead.", "See why: python -m pq dead list 'b'", {})

FULL = snapshot(
    queue("apples", 1000, True, next_age=75.0, waiting=0),
    queue("b", 3, dead=3, running=1, waiting=2, limited=True, next_age=0.25),
    queue("pears", 7, paused=True, next_age=7200.0),
    growth={"b": -2.5},
    finished={"b": 120},
    running=[job(17, "b", {"done": 0.3, "text": "30 of 100"}), job(18, "b", "half")],
    findings=[FINDING],
)


class Group:
    """A group of dead jobs."""

    task, count, first, last, sample = "shop.eat", Count(20), NOW, NOW, 17

    def __init__(self, queue: str, message: str, done: list[Any]) -> None:
        self.queue, self.error, self.message, self.done = queue, "ValueError", message, done

    def retry(self) -> int:
        self.done.append(("retry", self.message))
        return 20

    def discard(self) -> int:
        self.done.append(("discard", self.message))
        return 20


class Actions:
    def __init__(self) -> None:
        self.done: list[Any] = []
        self.groups = [Group(name, f"rotten {name}", self.done) for name in NASTY]

    def jobs(self, queue: str) -> list[Any]:
        return [
            SimpleNamespace(id=n, state="ready", enqueued_at=NOW, due_at=None, key=name, attempts=0, text=name)
            for n, name in enumerate(NASTY)
        ]

    def about(self, queue: str, id: int) -> str:
        return f"job {id}\n" + "\n".join(NASTY) * 10

    def dead_groups(self) -> list[Any]:
        return self.groups

    def set_paused(self, queue: str, paused: bool) -> None:
        self.done.append((queue, paused))


@pytest.fixture
def screen() -> Screen:
    return Screen('"queue"', Actions())


def text(screen: Screen, seen: Snapshot | None = FULL, width: int = 120, height: int | None = 24) -> str:
    return "\n".join(line.text.rstrip() for line in screen.lines(seen, width, height))


def press(screen: Screen, *keys: str, seen: Snapshot = FULL) -> None:
    for key in keys:
        screen.press(key, seen)


# -- cells


@pytest.mark.parametrize("name", NASTY, ids=range(len(NASTY)))
@pytest.mark.parametrize("right", [True, False])
def test_a_text_takes_just_so_many_cells(name: str, right: bool) -> None:
    for width in (0, 1, 2, 3, 10, 79, 400):
        found = fit(name, width, right)
        assert width_of(found) == width
        assert found.isprintable()


def test_columns_that_do_not_fit_are_left_out_by_rank() -> None:
    names = Column("NAME", ["x" * 20], right=False)
    columns = [names, Column("A", ["1"]), Column("BB", ["2"], 2), Column("C", ["3"], 1)]
    assert table(columns, 30)[0].split() == ["NAME", "A", "BB", "C"]
    assert table(columns, 28)[0].split() == ["NAME", "A", "C"]
    assert table(columns, 23)[0].split() == ["NAME", "A"]
    assert table(columns, 10)[1] == "xxxxx..  1"
    assert [width_of(line) for line in table(columns, 3)] == [3, 3]


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0, "0.0s"), (9.94, "9.9s"), (59.9, "59s"), (61, "1m01s"), (3600, "1h00m"), (86_399, "23h59m"), (1e6, "11d")],
)
def test_ages(seconds: float, shown: str) -> None:
    assert age_text(seconds) == shown


def test_sizes() -> None:
    assert [size(n) for n in (12, 999, 8192, 1_500_000, 24e6, 5e12)] == [
        "12 B", "999 B", "8.0 kB", "1.4 MB", "23 MB", "4657 GB"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("told", "shown"),
    [
        (None, ""),
        (0.5, "[#####     ]  50 %"),
        ({"done": 1, "text": "all\nof it"}, "[##########] 100 % all of it"),
        ("half", "half"),
        ({"n": [1]}, '{"n": [1]}'),
        (7, "7"),
    ],
)
def test_progress(told: Any, shown: str) -> None:
    assert progress(job(1, told=told)) == shown


# -- lines


def test_what_is_shown(screen: Screen) -> None:
    shown = text(screen)
    title, findings, heading, apples, b, pears, empty, running, first, second, *_, keys = shown.split("\n")
    assert title.split("  ") == [
        "pq", 'table "queue"', "12:00:00Z", "23 MB", "1,203 dead rows", "oldest transaction 12s", "PostgreSQL 18.0"
    ]  # fmt: skip
    assert findings == "1 finding: dead_jobs"
    assert heading.split() == [
        "NAME*", "READY", "AGE", "+/S", "DONE/MIN", "SCHEDULED", "HELD", "RUNNING", "DEAD", "WAIT"
    ]  # fmt: skip
    assert apples.split() == ["apples", "1,000+", "1m15s", "-", "-", "0", "0", "0", "0", "0", "nobody", "takes"]
    assert b.split() == ["b", "3", "0.2s", "-2.5", "120", "0", "0", "1", "3", "2", "limited"]
    assert pears.split()[-1] == "paused" and "2h00m" in pears
    assert running.split() == ["RUNNING", "IN", "ID", "FOR", "ATT", "LEASE", "TASK", "WORKER", "PROGRESS"]
    assert first.endswith("[###       ]  30 % 30 of 100") and "1m30s" in first
    assert second.endswith("half") and empty == "" and "q quit" in keys


def test_puts_a_second_once_they_are_known(screen: Screen) -> None:
    assert "puts/s" not in text(screen)
    assert "1,203 dead rows  12.3 puts/s  oldest" in text(screen, snapshot(puts=12.34))


def test_styles(screen: Screen) -> None:
    lines = screen.lines(FULL, 120, 24)
    assert [line.style for line in lines[:6]] == ["title", "warning", "heading", "selected", "", "quiet"]
    press(screen, "down")
    assert [line.style for line in screen.lines(FULL, 120, 24)[3:6]] == ["warning", "selected", "quiet"]
    assert "selected" not in {line.style for line in screen.lines(FULL, 120, None)}


def test_what_the_doctor_has_found_or_has_not(screen: Screen) -> None:
    assert "the doctor looks" in text(screen, replace(FULL, findings=None))
    assert "nothing wrong" in text(screen, replace(FULL, findings=[]))
    broken = replace(FULL, error="ConnectionLost: gone")
    assert screen.lines(broken, 120, 24)[1] == (fit("no answer since then: ConnectionLost: gone", 120), "error")
    assert "looking" in text(screen, None)
    assert "no jobs" in text(screen, snapshot())


@pytest.mark.parametrize("keys", ["", "d", "?", "enter", "enter enter", "d enter", "d r", "p", "/ x"])
def test_every_size_of_a_terminal(screen: Screen, keys: str) -> None:
    """No line is wider than the terminal, none is missing, and none could command it."""
    seen = replace(
        snapshot(*(queue(name, 5, next_age=1.0) for name in NASTY * 10)),
        running=[job(n, name, name, task=name) for n, name in enumerate(NASTY)],
        findings=[FINDING._replace(what=name * 3) for name in NASTY],
        error="",
    )
    press(screen, *keys.split(), seen=seen)
    for width in (1, 5, 20, 40, 80, 200):
        for height in (1, 2, 3, 4, 10, 24, 200):
            lines = screen.lines(seen, width, height)
            assert len(lines) == height or len(lines) == min(height, 3)
            assert {width_of(line.text) for line in lines} == {width}
            assert all(line.text.isprintable() for line in lines)
    assert text(screen, seen, 40).split("\n")[-1] != ""


def test_a_narrow_terminal_keeps_what_matters(screen: Screen) -> None:
    heading, row = text(screen, width=36).split("\n")[2:4]
    assert heading.split() == ["NAME*", "READY", "AGE", "RUNNING", "DEAD"]
    assert row.split() == ["apples", "1,000+", "1m15s", "0", "0"]


# -- keys


def test_sorting(screen: Screen) -> None:
    orders = {}
    for _ in range(5):
        shown = text(screen).split("\n")
        orders[screen.sort] = [line.split()[0] for line in shown[3:6]]
        assert any(word == f"{screen.sort.upper()}*" for word in shown[2].split())
        press(screen, "s")
    assert orders == {
        "name": ["apples", "b", "pears"],
        "ready": ["apples", "pears", "b"],
        "age": ["pears", "apples", "b"],
        "running": ["b", "apples", "pears"],
        "dead": ["b", "apples", "pears"],
    }
    assert screen.sort == "name"


def test_filtering(screen: Screen) -> None:
    press(screen, "/", "q", "E", "backspace", "backspace", "P", "p")
    assert "filter: Pp_" in text(screen) and not screen.over and screen.is_typing
    press(screen, "backspace", "enter")
    names = [line.split()[0] for line in text(screen).split("\n")[3:5]]
    assert names == ["apples", "pears"] and not screen.is_typing
    press(screen, "/", "z", "enter")
    assert "no queue has that in its name" in text(screen)
    press(screen, "p", "enter")  # there is none
    assert screen.page == "queues"
    press(screen, "escape")
    assert screen.filter == "" and "apples" in text(screen)


def test_a_queue_is_paused_after_a_question(screen: Screen) -> None:
    done = screen._actions.done  # type: ignore[attr-defined]
    press(screen, "down", "p")
    assert text(screen).endswith(" y/n") and "Pause queue 'b'?" in text(screen)
    press(screen, "n")
    assert done == []
    press(screen, "p", "y")
    assert done == [("b", True)] and "'b' is paused" in text(screen)
    press(screen, "down", "p")
    assert "Resume queue 'pears'?" in text(screen)
    press(screen, "y")
    assert done == [("b", True), ("pears", False)]


def test_moving_in_many_queues(screen: Screen) -> None:
    many = snapshot(*(queue(f"q{n:02}") for n in range(60)))
    for _ in range(7):
        press(screen, "page down", seen=many)
    assert [line.text.split()[0] for line in screen.lines(many, 80, 20) if line.style == "selected"] == ["q59"]
    press(screen, "page up", "up", seen=many)
    lines = screen.lines(many, 80, 20)
    assert [line.text.split()[0] for line in lines if line.style == "selected"] == ["q48"]
    fewer = snapshot(*(queue(f"q{n:02}") for n in range(60) if n != 48))
    assert [line.text.split()[0] for line in screen.lines(fewer, 80, 20) if line.style == "selected"] == ["q00"]


def test_other_pages_scroll_and_lead_back(screen: Screen) -> None:
    many = replace(FULL, findings=[FINDING._replace(name=f"f{n}") for n in range(40)])
    press(screen, "?", seen=many)
    assert "f0" in text(screen, many)
    press(screen, *["page down"] * 20, seen=many)
    assert "f39" in text(screen, many) and "warning: f0:" not in text(screen, many)
    press(screen, "up", seen=many)
    assert "f39: " in text(screen, many)
    press(screen, "escape", seen=many)
    assert screen.page == "queues"
    press(screen, "q")
    assert screen.over


def chosen(screen: Screen, seen: Snapshot = FULL, height: int = 24) -> list[str]:
    return [line.text.split()[0] for line in screen.lines(seen, 120, height) if line.style == "selected"]


def test_a_job_is_chosen_and_shown(screen: Screen) -> None:
    press(screen, "enter", "down", "down")
    assert chosen(screen) == chosen(screen, height=7) == ["2"]
    press(screen, "enter")
    assert screen.page == "job" and "job 2" in text(screen)
    press(screen, *["page down"] * 30, "up")
    assert "job 2" not in text(screen)
    press(screen, "escape")
    assert chosen(screen) == ["2"]
    press(screen, *["page down"] * 3)
    assert chosen(screen) == [str(len(NASTY) - 1)]
    press(screen, "escape")
    assert screen.page == "queues"


def test_dead_jobs_are_retried_and_discarded_after_a_question(screen: Screen) -> None:
    actions: Any = screen._actions
    press(screen, "d", "r")
    assert "Retry 20 dead jobs of queue 'a': ValueError? " in text(screen).replace("  ", "") + " "
    press(screen, "n")
    assert actions.done == []
    press(screen, "r", "y")
    assert actions.done == [("retry", "rotten a")] and "20 will be tried again" in text(screen)
    press(screen, *["page down"] * 3, "x")
    assert "Discard" in text(screen)
    actions.groups = actions.groups[:2]  # what is there when it is done
    press(screen, "y")
    assert actions.done[1:] == [("discard", f"rotten {NASTY[-1]}")] and "20 deleted" in text(screen)
    press(screen, "enter", "escape", "r", "y")
    assert actions.done[2:] == [("retry", f"rotten {NASTY[1]}")]
    actions.groups = []
    press(screen, "escape", "d", "r", "x", "enter", "down", "up")
    assert "no dead jobs" in text(screen) and len(actions.done) == 3


# -- looking


def test_what_is_seen_of_a_queue(pq: PQ) -> None:
    watch = Watch(pq, 1)
    pq["a"].put(1)
    first = watch.look()
    assert first.growth == {} and [each.name for each in first.overview.queues] == ["a"]
    assert first.findings is not None  # of the server of the tests
    for _ in range(3):
        pq["a"].put(1)
    pq["a"].get(lease="1m")

    def grown() -> Any:
        seen = watch.look()
        return seen if seen.overview.queues[0].running else None

    seen = wait_until(grown, "the next look, which is not from memory")
    assert 0 < seen.growth["a"] <= 3.5
    assert [each.queue for each in seen.running] == ["a"]
    assert seen.findings == first.findings


def test_the_minute_that_is_over_is_counted(pq: PQ, sql: Callable[..., Any]) -> None:
    for _ in range(2):
        pq["a"].put(1)
        with pq["a"].get(lease="1m"):
            pass
    sql("update queue set finished_at = date_trunc('minute', now()) - interval '1 second'")
    assert Watch(pq, 1).look().finished == {"a": 2}
    sql("update queue set finished_at = now() - interval '10 minutes'")
    assert Watch(pq, 1).look().finished == {}


def test_a_look_that_fails_keeps_what_was_seen(pq: PQ, monkeypatch: pytest.MonkeyPatch) -> None:
    watch = Watch(pq, 7.0)
    pq["a"].put(1)
    assert watch.run_once() == 7.0
    monkeypatch.setattr(pq, "overview", lambda: 1 / 0)
    assert watch.run_once() == 7.0
    assert watch.snapshot is not None and watch.snapshot.error.startswith("ZeroDivisionError")
    assert [each.name for each in watch.snapshot.overview.queues] == ["a"]
    monkeypatch.undo()
    watch.run_once()
    assert watch.snapshot.error == ""


# -- the command


def test_without_a_terminal_it_shows_all_once(dsn: str, pq: PQ, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(50):
        pq[f"q{number}"].put(1)
    for arguments in ([], ["--once"]):
        assert main(["top", "--dsn", dsn, *arguments]) == 0
        shown = capsys.readouterr().out
        assert "\x1b" not in shown and 'table "queue"' in shown and "q49" in shown
        assert len(shown.splitlines()) == 53


def test_json(dsn: str, pq: PQ, capsys: pytest.CaptureFixture[str]) -> None:
    pq["a"].put(1)
    id = pq["a"].put(2)
    pq["a"].get(lease="1m").progress(0.5)
    assert main(["top", "--dsn", dsn, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    (a,) = document["queues"]
    assert (a["name"], a["ready"], a["running"], a["cut"]) == ("a", 1, 1, [])
    assert [(each["id"], each["progress"]) for each in document["running"]] == [(id - 1, 0.5)]
    assert {each["name"] for each in document["findings"]} >= {"not_durable"}
    assert document["table"]["server_version"] and document["at"].endswith("Z")


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(["--interval", "0"], 2), (["--interval", "x"], 2), (["--dsn", "postgresql://x@127.0.0.1:1/no", "--once"], 3)],
)
def test_it_fails_like_the_others(dsn: str, arguments: list[str], code: int) -> None:
    try:
        assert main(["top", "--dsn", dsn, *arguments]) == code
    except SystemExit as error:
        assert error.code == code


class Tmux:
    """A terminal of its own."""

    def __init__(self, folder: Path) -> None:
        self.socket = folder / f"t{uuid.uuid4().hex[:6]}"

    def __call__(self, *arguments: str) -> str:
        command = ["tmux", "-S", str(self.socket), *arguments]
        done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=30)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def start(self, dsn: str, width: int, height: int, **environment: str) -> None:
        pairs = {"PQ_DSN": dsn, "PYTHONPATH": ROOT, "LC_ALL": "C.UTF-8", **environment}
        given = [word for name, value in pairs.items() for word in ("-e", f"{name}={value}")]
        program = f"trap : INT; {sys.executable} -m pq top --interval 0.5; echo code $?; exec cat"
        self("-f", os.devnull, "new-session", "-d", "-x", str(width), "-y", str(height), *given, "sh", "-c", program)

    def sees(self, *texts: str, colours: bool = False) -> str:
        def found() -> str | None:
            shown = self("capture-pane", "-p", *(["-e"] if colours else []))
            return shown if all(each in shown for each in texts) else None

        try:
            return str(wait_until(found, f"{texts} on the screen"))
        except BaseException:
            print(self("capture-pane", "-p"))
            raise

    def press(self, *keys: str) -> None:
        self("send-keys", *keys)


@pytest.fixture
def tmux(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tmux]:
    if shutil.which("tmux") is None:
        pytest.skip("tmux is not installed")
    terminal = Tmux(tmp_path_factory.mktemp("t"))
    yield terminal
    subprocess.run(["tmux", "-S", str(terminal.socket), "kill-server"], capture_output=True, timeout=30)


def test_in_a_terminal(dsn: str, pq: PQ, tmux: Tmux) -> None:
    for name in ("apples", "pears"):
        pq[name].put({"kind": name})
    pq["pears"].put(2)
    job = pq["pears"].get(lease="10m")
    job.progress(0.5, "halfway")
    pq["dead"].put(1)
    pq["dead"].get(lease="1m").fail("rotten 17")
    tmux.start(dsn, 100, 24)
    tmux.sees("NAME*", "apples", "halfway", "not_durable", "q quit")
    pq["apples"].put(2)
    tmux.sees("apples      2")
    tmux.press("p")
    tmux.sees("Pause queue 'apples'?", "y/n")
    tmux.press("y")
    tmux.sees("paused")
    assert pq["apples"].paused
    tmux.press("Down", "Down", "Enter")
    tmux.sees("queue 'pears': the first 2 jobs", '"kind": "pears"')
    tmux.press("Down", "Enter")
    tmux.sees("job 2 of queue 'pears': running", "put 20")
    tmux.press("Escape", "Escape", "d")
    tmux.sees("rotten #")
    tmux.press("Enter")
    tmux.sees("of queue 'dead': dead, 1 attempts", "rotten 17")
    tmux.press("Escape", "r")
    tmux.sees("Retry 1 dead jobs")
    tmux.press("y")
    tmux.sees("1 will be tried again", "no dead jobs")
    tmux.press("Escape", "?")
    tmux.sees("fsync is off")
    tmux.press("Escape", "/", "a", "p", "p", "Enter")
    tmux.sees("apples", "q quit")
    assert "pears  " not in tmux.sees("apples").split("RUNNING IN")[0]
    tmux("resize-window", "-x", "40", "-y", "10")
    assert "PROGRESS" not in tmux.sees("apples", "RUNNING IN", "DEAD\n")
    tmux.press("q")
    tmux.sees("code 0")


@pytest.mark.parametrize("how", ["colours", "NO_COLOR"])
def test_colours(dsn: str, pq: PQ, sql: Callable[..., Any], tmux: Tmux, how: str) -> None:
    pq["a"].put(1)
    sql("update queue set enqueued_at = now() - interval '1 minute'")
    tmux.start(dsn, 100, 24, **({"NO_COLOR": "1"} if how == "NO_COLOR" else {}))
    shown = tmux.sees("not_durable", "nobody takes", colours=True)
    assert ("\x1b[31m3 findings" in shown) is (how == "colours")
    tmux.press("C-c")
    tmux.sees("code 0")
