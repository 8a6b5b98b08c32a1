"""What is looked at every few seconds at most."""

from __future__ import annotations

import threading

import pytest
from support import Background, wait_until

from pq import StatementTimeout
from pq.web.kept import Kept


def test_it_is_made_once_in_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    kept = Kept(lambda: made.append(1) or len(made), 30)
    assert [kept.get(), kept.get()] == [1, 1]
    from pq.web import kept as module

    now = module.time.monotonic()
    monkeypatch.setattr(module.time, "monotonic", lambda: now + 31)
    assert kept.get() == 2


def test_while_one_thread_makes_it_the_others_get_the_one_before() -> None:
    busy, go_on = threading.Event(), threading.Event()
    made: list[int] = []

    def make() -> int:
        made.append(1)
        if len(made) > 1:
            busy.set()
            go_on.wait(30)
        return len(made)

    kept = Kept(make, 0)
    assert kept.get() == 1
    first = Background(kept.get)
    wait_until(busy.is_set)
    assert kept.get() == 1
    go_on.set()
    assert first.result() == 2


def test_a_server_that_is_too_slow_is_no_error() -> None:
    def make() -> int:
        raise StatementTimeout(seconds=1)

    assert Kept(make, 30).get() is None
