"""The worker: which job when, its end, its leases, trouble with the database, and what it tells."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from psycopg2.extensions import make_dsn
from support import PATIENCE, Background, execute, wait_until
from support.driver import driver
from support.kinds import NAME, terminate
from support.tasks import Gate, Sql

import pq as package
from pq import ConnectionLost
from pq._db import own_driver
from pq._table import Table
from pq.tasks import PQ, Queue, Worker, current
from pq.worker import Event
from pq.worker.execution import Execution
from pq.worker.supervisor import Supervisor


@pytest.fixture
def pq(dsn: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[PQ]:
    monkeypatch.setattr(Queue, "handler_registry", {})
    with PQ(make_dsn(dsn, application_name=NAME), timeout=0.05) as made:
        yield made


def gated(queue: Queue, gate: Gate, **options: Any) -> Any:
    def handler(job_id: int, *args: Any) -> None:
        gate(job_id, *args)

    return queue.task(**options)(handler)


def started(worker: Worker) -> Background:
    """It runs in a thread."""
    return Background(worker.run)


# -- which job


def test_it_takes_from_its_queues_in_turn(pq: PQ) -> None:
    done: list[str] = []
    tasks = {name: pq[name].task(name=name)(lambda job_id, name: done.append(name)) for name in "abc"}
    for name, number in (("a", 6), ("b", 2), ("c", 2)):
        for _ in range(number):
            tasks[name](name)
    Worker(pq, burst=True).run()
    assert sorted(done[:6]) == ["a", "a", "b", "b", "c", "c"]
    assert done[6:] == ["a"] * 4


def test_strict_takes_from_a_queue_if_there_is_nothing_in_those_before(pq: PQ) -> None:
    done: list[str] = []
    tasks = {name: pq[name].task(name=name)(lambda job_id, name: done.append(name)) for name in "abc"}
    for name in "abcabc":
        tasks[name](name)
    Worker(pq, ["c", "a", pq["b"]], burst=True, strict=True).run()
    assert done == ["c", "c", "a", "a", "b", "b"]


def test_it_sees_a_job_in_any_of_its_queues_at_once(pq: PQ, dsn: str) -> None:
    done: list[int] = []
    with PQ(dsn, poll_interval=3600) as patient:
        tasks = [patient[name].task(name=name)(lambda job_id: done.append(job_id)) for name in "abc"]
        worker = Worker(patient)
        thread = started(worker)
        for number, task in enumerate(tasks * 2, start=1):
            task()
            wait_until(lambda number=number: len(done) == number, f"job {number}")
        worker.stop()
        thread.result()


def test_so_many_threads_run_at_the_same_time_and_have_the_job_in_their_names(pq: PQ) -> None:
    together = threading.Barrier(3)
    names: list[tuple[int, str]] = []

    def meet(job_id: int) -> None:
        together.wait(PATIENCE)
        names.append((job_id, threading.current_thread().name))

    task = pq["a"].task()(meet)
    ids = [task() for _ in range(3)]
    Worker(pq, threads=3, burst=True).run()
    assert sorted(id for id, _ in names) == ids
    assert all(name.endswith(f": job {id}") for id, name in names)


@pytest.mark.parametrize("timeout", [0.05, "50ms", timedelta(milliseconds=50)], ids=str)
def test_a_burst_ends_when_there_was_no_job_for_the_timeout_of_its_first_queue(dsn: str, timeout: Any) -> None:
    done: list[int] = []
    with PQ(dsn, timeout=timeout) as pq:
        pq["a"].task(name="t")(done.append)()
        Background(Worker(pq, ["a"], burst=True).run).result()
    assert len(done) == 1


def test_it_ends_after_so_many_jobs(pq: PQ) -> None:
    task = pq["a"].task()(lambda job_id: None)
    for _ in range(5):
        task()
    Worker(pq, threads=2, max_jobs=3).run()
    assert len(pq["a"]) == 2


def test_it_ends_when_it_was_idle_for_so_long(pq: PQ) -> None:
    done: list[int] = []
    task = pq["a"].task()(lambda job_id: done.append(job_id))
    task(_schedule_at="1s")
    worker = Worker(pq, max_idle=3)
    worker.run()
    assert len(done) == 1


def test_run_once_performs_one_job_if_there_is_one(pq: PQ) -> None:
    done: list[int] = []
    task = pq["a"].task()(lambda job_id: done.append(job_id))
    ids = [task(), task()]
    worker = Worker(pq)
    assert [worker.run_once() for _ in range(3)] == [True, True, False]
    assert done == ids


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"queues": "abc"}, TypeError, "not a str: 'abc'"),
        ({"queues": []}, ValueError, "no queue"),
        ({}, ValueError, "no queue"),
        ({"queues": ["a"], "threads": 0}, ValueError, "threads must be at least 1"),
        ({"queues": ["a"], "threads": "2"}, TypeError, "threads must be an int"),
        ({"queues": ["a"], "max_jobs": 0}, ValueError, "max_jobs must be at least 1"),
        ({"queues": ["a"], "max_idle": -1}, ValueError, "max_idle must be a non-negative"),
        ({"queues": ["a"], "lease": "0s"}, ValueError, "lease must be positive"),
        ({"queues": ["a"], "lease": "99ms"}, ValueError, "lease must be at least 100ms"),
        ({"queues": ["a"], "lease": True}, TypeError, "lease must be a number of seconds, a str or timedelta"),
        ({"queues": ["a"], "shutdown_timeout": "-1s"}, ValueError, "shutdown_timeout must be of the form"),
    ],
)
def test_bad_arguments(pq: PQ, options: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        Worker(pq, **options)


def test_the_queues_of_any_pq_have_tasks(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(package.Queue, "handler_registry", {})
    done: list[int] = []
    with package.PQ(dsn, timeout=0.05) as pq:
        id = pq["a"].task(name="eat")(done.append)()
        Worker(pq, burst=True).run()
        assert done == [id]
        pq["a"].put("no call")
        Worker(pq, burst=True).run()
        assert len(pq["a"].dead) == 1


def test_a_queue_of_another_kind_has_no_tasks(dsn: str) -> None:
    from pq._queue import Queue as Plain

    with package.PQ(dsn, queue_class=Plain) as pq, pytest.raises(TypeError, match="has no tasks"):
        Worker(pq, ["a"])


# -- leases


def test_the_heartbeat_keeps_the_lease_of_a_job_that_runs_for_longer(pq: PQ, gate: Gate, sql: Sql) -> None:
    gated(pq["a"], gate)()
    worker = Worker(pq, lease="1s")
    thread = started(worker)
    wait_until(lambda: gate.came, "the job's start")
    first = sql("select due_at from queue")
    wait_until(lambda: sql("select due_at from queue")[0] > (first[0][0],), "a heartbeat")
    assert sql("select due_at > now() from queue where pg_sleep(1.2) is not null") == [(True,)]
    worker.stop()
    gate.open()
    thread.result()
    assert worker.status()["counts"] == {"start": 1, "done": 1, "retry": 0, "dead": 0, "lost": 0, "cancelled": 0}


def test_all_running_jobs_cost_one_heartbeat(pq: PQ, gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    task = gated(pq["a"], gate)
    for _ in range(8):
        task()
    beats: list[int] = []
    execute = Table.execute

    def counting(table: Table, sql: str, params: Any = None, **options: Any) -> Any:
        if "leases" in params:
            beats.append(len(params["ids"].split(",")))
        return execute(table, sql, params, **options)

    monkeypatch.setattr(Table, "execute", counting)
    worker = Worker(pq, threads=8, lease="3s")
    thread = started(worker)
    wait_until(lambda: len(gate.came) == 8, "the start of all")
    wait_until(lambda: len(beats) >= 3, "heartbeats")
    worker.stop()
    gate.open()
    thread.result()
    assert beats[1:3] == [8, 8]


def test_a_lost_lease_is_told_and_the_late_end_changes_nothing(pq: PQ, gate: Gate, sql: Sql) -> None:
    told: list[Event] = []
    id = gated(pq["a"], gate)()
    worker = Worker(pq, lease="1s")
    worker.on("lost", told.append)
    thread = started(worker)
    wait_until(lambda: gate.came, "the job's start")
    sql("update queue set attempts = 7, dequeued_at = now(), due_at = now() + interval '1h'")  # delivered elsewhere
    row = sql("select * from queue")
    wait_until(lambda: told, "the loss")
    gate.open()
    worker.stop()
    thread.result()
    assert [(event.name, event.job.id) for event in told] == [("lost", id)]
    assert sql("select * from queue") == row


def test_a_task_has_a_lease_of_its_own(pq: PQ, gate: Gate, sql: Sql) -> None:
    gated(pq["a"], gate, lease="2h")()
    worker = Worker(pq)
    thread = started(worker)
    wait_until(lambda: sql("select 1 from queue where due_at > now() + interval '1h'"), "the longer lease")
    worker.stop()
    gate.open()
    thread.result()


def test_a_job_that_kills_whoever_runs_it_is_given_up(pq: PQ, sql: Sql) -> None:
    done: list[int] = []
    id = pq["a"].task(max_retries=1)(lambda job_id: done.append(job_id))()
    sql("update queue set attempts = 3, expiries = 3")  # of these deliveries nobody has come back
    Worker(pq, burst=True).run()
    assert done == [id]
    again = pq["a"].task(max_retries=1, name="again")(lambda job_id: done.append(job_id))()
    sql("update queue set attempts = 4, expiries = 4 where id = %s", (again,))
    Worker(pq, burst=True).run()
    assert done == [id]
    (dead,) = pq["a"].dead
    assert (dead.id, dead.error.type) == (again, "pq.errors.LeaseExpired")


# -- handlers that hang


@pytest.mark.parametrize("max_retries", [0, 1])
def test_a_hung_handler_is_given_up_and_its_thread_replaced(
    pq: PQ, gate: Gate, sql: Sql, max_retries: int, caplog: pytest.LogCaptureFixture
) -> None:
    done: list[int] = []
    hung = gated(pq["a"], gate, timeout="1s", max_retries=max_retries, retry_in="1h", result=True)()
    after = pq["a"].task()(lambda job_id: done.append(job_id))()
    worker = Worker(pq)
    thread = started(worker)
    wait_until(lambda: done == [after], "the next job")
    states = {0: "dequeued_at is not null and due_at is null", 1: "dequeued_at is null and due_at is not null"}
    row = wait_until(lambda: sql(f"select * from queue where id = %s and {states[max_retries]}", (hung,)), "its end")
    ((error,),) = sql("select error::json from queue where id = %s", (hung,))
    assert error["type"] == "pq.errors.TaskTimeout"
    assert "in __call__" in error["traceback"]  # where it hangs
    worker.stop()
    thread.result()
    gate.open()
    wait_until(lambda: "the handler that hung has ended" in caplog.text, "its late end")
    assert sql("select * from queue where id = %s", (hung,)) == row


# -- transactional tasks


def test_a_transactional_task_commits_with_its_effects(pq: PQ, sql: Sql) -> None:
    sql("create table effects (job bigint)")

    @pq["a"].task(transactional=True, result=True, max_retries=1, retry_in="0s")
    def effect(job_id: int, fail: bool) -> str:
        current().cursor.execute("insert into effects values (%s)", (job_id,))
        if fail:
            raise ZeroDivisionError
        return "kept"

    failing, working = effect(True), effect(False)
    Worker(pq, burst=True).run()
    assert sql("select * from effects") == [(working,)]
    assert pq["a"].result(working) == "kept"
    assert [job.id for job in pq["a"].dead] == [failing]
    assert pq["a"].dead.get(failing).attempts == 2


def test_a_transactional_task_that_has_just_ended_is_not_told_to_be_lost(
    pq: PQ, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The heartbeat looks between the commit and what its thread does next."""
    queue = pq["default"]

    @queue.task(transactional=True, name="quick")
    def quick(job_id: int) -> None:
        pass

    worker = Worker(pq, [queue], max_jobs=1)
    run = Execution.run

    def run_and_look(execution: Execution, *args: Any) -> Any:
        ended = run(execution, *args)
        worker._services.heartbeat.extend([execution])
        return ended

    monkeypatch.setattr(Execution, "run", run_and_look)
    quick()
    worker.run()
    assert {name: n for name, n in worker.events.counts.items() if n} == {"start": 1, "done": 1}


def test_a_transactional_task_whose_lease_was_lost_has_no_effect(pq: PQ, sql: Sql) -> None:
    sql("create table effects (job bigint)")

    @pq["a"].task(transactional=True)
    def effect(job_id: int) -> None:
        current().cursor.execute("insert into effects values (%s)", (job_id,))
        sql("update queue set attempts = attempts + 1")

    effect()
    worker = Worker(pq, max_jobs=1)
    worker.run()
    assert sql("select * from effects") == []
    assert worker.status()["counts"]["lost"] == 1


def test_a_transactional_task_whose_connection_is_cut_runs_again(pq: PQ, sql: Sql) -> None:
    sql("create table effects (attempt int)")
    cuts = [True]

    @pq["a"].task(transactional=True)
    def effect(job_id: int) -> None:
        cursor = current().cursor
        cursor.execute("insert into effects select %s", (len(cuts),))
        if cuts:
            cuts.pop()
            sql("select pg_terminate_backend(%s, 30000)", (driver.pid(cursor.connection),))

    effect()
    worker = Worker(pq)
    thread = started(worker)
    wait_until(lambda: sql("select * from effects") == [(0,)], "the effect")
    worker.stop()
    thread.result()
    assert worker.status()["counts"] == {"start": 2, "done": 1, "retry": 1, "dead": 0, "lost": 0, "cancelled": 0}


def test_a_transactional_task_that_meets_another_databases_trouble_fails(pq: PQ) -> None:
    @pq["a"].task(transactional=True, max_retries=1, retry_in="0s")
    def fails(job_id: int) -> None:
        raise ConnectionLost

    fails()
    worker = Worker(pq, burst=True)
    worker.run()
    assert worker.status()["counts"] == {"start": 2, "done": 0, "retry": 1, "dead": 1, "lost": 0, "cancelled": 0}


def test_a_row_that_a_transaction_has_locked_does_not_hold_up_the_heartbeat(pq: PQ, gate: Gate, sql: Sql) -> None:
    @pq["a"].task(transactional=True)
    def locks(job_id: int) -> None:
        current().progress(1)
        gate(job_id)

    plain = gated(pq["a"], gate)
    locks(), plain()
    worker = Worker(pq, threads=2, lease="1s")
    thread = started(worker)
    wait_until(lambda: len(gate.came) == 2, "the start of both")
    sql("select pg_sleep(2.5)")
    worker.stop()
    gate.open()
    thread.result()
    assert worker.status()["counts"] == {"start": 2, "done": 2, "retry": 0, "dead": 0, "lost": 0, "cancelled": 0}


def test_a_job_that_failed_under_a_lease_and_is_then_taken_without_one_is_not_dead(pq: PQ, sql: Sql) -> None:
    for take in (
        lambda: pq["a"].get(block=False),
        lambda: sql("update queue set dequeued_at = now() where dequeued_at is null"),
    ):
        pq["a"].put(1)
        job: Any = pq["a"].get(block=False, lease="1h")
        job.retry("0s", ValueError())
        take()
        assert len(pq["a"].dead) == 0


def test_current_is_there_only_while_a_task_runs(pq: PQ) -> None:
    seen: list[Any] = []

    @pq["a"].task(result=True)
    def look(job_id: int) -> None:
        current().progress({"percent": 50})
        seen.append((current().id, current().attempts, current().cursor, pq["a"].result(job_id)))

    id = look()
    Worker(pq, burst=True).run()
    assert seen == [(id, 1, None, {"percent": 50})]
    with pytest.raises(LookupError, match="no task is running"):
        current()


def test_call_runs_it_in_place(pq: PQ) -> None:
    task = pq["a"].task()(lambda job_id, *args: (job_id, args))
    assert task.call(1, 2) == (None, (1, 2))
    assert len(pq["a"]) == 0


# -- the end


def test_stop_gives_back_at_once_what_does_not_end_in_time(pq: PQ, gate: Gate, sql: Sql) -> None:
    id = gated(pq["a"], gate)()
    worker = Worker(pq, lease="1h", shutdown_timeout="0s")
    thread = started(worker)
    wait_until(lambda: gate.came, "the job's start")
    worker.stop()
    thread.result()
    assert sql("select id, attempts, dequeued_at, due_at from queue") == [(id, 0, None, None)]


def test_stop_lets_what_runs_end_and_takes_no_more(pq: PQ, gate: Gate) -> None:
    task = gated(pq["a"], gate)
    task(), task()
    worker = Worker(pq)
    thread = started(worker)
    wait_until(lambda: gate.came, "the job's start")
    worker.stop()
    gate.open()
    thread.result()
    assert len(gate.came) == 1
    assert len(pq["a"]) == 1


def test_stop_ends_a_worker_that_waits(pq: PQ) -> None:
    worker = Worker(pq, ["a", "b"], threads=3)
    thread = started(worker)
    wait_until(lambda: len(pq["a"]._table._room.queues) == 2, "waiting")
    worker.stop()
    thread.result()


# -- the database


def test_cut_connections_end_no_worker(pq: PQ, dsn: str, gate: Gate, caplog: pytest.LogCaptureFixture) -> None:
    done: list[int] = []
    hold, count = gated(pq["a"], gate), pq["a"].task()(lambda job_id: done.append(job_id))
    hold()
    worker = Worker(pq, threads=2)
    thread = started(worker)
    wait_until(lambda: gate.came, "the job's start")
    for number in range(1, 6):
        count()
        wait_until(lambda number=number: len(done) == number, f"job {number}")
        terminate(dsn)
    gate.open()
    wait_until(lambda: worker.status()["counts"]["done"] == 6, "the end of the one that ran all the time")
    worker.stop()
    thread.result()
    assert len(set(done)) == 5


def test_a_database_that_is_away_is_told_once_and_waited_for(
    dsn: str, server: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Queue, "handler_registry", {})
    database = psycopg2.extensions.parse_dsn(dsn)["dbname"]
    done: list[int] = []
    with PQ(make_dsn(dsn, application_name=NAME)) as pq:
        task = pq["a"].task()(lambda job_id: done.append(job_id))
        worker = Worker(pq, threads=3)
        thread = started(worker)
        wait_until(lambda: pq["a"]._table._room.queues, "waiting")
        execute(server, f"alter database {database} with allow_connections false")
        execute(
            server,
            "select pg_terminate_backend(pid, 30000) from pg_stat_activity where datname = %s",
            (database,),
        )
        wait_until(lambda: worker.status()["database"] != "ok", "the trouble")
        execute(server, f"alter database {database} with allow_connections true")
        task()
        wait_until(lambda: done, "the job")
        assert worker.status()["database"] == "ok"
        worker.stop()
        thread.result()
    messages = [record.message for record in caplog.records if "serve" in record.message]
    assert len([text for text in messages if "does not serve" in text]) == len(
        [text for text in messages if "serves this worker again" in text]
    )


def test_a_single_connection_that_is_gone_ends_the_worker(dsn: str) -> None:
    with PQ(driver.connect(dsn)) as pq:
        worker = Worker(pq, ["a"])
        thread = started(worker)
        wait_until(lambda: pq["a"]._table._room.queues, "waiting")
        execute(dsn, "select pg_terminate_backend(%s, 30000)", (driver.pid(pq["a"].conn),))
        with pytest.raises(driver.OperationalError):
            thread.result()


@pytest.mark.parametrize("lacking", ["table", "rights", "writing"])
def test_a_worker_that_was_not_set_up_says_so(dsn: str, sql: Sql, lacking: str) -> None:
    sql("create role poor login")
    options = {}
    if lacking == "table":
        options["table"] = "nothing"
    elif lacking == "rights":
        dsn = make_dsn(dsn, user="poor")
    else:
        dsn = make_dsn(dsn, options="-c default_transaction_read_only=on")
    with PQ(dsn, **options) as pq:
        worker = Worker(pq, ["a"])
        with pytest.raises(driver.Error, match=r"create\(\)" if lacking == "table" else "permission|read-only"):
            worker.run()
    sql("drop role poor")


def test_a_table_that_goes_later_is_an_outage(pq: PQ, sql: Sql) -> None:
    worker = Worker(pq, ["a"])
    thread = started(worker)
    task = pq["a"].task(name="task")(lambda job_id: None)
    task()
    wait_until(lambda: worker.status()["counts"].get("done"), "the job")
    sql("drop table queue")
    wait_until(lambda: worker.status()["database"] == "TableMissing", "the outage")
    pq.create()
    task()
    wait_until(lambda: worker.status()["counts"].get("done") == 2, "the job after it")
    worker.stop()
    thread.result()


# -- what it tells


def test_hooks_and_counts(pq: PQ, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "pq.tasks")
    told: list[tuple[str, int, str, str]] = []

    @pq["a"].task(max_retries=1, retry_in=None)
    def fails(job_id: int, secret: str) -> None:
        raise ZeroDivisionError

    good = pq["a"].task(name="good")(lambda job_id, secret: None)
    worker = Worker(pq, burst=True, batch=1)

    def tell(event: Event) -> None:
        told.append((event.name, event.job.id, event.task, type(event.error).__name__))

    def broken(event: Event) -> None:
        raise RuntimeError("in a hook")

    for name in ("start", "done", "retry", "dead", "lost"):
        worker.on(name, tell)
        worker.on(name, broken)
    first, second = fails("payload"), good("payload")
    worker.run()
    path = f"{__name__}.test_hooks_and_counts.<locals>.fails"
    assert told == [
        ("start", first, path, "NoneType"),
        ("retry", first, path, "ZeroDivisionError"),
        ("start", first, path, "NoneType"),
        ("dead", first, path, "ZeroDivisionError"),
        ("start", second, "good", "NoneType"),
        ("done", second, "good", "NoneType"),
    ]
    assert worker.status()["counts"] == {"start": 3, "done": 1, "retry": 1, "dead": 1, "lost": 0, "cancelled": 0}
    assert "payload" not in caplog.text
    lines = [record for record in caplog.records if hasattr(record, "job_id")]
    assert [(r.queue, r.job_id, r.task, r.attempt) for r in lines] == [  # type: ignore[attr-defined]
        ("a", first, path, 1),
        ("a", first, path, 1),
        ("a", first, path, 2),
        ("a", first, path, 2),
        ("a", second, "good", 1),
        ("a", second, "good", 1),
    ]


def test_an_unknown_event_is_refused(pq: PQ) -> None:
    events = "start, done, retry, dead, lost, cancelled"
    with pytest.raises(ValueError, match=f"event must be one of {events}, not 'finished'"):
        Worker(pq, ["a"]).on("finished", print)


def test_an_idle_worker_asks_once_a_poll_interval_however_many_queues_and_threads(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    interval = 0.25
    names = [f"q{n}" for n in range(20)]
    statements: list[tuple[float, str]] = []
    adapter = type(own_driver())
    run = adapter._run

    def counting(driver: Any, conn: Any, sql: str, params: Any) -> Any:
        if "changed.q_name" in sql:
            statements.append((time.monotonic(), sql))
        return run(driver, conn, sql, params)

    with PQ(dsn, poll_interval=interval) as pq:
        worker = Worker(pq, [pq[name] for name in names], threads=4)
        thread = started(worker)
        channels = pq._table._room.queues
        wait_until(lambda: len(channels) == 20 and all(c.sure for c in list(channels.values())), "sleep")
        monkeypatch.setattr(adapter, "_run", counting)
        wait_until(lambda: len(statements) >= 10, "ten looks")
        worker.stop()
        thread.result()
    (began, _), (ended, _) = statements[1], statements[9]
    assert ended - began > 8 * interval * 0.9  # each covers all queues: no two within an interval


# -- as processes

MODULE = """
import os, signal, sys, time
from pq.tasks import PQ

pq = PQ()
queue = pq["jobs"]

@queue.task()
def note(job_id, text):
    with queue as cursor:
        cursor.execute("insert into notes values (%s, %s)", (os.getpid(), text))

@queue.task()
def sleep(job_id):
    note.call("asleep")
    time.sleep(600)

@queue.task()
def die(job_id):
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def folder(tmp_path: Path, sql: Sql) -> Path:
    (tmp_path / "chores.py").write_text(MODULE)
    sql("create table notes (pid int, text text)")
    return tmp_path


class Process:
    """``python -m pq work``."""

    def __init__(self, folder: Path, dsn: str, *arguments: str) -> None:
        self.output = folder / "output"
        with open(self.output, "w") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "pq", "work", *arguments],
                cwd=folder,
                env={
                    **os.environ,
                    "PQ_DSN": make_dsn(dsn, application_name="worker process"),
                    "PYTHONPATH": str(Path(package.__file__).parent.parent),
                },
                stdout=file,
                stderr=file,
            )

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *exc: object) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(PATIENCE)
            finally:
                self.process.kill()

    def end(self) -> int:
        return self.process.wait(PATIENCE)

    def text(self) -> str:
        return self.output.read_text()


def notes(sql: Sql) -> list[Any]:
    return [text for (text,) in sql("select text from notes")]


def put(sql: Sql, name: str, *args: Any) -> int:
    data = json.dumps({"function": f"chores.{name}", "args": args, "kwargs": {}, "retried": 0, "retry_in": None})
    ((id,),) = sql("insert into queue (q_name, data) values ('jobs', %s) returning id", (data,))
    return int(id)


def test_work_until_a_signal(folder: Path, dsn: str, sql: Sql) -> None:
    with Process(folder, dsn, "chores:pq", "--log-json") as worker:
        put(sql, "note", "one")
        wait_until(lambda: "done" in worker.text(), "the job")
        worker.process.send_signal(signal.SIGUSR1)
        wait_until(lambda: '"counts"' in worker.text(), "the status")
        worker.process.send_signal(signal.SIGTERM)
        assert worker.end() == 0
    lines = [json.loads(line) for line in worker.text().splitlines()]
    assert [(line["queue"], line["attempt"]) for line in lines if "job_id" in line] == [("jobs", 1)]
    assert [line["counts"]["done"] for line in lines if "counts" in line] == [1]


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_gives_back_at_once(folder: Path, dsn: str, sql: Sql, how: signal.Signals) -> None:
    with Process(folder, dsn, "chores:pq", "--shutdown-timeout", "600") as worker:
        id = put(sql, "sleep")
        wait_until(lambda: notes(sql) == ["asleep"], "the job's start")
        worker.process.send_signal(how)
        worker.process.send_signal(signal.SIGUSR1)
        wait_until(lambda: '"stopping": true' in worker.text(), "the first signal's effect")
        worker.process.send_signal(how)
        worker.end()
    assert sql("select id, attempts from queue where dequeued_at is null and due_at is null") == [(id, 0)]


def test_a_killed_worker_is_replaced_and_its_job_runs_again(folder: Path, dsn: str, sql: Sql) -> None:
    with Process(folder, dsn, "chores:pq", "-p", "2", "-c", "2", "--shutdown-timeout", "0") as worker:
        put(sql, "note", "before")
        # the end of its handler is not enough: a worker that is killed then has not settled the job, which runs again
        settled = "select count(*) from queue where dequeued_at is not null and due_at is null"
        wait_until(lambda: sql(settled) == [(1,)], "the first job")
        put(sql, "sleep")
        wait_until(lambda: notes(sql) == ["before", "asleep"], "the second job")
        ((sleeper,),) = sql("select pid from notes where text = 'asleep'")
        os.kill(sleeper, signal.SIGKILL)
        wait_until(lambda: "another one starts" in worker.text(), "the replacement")
        sql("update queue set due_at = now() where due_at is not null")  # half a minute later
        wait_until(lambda: notes(sql) == ["before", "asleep", "asleep"], "the second delivery")
        assert sql("select max(attempts) from queue") == [(2,)]
        worker.process.send_signal(signal.SIGINT)
        assert worker.end() == 0


def test_processes_stop_when_their_supervisor_is_killed(folder: Path, dsn: str, sql: Sql) -> None:
    with Process(folder, dsn, "chores:pq", "-p", "2") as worker:
        sessions = "select count(distinct client_port) from pg_stat_activity where application_name = 'worker process'"
        wait_until(lambda: sql(sessions)[0][0] >= 2, "the processes")
        worker.process.kill()
        worker.end()
    wait_until(lambda: sql(sessions) == [(0,)], "their end")


def test_burst_and_max_jobs_and_several_processes(folder: Path, dsn: str, sql: Sql) -> None:
    for number in range(20):
        put(sql, "note", str(number))
    with Process(folder, dsn, "chores:queue", "-p", "2", "--burst") as worker:
        assert worker.end() == 0
    assert sorted(notes(sql), key=int) == [str(number) for number in range(20)]
    for number in range(3):
        put(sql, "note", str(number))
    with Process(folder, dsn, "chores:pq", "-Q", "jobs", "--max-jobs", "2", "--max-idle", "60") as worker:
        assert worker.end() == 0
    assert len(notes(sql)) == 22


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["nowhere:pq"], "cannot import nowhere:pq: ModuleNotFoundError"),
        (["chores:nothing"], "cannot import chores:nothing: AttributeError"),
        (["chores"], "not of the form module:attribute"),
        (["chores:os"], "must be a PQ, one of its queues, or a Worker"),
        (["chores:pq", "-c", "0"], "must be at least 1"),
        (["chores:pq", "--max-idle", "-1"], "a time must be of the form"),
    ],
)
def test_wrong_usage(folder: Path, dsn: str, arguments: list[str], text: str) -> None:
    with Process(folder, dsn, *arguments) as worker:
        assert worker.end() == 2
    assert text in worker.text()
    assert "Traceback" not in worker.text()


def test_no_connection(folder: Path) -> None:
    with Process(folder, "host=127.0.0.1 port=1 dbname=x", "chores:pq") as worker:
        assert worker.end() == 3
    assert "no connection" in worker.text()


def test_a_process_that_ends_at_once_is_replaced_more_and_more_slowly(caplog: pytest.LogCaptureFixture) -> None:
    supervisor = Supervisor([sys.executable, "-S", "-c", "raise SystemExit(1)"], 1)
    (slot,) = supervisor._slots
    pauses: list[float] = []
    for _ in range(3):
        slot.start_at = 0.0
        supervisor.run_once()
        assert slot.process is not None
        slot.process.wait()
        supervisor.run_once()
        pauses.append(slot.pause)
    assert pauses == [1.0, 2.0, 4.0]
    assert len(caplog.records) == 3


@pytest.mark.parametrize("processes", ["1", "2"])
@pytest.mark.parametrize("rights", ["", "select"])
def test_a_role_that_may_not_use_the_table_ends_all_processes(
    folder: Path, dsn: str, sql: Sql, processes: str, rights: str
) -> None:
    """A restart would not help."""
    role = f"pq_powerless_{uuid.uuid4().hex[:8]}"
    sql(f"create role {role} login")
    if rights:
        sql(f"grant {rights} on queue to {role}")
    try:
        with Process(folder, make_dsn(dsn, user=role), "chores:pq", "-p", processes) as worker:
            assert worker.end() == 2
        assert "permission denied for table queue" in worker.text()
    finally:
        sql(f"drop owned by {role}; drop role {role}")
