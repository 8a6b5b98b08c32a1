"""Threads that wait on the application's single connection execute nothing there: they have a second one."""

from __future__ import annotations

import gc
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg2
import pytest
from support import Background, wait_until
from support.kinds import NAME, WITH_PSYCOPG3, make_pq

from pq import PQ
from pq._db import aside
from pq._queue import marks
from pq._table import table
from pq._wait import leader
from pq.errors import ConnectionLost

Sql = Callable[..., list[tuple[Any, ...]]]

HOUR = 3600.0

INSERT = "insert into queue (q_name, data) values ('a', '1')"

KINDS = [kind for kind in WITH_PSYCOPG3 if kind.endswith("connection") and not kind.startswith("autocommit")]


@pytest.fixture(params=KINDS)
def single(request: pytest.FixtureRequest, dsn: str) -> Iterator[PQ]:
    with make_pq(request.param, dsn, poll_interval=0.05) as pq:
        yield pq


def sessions(sql: Sql) -> int:
    query = "select count(*) from pg_stat_activity where datname = current_database() and application_name = %s"
    return int(sql(query, (NAME,))[0][0])


def waits_aside(pq: PQ, waiters: int = 1, name: str = "a") -> bool:
    """Whether so many threads wait, and the second connection is there."""
    queue = pq._table._room.queues.get(name)
    session = pq._table._room.leader.session
    if queue is None or session is None or not session.lingers:
        return False
    return queue.sure and len(queue.waiters) == waiters


def execute(pq: PQ, statement: str) -> None:
    """One statement of the application's on the connection that it gave."""
    cursor = pq._db.conn.cursor()
    cursor.execute(statement)
    pq._db.conn.commit()


def test_what_another_thread_rolls_back_is_not_committed(single: PQ, dsn: str, sql: Sql) -> None:
    sql("create table mine (n int)")
    conn = single._db.conn
    waiters = [Background(single["a"].get, timeout=HOUR) for _ in range(5)]
    wait_until(lambda: waits_aside(single, 5), "that all wait")
    with PQ(dsn) as other:
        cursor = conn.cursor()
        began = time.monotonic()
        puts = 0
        while (now := time.monotonic()) < began + 5:
            if now > began + puts:
                other["a"].put(puts)
                puts += 1
            cursor.execute("insert into mine values (1)")
            conn.rollback()
        for _ in range(len(waiters) - puts):
            other["a"].put(None)
    assert None not in [waiter.result() for waiter in waiters]
    assert sql("select count(*) from mine") == [(0,)]
    assert conn.autocommit is False


def test_who_waits_is_not_held_up_by_a_transaction_of_the_application(single: PQ, dsn: str, sql: Sql) -> None:
    waiter = Background(single["a"].get, timeout=HOUR)
    wait_until(lambda: waits_aside(single), "the waiter")
    conn = single._db.conn
    conn.cursor().execute("create table mine (n int)")
    with PQ(dsn) as other:
        other["a"].put(1)
    assert waiter.result().data == 1
    conn.rollback()
    assert sql("select to_regclass('mine')") == [(None,)]


@pytest.fixture(params=KINDS)
def patient(request: pytest.FixtureRequest, dsn: str) -> Iterator[PQ]:
    with make_pq(request.param, dsn, poll_interval=HOUR) as pq:
        yield pq


def seen_empty(pq: PQ, sql: Sql, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for a job until there is one, and nothing else."""
    monkeypatch.setattr(leader, "LINGER", HOUR)
    monkeypatch.setattr(marks, "SLOW_SECONDS", HOUR)  # on a busy machine: then a claim does not tell what is left
    waiter = Background(pq["a"].get, timeout=HOUR)
    wait_until(lambda: waits_aside(pq), "the waiter")
    sql(INSERT)
    assert waiter.result() is not None
    assert pq._table.is_seen_empty("a")


@pytest.mark.parametrize("waiters", [1, 3])
def test_two_statements_take_a_job_that_was_waited_for(
    patient: PQ, sql: Sql, monkeypatch: pytest.MonkeyPatch, waiters: int
) -> None:
    """One asks what the application's connection sees, unless others wait all the time; the other one is the claim."""
    monkeypatch.setattr(table, "HEAL_PAUSE", HOUR)
    seen_empty(patient, sql, monkeypatch)
    messages: list[str] = []
    adapter = type(patient._db.source.driver)
    run = adapter._run
    monkeypatch.setattr(adapter, "_run", lambda *args: (messages.append(args[2]), run(*args))[1])
    got: list[Any] = []

    def work() -> None:
        while (job := patient["a"].get(timeout=HOUR)).data != "end":
            got.append(job)

    def all_asleep() -> bool:
        queue = patient._table._room.queues["a"]
        return waits_aside(patient, waiters) and not queue.stale and not any(waiter.called for waiter in queue.waiters)

    threads = [Background(work) for _ in range(waiters)]
    wait_until(all_asleep, "that all wait")
    for number in range(1, 11):
        if number == 6:  # prepared by now
            messages.clear()
        sql(INSERT)
        wait_until(lambda number=number: len(got) == number and all_asleep(), "that the job is taken")
    assert len(messages) == (10 if waiters == 1 else 5), "\n".join(messages)
    sql("insert into queue (q_name, data) select 'a', '\"end\"' from generate_series(1, %s)", [waiters])
    for thread in threads:
        thread.result()


def test_the_end_of_the_applications_connection_just_before_the_sleep(
    patient: PQ, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = aside.Aside.watched.fget
    conn = patient._db.conn
    pid = patient._db.source.driver.backend_pid(conn)

    def late(second: aside.Aside) -> Any:
        if second.database is not None:
            sql("select pg_terminate_backend(%s, 30000)", [pid])
            wait_until(lambda: not second._is_connected(), "the end of the connection")
        return watched(second)  # type: ignore[misc]

    monkeypatch.setattr(aside.Aside, "watched", property(late))
    with pytest.raises(ConnectionLost):
        Background(patient["a"].get, timeout=HOUR).result()


def test_what_the_application_has_put_and_not_committed_is_found_at_once(
    patient: PQ, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a ``get`` that would leave out its first claim, since the others see an empty queue."""
    seen_empty(patient, sql, monkeypatch)
    patient._db.conn.cursor().execute(INSERT)
    assert Background(patient["a"].get, timeout=HOUR).result() is not None


def test_it_is_found_while_others_wait(patient: PQ, sql: Sql, monkeypatch: pytest.MonkeyPatch) -> None:
    """They have asked a moment ago what both connections see, so that nobody asks again."""
    monkeypatch.setattr(table, "HEAL_PAUSE", HOUR)
    other = Background(patient["b"].get, timeout=HOUR)
    wait_until(lambda: waits_aside(patient, name="b"), "the other")
    seen_empty(patient, sql, monkeypatch)
    patient._db.conn.cursor().execute(INSERT)
    assert Background(patient["a"].get, timeout=HOUR).result() is not None
    sql("insert into queue (q_name, data) values ('b', '1')")
    assert other.result() is not None


def test_jobs_that_were_waited_for_are_settled_on_the_connection_that_was_given(
    single: PQ, dsn: str, sql: Sql
) -> None:
    waiter = Background(single["a"].get, timeout=HOUR, lease="1h")
    wait_until(lambda: waits_aside(single), "the waiter")
    with PQ(dsn) as other:
        other["a"].put(1)
    job = waiter.result()
    with pytest.raises(ZeroDivisionError), single["a"]:
        job.done()
        1 / 0  # noqa: B018
    job.done()
    assert len(single["a"]) == 0


def test_a_worker_waits_there_too(dsn: str) -> None:
    with make_pq("connection", dsn, poll_interval=0.05) as pq:
        queue = pq["a"]
        queue.timeout = 5

        ran = threading.Event()

        @queue.task
        def run(job_id: int) -> None:
            ran.set()

        worker = Background(queue.work, burst=True)
        wait_until(lambda: waits_aside(pq), "the worker")
        run()
        worker.result()
        assert ran.is_set()


def temporary(pq: PQ, sql: Sql) -> PQ:
    execute(pq, "create temporary table queue (like public.queue including all)")
    return pq


def other_schema(pq: PQ, sql: Sql) -> PQ:
    sql("create schema other")
    execute(pq, "set search_path to other")
    pq.create()
    return pq


def row_security(pq: PQ, sql: Sql) -> PQ:
    sql("drop role if exists pq_aside_tenant; create role pq_aside_tenant")
    sql("grant all on queue to pq_aside_tenant; grant create, usage on schema public to pq_aside_tenant")
    sql("grant usage on all sequences in schema public to pq_aside_tenant")
    sql("alter table queue enable row level security")
    sql("create policy tenant on queue using (true)")
    execute(pq, "set role pq_aside_tenant")
    return pq


@pytest.mark.parametrize("differ", [temporary, other_schema, row_security])
def test_where_the_second_connection_would_see_something_else_there_is_none(
    single: PQ, sql: Sql, differ: Callable[[PQ, Sql], PQ]
) -> None:
    pq = differ(single, sql)
    waiter = Background(pq["a"].get, timeout=HOUR)
    wait_until(lambda: "a" in pq._table._room.queues and pq._table._room.queues["a"].sure, "the waiter")
    assert not pq._table._room.leader.session.lingers  # type: ignore[union-attr]
    assert pq._table._room._aside.database is None  # type: ignore[union-attr]
    pq["a"].put("here")
    assert waiter.result().data == "here"
    execute(pq, "reset role; reset search_path; drop table if exists pg_temp.queue")
    if differ is row_security:
        sql("drop owned by pq_aside_tenant; drop role pq_aside_tenant")


def two_tables(pq: PQ, dsn: str) -> PQ:
    """Make a second table, and return a PQ of it. The connection of `pq` sees the first one."""
    other = PQ(dsn, schema="other")
    execute(pq, "create schema other")
    other.create()
    return other


def test_the_search_path_may_be_changed_between_two_waits(single: PQ, dsn: str) -> None:
    queue = single["a"]
    with two_tables(single, dsn) as other, PQ(dsn) as first:
        assert queue.get(timeout=0.1) is None
        execute(single, "set search_path to other")
        queue.put("other")
        job = queue.get(timeout=1)
        assert job is not None
        assert job.data == "other"
        execute(single, "set search_path to public")
        assert queue.get(timeout=0.1) is None
        execute(single, "set search_path to other")
        first["a"].put("public")
        assert queue.get(timeout=0.5) is None
        waiter = Background(queue.get, timeout=HOUR)
        wait_until(lambda: "a" in single._table._room.queues and single._table._room.queues["a"].sure, "the waiter")
        other["a"].put("late")
        assert waiter.result().data == "late"
        assert len(first["a"]) == 1


def test_a_block_that_changes_the_search_path_is_noticed_although_others_want_the_connection(
    single: PQ, dsn: str
) -> None:
    """Another thread has got it when the block has ended, and keeps it."""
    entered, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with single["b"]:
            entered.set()
            leave.wait()

    with two_tables(single, dsn) as other, PQ(dsn) as first:
        waiter = Background(single["a"].get, timeout=HOUR)
        wait_until(lambda: waits_aside(single), "the waiter")
        with single["b"] as cursor:
            cursor.execute("set search_path to other")
            holder = Background(hold)
            wait_until(lambda: single._db.source._lock._turns._line, "the line")  # type: ignore[attr-defined]
        assert entered.wait(30)
        first["a"].put("public")
        other["a"].put("other")
        leave.set()
        holder.result()
        assert waiter.result().data == "other"
        assert len(first["a"]) == 1


def test_a_wait_that_begins_while_the_connection_is_in_use_trusts_no_earlier_check(single: PQ) -> None:
    assert single["a"].get(timeout=0.1) is None
    second = single._table._room._aside
    assert second is not None
    assert second.database is not None
    single._db.conn.cursor().execute("select 1")  # what follows can't be known
    second.enter()
    assert second.database is None
    second.enter()
    assert second.database is None
    single._db.conn.rollback()
    second.enter()
    assert second.database is not None
    second.leave()


def test_the_first_connection_keeps_no_gates_when_the_second_takes_over_while_it_is_in_use(
    single: PQ, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = single._table._room
    second = room._aside
    assert second is not None
    with monkeypatch.context() as patch:
        patch.setattr(second, "_open", lambda: None)
        waiter = Background(single["a"].get, timeout=HOUR)
        wait_until(lambda: "a" in room.queues and room.queues["a"].sure, "the waiter")
    assert second.database is None
    conn = single._db.conn
    with single["b"]:
        second.renew(0.0, conn)
        assert second.database is not None
        room.look_again()
        wait_until(lambda: room.leader.busy or waits_aside(single), "the leader")
    wait_until(lambda: waits_aside(single), "the second connection")
    holders = sql("select distinct pid from pg_locks where locktype = 'advisory'")
    assert (single._db.driver.backend_pid(conn),) not in holders
    single["a"].put(1)
    assert waiter.result().data == 1


def test_who_begins_to_wait_during_a_block_has_it_when_that_has_ended(single: PQ) -> None:
    entered, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with single["b"]:
            entered.set()
            leave.wait()

    holder = Background(hold)
    assert entered.wait(30)
    second = single._table._room._aside
    assert second is not None
    second.enter()
    assert second.database is None
    leave.set()
    holder.result()
    assert second.database is not None
    second.leave()


@pytest.mark.parametrize("stale", [False, True], ids=["checked lately", "checked long ago"])
def test_a_claim_that_is_held_up_there_holds_up_neither_blocks_nor_close(
    single: PQ, dsn: str, sql: Sql, stale: bool
) -> None:
    blocked = "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and application_name = %s"
    waiter = Background(single["a"].get, timeout=HOUR)
    wait_until(lambda: waits_aside(single), "the waiter")
    locker = psycopg2.connect(dsn)
    try:
        locker.cursor().execute("lock table queue in access exclusive mode")
        wait_until(lambda: sql(blocked, (NAME,)) != [(0,)], "the claim")
        if stale:
            single._table._room._aside._agreed_at = -HOUR  # type: ignore[union-attr]

        def block() -> None:
            with single["b"] as cursor:
                cursor.execute("select 1")

        Background(block).result(10)
        Background(single.close).result(10)
    finally:
        locker.close()
    with pytest.raises(ConnectionLost):
        waiter.result()
    wait_until(lambda: sessions(sql) == 0, "the end of all connections")


def test_it_is_closed_when_nobody_waits_and_opened_again(
    dsn: str, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aside, "REST_AFTER", 0.3)
    with make_pq("connection", dsn, poll_interval=0.05) as pq:
        for data in range(2):
            waiter = Background(pq["a"].get, timeout=HOUR)
            wait_until(lambda: waits_aside(pq), "the waiter")
            assert sessions(sql) > 1
            pq["a"].put(data)
            assert waiter.result().data == data
            wait_until(lambda: sessions(sql) == 1, "the end of the second connection")


def test_who_is_about_to_claim_there_when_it_is_closed_can_do_so(single: PQ, sql: Sql) -> None:
    waiter = Background(single["a"].get, timeout=HOUR)
    wait_until(lambda: waits_aside(single), "the waiter")
    single["a"].put(1)
    waiter.result()
    room = single._table._room
    room.step_aside()
    table = single._table.aside()
    assert table is not None
    room.step_back()
    room._aside.rest()  # type: ignore[union-attr]
    assert table.execute("select 1") == [(1,)]
    wait_until(lambda: sessions(sql) == 1, "the end of the second connection")


def test_it_is_closed_when_the_application_closes_its_own(
    single: PQ, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Programs written for 1.9.1 need not close the PQ, and drop a database when they have closed their connection."""
    monkeypatch.setattr(aside, "REST_AFTER", HOUR)
    waiter = Background(single["a"].get, timeout=HOUR)
    wait_until(lambda: waits_aside(single), "the waiter")
    single["a"].put(1)
    waiter.result()
    assert sessions(sql) > 1
    single._db.conn.close()
    wait_until(lambda: sessions(sql) == 0, "the end of the second connection")
    wait_until(lambda: single._table._room._resting._loop.ident is None, "the end of the thread")


def test_nothing_is_left_after_close(dsn: str, sql: Sql) -> None:
    before = set(threading.enumerate())
    with make_pq("connection", dsn, poll_interval=0.05) as pq:
        waiter = Background(pq["a"].get, timeout=HOUR)
        wait_until(lambda: waits_aside(pq), "the waiter")
    with pytest.raises(ConnectionLost):
        waiter.result()
    wait_until(lambda: sessions(sql) == 0, "the end of all connections")
    wait_until(lambda: set(threading.enumerate()) <= before, "the end of all threads")


def terminated(pq: PQ, sql: Sql) -> None:
    backend = pq._db.driver.backend_pid(pq._db.conn)
    sql("select pg_terminate_backend(%s, 30000)", (backend,))


def closed(pq: PQ, sql: Sql) -> None:
    pq._db.conn.close()


@pytest.mark.parametrize("lose", [terminated, closed])
def test_who_waits_is_told_that_the_connection_is_lost(
    single: PQ, sql: Sql, lose: Callable[[PQ, Sql], None]
) -> None:
    waiter = Background(single["a"].get, timeout=HOUR)
    wait_until(lambda: waits_aside(single), "the waiter")
    lose(single, sql)
    with pytest.raises(ConnectionLost):
        waiter.result()


@pytest.mark.parametrize("kind", KINDS)
def test_all_who_wait_are_told_at_once_although_they_listen_elsewhere(dsn: str, sql: Sql, kind: str) -> None:
    """The server ends the connection that was given, and not the one that listens."""
    with make_pq(kind, dsn, poll_interval=HOUR) as pq:
        waiters = [Background(pq["a"].get, timeout=HOUR) for _ in range(3)]
        wait_until(lambda: waits_aside(pq, 3), "that all wait")
        terminated(pq, sql)
        for waiter in waiters:
            with pytest.raises(ConnectionLost):
                waiter.result()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded, use of fork")
def test_a_child_leaves_it_alone(single: PQ, dsn: str) -> None:
    waiter = Background(single["a"].get, timeout=HOUR)
    wait_until(lambda: waits_aside(single), "the waiter")
    session = single._table._room.leader.session
    child = os.fork()
    if child == 0:
        try:
            single.close()
            gc.collect()
        finally:
            os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    with PQ(dsn) as other:
        other["a"].put(1)
    assert waiter.result().data == 1
    assert single._table._room.leader.session is session
