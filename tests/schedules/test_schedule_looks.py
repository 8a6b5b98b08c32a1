"""A process that waits for jobs sees by the same statements when the next schedule is due."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from support import Background, wait_until
from support.kinds import ALL, make_pq

from pq import PQ, Schedule
from pq._schedules.ticker import PAUSE, Ticker
from pq._wait import schedules

Sql = Callable[..., list[tuple[Any, ...]]]
HOUR = 3600.0


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each look tells."""
    monkeypatch.setattr(schedules, "PAUSE", 0.0)


@pytest.fixture
def no_look(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From the call on, a look of the ticker's own fails."""

    def look(ticker: Ticker) -> float:
        raise AssertionError

    return lambda: monkeypatch.setattr(Ticker, "look", look)


@contextmanager
def waiting(pq: PQ) -> Iterator[None]:
    """Somebody waits for a job."""
    waiter = Background(pq["a"].get, timeout=HOUR)
    yield
    pq["a"].put(1)
    assert waiter.result() is not None


def rest(pq: PQ) -> float:
    return pq._table.schedules_rest(PAUSE)


@pytest.mark.parametrize("kind", ["dsn", "connection", "autocommit connection"])
def test_who_waits_makes_no_look_for_schedules(
    dsn: str, sql: Sql, kind: str, no_look: Callable[[], None]
) -> None:
    with make_pq(kind, dsn, poll_interval=0.05) as pq:
        ticker = Ticker(pq._table)
        assert ticker.run_once() == PAUSE
        with waiting(pq):
            wait_until(lambda: rest(pq) > 0, "the look")
            no_look()
            assert 0 < ticker.run_once() <= PAUSE


@pytest.mark.parametrize("kind", ["dsn", "autocommit connection"])
def test_it_sees_when_a_new_schedule_is_due(dsn: str, sql: Sql, kind: str) -> None:
    with make_pq(kind, dsn, poll_interval=0.05) as pq:
        ticker = Ticker(pq._table)
        ticker.run_once()
        with waiting(pq):
            wait_until(lambda: rest(pq) > 0, "the look")
            pq.schedules["hourly"] = Schedule("b", "data", every="1h")
            sql("update queue_schedules set next_at = now() + '5 s'")
            wait_until(lambda: rest(pq) <= 5, "that it was seen")
            sql("update queue_schedules set next_at = now()")
            wait_until(lambda: rest(pq) <= 0, "the time")
            ticker.run_once()
            assert pq["b"].count() == 1


def test_what_was_seen_too_long_ago_does_not_count(dsn: str, sql: Sql) -> None:
    with make_pq("dsn", dsn, poll_interval=HOUR) as pq:
        rest(pq)
        with waiting(pq):
            wait_until(lambda: rest(pq) > 0, "the look")
            assert pq._table.schedules_rest(0.0) <= 0


@pytest.mark.parametrize("kind", ALL)
def test_without_the_right_to_look_the_wait_goes_on(dsn: str, sql: Sql, kind: str) -> None:
    with make_pq(kind, dsn, poll_interval=0.05) as pq:
        rest(pq)
        sql("alter table queue_schedules rename to elsewhere")
        with waiting(pq):
            queues = pq._table._room.queues
            wait_until(lambda: "a" in queues and queues["a"].sure, "the wait")
            assert rest(pq) <= 0


def test_a_pool_may_see_another_table(dsn: str, sql: Sql) -> None:
    with make_pq("pool", dsn, poll_interval=0.05) as pq:
        rest(pq)
        with waiting(pq):
            queues = pq._table._room.queues
            wait_until(lambda: "a" in queues and queues["a"].sure, "the wait")
            assert rest(pq) <= 0
