"""What one handler, one row, or one logging handler does wrong stays with it."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
import time
import types
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from support import Background, wait_until
from support.tasks import DEAD, DONE, Gate, Sql, all_threads, fill, number, working

from pq.tasks import PQ, Queue, Worker, current

# -- handlers


def test_a_block_that_a_handler_leaves_open_is_rolled_back_and_harms_no_other(pq: PQ, sql: Sql) -> None:
    kept = []

    def leave(job_id: int) -> None:
        kept.append(pq["in"])
        pq["in"].__enter__()
        pq["in"].put("inside")

    pq["a"].task(name="leave")(leave)
    pq["a"].task(name="put")(lambda job_id: pq["out"].put(job_id))
    fill(pq["a"], 1, "leave"), fill(pq["a"], 3, "put")
    Worker(pq, burst=True, batch=1).run()
    assert number(sql, DONE) == 3 and len(pq["out"]) == 3
    (dead,) = pq["a"].dead.list()
    assert dead.error.type == "pq.errors.BlockError"
    assert len(pq["in"]) == 0
    assert not sql("select 1 from pg_stat_activity where state like 'idle in transaction%'")


def test_a_process_that_a_handler_forks_is_no_worker(pq: PQ, sql: Sql, tmp_path: Path) -> None:
    codes: list[int] = []

    def fork(job_id: int, code: Any) -> None:
        pid = os.fork()
        if pid == 0:
            sys.exit(code)
        codes.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))

    def note(job_id: int) -> None:
        (tmp_path / f"{job_id} {os.getpid()}").touch()
        time.sleep(0.01)

    pq["a"].task(name="fork")(fork)
    pq["a"].task(name="note")(note)
    for code in (None, 7, "text"):
        fill(pq["a"], 1, "fork", args=[code])
    fill(pq["a"], 30, "note")
    Worker(pq, burst=True, batch=1).run()
    assert number(sql, DONE) == 33
    assert codes == [0, 7, 1]
    assert {path.name.split()[1] for path in tmp_path.iterdir()} == {str(os.getpid())}


def test_the_time_for_which_a_transactional_task_waits_for_a_connection_is_not_in_its_timeout(
    dsn: str, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Queue, "handler_registry", {})
    with PQ(dsn, timeout=0.05, max_connections=2) as pq:
        pq["a"].task(name="slow", transactional=True, timeout="2s")(lambda job_id: time.sleep(0.8))
        pq["a"].task(name="hang", transactional=True, timeout="300ms")(lambda job_id: time.sleep(5))
        fill(pq["a"], 4, "slow"), fill(pq["a"], 1, "hang")
        with working(Worker(pq, threads=5)):
            wait_until(lambda: number(sql, DONE) + number(sql, DEAD) == 5, "their ends")
        (dead,) = pq["a"].dead.list()
        assert dead.error.type == "pq.errors.TaskTimeout" and dead.data["function"] == "hang"


def test_a_handler_that_hangs_in_a_module_without_source_is_given_up(pq: PQ, sql: Sql, gate: Gate) -> None:
    class Loader:
        def get_source(self, name: str) -> str:
            raise RuntimeError("no source")

    module: dict[str, Any] = {"__name__": "made", "__loader__": Loader(), "gate": gate}
    exec(compile("def hang(job_id):\n    gate(job_id)\n", "<made>/made.py", "exec"), module)
    pq["a"].task(name="hang", timeout="200ms")(module["hang"])
    fill(pq["a"], 1, "hang")
    Worker(pq, burst=True).run()
    (dead,) = pq["a"].dead.list()
    assert dead.error.type == "pq.errors.TaskTimeout" and "in hang" in (dead.error.traceback or "")


def test_a_job_that_gets_no_connection_of_a_pool_in_time_is_given_back(
    dsn: str, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Queue, "handler_registry", {})
    create_engine = pytest.importorskip("sqlalchemy").create_engine
    options = {"pool_size": 2, "max_overflow": 0, "pool_timeout": 0.3, "creator": lambda: psycopg2.connect(dsn)}
    engine = create_engine("postgresql+psycopg2://", **options)
    with PQ(engine, timeout=0.05) as pq:
        pq["a"].task(name="slow", transactional=True)(lambda job_id: time.sleep(0.7))
        fill(pq["a"], 4, "slow")
        with working(Worker(pq, threads=4)):
            wait_until(lambda: number(sql, DONE) + number(sql, DEAD) == 4, "their ends")
        assert number(sql, DEAD) == 0
    engine.dispose()


# -- rows


def test_a_module_whose_import_raises_anything_harms_no_other(
    pq: PQ, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Finder:
        def find_spec(self, name: str, *args: Any) -> None:
            if name == "pq_cancelled":
                raise asyncio.CancelledError

    monkeypatch.setattr(sys, "meta_path", [Finder(), *sys.meta_path])
    pq["a"].task(name="good")(lambda job_id: None)
    fill(pq["a"], 1, "pq_cancelled.eat"), fill(pq["a"], 2, "good")
    Worker(pq, burst=True).run()
    assert number(sql, DONE) == 2
    assert sql("select attempts from queue where error like '%%CancelledError%%'") == [(0,)]  # it waits


def test_a_job_that_can_neither_be_decoded_nor_settled_harms_no_other(
    dsn: str, sql: Sql, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Queue, "handler_registry", {})
    sql(
        "create function refuse() returns trigger language plpgsql as $$ begin "
        "if new.error is not null then raise 'refused'; end if; return new; end $$"
    )
    sql("create trigger refuse before update on queue for each row execute function refuse()")
    sql("insert into queue (q_name, data) values ('a', '\"no pickle\"')")
    with PQ(dsn, timeout=0.05) as pq:
        queue = pq["a/pickle"]
        queue.task(name="good")(lambda job_id: None)
        fill(queue, 5, "good")
        with working(Worker(queue)) as thread:
            wait_until(lambda: number(sql, DONE) == 5, "the others")
            assert thread.is_alive()
    assert "can't be decoded, nor settled" in caplog.text


def test_of_two_suspects_the_one_that_waits_holds_up_no_other(pq: PQ, sql: Sql, gate: Gate) -> None:
    pq["a"].task(name="long")(gate)
    pq["a"].task(name="good")(lambda job_id: time.sleep(0.01))
    fill(pq["a"], 2, "long")
    sql("update queue set expiries = 2")
    fill(pq["a"], 200, "good")
    with working(Worker(pq, threads=2)):
        wait_until(lambda: number(sql, DONE) == 200, "the others")
        assert len(gate.came) == 1
        gate.open()
        wait_until(lambda: number(sql, DONE) == 202, "the second suspect")


def test_a_transactional_task_that_is_found_late_waits_for_a_worker_with_more_connections(
    dsn: str, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Queue, "handler_registry", {})
    called: list[int] = []
    with PQ(dsn, timeout=0.05) as other, PQ(dsn, timeout=0.05, max_connections=1) as pq:
        module = types.ModuleType("pq_late")
        module.late = other["a"].task(name="pq_late.late", transactional=True)(called.append)  # type: ignore[attr-defined]
        Queue.handler_registry.clear()  # as in a process that has not imported it
        monkeypatch.setitem(sys.modules, "pq_late", module)
        fill(pq["a"], 1, "pq_late.late")
        Worker(pq, ["a"], burst=True).run()
        assert not called and number(sql, DEAD) == 0
        assert "one connection alone" in sql("select error from queue")[0][0]


def test_run_once_settles_its_job_as_soon_as_the_row_is_free(pq: PQ, sql: Sql, dsn: str) -> None:
    locker = psycopg2.connect(dsn)

    def lock(job_id: int) -> None:
        locker.cursor().execute("select from queue where id = %s for update", (job_id,))
        threading.Timer(1, locker.rollback).start()

    pq["a"].task(name="lock")(lock)
    fill(pq["a"], 1, "lock")
    worker = Worker(pq, lease="20s")
    assert worker.run_once()
    assert number(sql, DONE) == 1 and worker.status()["unsettled"] == 0
    locker.close()


# -- logs, and the end


@pytest.mark.parametrize("fails", [False, True])
def test_a_logging_handler_that_exits_ends_nothing(
    pq: PQ, sql: Sql, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    class Exits(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if threading.current_thread() is not threading.main_thread():
                sys.exit(7)

    def handle(job_id: int) -> None:
        if fails:
            raise ValueError

    logger = logging.getLogger("pq.tasks")
    monkeypatch.setattr(logger, "handlers", [Exits()])
    pq["a"].task(name="t")(handle)
    fill(pq["a"], 20, "t")
    worker = Worker(pq, threads=2, burst=True)
    worker.run()
    assert worker.events.counts["dead" if fails else "done"] == 20


def test_the_fields_of_a_log_record_can_forge_no_line(pq: PQ, caplog: pytest.LogCaptureFixture) -> None:
    queue = pq["a\nINFO queue"]
    fill(queue, 1, "x\nINFO task")
    Worker(queue, burst=True).run()
    records = [record for record in caplog.records if hasattr(record, "job_id")]
    assert records
    assert not any("\n" in f"{record.queue}{record.task}" for record in records)  # type: ignore[attr-defined]


def test_at_the_end_all_is_given_back_though_no_thread_can_be_started(
    pq: PQ, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    came: list[int] = []

    def wait(job_id: int) -> None:
        came.append(job_id)
        current().cursor.execute("select pg_sleep(3)")

    def start(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    before = all_threads()
    pq["a"].task(name="wait", transactional=True)(wait)
    fill(pq["a"], 3, "wait")
    worker = Worker(pq, threads=3, shutdown_timeout="0s")
    thread = Background(worker.run)
    wait_until(lambda: len(came) == 3, "their start")
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", start)
        worker.stop()
        thread.result()
    assert "pq completer" not in all_threads() - before
    wait_until(lambda: sql("select count(*) from queue where due_at is null and attempts = 0") == [(3,)], "the rows")
    wait_until(lambda: not sql("select 1 from pg_stat_activity where query = 'select pg_sleep(3)'"), "their sessions")
