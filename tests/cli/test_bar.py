"""Bars of commands that take long."""

from __future__ import annotations

import io
import sys

import pytest

from pq import PQ
from pq._cli import bar as _bar
from pq._cli.bar import Bar
from pq._cli.main import main

LONG = [["move", "a", "--all", "b"], ["prune"], ["dead", "retry", "c", "--all"]]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_bar, "FIRST", 0)
    monkeypatch.setattr(_bar, "PAUSE", 0)


def drawn(stderr: io.StringIO) -> list[str]:
    return stderr.getvalue().split("\r")[1:]


@pytest.mark.parametrize(("total", "line"), [(None, "moving  500"), (2000, "moving  [#######" + " " * 23)])
def test_a_bar_is_drawn_and_wiped_out(
    at_once: None, monkeypatch: pytest.MonkeyPatch, total: int | None, line: str
) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    with Bar("moving", total) as bar:
        bar.add(500)
    first, last = drawn(sys.stderr)  # type: ignore[arg-type]
    assert first.startswith(line)
    assert last == "\x1b[K"


def test_a_command_that_is_quick_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_bar, "FIRST", 1000)
    monkeypatch.setattr(sys, "stderr", Terminal())
    with Bar("moving") as bar:
        bar.add(500)
    assert sys.stderr.getvalue() == ""  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", [Terminal, io.StringIO, None], ids=["a terminal", "a file", "nothing"])
@pytest.mark.parametrize("command", LONG, ids=" ".join)
def test_commands_show_one_where_there_is_a_terminal(
    at_once: None, dsn: str, monkeypatch: pytest.MonkeyPatch, kind: type[io.StringIO] | None, command: list[str]
) -> None:
    with PQ(dsn, max_attempts=1) as pq:
        pq.create(retain=0, retain_dead="1s")
        pq["a"].put(1)
        pq["c"].put(1)
        with pytest.raises(ZeroDivisionError), pq["c"].item() as job:
            assert job is not None
            raise ZeroDivisionError
        if command == ["prune"]:
            with pq["c"] as cursor:
                cursor.execute("update queue set dequeued_at = now() - interval '1 day' where q_name = 'c'")
    monkeypatch.setenv("PQ_DSN", dsn)
    stderr = None if kind is None else kind()
    monkeypatch.setattr(sys, "stderr", stderr)
    assert main(command) == 0
    if stderr is not None:
        assert bool(stderr.getvalue()) is (kind is Terminal)
