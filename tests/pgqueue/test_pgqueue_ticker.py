"""The ticker: that there is one, that it lasts, and how it is started."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from support import Background, execute, wait_until
from support.driver import driver
from support.pgqueue import Package
from support.server import Server

import pq
from pq.pgqueue import Consumer, Queue, Ticker
from pq.pgqueue.__main__ import with_password

#: The session that has the lock.
TICKERS = """
    select a.pid from pg_stat_activity a join pg_locks l using (pid)
    where application_name = 'PgQ Ticker' and locktype = 'advisory' and datname = current_catalog
"""


def say(process: subprocess.Popen[str], *, sent: str = "") -> tuple[str, str]:
    return process.communicate(sent, timeout=60)


@pytest.fixture
def queue(pgq: str) -> Queue:
    made = Queue("q")
    conn = psycopg2.connect(pgq)
    conn.autocommit = True
    made.create(conn, ticker_max_count=1, ticker_max_lag="0 s", ticker_idle_period="0 s")
    conn.close()
    return made


@pytest.fixture
def started(ours: Package) -> Iterator[Package]:
    """A ticker runs, that of ``python -m``."""
    execute(ours.dsn, "select pgq.create_queue('q')")
    process = ours.command(ours.dsn + " password=x")
    wait_until(lambda: execute(ours.dsn, TICKERS) or process.poll() is not None, "the lock")
    assert process.poll() is None, process.communicate()
    yield ours


def test_there_is_one_ticker_of_a_database(started: Package, real_folder: Path, tmp_path: Path) -> None:
    """Be the other one pgqueue's."""
    second = started.command(started.dsn + " password=x")
    assert "runs already" in say(second)[1]
    assert second.returncode == 1
    theirs = Package("pgqueue", real_folder, tmp_path, started.dsn)
    assert "already running" in say(theirs.command(started.dsn + " password=x"))[1]


def test_pgqueues_own_ticker_keeps_ours_out(real: Package, ours: Package) -> None:
    real.command(real.dsn + " password=x")
    wait_until(lambda: execute(real.dsn, TICKERS), "the lock")
    process = ours.command(real.dsn + " password=x")
    assert "runs already" in say(process)[1]
    assert process.returncode == 1


def test_it_goes_on_when_its_session_was_ended(started: Package) -> None:
    for _ in range(2):
        ((pid,),) = wait_until(lambda: execute(started.dsn, TICKERS))
        execute(started.dsn, f"select pg_terminate_backend({pid})")
        wait_until(lambda pid=pid: execute(started.dsn, TICKERS) not in ([], [(pid,)]), "another session")


def test_ctrl_c_ends_it(started: Package) -> None:
    (process,) = started._started
    process.send_signal(signal.SIGINT)
    assert "stopped" in say(process)[1]
    assert process.returncode == 0
    wait_until(lambda: not execute(started.dsn, TICKERS), "the end of the lock")


def test_a_lock_that_the_lost_session_still_has_is_waited_for(
    pgq: str, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Ended(BaseException):
        pass

    ticker = Ticker(pgq)
    pauses: list[float] = []
    real_sleep = time.sleep
    other = driver.connect(pgq, autocommit=True)

    def sleep(pause: float) -> None:
        pauses.append(pause)
        if len(pauses) == 1:  # the lock is somebody else's from now on
            ticker.close()
            with monkeypatch.context() as waiting:  # which sleeps, too
                waiting.setattr(time, "sleep", real_sleep)
                wait_until(lambda: Ticker(pgq).try_lock(other.cursor()), "the lock")
        elif len(pauses) == 4:
            other.close()
        elif len(pauses) == 7:
            raise Ended

    monkeypatch.setattr(time, "sleep", sleep)
    try:
        with pytest.raises(Ended):
            ticker.run()
        assert pauses[1:4] == [1, 2, 4]
        assert ticker.n_ticks >= 1
    finally:
        ticker.close()


@pytest.mark.parametrize("period", [0.01, 0.2])
def test_it_ticks_as_often_as_it_is_told(pgq: str, queue: Queue, period: float) -> None:
    """Be that many times a second, which pgqueue does not do."""
    ticker = Ticker(pgq, {"ticker_period": period})
    try:
        with ticker.cursor() as curs:
            pause = ticker.run_once(curs)
            assert 0 <= pause <= period
            assert ticker.do_ticker(curs) is None or period < 0.1
            wait_until(lambda: ticker.do_ticker(curs) is not None)
            assert ticker.n_ticks >= 2
    finally:
        ticker.close()


def test_it_puts_back_what_is_to_be_retried(pgq: str, queue: Queue) -> None:
    conn = driver.connect(pgq)
    curs = conn.cursor()
    consumer = Consumer("q", "c")
    consumer.register(curs)
    queue.insert_event(curs, "t", "1")
    conn.commit()
    ticker = Ticker(pgq, {"retry_period": 0.01, "ticker_period": 0.01})

    def events() -> list[Any]:
        found = []
        with ticker.cursor() as own:
            ticker.run_once(own)
        for event in consumer.next_events(curs, commit=True):
            found.append(event.retry)
            if event.retry == 0:
                event.tag_retry(0)
        return found

    try:
        assert wait_until(events) == [0]
        assert wait_until(events) == [1]
        assert ticker.n_retry == 1
    finally:
        ticker.close()
        conn.close()


def test_it_vacuums_where_autovacuum_does_not(pgq: str, queue: Queue) -> None:
    """PgQ then names tables with their schema, which pgqueue takes for one name."""
    ticker = Ticker(pgq)
    try:
        with ticker.cursor() as curs:
            execute(
                pgq,
                "create or replace function pgq.maint_tables_to_vacuum() returns setof text language sql"
                " as $$ values ('pgq.tick'), ('pgq.we\"ird') $$; create table pgq.\"we\"\"ird\" ()",
            )
            ticker.run_maint(curs)
    finally:
        ticker.close()
    last = "select relname from pg_stat_user_tables where last_vacuum is not null order by 1"
    wait_until(lambda: execute(pgq, last) == [("tick",), ('we"ird',)], "the two")


def test_a_pgq_that_is_too_old_is_refused(pgq: str, queue: Queue) -> None:
    ticker = Ticker(pgq)
    try:
        for version, good in (("2.1", False), ("3.0", True), ("10.2", True)):
            execute(
                pgq, f"create or replace function pgq.version() returns text language sql as $$ select '{version}' $$"
            )
            assert ticker.check_pgq(ticker.cursor()) is good
    finally:
        ticker.close()


def test_the_dsn_gets_what_it_does_not_say(pgq: str) -> None:
    for dsn, name in ((pgq, "PgQ Ticker"), (f"{pgq} application_name=mine connect_timeout=3", "mine")):
        ticker = Ticker(dsn)
        try:
            found = driver.parameters(ticker.cursor().connection)
            assert found["application_name"] == name
            assert found["connect_timeout"] == ("3" if name == "mine" else "15")
        finally:
            ticker.close()


# -- the command


@pytest.mark.parametrize("arguments", [[], ["mydb"], ["host"]])
def test_without_a_dsn_it_says_what_it_needs(ours: Package, arguments: list[str]) -> None:
    process = ours.command(*arguments)
    assert "usage: python -m pq.pgqueue DSN" in say(process)[1]
    assert process.returncode == 2


def test_a_malformed_dsn_is_not_quoted(ours: Package) -> None:
    process = ours.command("host=x passwd=secret password=x")
    error = say(process)[1]
    assert "DSN" in error and "secret" not in error
    assert process.returncode == 2


def test_a_password_is_asked_for_where_there_is_none(ours: Package) -> None:
    execute(ours.dsn, "select pgq.create_queue('q')")
    process = ours.command(*ours.dsn.split())  # several arguments are one DSN
    assert process.stdin is not None
    process.stdin.write("it's \\ secret\n")
    process.stdin.flush()
    wait_until(lambda: execute(ours.dsn, TICKERS) or process.poll() is not None, "the lock")
    process.send_signal(signal.SIGINT)
    assert "Password: " in say(process)[1]


def test_what_is_typed_becomes_the_password(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PGPASSWORD", "PGPASSFILE"):
        monkeypatch.delenv(name, raising=False)
    asked: list[str] = []
    monkeypatch.setattr("getpass.getpass", lambda prompt: asked.append(prompt) or "it's \\")
    assert re.search(r"password='it\\'s \\\\'", with_password("host=h dbname=d"))
    assert asked == ["Password: "]
    for dsn in ("host=h password=''", "postgresql://u:p@h/d", "passfile=/x"):
        assert with_password(dsn) == dsn
    monkeypatch.setenv("PGPASSWORD", "x")
    assert with_password("host=h") == "host=h"
    assert len(asked) == 1


def test_interactively_it_runs_in_a_thread(ours: Package) -> None:
    execute(ours.dsn, "select pgq.create_queue('q')")
    command = [sys.executable, "-i", "-m", ours.name, ours.dsn + " password=x"]
    process = subprocess.Popen(
        command, cwd=ours._home, env=ours._environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    with process:
        try:
            wait_until(lambda: execute(ours.dsn, TICKERS) or process.poll() is not None, "the lock")
            out, _ = process.communicate("print(type(ticker).__name__)\n", timeout=60)
        finally:
            process.kill()
    assert "Ticker" in out


def test_a_server_that_restarts_gets_its_ticker_back(tmp_path: Path, pgq_server: str) -> None:
    """One of its own, which is stopped and started."""
    bin = Path("/usr/lib/postgresql/15/bin")
    with Server(bin=bin) as server:
        dsn = f"host=127.0.0.1 port={server.settings['port']} user=postgres dbname=postgres"
        execute(dsn, "create extension pgq")
        execute(dsn, "select pgq.create_queue('q')")
        ticker = Ticker(dsn, {"ticker_period": 0.05, "check_period": 0.1})
        running = True
        run_once = ticker.run_once

        class Ended(BaseException):
            pass

        def run(curs: Any) -> float:
            if not running:
                raise Ended
            return run_once(curs)

        ticker.run_once = run  # type: ignore[method-assign]
        thread = Background(ticker.run)
        try:
            wait_until(lambda: ticker.n_ticks > 2, "ticks")
            server.terminate(signal.SIGINT)
            failed = ticker.n_ticks
            server.start()
            wait_until(lambda: ticker.n_ticks > failed + 2, "ticks after the restart")
        finally:
            running = False
            with pytest.raises(Ended):
                thread.result()
            ticker.close()


def test_a_ticker_where_there_is_psycopg_3_alone(pgq: str, queue: Queue) -> None:
    pytest.importorskip("psycopg")
    program = "import sys; sys.modules['psycopg2'] = None; from pq.pgqueue.__main__ import main; main(sys.argv[1:])"
    environment = {**os.environ, "PYTHONPATH": str(Path(pq.__file__).parents[1])}
    with subprocess.Popen([sys.executable, "-c", program, pgq, "password=x"], env=environment) as process:
        try:
            execute(pgq, "select pgq.insert_event('q', 't', 'd')")
            ticks = "select from pgq.tick where tick_id > 1"
            wait_until(lambda: execute(pgq, ticks) or process.poll() is not None, "a tick")
            assert process.poll() is None
        finally:
            process.terminate()
