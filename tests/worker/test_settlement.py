"""Settlement: bounded, and not held up or poisoned by any job; an outage is told from a bad job by looking."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import psycopg2
import pytest
from psycopg2.extensions import make_dsn
from support import PATIENCE, Background, wait_until
from support.tasks import DEAD, DONE, HELD, Gate, Sql, fill, number, working

from pq import Unique
from pq._jobs import settlement
from pq._jobs.settlement import Settlement
from pq.tasks import PQ, Queue, Worker
from pq.worker import completer, held
from pq.worker.execution import Execution


@pytest.fixture
def settlements(monkeypatch: pytest.MonkeyPatch) -> list[list[Any]]:
    """What each statement was to settle."""
    seen: list[list[Any]] = []
    settle = settlement._settle

    def noting(queue: Any, given: Any, *lock: Any) -> Any:
        seen.append(list(given))
        return settle(queue, given, *lock)

    monkeypatch.setattr(settlement, "_settle", noting)
    return seen


def refuse(sql: Sql, condition: str, code: str = "P0001") -> Callable[[], None]:
    """A trigger of the application's, which fails for some updates. Returns what removes it."""
    sql(
        "create function refuse() returns trigger language plpgsql as $$ begin "
        f"if {condition} then raise exception 'refused' using errcode = '{code}'; end if; return new; end $$"
    )
    sql("create trigger a_refuse before update on queue for each row execute function refuse()")
    return lambda: sql("drop trigger a_refuse on queue") and None


# -- one bad job


@pytest.mark.parametrize("code", ["P0001", "08001", "53100", "25006", "57014"])
def test_a_job_that_can_not_be_settled_fails_alone(pq: PQ, sql: Sql, code: str) -> None:
    """Whatever the class of the error."""
    pq["a"].task(name="t")(lambda job_id, kind="good": None)
    ids = fill(pq["a"], 20, "t") + fill(pq["a"], 1, "t", args=["bad"]) + fill(pq["a"], 20, "t")
    refuse(
        sql,
        "new.data::text like '%bad%' and new.error is null and new.due_at is null and old.due_at is not null",
        code,
    )
    worker = Worker(pq)
    with working(worker):
        wait_until(lambda: number(sql, DONE) == 40, "the good ones")
        wait_until(lambda: number(sql, DEAD) == 1, "the bad one")
        assert worker.status()["database"] == "ok"
    (dead,) = pq["a"].dead
    assert dead.id == ids[20]
    assert worker.status()["counts"] == {"start": 41, "done": 40, "retry": 0, "dead": 1, "lost": 0, "cancelled": 0}


def claim_and_end(pq: PQ, worker: Worker, count: int) -> None:
    """Have a worker hold jobs of one claim that are done, and not settled."""
    taken = time.monotonic()
    executions = [Execution(job, taken) for job in pq["a"].get_many(count, lease="1h")]
    worker._held.add(executions)
    for execution in executions:
        worker._held.end(execution, Settlement(execution.job, "done"))


def test_what_a_first_statement_has_settled_is_not_lost_if_a_second_one_fails(pq: PQ, sql: Sql) -> None:
    """Finished jobs are not kept, so the others are deleted; then the one that has to stay is to be updated."""
    pq.create(retain=0)
    pq["a"].put_many(range(5))
    pq["a"].put("bad", unique=Unique("token", window="1h"))
    refuse(sql, "new.data::text like '%bad%' and new.error is null and new.due_at is null and old.due_at is not null")
    worker = Worker(pq["a"])
    completer = worker._services.completer
    completer.table = pq["a"]._table
    claim_and_end(pq, worker, 6)
    completer.run_once()
    assert worker.status()["counts"] == {"start": 0, "done": 5, "retry": 0, "dead": 1, "lost": 0, "cancelled": 0}


@pytest.mark.parametrize("first", [completer.ONE_CLAIM, completer.ONE_CLAIM - 1])
def test_many_of_one_claim_are_not_settled_with_those_of_another(
    pq: PQ, sql: Sql, settlements: list[list[Any]], first: int
) -> None:
    """They have a shorter statement of their own; but where claims are small, there is not a commit for each."""
    pq["a"].put_many(range(first + 3))
    worker = Worker(pq["a"])
    worker._services.completer.table = pq["a"]._table
    for count in (first, 3):
        claim_and_end(pq, worker, count)
    worker._services.completer.run_once()
    assert list(map(len, settlements)) == ([first, 3] if first == completer.ONE_CLAIM else [first + 3])
    assert worker.status()["counts"]["done"] == first + 3 == number(sql, DONE)


def test_a_job_that_can_not_even_fail_is_kept_and_settled_when_it_can_be(
    pq: PQ, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(completer, "STUCK_PAUSE", 0.1)
    calls: list[str] = []
    pq["a"].task(name="t")(lambda job_id, kind="good": calls.append(kind))
    fill(pq["a"], 1, "t", args=["bad"]), fill(pq["a"], 20, "t")
    repair = refuse(sql, "new.data::text like '%bad%' and new.due_at is null and old.due_at is not null", "08006")
    worker = Worker(pq, lease="1s")
    with working(worker):
        wait_until(lambda: number(sql, DONE) == 20, "the good ones")
        sql("select pg_sleep(1.5)")  # longer than the lease, which is extended until it is settled
        assert number(sql, HELD) == worker.status()["unsettled"] == 1
        repair()
        wait_until(lambda: number(sql, DEAD) == 1, "the bad one")
    assert calls.count("bad") == 1


def test_a_lease_that_can_not_be_extended_takes_no_other_along(pq: PQ, sql: Sql, gate: Gate) -> None:
    pq["a"].task(name="t")(lambda job_id, kind="good": gate(job_id))
    fill(pq["a"], 1, "t", args=["bad"])
    fill(pq["a"], 2, "t")
    worker = Worker(pq, threads=3, lease="1s")
    with working(worker):
        wait_until(lambda: len(gate.came) == 3, "their start")
        repair = refuse(sql, "new.data::text like '%bad%'")
        began = sql("select now() + interval '2s'")[0][0]
        extended = "select count(*) from queue where data::text not like '%%bad%%' and due_at > %s"
        wait_until(lambda: sql(extended, [began]) == [(2,)], "the extension of the others")
        repair()
        gate.open()
        wait_until(lambda: number(sql, DONE) == 3, "the end of all")


# -- an outage


def test_an_outage_that_ends_while_its_cause_is_looked_for_makes_no_attempt_fail(
    pq: PQ, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    pq["a"].task(name="t")(lambda job_id: None)
    fill(pq["a"], 1, "t")
    repair = refuse(sql, "new.due_at is null and old.due_at is not null", "53100")
    extend, repaired = completer.extend, threading.Event()

    def repaired_first(*args: Any) -> Any:
        if not repaired.is_set():
            repair()
            repaired.set()
        return extend(*args)

    monkeypatch.setattr(completer, "extend", repaired_first)
    worker = Worker(pq)
    with working(worker):
        wait_until(lambda: number(sql, DONE) == 1, "its settlement")
    assert repaired.is_set()
    assert worker.status()["counts"] == {"start": 1, "done": 1, "retry": 0, "dead": 0, "lost": 0, "cancelled": 0}


@pytest.mark.parametrize("outage", ["read only", "rights", "locked", "full"])
def test_what_ends_in_an_outage_is_settled_after_it(
    dsn: str, sql: Sql, gate: Gate, outage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Queue, "handler_registry", {})
    monkeypatch.setattr(completer, "STUCK_PAUSE", 0.1)
    attempts: list[Any] = []
    settle = completer.settle
    monkeypatch.setattr(completer, "settle", lambda *args: attempts.append(args) or settle(*args))
    name = sql("select current_database()")[0][0]
    sql("create role worker_role login")
    sql("grant select, insert, update, delete on queue to worker_role")
    sql("grant usage on all sequences in schema public to worker_role")
    locker = psycopg2.connect(dsn)
    begin, end = {
        "read only": (
            f"alter database {name} set default_transaction_read_only = on; select pg_terminate_backend(pid) from "
            "pg_stat_activity where usename = 'worker_role'",
            f"set default_transaction_read_only = off; alter database {name} reset default_transaction_read_only; "
            "select pg_terminate_backend(pid) from pg_stat_activity where usename = 'worker_role'",
        ),
        "rights": ("revoke update on queue from worker_role", "grant update on queue to worker_role"),
        "locked": ("select", "select"),
        # as of a full disk: each write fails, and no look at the table finds it out
        "full": ("", ""),
    }[outage]
    with PQ(make_dsn(dsn, user="worker_role"), timeout=0.05) as pq:
        pq["a"].task(name="t")(gate)
        ids = fill(pq["a"], 3, "t")
        worker = Worker(pq, threads=3, lease="1h")
        with working(worker):
            wait_until(lambda: len(gate.came) == 3, "their start")
            repair: Callable[[], Any] = lambda: sql(end)  # noqa: E731
            if outage == "full":
                repair = refuse(sql, "true", "53100")
            elif outage == "locked":
                locker.cursor().execute("lock table queue in share mode")
                repair = locker.rollback
            else:
                sql(begin)
            gate.open()
            wait_until(lambda: len(worker._held.unsettled()) == 3, "their ends")
            before = len(attempts)
            wait_until(lambda: len(attempts) >= before + 2, "some attempts")
            repair()
            wait_until(lambda: number(sql, DONE) == 3, "their settlement")
        assert sorted(gate.came) == ids
        assert worker.status()["counts"] == {"start": 3, "done": 3, "retry": 0, "dead": 0, "lost": 0, "cancelled": 0}
    locker.close()
    sql("drop owned by worker_role")
    sql("drop role worker_role")


# -- bounds


def test_batches_are_cut_by_length(pq: PQ, sql: Sql, settlements: list[list[Any]], gate: Gate) -> None:
    pq["a"].task(name="big", result=True)(lambda job_id: "x" * 300_000)
    fill(pq["a"], 30, "big")
    with working(Worker(pq)):
        wait_until(lambda: number(sql, DONE) == 30, "the end of all")
    lengths = [sum(len(each.result or "") for each in given) for given in settlements]
    assert max(lengths) <= completer.MAX_CHARACTERS
    assert any(len(given) > 1 for given in settlements)


def test_a_result_longer_than_a_batch_is_settled(pq: PQ, sql: Sql) -> None:
    pq["a"].task(name="big", result=True)(lambda job_id: "x" * 3_000_000)
    fill(pq["a"], 5, "big")
    with working(Worker(pq)):
        wait_until(lambda: number(sql, DONE) == 5, "the end of all")


@pytest.mark.parametrize("what", ["number", "length"])
def test_nothing_is_begun_while_too_much_is_unsettled(
    pq: PQ, sql: Sql, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    if what == "length":
        monkeypatch.setattr(held, "MAX_CHARACTERS", 100_000)
    begun: list[int] = []
    pq["a"].task(name="t", result=True)(lambda job_id: begun.append(job_id) or "x" * 1000)
    ids = fill(pq["a"], 3000, "t")
    goes_on = threading.Event()
    settle = settlement._settle

    def held_up(*args: Any) -> Any:
        assert goes_on.wait(PATIENCE)
        return settle(*args)

    monkeypatch.setattr(settlement, "_settle", held_up)
    worker = Worker(pq, lease="1h")
    with working(worker):
        wait_until(lambda: worker._held.full, "the limit")
        before = len(begun)
        wait_until(lambda: time.monotonic() > worker._held.busy_at + 1.5, "a while")
        assert len(begun) == before
        if what == "length":
            assert sum(each.size for each in worker._held.unsettled()) < 110_000
        else:
            assert before <= 1100
        goes_on.set()
        wait_until(lambda: number(sql, DONE) == 3000, "the end of all")
    assert sorted(begun) == ids


def test_the_lease_of_what_has_ended_is_extended_until_it_is_settled(
    pq: PQ, dsn: str, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Settlement that takes longer than the lease: here each statement is held up."""
    calls: list[int] = []
    settle = settlement._settle
    held_up = threading.Event()

    def slow(*args: Any) -> Any:
        held_up.wait(3)
        return settle(*args)

    monkeypatch.setattr(settlement, "_settle", slow)
    pq["a"].task(name="t")(lambda job_id: calls.append(job_id))
    ids = fill(pq["a"], 5, "t")
    with PQ(dsn, timeout=0.05) as second:
        worker, other = Worker(pq, lease="600ms"), Worker(second, ["a"], lease="600ms")
        with working(worker):
            wait_until(lambda: len(calls) == 5, "their ends")
            with working(other):
                sql("select pg_sleep(1.5)")
                held_up.set()
                wait_until(lambda: number(sql, DONE) == 5, "their settlement")
    assert calls == ids
    assert worker.status()["counts"]["lost"] == 0


def test_locked_rows_are_settled_when_they_are_free_though_others_come(pq: PQ, dsn: str, sql: Sql) -> None:
    """A steady flow of rows that are locked for a moment: none of them waits for those behind it."""
    conns: list[Any] = []

    @pq["a"].task(name="lock")
    def lock(job_id: int) -> None:
        conns.append(psycopg2.connect(dsn))
        conns[-1].cursor().execute("select from queue where id = %s for update", [job_id])

    stop = threading.Event()

    def feed() -> None:
        while not stop.wait(0.15):
            fill(pq["a"], 1, "lock")
            if len(conns) > 2 and not conns[-3].closed:
                conns[-3].close()

    with working(Worker(pq, lease="1h")):
        fill(pq["a"], 3, "lock")
        feeding = Background(feed)
        try:
            wait_until(lambda: number(sql, DONE) >= 5, "settlements while others are locked")
        finally:
            stop.set()
            feeding.result()
            wait_until(lambda: len(conns) == sql("select count(*) from queue")[0][0], "the start of all")
            for conn in conns:
                conn.close()
