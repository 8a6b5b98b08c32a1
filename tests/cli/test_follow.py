"""``pq show --follow``: a bar until the job has ended."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from contextlib import redirect_stderr
from typing import Any

import pytest
from support import PATIENCE, Background, wait_until

from pq import PQ, LeasedJob
from pq._cli import follow as follow_module
from pq._cli.main import main


class Screen(io.StringIO):
    """The standard error output.

    :ivar looks: how often the job was looked at.
    """

    terminal = True
    looks = 0

    def isatty(self) -> bool:
        return self.terminal


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Screen:
    made = Screen()
    draw = follow_module._line

    def counted(state: str, progress: str | None) -> str:
        made.looks += 1
        return draw(state, progress)

    monkeypatch.setattr(follow_module, "PAUSE", 0.02)
    monkeypatch.setattr(follow_module, "_line", counted)
    return made


def call(screen: Screen, *args: str) -> int:
    with redirect_stderr(screen):  # not in the fixture: pytest sets it anew for the test
        return main(list(args))


def act(pq: PQ, screen: Screen, end: Callable[[LeasedJob], Any]) -> None:
    """Run the job, each step when the one before is to be seen."""
    try:
        _act(pq, screen, end)
    except BaseException:
        pq["a"].clear()  # or the other thread would follow it for ever
        raise


def _act(pq: PQ, screen: Screen, end: Callable[[LeasedJob], Any]) -> None:
    def seen(what: str) -> None:
        wait_until(lambda: what in screen.getvalue(), what)
        enough = screen.looks + 2  # the same is not shown again
        wait_until(lambda: screen.looks >= enough, "another look")

    seen("ready")
    job = pq["a"].get(timeout=PATIENCE, lease="1h")
    assert isinstance(job, LeasedJob)
    seen("running")
    job.progress(0.5)
    seen("50 %")
    job.progress({"done": 1, "text": "nearly\x1b[2J\nthere"})
    seen("100 %")
    job.progress({"pressed": 5})
    seen('{"pressed": 5}')
    end(job)


@pytest.mark.parametrize("terminal", [True, False])
def test_a_bar_is_drawn_until_the_end(
    dsn: str, pq: PQ, screen: Screen, capsys: pytest.CaptureFixture[str], terminal: bool
) -> None:
    screen.terminal = terminal
    id = pq["a"].put(1)
    actor = Background(act, pq, screen, lambda job: job.done({"peeled": "all"}))
    assert call(screen, "show", "--dsn", dsn, "a", "--follow", str(id), "--json") == 0
    actor.result()
    shown = json.loads(capsys.readouterr().out)
    assert (shown["state"], shown["result"]) == ("finished", {"peeled": "all"})
    lines = screen.getvalue().replace("\x1b[K", "").replace("\r", "\n").strip("\n").split("\n")
    assert lines == [
        "ready",
        "running",
        "running  [###############               ]  50 %",
        f"running  [{'#' * 30}] 100 %  nearly\\x1b[2J\\nthere",
        'running  {"pressed": 5}',
    ]
    assert ("\r" in screen.getvalue()) is ("\x1b[K" in screen.getvalue()) is terminal


@pytest.mark.parametrize(
    ("end", "told"),
    [
        (lambda job: job.fail("why"), "is dead"),
        (lambda job: job.queue.cancel(job.id), "was cancelled"),
        (lambda job: job.queue.clear(), "There is no job"),
    ],
    ids=["dead", "cancelled", "gone"],
)
def test_a_bad_end_is_an_error(dsn: str, pq: PQ, screen: Screen, end: Any, told: str) -> None:
    id = pq["a"].put(1)
    actor = Background(act, pq, screen, end)
    assert call(screen, "show", "--dsn", dsn, "a", str(id), "--follow") == 1
    actor.result()
    assert told in screen.getvalue().splitlines()[-1]


def test_a_job_that_has_ended_is_shown_at_once(
    dsn: str, pq: PQ, screen: Screen, capsys: pytest.CaptureFixture[str]
) -> None:
    id = pq["a"].put("data")
    pq["a"].get(timeout=0)
    assert call(screen, "show", "--dsn", dsn, "a", str(id), "--follow") == 0
    assert screen.getvalue() == ""
    assert "finished" in capsys.readouterr().out
    assert call(screen, "show", "--dsn", dsn, "a", "0", "--follow") == 1
    assert "no job 0" in screen.getvalue()


@pytest.mark.parametrize(
    ("progress", "line"),
    [
        (None, "running"),
        ("0", f"running  [{' ' * 30}]   0 %"),
        ("0.999", f"running  [{'#' * 29} ]  99 %"),
        ("1.5", "running  1.5"),
        ("true", "running  true"),
        ('{"done": true}', 'running  {"done": true}'),
        ('{"done": 0.25}', f"running  [{'#' * 7}{' ' * 23}]  25 %"),
        ('{"text": "50"}', "running  50"),
        ("1" * 5000, None),
        ("[" * 5000, None),
    ],
)
def test_what_is_drawn_of_a_progress(progress: str | None, line: str | None) -> None:
    drawn = follow_module._line("running", progress)
    assert len(drawn) < 80
    assert line is None or drawn.rstrip() == line
