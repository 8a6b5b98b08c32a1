"""Several processes fire at once, and are killed: each time of a schedule puts one job."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from support import wait_until

import pq as package
from pq import PQ, Schedule
from pq._schedules import Ticker, ticker

Sql = Callable[..., list[tuple[Any, ...]]]

PROGRAM = "import sys, pq; pq.PQ(sys.argv[1]).schedules.run()"
ROOT = Path(package.__file__).parents[1]


def test_each_time_once_without_holes(pq: PQ, dsn: str, sql: Sql) -> None:
    """Four processes, of which one is killed again and again, at any moment."""
    interval = timedelta(milliseconds=100)
    names = [f"x{n}" for n in range(5)]
    for name in names:
        pq.schedules[name] = Schedule(name, None, every=interval, missed="all")
    begun = {name: pq.schedules[name].next_at for name in names}
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-c", PROGRAM, dsn], env=environment)

    chance, running, kills = random.Random(7), [start() for _ in range(4)], 0
    try:
        sessions = "select count(*) from pg_stat_activity where datname = current_database() and application_name <> ''"
        wait_until(lambda: sql("select count(*) from queue")[0][0] >= 5, "the first jobs")
        deadline = time.monotonic() + 12
        while time.monotonic() < deadline:
            # at a moment when statements are under way, which a pause of any other length would find, too
            wait_until(lambda: sql(sessions), "a look")
            time.sleep(chance.random() * 0.4)
            n = chance.randrange(4)
            running[n].send_signal(signal.SIGKILL)
            running[n].wait()
            running[n] = start()
            kills += 1
    finally:
        for process in running:
            process.kill()
            process.wait()
    assert kills >= 10
    wait_until(
        lambda: not sql(
            "select 1 from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"
            " and state = 'active' and backend_type = 'client backend'"
        ),
        "the end of what was under way",
    )
    for name in names:
        times = [
            row[0]
            for row in sql("select schedule_at at time zone 'utc' from queue where q_name = %s order by 1", (name,))
        ]
        next_at = pq.schedules[name].next_at
        first = begun[name]
        assert first is not None and next_at is not None
        assert times == [first + n * interval for n in range((next_at - first) // interval)], name
        assert len(times) > 20


@pytest.fixture
def late(pq: PQ, sql: Sql) -> None:
    """A schedule that is due."""
    pq.schedules["x"] = Schedule("q", 1, every="1h")
    sql("update queue_schedules set next_at = now() - interval '1 s', anchor = now() - interval '1 s'")


@pytest.mark.parametrize(
    "meanwhile",
    [
        "fire", "pause", "remove", "another rule",
        "update queue_schedules set next_at = next_at + interval '1 microsecond'",
        "update queue_schedules set zone = 'UTC'", "update queue_schedules set rule = 'every 2h'",
    ],
)  # fmt: skip
@pytest.mark.usefixtures("late")
def test_what_happens_between_the_look_and_the_firing(
    pq: PQ, sql: Sql, monkeypatch: pytest.MonkeyPatch, meanwhile: str
) -> None:
    """Only who finds the schedule as it was fires it."""
    real = ticker.times
    called = []

    def evaluate(*args: Any) -> Any:
        if not called:
            called.append(True)
            if meanwhile == "fire":
                Ticker(pq._table).look()
            elif meanwhile == "pause":
                pq.schedules["x"].pause()
            elif meanwhile == "remove":
                del pq.schedules["x"]
            elif meanwhile == "another rule":
                pq.schedules["x"] = Schedule("q", 2, every="2h")
                sql("update queue_schedules set next_at = now() + interval '1 day'")
            else:
                sql(meanwhile)
        return real(*args)

    monkeypatch.setattr(ticker, "times", evaluate)
    expected = pq.schedules["x"].next_at if meanwhile == "pause" else None
    Ticker(pq._table).look()
    assert called
    assert [job.data for job in pq["q"].list()] == ([1] if meanwhile == "fire" else [])
    if expected is not None:
        assert pq.schedules["x"].next_at == expected


@pytest.mark.usefixtures("late")
def test_two_that_fire_at_the_same_moment(pq: PQ, sql: Sql, connect: Callable[..., Any]) -> None:
    """Step by step: the second one passes over the row that the first one has, and waits for nothing."""
    conn = connect()
    first = Ticker(pq.bind(conn)._table)
    first.look()
    second = Ticker(pq._table)
    assert second.look() == ticker.LOST.total_seconds()  # to look again soon, in case it is still to be fired
    assert pq["q"].list() == []
    conn.rollback()
    second.look()
    assert len(pq["q"].list()) == 1
    first.look()
    conn.commit()
    assert len(pq["q"].list()) == 1


@pytest.mark.usefixtures("late")
def test_where_the_default_is_repeatable_read(pq: PQ, dsn: str, sql: Sql) -> None:
    sql("do $$ begin execute format('alter database %I set default_transaction_isolation = ''repeatable read''',"
        " current_database()); end $$")  # fmt: skip
    with PQ(dsn) as other:
        Ticker(other._table).look()
        Ticker(other._table).look()
    assert len(pq["q"].list()) == 1
