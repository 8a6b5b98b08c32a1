"""The worker takes and settles jobs in batches: how many, for how long it holds them, and what it gives back."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from psycopg2.extensions import make_dsn
from support import PATIENCE, Background, execute, wait_until
from support.tasks import DONE, HELD, READY, Gate, Sql, number

import pq as package
from pq import DecodeError
from pq._jobs import settlement
from pq._queue.claim import Claim
from pq.tasks import PQ, Queue, Worker
from pq.worker import Event, fetcher, heartbeat
from pq.worker.fetcher import MAX_HOLD, Fetcher


@pytest.fixture
def greedy(monkeypatch: pytest.MonkeyPatch) -> None:
    """As after many fast handlers, whatever the machine: as many are taken as may be."""
    monkeypatch.setattr(Fetcher, "_wanted", lambda fetcher: int(min(fetcher._batch, fetcher._tickets)))


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs that nobody has begun are held for long."""
    monkeypatch.setattr(fetcher, "MAX_HOLD", 3600.0)
    monkeypatch.setattr(heartbeat, "MAX_HOLD", 3600.0)


@pytest.fixture
def claims(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many jobs each claim has taken."""
    sizes: list[int] = []
    fetch = Claim.fetch

    def counting(claim: Claim, *args: Any) -> Any:
        found = fetch(claim, *args)
        sizes.append(len(found[0]))
        return found

    monkeypatch.setattr(Claim, "fetch", counting)
    return sizes


@pytest.fixture
def settlements(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many jobs each statement has settled."""
    sizes: list[int] = []
    settle = settlement._settle

    def counting(queue: Any, given: Any, *lock: Any) -> Any:
        sizes.append(len(given))
        return settle(queue, given, *lock)

    monkeypatch.setattr(settlement, "_settle", counting)
    return sizes


def quick(queue: Queue, done: list[int]) -> Any:
    return queue.task(name="quick")(lambda job_id: done.append(job_id))


def gated(queue: Queue, gate: Gate) -> Any:
    return queue.task(name="gated")(lambda job_id: gate(job_id))


def fill(queue: Queue, count: int, name: str = "quick", **data: Any) -> list[int]:
    call = {"function": name, "args": [], "kwargs": {}, "retried": 0, "retry_in": None, **data}
    return queue.put_many([call] * count)


# -- how many are taken, and settled


def test_fast_handlers_take_and_settle_many_at_once(pq: PQ, claims: list[int], settlements: list[int]) -> None:
    done: list[int] = []
    quick(pq["a"], done)
    ids = fill(pq["a"], 1000)
    Worker(pq, burst=True).run()
    assert done == ids
    assert sum(claims) == sum(settlements) == 1000
    assert len([size for size in claims if size]) < 250
    assert len(settlements) < 250
    assert all(size <= max(1, 2 * before) for before, size in pairwise(claims))  # softly, not at once


def test_slow_handlers_take_one_for_each_thread(pq: PQ, claims: list[int]) -> None:
    done: list[int] = []

    @pq["a"].task(name="slow")
    def slow(job_id: int) -> None:
        time.sleep(2.1 * fetcher.AHEAD)
        done.append(job_id)

    ids = fill(pq["a"], 9, "slow")
    Worker(pq, threads=2, burst=True).run()
    assert sorted(done) == ids
    assert max(claims) <= 2


@pytest.mark.parametrize("batch", [1, 3])
def test_no_more_are_taken_and_settled_at_once_than_may_be(
    pq: PQ, claims: list[int], settlements: list[int], batch: int
) -> None:
    done: list[int] = []
    quick(pq["a"], done)
    ids = fill(pq["a"], 30)
    Worker(pq, burst=True, batch=batch).run()
    assert done == ids
    assert max(claims) == batch
    if batch == 1:
        assert settlements == [1] * 30


def test_with_batches_of_one_each_is_settled_before_the_next_is_taken(pq: PQ, sql: Sql) -> None:
    seen: list[tuple[int, int]] = []

    @pq["a"].task(name="look")
    def look(job_id: int) -> None:
        seen.append((number(sql, DONE), number(sql, HELD)))

    fill(pq["a"], 20, "look")
    Worker(pq, burst=True, batch=1).run()
    assert seen == [(ended, 1) for ended in range(20)]


def test_with_batches_of_one_each_thread_holds_one(pq: PQ, sql: Sql) -> None:
    seen: list[int] = []
    met = threading.Barrier(3)

    @pq["a"].task(name="look")
    def look(job_id: int) -> None:
        met.wait(PATIENCE)
        seen.append(number(sql, HELD))
        met.wait(PATIENCE)

    fill(pq["a"], 30, "look")
    Worker(pq, threads=3, burst=True, batch=1).run()
    assert seen == [3] * 30


@pytest.mark.parametrize(("batch", "error"), [(0, ValueError), ("1", TypeError)])
def test_bad_batch(pq: PQ, batch: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="batch must be"):
        Worker(pq, ["a"], batch=batch)


@pytest.mark.parametrize("threads", [1, 4])
def test_max_jobs_is_exact(pq: PQ, threads: int) -> None:
    done: list[int] = []
    quick(pq["a"], done)
    fill(pq["a"], 400)
    Worker(pq, threads=threads, max_jobs=237).run()
    assert len(done) == 237
    assert len(pq["a"]) == 163


@pytest.mark.usefixtures("greedy")
def test_what_was_given_back_does_not_count_as_one_of_max_jobs(pq: PQ, gate: Gate, sql: Sql) -> None:
    done: list[int] = []
    gated(pq["a"], gate), quick(pq["a"], done)
    fill(pq["a"], 1, "gated"), fill(pq["a"], 9)
    thread = Background(Worker(pq, max_jobs=5).run)
    wait_until(lambda: gate.came, "the start")
    wait_until(lambda: number(sql, READY) == 9, "the return of what was not begun")
    gate.open()
    thread.result()
    assert (len(done), number(sql, DONE), number(sql, READY)) == (4, 5, 5)


def test_run_once_takes_one(pq: PQ, sql: Sql) -> None:
    done: list[int] = []
    quick(pq["a"], done)
    ids = fill(pq["a"], 20)
    worker = Worker(pq)
    for count in range(1, 11):
        assert worker.run_once()
        assert (done, number(sql, READY), number(sql, HELD)) == (ids[:count], 20 - count, 0)


@pytest.mark.usefixtures("greedy")
def test_what_was_taken_together_runs_in_order(pq: PQ) -> None:
    done: list[int] = []
    quick(pq["a"], done)
    jobs = [(rank, id) for rank in (3, 1, 2, 1) for id in fill_expected(pq["a"], rank)]
    last = fill(pq["a"], 5)
    Worker(pq, burst=True).run()
    assert done == [id for _, id in sorted(jobs)] + last


def fill_expected(queue: Queue, rank: int) -> list[int]:
    call = {"function": "quick", "args": [], "kwargs": {}}
    return queue.put_many([call] * 5, expected_at=f"{rank}h")


def test_no_queue_starves(pq: PQ) -> None:
    done: list[int] = []
    quick(pq["a"], done)
    fill(pq["a"], 2000)
    few = {id for name in "bc" for id in fill(pq[name], 5)}
    Worker(pq, ["a", "b", "c"], burst=True).run()
    assert len(done) == 2010
    assert max(done.index(id) for id in few) < 1000


# -- for how long they are held


@pytest.mark.usefixtures("greedy")
def test_what_nobody_has_begun_in_time_is_given_back_and_runs_elsewhere(
    pq: PQ, dsn: str, gate: Gate, sql: Sql
) -> None:
    done: list[int] = []
    gated(pq["a"], gate), quick(pq["a"], done)
    fill(pq["a"], 1, "gated")
    ids = fill(pq["a"], 20)
    worker = Worker(pq, lease="1h")
    thread = Background(worker.run)
    wait_until(lambda: gate.came, "the start")
    wait_until(lambda: number(sql, READY) == 20, "the return of what was not begun")
    assert sql("select distinct attempts from queue where due_at is null") == [(0,)]
    with PQ(dsn, timeout=0.05) as other:
        Worker(other, ["a"], burst=True).run()
    assert done == ids
    worker.stop()
    gate.open()
    thread.result()
    assert number(sql, DONE) == 21
    assert worker.status()["counts"] == {"start": 1, "done": 1, "retry": 0, "dead": 0, "lost": 0, "cancelled": 0}


@pytest.mark.usefixtures("greedy")
def test_what_was_held_for_too_long_is_not_begun(
    pq: PQ, gate: Gate, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process stood still, and another one may have the jobs: its consumers must not be quicker than its
    heartbeat."""
    monkeypatch.setattr(heartbeat, "MAX_HOLD", 3600.0)
    done: list[int] = []
    gated(pq["a"], gate), quick(pq["a"], done)
    fill(pq["a"], 1, "gated")
    ids = fill(pq["a"], 20)
    worker = Worker(pq, lease="1h")
    thread = Background(worker.run)
    wait_until(lambda: gate.came, "the start")
    sql("update queue set attempts = 2, dequeued_at = now() where id = any(%s)", (ids[:10],))  # delivered elsewhere
    begun = time.monotonic()
    wait_until(lambda: time.monotonic() - begun > MAX_HOLD, "the time")
    gate.open()
    wait_until(lambda: done == ids[10:], "the others")
    worker.stop()
    thread.result()
    assert sql("select count(*) from queue where attempts = 2 and due_at is not null") == [(10,)]
    assert worker.status()["counts"]["start"] == 11


@pytest.mark.usefixtures("greedy", "patient")
def test_the_leases_of_those_that_wait_are_extended(pq: PQ, gate: Gate, sql: Sql) -> None:
    done: list[int] = []
    gated(pq["a"], gate), quick(pq["a"], done)
    fill(pq["a"], 1, "gated"), fill(pq["a"], 5)
    worker = Worker(pq, lease="1s")
    thread = Background(worker.run)
    wait_until(lambda: gate.came, "the start")
    first = sql("select max(due_at) from queue")
    wait_until(lambda: sql("select min(due_at) from queue where due_at is not null") > first, "heartbeats")
    assert number(sql, HELD) == 6
    worker.stop()
    gate.open()
    thread.result()


# -- when they are settled


def test_what_has_ended_is_settled_while_another_handler_goes_on(pq: PQ, gate: Gate, sql: Sql) -> None:
    done: list[int] = []
    gated(pq["a"], gate), quick(pq["a"], done)
    fill(pq["a"], 1, "gated"), fill(pq["a"], 3)
    worker = Worker(pq, threads=2, lease="1h")
    thread = Background(worker.run)
    wait_until(lambda: len(done) == 3, "the quick ones")
    wait_until(lambda: number(sql, DONE) == 3, "their settlement")
    assert number(sql, HELD) == 1
    worker.stop()
    gate.open()
    thread.result()


def test_a_burst_drains_what_is_to_be_tried_again(pq: PQ, sql: Sql) -> None:
    seen: list[int] = []

    @pq["a"].task(name="fails", max_retries=1)
    def fails(job_id: int) -> None:
        seen.append(job_id)
        if seen.count(job_id) == 1:
            raise ValueError

    ids = fill(pq["a"], 50, "fails", max_retries=1)
    Worker(pq, burst=True).run()
    assert sorted(seen) == sorted(ids * 2)
    assert number(sql, DONE) == 50


def test_a_result_that_cannot_be_kept_fails_its_job_alone(dsn: str, sql: Sql, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Queue, "handler_registry", {})
    told: list[Event] = []
    with PQ(dsn, timeout=0.05, encode=lambda data: "{" if data == "bad" else json.dumps(data)) as pq:
        ids: list[int] = []
        pq["a"].task(name="result", result=True)(lambda job_id: "bad" if job_id == ids[3] else "good")
        ids += fill(pq["a"], 10, "result")
        worker = Worker(pq, burst=True)
        worker.on("dead", told.append)
        worker.run()
        assert [pq["a"].result(id) for id in ids] == ["good"] * 3 + [None] + ["good"] * 6
        (dead,) = pq["a"].dead
        assert (dead.id, dead.error.type) == (ids[3], "ValueError")
    assert [(event.job.id, type(event.error)) for event in told] == [(ids[3], ValueError)]
    assert worker.status()["counts"] == {"start": 10, "done": 9, "retry": 0, "dead": 1, "lost": 0, "cancelled": 0}


def test_what_cannot_be_decoded_is_told_and_the_others_run(
    dsn: str, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Queue, "handler_registry", {})
    done: list[int] = []
    told: list[Event] = []
    with PQ(dsn, timeout=0.05, max_retries=1, retry_in="0s") as pq:
        queue = pq["a/pickle"]
        quick(queue, done)
        ids = fill(queue, 10)
        sql("update queue set data = '\"no pickle\"' where id = %s", (ids[4],))
        worker = Worker(pq, burst=True)
        for name in ("retry", "dead"):
            worker.on(name, told.append)
        worker.run()
        assert [job.id for job in queue.dead] == [ids[4]]
    assert done == ids[:4] + ids[5:]
    assert [(event.name, event.job.id, type(event.error)) for event in told] == [
        ("retry", ids[4], DecodeError),
        ("dead", ids[4], DecodeError),
    ]
    assert worker.status()["counts"] == {"start": 9, "done": 9, "retry": 1, "dead": 1, "lost": 0, "cancelled": 0}


@pytest.mark.usefixtures("greedy", "patient")
def test_what_ends_while_the_database_is_away_is_settled_when_it_is_back(
    pq: PQ, dsn: str, server: str, gate: Gate, sql: Sql
) -> None:
    done: list[int] = []
    database = psycopg2.extensions.parse_dsn(dsn)["dbname"]
    gated(pq["a"], gate), quick(pq["a"], done)
    fill(pq["a"], 1, "gated")
    ids = fill(pq["a"], 20)
    worker = Worker(pq, lease="1h")
    thread = Background(worker.run)
    wait_until(lambda: gate.came, "the start")
    execute(server, f"alter database {database} with allow_connections false")
    execute(
        server,
        "select pg_terminate_backend(pid, 30000) from pg_stat_activity where datname = %s and pid <> %s",
        (database, sql("select pg_backend_pid()")[0][0]),
    )
    gate.open()
    wait_until(lambda: done == ids, "the end of all")
    wait_until(lambda: worker.status()["database"] != "ok", "the trouble")
    assert number(sql, DONE) == 0
    execute(server, f"alter database {database} with allow_connections true")
    wait_until(lambda: number(sql, DONE) == 21, "the settlement")
    worker.stop()
    thread.result()
    assert done == ids
    assert worker.status()["counts"] == {"start": 21, "done": 21, "retry": 0, "dead": 0, "lost": 0, "cancelled": 0}


# -- the end


@pytest.mark.usefixtures("greedy", "patient")
def test_stop_gives_back_at_once_what_was_not_begun(pq: PQ, gate: Gate, sql: Sql) -> None:
    gated(pq["a"], gate), quick(pq["a"], [])
    fill(pq["a"], 1, "gated"), fill(pq["a"], 20)
    worker = Worker(pq, lease="1h", shutdown_timeout="1h")
    thread = Background(worker.run)
    wait_until(lambda: gate.came, "the start")
    assert number(sql, HELD) == 21
    worker.stop()
    wait_until(lambda: number(sql, READY) == 20, "the return")
    assert sql("select distinct attempts from queue where due_at is null") == [(0,)]
    gate.open()
    thread.result()
    assert number(sql, DONE) == 1


MODULE = """
import os, signal, time
from pq.tasks import PQ, Worker, current
from pq.worker import fetcher, heartbeat

fetcher.MAX_HOLD = heartbeat.MAX_HOLD = 3600.0
fetcher.Fetcher._wanted = lambda fetcher: fetcher._batch

pq = PQ()
queue = pq["jobs"]
batched = Worker(pq, ["jobs"], burst=True, shutdown_timeout="1h", lease="1h")
single = Worker(pq, ["jobs"], burst=True, lease="1h", batch=1)

@queue.task(name="note")
def note(job_id):
    with queue as cursor:
        cursor.execute("insert into notes values (%s)", (job_id,))

@queue.task(name="die")
def die(job_id):
    note._handler(job_id)
    if current().attempts == 1:
        os.kill(os.getpid(), signal.SIGKILL)

@queue.task(name="die late")
def die_late(job_id):
    done = "select count(*) from queue where dequeued_at is not null and due_at is null"
    while current().attempts == 1:
        with queue as cursor:
            cursor.execute(done)
            if cursor.fetchone() == (20,):
                os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.01)
    note._handler(job_id)

@queue.task(name="wait")
def wait(job_id):
    note._handler(job_id)
    while os.path.exists("wait"):
        time.sleep(0.01)
"""


@pytest.fixture
def run(tmp_path: Path, dsn: str, sql: Sql) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Start a worker process."""
    (tmp_path / "chores.py").write_text(MODULE)
    (tmp_path / "wait").touch()
    sql("create table notes (id bigint)")
    processes: list[subprocess.Popen[bytes]] = []

    def start(worker: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "pq", "work", f"chores:{worker}"]
        path = str(Path(package.__file__).parents[1])
        environment = {**os.environ, "PQ_DSN": make_dsn(dsn), "PYTHONPATH": path}
        processes.append(
            subprocess.Popen(
                command, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
        )
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.wait(PATIENCE)


def notes(sql: Sql) -> list[int]:
    return [id for (id,) in sql("select id from notes")]


def put(sql: Sql, name: str, count: int = 1) -> list[int]:
    data = json.dumps({"function": name, "args": [], "kwargs": {}})
    return [
        id
        for (id,) in sql(
            "insert into queue (q_name, data) select 'jobs', %s from generate_series(1, %s) returning id", (data, count)
        )
    ]


Start = Callable[[str], "subprocess.Popen[bytes]"]


def test_a_signal_gives_back_at_once_what_was_not_begun(run: Start, sql: Sql, tmp_path: Path) -> None:
    (first,) = put(sql, "wait")
    put(sql, "note", 20)
    process = run("batched")
    wait_until(lambda: notes(sql) == [first], "the start")
    assert number(sql, HELD) == 21
    process.send_signal(signal.SIGTERM)
    wait_until(lambda: number(sql, READY) == 20, "the return")
    assert sql("select distinct attempts from queue where due_at is null") == [(0,)]
    (tmp_path / "wait").unlink()
    assert process.wait(PATIENCE) == 0
    assert number(sql, DONE) == 1


@pytest.mark.parametrize("worker", ["batched", "single"])
def test_when_a_worker_is_killed_each_job_runs_at_least_once(run: Start, sql: Sql, worker: str) -> None:
    ids = [*put(sql, "note", 50), *put(sql, "die"), *put(sql, "note", 50)]
    assert run(worker).wait(PATIENCE) == -signal.SIGKILL
    before = notes(sql)
    assert before == ids[:51]
    again = number(sql, HELD)
    sql("update queue set due_at = now() where due_at is not null")  # an hour later
    assert run(worker).wait(PATIENCE) == 0
    after = notes(sql)
    assert set(after) == set(ids)
    assert number(sql, DONE) == 101
    if worker == "single":
        assert again == 1
        assert after == [*before, ids[50], *ids[51:]]
    else:
        assert 51 <= again <= 101  # the 50 that were held, and what had ended
        assert len(after) == 101 + again - 50


def test_what_had_ended_before_does_not_run_again_when_a_worker_is_killed(run: Start, sql: Sql) -> None:
    """All of them are of one batch, which does not end: what has ended of it is settled."""
    ids = [*put(sql, "note", 20), *put(sql, "die late"), *put(sql, "note", 20)]
    assert run("batched").wait(PATIENCE) == -signal.SIGKILL
    assert (number(sql, DONE), number(sql, HELD)) == (20, 21)
    sql("update queue set due_at = now() where due_at is not null")  # an hour later
    assert run("batched").wait(PATIENCE) == 0
    assert notes(sql) == ids


@pytest.mark.parametrize("freed", [True, False])
def test_a_row_that_is_locked_while_it_runs(pq: PQ, dsn: str, sql: Sql, freed: bool) -> None:
    """It is settled when it is free; at the end of the worker it is left to its lease."""
    conn = psycopg2.connect(dsn)

    @pq["a"].task()
    def lock(job_id: int, really: bool = False) -> None:
        if really:
            with conn.cursor() as cursor:
                cursor.execute("select from queue where id = %s for update", [job_id])

    lock(True)
    for _ in range(40):
        lock()
    worker = Worker(pq)
    working = Background(worker.run)
    try:
        wait_until(lambda: number(sql, DONE) == 40, "the others are settled")
        assert number(sql, HELD) == 1
        if freed:
            conn.rollback()
            wait_until(lambda: number(sql, DONE) == 41, "the freed one is settled")
    finally:
        worker.stop()
        working.result()
        conn.close()
    assert number(sql, HELD) == (not freed)
    assert worker.status()["counts"]["done"] == 40 + freed
