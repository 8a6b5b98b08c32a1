"""Bars of commands that take long."""

from __future__ import annotations

import io
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest
from support import Background, Terminal, execute, wait_until

from pq import PQ
from pq._cli import bar as _bar
from pq._cli import building as _building
from pq._cli.bar import Bar
from pq._cli.main import main
from pq._table import migrations

LONG = [["move", "a", "--all", "b"], ["prune"], ["dead", "retry", "c", "--all"], ["load", "a"]]
V1 = migrations.steps()[0].sql.replace(":table", "queue")


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
    monkeypatch.setattr(sys, "stdin", io.StringIO("1\n2\n"))
    stderr = None if kind is None else kind()
    monkeypatch.setattr(sys, "stderr", stderr)
    assert main(command) == 0
    if stderr is not None:
        assert bool(stderr.getvalue()) is (kind is Terminal)


def test_an_index_is_seen_while_another_session_makes_it(
    at_once: None, pq: PQ, sql: Any, connect: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server reads a row of it when it has the lock that we hold."""
    pq["a"].put_many(range(3))
    sql(
        "create function slow(bigint) returns bigint immutable language plpgsql as"
        " 'begin perform pg_advisory_xact_lock(7); return $1; end'"
    )
    holder = connect()
    with holder.cursor() as cursor:
        cursor.execute("select pg_advisory_xact_lock(7)")
    making = Background(sql, "create index slow_index on queue (slow(id))")
    monkeypatch.setattr(sys, "stderr", Terminal())
    with Bar("creating an index") as bar:

        def seen() -> bool:
            _building.look(pq, bar)
            return " of 1 blocks" in sys.stderr.getvalue()  # type: ignore[attr-defined]

        wait_until(seen, "the index")
    holder.rollback()
    making.result()


@pytest.mark.parametrize("kind", [Terminal, io.StringIO, None], ids=["a terminal", "a file", "nothing"])
def test_create_looks_for_indexes_where_there_is_a_terminal(
    empty_dsn: str, monkeypatch: pytest.MonkeyPatch, kind: type[io.StringIO] | None
) -> None:
    execute(empty_dsn, V1)
    monkeypatch.setenv("PQ_DSN", empty_dsn)
    monkeypatch.setattr(sys, "stderr", None if kind is None else kind())
    looks, real = [], _building.look

    def look(pq: PQ, bar: Bar) -> float:
        pause = real(pq, bar)
        looks.append(threading.current_thread())
        return pause

    monkeypatch.setattr(_building, "look", look)
    create = PQ.create

    def slowly(pq: PQ, **options: Any) -> None:
        if kind is Terminal:
            wait_until(lambda: looks, "a look")
        create(pq, **options)

    monkeypatch.setattr(PQ, "create", slowly)
    assert main(["create"]) == 0
    assert bool(looks) is (kind is Terminal)
    assert not any(thread.is_alive() for thread in looks)
