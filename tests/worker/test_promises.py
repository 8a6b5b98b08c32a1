"""What keeps a worker honest: its services, jobs that hang or kill, stops, forks, configurations that can't work."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from psycopg2.extensions import make_dsn
from support import PATIENCE, Background, wait_until
from support.driver import driver
from support.tasks import DEAD, DONE, HELD, READY, Gate, Sql, fill, number, working

import pq as package
from pq._db.own import OwnTransaction
from pq._queue.claim import Claim
from pq.tasks import PQ, Queue, Worker, current
from pq.worker import duties
from pq.worker import worker as worker_module
from pq.worker.heartbeat import MAX_HOLD

# -- no thread ends in silence


@pytest.mark.parametrize("service", ["heartbeat", "completer"])
@pytest.mark.parametrize("error", [RuntimeError("broken"), SystemExit(3)], ids=["error", "exit"])
def test_what_ends_a_service_ends_the_worker(
    pq: PQ, gate: Gate, sql: Sql, service: str, error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    pq["a"].task(name="t")(gate)
    fill(pq["a"], 1, "t")
    worker = Worker(pq, lease="300ms")
    thread = Background(worker.run)
    wait_until(lambda: gate.came, "the start")

    def fails(*args: Any) -> Any:
        raise error

    part = getattr(worker._services, service)
    monkeypatch.setattr(part, "extend" if service == "heartbeat" else "_next", fails)
    if service == "completer":
        gate.open()
    with pytest.raises(type(error)) as raised:
        thread.result()
    assert raised.value is error
    gate.open()


def test_a_thread_that_can_not_be_started_ends_the_worker(
    pq: PQ, gate: Gate, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    pq["a"].task(name="hang", timeout="200ms")(gate)
    pq["a"].task(name="long")(gate)
    fill(pq["a"], 1, "hang"), fill(pq["a"], 1, "long")
    start = threading.Thread.start

    def limited(thread: threading.Thread) -> None:
        if thread.name.startswith("pq worker"):
            raise RuntimeError("can't start new thread")
        start(thread)

    worker = Worker(pq, threads=2)
    thread = Background(worker.run)
    wait_until(lambda: len(gate.came) == 2, "the start")
    monkeypatch.setattr(threading.Thread, "start", limited)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        thread.result()
    assert (number(sql, DEAD), number(sql, READY)) == (1, 1)  # one has failed, the other one is given back
    gate.open()


# -- jobs that kill, and those beside them


def test_a_job_whose_lease_expired_is_fetched_alone(pq: PQ, sql: Sql, monkeypatch: pytest.MonkeyPatch) -> None:
    held: dict[int, int] = {}

    @pq["a"].task(name="t")
    def task(job_id: int) -> None:
        held[job_id] = number(sql, HELD)

    ids = fill(pq["a"], 200, "t")
    # what is given back is ready a moment later, and others may be fetched before it: so not by the order
    suspects, others = ids[100:110], ids[:100] + ids[110:]
    sql("update queue set expiries = 1 where id = any(%s)", (suspects,))
    with working(Worker(pq)):
        wait_until(lambda: number(sql, DONE) == 200, "the end of all")
    assert [held[id] for id in suspects] == [1] * 10
    assert max(held[id] for id in others) > 1


def test_of_two_jobs_whose_leases_expired_twice_one_runs_at_a_time(pq: PQ, sql: Sql) -> None:
    running: list[int] = []
    most: list[int] = []

    @pq["a"].task(name="t")
    def task(job_id: int) -> None:
        running.append(job_id)
        most.append(len(running))
        time.sleep(0.1)
        running.remove(job_id)

    fill(pq["a"], 5, "t")
    sql("update queue set expiries = 2")
    with working(Worker(pq, threads=3)):
        wait_until(lambda: number(sql, DONE) == 5, "the end of all")
    assert max(most) == 1


MODULE = """
import os, signal, time
from pq.tasks import PQ, Worker
pq = PQ()
queue = pq["a"]
@queue.task(name="quick")
def quick(job_id): time.sleep(0.001)
@queue.task(name="long")
def long(job_id): time.sleep(2)
@queue.task(name="die")
def die(job_id): os.kill(os.getpid(), signal.SIGKILL)
Worker(pq, threads=2, lease="10s", burst=True).run()
"""


def test_a_job_that_kills_its_workers_is_given_up_and_no_other(dsn: str, sql: Sql, tmp_path: Path) -> None:
    with PQ(dsn) as pq:
        fill(pq["a"], 300, "quick")
        (poison,) = fill(pq["a"], 1, "die")
        fill(pq["a"], 300, "quick"), fill(pq["a"], 2, "long")
        sql("create index on queue (id)")
        deadline = time.monotonic() + 60
        kills = 0
        path = str(Path(package.__file__).parent.parent)
        while number(sql, DEAD) == 0 or number(sql, DONE) < 602:
            assert time.monotonic() < deadline
            done = subprocess.run(
                [sys.executable, "-c", MODULE], env={**os.environ, "PQ_DSN": dsn, "PYTHONPATH": path}, cwd=tmp_path
            )
            kills += done.returncode == -signal.SIGKILL
            sql("update queue set due_at = now() where dequeued_at is not null and due_at is not null")
        assert [job.id for job in pq["a"].dead] == [poison]
        assert 4 <= kills <= 6


# -- handlers that hang


def test_hung_transactional_tasks_free_their_connections_and_locks(dsn: str, gate: Gate, sql: Sql) -> None:
    sql("create table things (id int)")
    sql("insert into things values (1)")
    done: list[int] = []
    with PQ(dsn, timeout=0.05, max_connections=3) as pq:

        @pq["a"].task(name="hang", transactional=True, timeout="200ms")
        def hang(job_id: int) -> None:
            current().cursor.execute("update things set id = id + 1")
            gate(job_id)

        pq["a"].task(name="other", transactional=True)(lambda job_id: done.append(job_id))
        fill(pq["a"], 5, "hang"), fill(pq["a"], 3, "other")
        worker = Worker(pq)
        with working(worker):
            wait_until(lambda: len(done) == 3, "the others")
            assert worker.status()["abandoned"] == 5
            assert number(sql, DEAD) == 5
            assert sql("update things set id = 0 returning id") == [(0,)]  # nobody has it locked
            gate.open()
            wait_until(lambda: worker.status()["abandoned"] == 0, "the end of the threads")
    assert sql("select id from things") == [(0,)]


def test_a_statement_that_hangs_is_cancelled(pq: PQ, sql: Sql) -> None:
    @pq["a"].task(name="hang", transactional=True, timeout="200ms")
    def hang(job_id: int) -> None:
        current().cursor.execute("select 'hangs', pg_sleep(600)")

    fill(pq["a"], 1, "hang")
    with working(Worker(pq)):
        wait_until(lambda: number(sql, DEAD) == 1, "the failure")
        asleep = "select count(*) from pg_stat_activity where query like 'select ''hangs''%' and state = 'active'"
        wait_until(lambda: number(sql, asleep) == 0, "the end of the statement")


def test_a_block_of_a_hung_handler_is_rolled_back_and_says_so(pq: PQ, gate: Gate, sql: Sql) -> None:
    sql("create table things (id int)")
    errors: list[BaseException] = []

    @pq["a"].task(name="hang", timeout="200ms")
    def hang(job_id: int) -> None:
        try:
            with pq["b"] as cursor:
                cursor.execute("insert into things values (1)")
                gate(job_id)
        except BaseException as error:
            errors.append(error)
            raise

    fill(pq["a"], 1, "hang")
    with working(Worker(pq)):
        wait_until(lambda: number(sql, DEAD) == 1, "the failure")
        gate.open()
        wait_until(lambda: errors, "the end of the block")
    assert isinstance(errors[0], driver.OperationalError)
    assert sql("select * from things") == []


def test_when_too_many_hang_the_worker_ends_with_an_error(
    pq: PQ, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "MAX_ABANDONED", 3)
    pq["a"].task(name="hang", timeout="100ms")(gate)
    fill(pq["a"], 10, "hang")
    with pytest.raises(package.PQError, match="3 handlers hang"):
        Worker(pq).run()
    assert len(gate.came) == 3
    gate.open()


# -- nothing is begun that is lost


def test_what_is_cancelled_in_the_stock_is_not_begun(pq: PQ, gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    from pq.worker import fetcher, heartbeat

    monkeypatch.setattr(fetcher.Fetcher, "_wanted", lambda fetcher: 50)
    monkeypatch.setattr(fetcher, "MAX_HOLD", 3600.0)
    monkeypatch.setattr(heartbeat, "MAX_HOLD", 3600.0)
    done: list[int] = []
    pq["a"].task(name="gated")(gate)
    pq["a"].task(name="quick")(lambda job_id: done.append(job_id))
    fill(pq["a"], 1, "gated")
    ids = fill(pq["a"], 20, "quick")
    worker = Worker(pq, lease="600ms")
    with working(worker):
        wait_until(lambda: gate.came, "the start")
        assert pq["a"].cancel(ids[:10]) == 10
        wait_until(lambda: worker.status()["counts"]["cancelled"] == 10, "the word of it")
        gate.open()
        wait_until(lambda: len(done) == 10, "the others")
    assert done == ids[10:]


def test_what_was_delivered_elsewhere_during_a_slow_claim_is_not_begun(
    pq: PQ, dsn: str, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[int] = []
    pq["a"].task(name="t")(lambda job_id: done.append(job_id))
    ids = fill(pq["a"], 5, "t")
    fetch = Claim.fetch

    def slow(claim: Claim, *args: Any) -> Any:
        found = fetch(claim, *args)
        if found[0]:  # the process stands still, and another one gets the job
            sql("update queue set attempts = 7, dequeued_at = now() where id = %s", (ids[0],))
            sql("select pg_sleep(%s)", (MAX_HOLD + 0.2,))
            monkeypatch.setattr(Claim, "fetch", fetch)
        return found

    monkeypatch.setattr(Claim, "fetch", slow)
    with working(Worker(pq, lease="1h")):
        wait_until(lambda: number(sql, DONE) == 4, "the others")
    assert done == ids[1:]


def test_an_extension_by_the_handler_is_not_taken_back(pq: PQ, gate: Gate, sql: Sql) -> None:
    @pq["a"].task(name="t")
    def task(job_id: int) -> None:
        current().extend("1h")
        gate(job_id)

    fill(pq["a"], 1, "t")
    worker = Worker(pq, lease="300ms")
    beats: list[float] = []
    extend = worker._services.heartbeat.extend
    worker._services.heartbeat.extend = lambda runs: (extend(runs), beats.append(1))  # type: ignore[method-assign]
    with working(worker):
        wait_until(lambda: gate.came and len(beats) > 3, "heartbeats")
        assert sql("select due_at > now() + interval '50m' from queue") == [(True,)]
        gate.open()


# -- run_once


def test_run_once_with_a_task_past_its_timeout(pq: PQ, gate: Gate, sql: Sql) -> None:
    pq["a"].task(name="hang", timeout="200ms")(gate)
    fill(pq["a"], 5, "hang")
    worker = Worker(pq)
    thread = Background(worker.run_once)
    wait_until(lambda: number(sql, DEAD) == 1, "the failure")
    gate.open()
    assert thread.result()
    assert number(sql, READY) == 4  # nobody goes on
    assert len(gate.came) == 1


def test_run_once_in_two_threads(pq: PQ, gate: Gate, sql: Sql) -> None:
    pq["a"].task(name="gated")(gate)
    pq["a"].task(name="quick")(lambda job_id: None)
    (long, _) = fill(pq["a"], 1, "gated") + fill(pq["a"], 1, "quick")
    worker = Worker(pq, lease="500ms")
    threads = [Background(worker.run_once) for _ in range(2)]
    wait_until(lambda: number(sql, DONE) == 1, "the end of the quick one")
    later = "select due_at > now() and due_at > dequeued_at + interval '1s' from queue where id = %s"
    wait_until(lambda: sql(later, (long,)) == [(True,)], "heartbeats after that")
    gate.open()
    assert [thread.result() for thread in threads] == [True, True]


def test_run_once_takes_no_job_once_the_worker_has_ended(pq: PQ) -> None:
    """Nothing settles it then."""
    worker = Worker(pq["a"], burst=True)
    pq["a"].timeout = 0.1
    worker.run()
    pq["a"].put({})
    assert not worker.run_once()
    assert pq["a"].count("ready") == 1


def test_run_once_goes_on_after_a_job_that_can_not_be_decoded(pq: PQ, sql: Sql) -> None:
    queue = pq["a/pickle"]
    done: list[int] = []
    queue.task(name="t")(lambda job_id: done.append(job_id))
    ids = fill(queue, 3, "t")
    sql("update queue set data = '\"no pickle\"' where id = %s", (ids[0],))
    worker = Worker(pq, ["a/pickle"])
    assert [worker.run_once() for _ in range(3)] == [True, True, False]
    assert done == ids[1:]
    assert [job.id for job in queue.dead] == [ids[0]]


# -- the end


def test_a_claim_that_is_under_way_at_the_end_is_given_back(
    pq: PQ, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    pq["a"].task(name="t")(lambda job_id: None)
    fill(pq["a"], 5, "t")
    fetch, inside = Claim.fetch, threading.Event()

    def slow(claim: Claim, *args: Any) -> Any:
        found = fetch(claim, *args)
        inside.set()
        time.sleep(0.5)
        return found

    monkeypatch.setattr(Claim, "fetch", slow)
    worker = Worker(pq, lease="1h", shutdown_timeout="0s")
    thread = Background(worker.run)
    assert inside.wait(PATIENCE)
    worker.stop()
    thread.result()
    assert (number(sql, READY), number(sql, HELD)) == (5, 0)


def test_a_closed_pq_ends_it(dsn: str, gate: Gate, sql: Sql, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Queue, "handler_registry", {})
    pq = PQ(dsn)
    pq["a"].task(name="t")(gate)
    fill(pq["a"], 1, "t")
    threads = [Background(Worker(pq, threads=2, lease="1h").run), Background(Worker(pq, ["a"], lease="1h").run)]
    wait_until(lambda: gate.came, "the start")
    pq.close()
    for thread in threads:
        thread.result(10)
    gate.open()
    assert (number(sql, READY), number(sql, HELD)) == (1, 0)  # it is given back


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_worker_that_was_made_before_a_fork_hears_its_own_signals(pq: PQ, sql: Sql) -> None:
    pq["a"].task(name="t")(lambda job_id: None)
    worker = Worker(pq)
    children: list[int] = []
    for _ in range(2):
        pid = os.fork()
        if pid == 0:
            try:
                logging.disable()
                worker.run()
            finally:
                os._exit(0)
        children.append(pid)
    try:
        sessions = "select count(distinct client_port) from pg_stat_activity where datname = current_database()"
        wait_until(lambda: number(sql, sessions) >= 3, "the children")
        fill(pq["a"], 4, "t")
        wait_until(lambda: number(sql, DONE) == 4, "the jobs")
        for pid in children:
            os.kill(pid, signal.SIGTERM)
            wait_until(lambda pid=pid: os.waitpid(pid, os.WNOHANG)[0], "its end", 10)  # type: ignore[misc]
    except BaseException:
        for pid in children:
            os.kill(pid, signal.SIGKILL)
        raise


def test_a_burst_does_not_take_a_locked_table_for_an_empty_queue(
    pq: PQ, dsn: str, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[int] = []
    pq["a"].task(name="t")(lambda job_id: done.append(job_id))
    ids = fill(pq["a"], 3, "t")
    locker = psycopg2.connect(dsn)
    locker.cursor().execute("lock table queue in access exclusive mode")
    worker = Worker(pq, burst=True)
    thread = Background(worker.run)
    wait_until(lambda: worker.status()["database"] != "ok", "the word that the server holds it up")
    locker.close()
    thread.result()
    assert done == ids


# -- configurations


def test_queues_of_another_pq_are_refused(pq: PQ, dsn: str) -> None:
    with PQ(dsn) as other, PQ(dsn, table="another") as table:
        for queue in (other["a"], table["a"]):
            with pytest.raises(TypeError, match="another PQ"):
                Worker(pq, [pq["a"], queue])


def test_names_without_tasks_and_jobs_are_warned_of_once(
    pq: PQ, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    pq["known"].task(name="t")(lambda job_id: None)
    pq["jobs"].put(1, schedule_at="1h")
    monkeypatch.setattr(duties, "BEGIN", 3600.0)
    with working(Worker(pq, ["known", "jobs", "maisl", *(f"q{n}" for n in range(7))])):
        wait_until(lambda: "'maisl'" in caplog.text, "the warning")
    told = [record.args for record in caplog.records if "no tasks" in record.getMessage()]
    assert told == [("'maisl', 'q0', 'q1', 'q2', 'q3' and 3 more",)]


def test_transactional_tasks_as_many_as_threads_and_longer_than_the_lease_end_well(
    dsn: str, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Queue, "handler_registry", {})
    runs: list[int] = []
    with PQ(dsn, timeout=0.05, max_connections=4) as pq, PQ(dsn, timeout=0.05, max_connections=4) as second:

        @pq["a"].task(name="t", transactional=True)
        def task(job_id: int) -> None:
            runs.append(job_id)
            time.sleep(1.5)

        ids = fill(pq["a"], 4, "t")
        first, other = Worker(pq, threads=4, lease="600ms"), Worker(second, ["a"], lease="600ms")
        with working(first), working(other):
            wait_until(lambda: number(sql, DONE) == 4, "the end of all")
    assert sorted(runs) == ids


@pytest.mark.parametrize("how", ["connection", "dsn"])
def test_transactional_tasks_on_one_connection_are_refused(
    dsn: str, how: str, connect: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Queue, "handler_registry", {})
    with PQ(connect()) if how == "connection" else PQ(dsn, max_connections=1) as pq:
        Worker(pq, ["a"])
        pq["a"].task(name="t", transactional=True)(lambda job_id: None)
        with pytest.raises(ValueError, match="transactional"):
            Worker(pq)


def test_a_server_that_ends_idle_transactions_fails_the_task_after_three(
    dsn: str, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Queue, "handler_registry", {})
    monkeypatch.setattr("pq.worker.execution.BREAK_PAUSE", __import__("datetime").timedelta(milliseconds=10))
    runs: list[int] = []
    with PQ(make_dsn(dsn, options="-c idle_in_transaction_session_timeout=100"), timeout=0.05) as pq:

        @pq["a"].task(name="t", transactional=True)
        def task(job_id: int) -> None:
            runs.append(job_id)
            pq._db.execute("select 1")  # with which the transaction begins
            time.sleep(0.5)

        fill(pq["a"], 1, "t")
        with working(Worker(pq)):
            wait_until(lambda: number(sql, DEAD) == 1, "the end")
    assert len(runs) == 3
    ((error,),) = sql("select error::json from queue")
    assert "idle_in_transaction_session_timeout" in json.dumps(error)


@pytest.mark.parametrize("how", ["driver", "wrapped", "swallowed"])
def test_a_connection_that_is_lost_in_a_transactional_task_is_no_failed_attempt(
    dsn: str, sql: Sql, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Queue, "handler_registry", {})
    monkeypatch.setattr("pq.worker.execution.BREAK_PAUSE", timedelta(milliseconds=10))
    runs: list[int] = []
    with PQ(dsn, timeout=0.05) as pq:

        @pq["a"].task(name="t", transactional=True)
        def task(job_id: int) -> None:
            runs.append(job_id)
            if len(runs) > 1:
                return
            cursor = current().cursor
            sql("select pg_terminate_backend(%s, 30000)", (driver.pid(cursor.connection),))
            try:
                cursor.execute("select 1")
            except driver.Error as error:
                if how == "driver":
                    raise
                if how == "wrapped":
                    raise RuntimeError("the statement failed") from error

        fill(pq["a"], 1, "t")
        with working(Worker(pq)):
            wait_until(lambda: number(sql, DONE) + number(sql, DEAD) == 1, "the end")
    assert number(sql, DONE) == 1
    assert len(runs) == 2


def test_what_a_handler_decides_stays_when_its_connection_is_lost(
    dsn: str, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Queue, "handler_registry", {})
    runs: list[int] = []
    with PQ(dsn, timeout=0.05) as pq:

        @pq["a"].task(name="t", transactional=True, max_retries=5)
        def task(job_id: int) -> None:
            runs.append(job_id)
            current().cursor.connection.close()
            raise package.Discard("no good")

        fill(pq["a"], 1, "t")
        with working(Worker(pq)):
            wait_until(lambda: number(sql, DEAD) == 1, "the end")
    assert len(runs) == 1


@pytest.mark.parametrize("error", [package.ConnectionFailed("no server"), TimeoutError("no connection is free")])
def test_a_transactional_task_that_could_not_begin_does_not_count(
    pq: PQ, sql: Sql, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As often as that is: jobs in the worker's stock meet each outage of the server."""
    monkeypatch.setattr("pq.worker.execution.BREAK_PAUSE", timedelta(milliseconds=10))
    runs: list[int] = []
    pq["a"].task(name="t", transactional=True)(runs.append)
    begin, tried = OwnTransaction.begin, list(range(5))

    def fails(transaction: OwnTransaction, *given: Any) -> Any:
        if tried:
            tried.pop()
            raise error
        return begin(transaction, *given)

    monkeypatch.setattr(OwnTransaction, "begin", fails)
    ids = fill(pq["a"], 1, "t")
    with working(Worker(pq)):
        wait_until(lambda: number(sql, DONE) + number(sql, DEAD) == 1, "the end")
    assert runs == ids
    assert sql("select attempts from queue") == [(1,)]


def test_a_transactional_task_that_could_not_begin_keeps_its_place_among_those_of_its_key(
    pq: PQ, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[int] = []
    task = pq["a"].task(name="t", transactional=True, key=lambda: "k")(runs.append)
    begin, tried = OwnTransaction.begin, [1]

    def fails(transaction: OwnTransaction, *given: Any) -> Any:
        if tried:
            tried.pop()
            raise package.ConnectionFailed("no server")
        return begin(transaction, *given)

    monkeypatch.setattr(OwnTransaction, "begin", fails)
    ids = [task() for _ in range(3)]
    with working(Worker(pq)):
        wait_until(lambda: number(sql, DONE) == 3, "the end")
    assert not tried
    assert runs == ids


@pytest.mark.parametrize("kind", ["psycopg2", "psycopg", "sqlalchemy"])
def test_with_a_pool_the_heartbeat_has_a_connection_too_and_a_hung_task_gives_its_back(
    dsn: str, sql: Sql, gate: Gate, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Queue, "handler_registry", {})
    pool: Any
    if kind == "psycopg2":
        from psycopg2.pool import ThreadedConnectionPool

        pool = ThreadedConnectionPool(0, 3, dsn)
    elif kind == "psycopg":
        pool = pytest.importorskip("psycopg_pool").ConnectionPool(dsn, min_size=0, max_size=3, timeout=5, open=True)
    else:
        url = "postgresql+psycopg2://"
        creator = lambda: psycopg2.connect(dsn)  # noqa: E731
        pool = pytest.importorskip("sqlalchemy").create_engine(url, creator=creator, pool_size=3, max_overflow=0)
    done: list[int] = []
    with PQ(pool, timeout=0.05) if kind == "sqlalchemy" else PQ(pool=pool, timeout=0.05) as pq:

        @pq["a"].task(name="hang", transactional=True, timeout="1s")
        def hang(job_id: int) -> None:
            gate(job_id)

        pq["a"].task(name="other", transactional=True)(lambda job_id: done.append(job_id))
        ids = fill(pq["a"], 2, "hang")
        worker = Worker(pq, threads=2, lease="600ms")
        with working(worker):
            wait_until(lambda: len(gate.came) == 2, "the start")
            later = "select count(*) from queue where due_at > dequeued_at + interval '900ms' and due_at > now()"
            wait_until(lambda: number(sql, later) == 2 or number(sql, DEAD), "heartbeats")
            wait_until(lambda: number(sql, DEAD) == 2, "their failure")
            ids += fill(pq["a"], 3, "other")
            wait_until(lambda: len(done) == 3, "the others")
            gate.open()
            wait_until(lambda: worker.status()["abandoned"] == 0, "the end of the threads")
    assert worker.status()["counts"]["lost"] == 0
