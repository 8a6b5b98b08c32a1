"""``with queue as cursor``: one transaction, on all kinds of connections."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import psycopg2
import psycopg2.extras
import pytest
from support import Background, wait_until
from support.driver import driver, either, only_psycopg2
from support.kinds import SEVERAL, WITH_PSYCOPG3, make_pq

from pq import PQ, DecodeError, Queue, TableMissing

Sql = Callable[..., list[tuple[Any, ...]]]


@pytest.fixture(params=WITH_PSYCOPG3)
def any_pq(request: pytest.FixtureRequest, dsn: str) -> Iterator[PQ]:
    with make_pq(request.param, dsn) as pq:
        yield pq


@pytest.fixture(params=SEVERAL)
def many_pq(request: pytest.FixtureRequest, dsn: str) -> Iterator[PQ]:
    """A PQ with more than one connection."""
    with make_pq(request.param, dsn) as pq:
        yield pq


@pytest.fixture(autouse=True)
def effects(request: pytest.FixtureRequest, sql: Sql) -> Callable[[], list[Any]]:
    """The table `effects (what text)`, for what a job does; call it for its rows."""
    sql("create table effects (what text)")
    return lambda: [what for (what,) in sql("select what from effects order by what")]


def waiting_jobs(sql: Sql) -> list[tuple[str, Any]]:
    return sql("select q_name, data from queue where dequeued_at is null order by id")


def data_of(job: Any) -> Any:
    assert job is not None
    return job.data


# -- as a whole


def test_all_that_is_done_inside_is_committed_at_the_end(any_pq: PQ, sql: Sql, effects: Any) -> None:
    here, there = any_pq["here"], any_pq["there"]
    for n in range(3):
        here.put(n)
    with here as cursor:
        assert [data_of(here.get()) for _ in range(2)] == [0, 1]
        there.put("first")
        here.put("again")
        cursor.execute("insert into effects values ('done')")
        assert data_of(there.get()) == "first"
        there.put("second")
        assert len(here) == 2
        assert waiting_jobs(sql) == [("here", 0), ("here", 1), ("here", 2)]
        assert effects() == []
    assert waiting_jobs(sql) == [("here", 2), ("here", "again"), ("there", "second")]
    assert effects() == ["done"]


def test_an_exception_rolls_all_of_it_back(any_pq: PQ, sql: Sql, effects: Any) -> None:
    queue = any_pq["a"]
    queue.put(1)
    before = sql("select * from queue")
    for error in (ZeroDivisionError, KeyboardInterrupt, GeneratorExit):
        with pytest.raises(error), queue as cursor:
            assert data_of(queue.get()) == 1
            cursor.execute("insert into effects values ('done')")
            any_pq["b"].put(2)
            raise error
        assert sql("select * from queue") == before
        assert effects() == []
    assert data_of(queue.get(block=False)) == 1


def test_an_sql_error_that_was_caught_inside_is_raised_at_the_end(any_pq: PQ, sql: Sql) -> None:
    queue = any_pq["a"]
    with pytest.raises(either("InFailedSqlTransaction")), queue as cursor:
        queue.put(1)
        with pytest.raises(either("DivisionByZero")):
            cursor.execute("select 1 / 0")
    assert waiting_jobs(sql) == []
    queue.put(2)
    assert waiting_jobs(sql) == [("a", 2)]


def test_an_error_of_the_commit_is_raised(any_pq: PQ, sql: Sql, effects: Any) -> None:
    sql("alter table effects add unique (what) deferrable initially deferred")
    queue = any_pq["a"]
    with pytest.raises(either("UniqueViolation")), queue as cursor:
        queue.put(1)
        cursor.execute("insert into effects values ('twice'), ('twice')")
    assert waiting_jobs(sql) == []
    queue.put(2)
    assert waiting_jobs(sql) == [("a", 2)]


def test_a_failed_begin_leaves_nothing_behind(any_pq: PQ, sql: Sql) -> None:
    queue = any_pq["a"]
    queue.cursor_kwargs = {"no_such_argument": 1}
    with pytest.raises(TypeError), queue:
        pytest.fail("there is no cursor")
    queue.put(1)
    assert waiting_jobs(sql) == [("a", 1)]


def test_a_job_that_cannot_be_decoded_leaves_the_transaction_usable(any_pq: PQ, sql: Sql, effects: Any) -> None:
    queue = any_pq["a/pickle"]
    sql("insert into queue (q_name, data) values ('a', '\"no pickle\"')")
    with queue as cursor:
        with pytest.raises(DecodeError):
            queue.get()
        cursor.execute("insert into effects values ('done')")
        any_pq["b"].put(1)
    assert waiting_jobs(sql) == [("a", "no pickle"), ("b", 1)]
    assert effects() == ["done"]


def test_a_job_can_be_changed_inside(any_pq: PQ, sql: Sql) -> None:
    queue = any_pq["a"]
    queue.put(1)
    with pytest.raises(ZeroDivisionError), queue:
        queue.get().data = 2
        raise ZeroDivisionError
    assert waiting_jobs(sql) == [("a", 1)]
    with queue:
        job = queue.get()
        job.data = [3, 4]
        assert job.size == len("[3, 4]")
    assert sql("select data from queue") == [([3, 4],)]


# -- a transaction belongs to a thread and a connection


def test_a_second_pq_on_the_connection_takes_part(connect: Any, sql: Sql) -> None:
    conn = connect()
    one, two, three = PQ(conn), PQ(conn), Queue("c", conn=conn)
    with pytest.raises(ZeroDivisionError), one["a"]:
        one["a"].put(1)
        two["b"].put(2)
        three.put(3)
        raise ZeroDivisionError
    assert waiting_jobs(sql) == []
    with one["a"], two["b"]:
        two["b"].put(2)
        three.put(3)
        assert waiting_jobs(sql) == []
    assert waiting_jobs(sql) == [("b", 2), ("c", 3)]


@pytest.mark.parametrize("commit", [True, False])
def test_what_the_application_did_before_is_part_of_it(connect: Any, effects: Any, commit: bool) -> None:
    conn = connect()
    queue = PQ(conn)["a"]
    conn.cursor().execute("insert into effects values ('before')")
    try:
        with queue:
            queue.put(1)
            1 / commit
    except ZeroDivisionError:
        assert not commit
    assert effects() == ["before"] * commit
    assert len(queue) == commit


def test_threads_have_transactions_of_their_own_on_one_queue(many_pq: PQ, sql: Sql, effects: Any) -> None:
    queue = many_pq["a"]
    for n in range(6):
        queue.put(n)
    together = threading.Barrier(3)

    def work(fail: bool) -> list[Any]:
        with queue as cursor:
            together.wait(30)
            got = [data_of(queue.get(block=False)) for _ in range(2)]
            cursor.execute("insert into effects values (%s)", ("failed" if fail else "done",))
            together.wait(30)  # all of them hold their jobs at the same time
            if fail:
                raise ZeroDivisionError
        return got

    threads = [Background(work, fail) for fail in (True, False, False)]
    with pytest.raises(ZeroDivisionError):
        threads[0].result()
    got = sorted(threads[1].result() + threads[2].result())
    assert effects() == ["done", "done"]
    left = [data for _, data in waiting_jobs(sql)]
    assert len(left) == 2
    assert sorted(got + left) == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("call", [lambda queue: queue.put("other"), lambda queue: queue.get(block=False), len])
def test_on_a_single_connection_another_threads_call_waits(connect: Any, sql: Sql, call: Any) -> None:
    queue = PQ(connect())["a"]
    entered = threading.Event()

    def other() -> Any:
        entered.set()
        return call(queue)

    with pytest.raises(ZeroDivisionError), queue:
        queue.put("mine")
        thread = Background(other)
        entered.wait(30)
        thread.join(0.1)
        assert thread.is_alive()
        raise ZeroDivisionError
    thread.result()
    assert [data for (data,) in sql("select data from queue")] in ([], ["other"])  # "mine" went with its transaction


def test_a_single_connection_serves_many_threads(connect: Any, sql: Sql, effects: Any) -> None:
    queue = PQ(connect())["a"]
    for n in range(40):
        queue.put(n)

    def work() -> None:
        while True:
            with queue as cursor:
                job = queue.get(block=False)
                if job is None:
                    return
                cursor.execute("insert into effects values (%s)", (f"{job.data:02}",))

    for thread in [Background(work) for _ in range(8)]:
        thread.result()
    assert effects() == [f"{n:02}" for n in range(40)]


def test_a_claim_inside_keeps_no_other_job_from_others(any_pq: PQ, dsn: str) -> None:
    queue = any_pq["a"]
    scheduled = [queue.put(f"due {n}", schedule_at="0s", expected_at="1h") for n in range(3)]
    urgent = [queue.put(f"ready {n}", expected_at="1m") for n in range(3)]
    with PQ(dsn) as other, queue:
        assert queue.get(block=False).id == urgent[0]
        got = [other["a"].get(block=False) for _ in range(6)]
        assert [job and job.id for job in got] == [*urgent[1:], *scheduled, None]


@pytest.mark.parametrize("schedule_at", [None, "0s"])
def test_jobs_taken_inside_are_skipped_by_others(pq: PQ, dsn: str, schedule_at: Any) -> None:
    for n in range(4):
        pq["a"].put(n, schedule_at=schedule_at)
    with PQ(dsn) as other, pq["a"], other["a"]:
        got = [data_of(each["a"].get(block=False)) for each in (pq, other, pq, other)]
        assert got == [0, 1, 2, 3]


@pytest.mark.parametrize("schedule_at", [None, "0s"])
def test_a_job_is_back_at_once_when_its_process_is_killed(dsn: str, sql: Sql, pq: PQ, schedule_at: Any) -> None:
    pq["a"].put({"n": 1}, schedule_at=schedule_at, expected_at="1h")
    before = sql("select * from queue")
    program = """
import sys, time
from pq import PQ
queue = PQ(sys.argv[1])["a"]
with queue as cursor:
    print(queue.get().data["n"], flush=True)
    cursor.execute("insert into effects values ('half')")
    time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", program, dsn], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "1\n"
            assert pq["a"].get(block=False) is None
        finally:
            os.kill(process.pid, signal.SIGKILL)
    with pq["a"]:
        job = wait_until(lambda: pq["a"].get(block=False), "the job's return")
        assert job.data == {"n": 1}
        assert sql("select * from queue") == before
    assert sql("select * from effects") == []


# -- nested


def test_an_inner_with_is_a_savepoint(any_pq: PQ, sql: Sql, effects: Any) -> None:
    queue, other = any_pq["a"], any_pq["b"]
    queue.put(1)
    queue.put(2)
    with queue as outer:
        assert data_of(queue.get()) == 1
        outer.execute("insert into effects values ('outer')")
        for inner in (queue, other):
            with pytest.raises(either("DivisionByZero")), inner as cursor:
                assert data_of(queue.get()) == 2
                cursor.execute("insert into effects values ('lost')")
                with inner:
                    other.put("lost")
                cursor.execute("select 1 / 0")
        with other as cursor:
            cursor.execute("insert into effects values ('inner')")
            other.put("kept")
    assert effects() == ["inner", "outer"]
    assert waiting_jobs(sql) == [("a", 2), ("b", "kept")]


def test_the_outer_failure_undoes_the_inner_success(any_pq: PQ, sql: Sql, effects: Any) -> None:
    with pytest.raises(ZeroDivisionError), any_pq["a"]:
        with any_pq["a"] as cursor:
            any_pq["a"].put(1)
            cursor.execute("insert into effects values ('inner')")
        raise ZeroDivisionError
    assert waiting_jobs(sql) == []
    assert effects() == []


def test_a_failed_savepoint_does_not_stay(pq: PQ) -> None:
    with pytest.raises(either("InvalidSavepointSpecification")), pq["a"] as cursor:
        with pytest.raises(ZeroDivisionError), pq["a"]:
            raise ZeroDivisionError
        cursor.execute("release savepoint pq_0")


# -- isolation


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
@pytest.mark.parametrize("autocommit", [True, False])
def test_jobs_go_through_at_higher_isolation_levels(
    connect: Any, sql: Sql, effects: Any, level: str, autocommit: bool
) -> None:
    conn = connect()
    driver.set_session(conn, isolation_level=level, autocommit=autocommit)
    session = driver.session(conn)
    queue = PQ(conn)["a"]
    queue.put("plain")
    assert data_of(queue.get(block=False)) == "plain"
    queue.put(1)
    queue.put(2, schedule_at="0s")
    with queue as cursor:
        cursor.execute("show transaction_isolation")
        assert cursor.fetchone()[0].replace(" ", "_") in ("repeatable_read", "serializable")
        assert [data_of(queue.get(block=False)) for _ in range(2)] == [1, 2]
        any_other = PQ(conn)["b"]
        any_other.put(3)
        cursor.execute("insert into effects values ('done')")
    assert waiting_jobs(sql) == [("b", 3)]
    assert effects() == ["done"]
    assert driver.session(conn) == session


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
def test_a_serialization_failure_surfaces_as_itself(connect: Any, pq: PQ, effects: Any, level: str) -> None:
    conn = connect()
    driver.set_session(conn, isolation_level=level)
    queue = PQ(conn)["a"]
    pq["a"].put(1)
    pq["a"].put(2)
    with pytest.raises(either("SerializationFailure")), queue as cursor:
        cursor.execute("insert into effects values ('half')")
        assert len(queue) == 2  # the snapshot
        assert data_of(pq["a"].get()) == 1
        queue.get(block=False)
    assert effects() == []
    assert data_of(queue.get(block=False)) == 2


@pytest.mark.parametrize("attribute", ["isolation_level", "readonly", "deferrable"])
@pytest.mark.parametrize("autocommit", [True, False])
def test_the_connection_keeps_its_settings(connect: Any, sql: Sql, attribute: str, autocommit: bool) -> None:
    conn = connect()
    value = "repeatable read" if attribute == "isolation_level" else False
    driver.set_session(conn, **{attribute: value}, autocommit=autocommit)

    def settings() -> tuple[Any, ...]:
        with conn.cursor() as cursor:
            cursor.execute("select name, setting from pg_settings where name like 'default_transaction%' order by 1")
            return driver.session(conn), cursor.fetchall()

    before = settings()
    conn.rollback()
    queue = PQ(conn)["a"]
    queue.put(1)
    assert data_of(queue.get(timeout=1)) == 1
    assert queue.get(timeout=0) is None
    with pytest.raises(ZeroDivisionError), queue:
        queue.put(2)
        raise ZeroDivisionError
    with pytest.raises(TableMissing):
        PQ(conn, table="missing")["a"].put(1)
    assert settings() == before
    assert len(sql("select from queue")) == 1


def test_at_read_committed_a_get_that_waits_inside_sees_what_is_put_meanwhile(any_pq: PQ, dsn: str) -> None:
    queue = any_pq["a"]
    waiting = threading.Event()

    def work() -> Any:
        with queue:
            assert queue.get(block=False) is None
            waiting.set()
            return data_of(queue.get(timeout=30))

    thread = Background(work)
    assert waiting.wait(30)
    with PQ(dsn) as other:
        other["a"].put("hello")
    assert thread.result() == "hello"


# -- the application's open transaction


@pytest.fixture
def fails_once(sql: Sql) -> None:
    """The first insert into the queue table fails as if another transaction had been in the way."""
    sql("create sequence attempts")
    sql("""
        create function fail_once() returns trigger language plpgsql as $$ begin
            if nextval('attempts') = 1 then raise exception using errcode = 'serialization_failure'; end if;
            return new;
        end $$
    """)
    sql("create trigger fail_once before insert on queue for each row execute function fail_once()")


@pytest.mark.usefixtures("fails_once")
def test_a_put_of_its_own_is_repeated_after_a_serialization_failure(any_pq: PQ, sql: Sql) -> None:
    any_pq["a"].put(1)
    assert waiting_jobs(sql) == [("a", 1)]


@pytest.mark.usefixtures("fails_once")
@pytest.mark.parametrize("autocommit", [True, False])
def test_what_the_application_did_before_is_not_lost_in_silence(connect: Any, effects: Any, autocommit: bool) -> None:
    conn = connect()
    conn.autocommit = autocommit
    with conn.cursor() as cursor:
        if autocommit:
            cursor.execute("begin")
        cursor.execute("insert into effects values ('mine')")
    with pytest.raises(either("SerializationFailure")):
        PQ(conn)["a"].put(1)
    conn.rollback()
    assert effects() == []


# -- psycopg2's `with conn:`, where it sends BEGIN in autocommit mode, too


def assert_it_rolls_back(conn: Any, effects: Any) -> None:
    """After a block that has the effect ``done``: the connection is not in autocommit mode, where a rollback does
    nothing."""
    conn.cursor().execute("insert into effects values ('undone')")
    conn.rollback()
    assert effects() == ["done"]


@only_psycopg2
def test_a_call_within_the_connections_own_block_commits(connect: Any, sql: Sql, effects: Any) -> None:
    conn = connect()
    queue = PQ(conn)["a"]
    with suppress(ZeroDivisionError), conn:
        queue.put(1)
        assert not conn.autocommit and waiting_jobs(sql) == [("a", 1)]
        conn.cursor().execute("insert into effects values ('undone')")
        raise ZeroDivisionError
    with conn:
        assert data_of(queue.get(timeout=0)) == 1
        conn.cursor().execute("insert into effects values ('done')")
    assert not conn.autocommit and waiting_jobs(sql) == [] and effects() == ["done"]


@only_psycopg2
def test_an_error_within_the_connections_own_block_leaves_it_as_it_was(connect: Any, sql: Sql, effects: Any) -> None:
    conn = connect()
    queue = PQ(conn)["a"]
    queue.put(1)
    sql("alter table queue rename to away")
    with conn:
        with pytest.raises(TableMissing):
            queue.put(2)
        assert not conn.autocommit
        conn.cursor().execute("insert into effects values ('done')")
    assert_it_rolls_back(conn, effects)


@only_psycopg2
def test_a_thread_that_begins_to_wait_meanwhile_leaves_the_connection_as_it_was(connect: Any, effects: Any) -> None:
    conn = connect()
    queue = PQ(conn)["a"]
    with conn:
        waiter = Background(queue.get, timeout=0.2)
        assert waiter.result() is None
        assert not conn.autocommit
        conn.cursor().execute("insert into effects values ('done')")
    assert_it_rolls_back(conn, effects)


@only_psycopg2
@pytest.mark.parametrize("undone", [False, True])
def test_in_autocommit_mode_a_call_belongs_to_the_connections_own_block(
    connect: Any, sql: Sql, effects: Any, undone: bool
) -> None:
    conn = connect()
    conn.autocommit = True
    queue = PQ(conn)["a"]
    with suppress(ZeroDivisionError), conn:
        queue.put(1)
        conn.cursor().execute("insert into effects values ('mine')")
        if undone:
            raise ZeroDivisionError
    assert waiting_jobs(sql) == ([] if undone else [("a", 1)]) and effects() == ([] if undone else ["mine"])
    queue.clear()
    with conn:
        with queue:  # which ends the transaction, as it does with what the application has begun
            queue.put(2)
        assert waiting_jobs(sql) == [("a", 2)]
        with suppress(ZeroDivisionError), queue:
            queue.put(3)
            raise ZeroDivisionError
        conn.cursor().execute("insert into effects values ('more')")
        assert "more" not in effects()
    assert waiting_jobs(sql) == [("a", 2)] and "more" in effects()


# -- cursors


FACTORIES = [psycopg2.extras.NamedTupleCursor, psycopg2.extras.DictCursor, psycopg2.extras.RealDictCursor]


def column_a(row: Any) -> Any:
    return row.a if hasattr(row, "a") else row["a"]


@only_psycopg2
@pytest.mark.parametrize("factory", FACTORIES)
def test_any_cursor_factory_of_the_connection(connect: Any, factory: Any) -> None:
    pq = PQ(connect(cursor_factory=factory))
    pq.create()
    queue = pq["a"]
    queue.put(1)
    queue.put(2)
    assert (len(queue), list(pq), "a" in pq) == (2, ["a"], True)
    assert data_of(queue.get()) == 1
    with queue as cursor:
        job = queue.get()
        job.data = 3
        cursor.execute("select data as a from %s where id = %s", (queue.table, job.id))
        assert column_a(cursor.fetchone()) == 3
    assert queue.get(timeout=0.01) is None


@only_psycopg2
@pytest.mark.parametrize("factory", FACTORIES)
def test_cursor_kwargs_are_for_the_cursor(pq: PQ, factory: Any) -> None:
    class Mine(Queue):
        cursor_kwargs = {"cursor_factory": factory}

    pq.queue_class = Mine
    for block in (pq["a"], pq["a"]._transaction()):
        pq["a"].put(1)
        with block as cursor, pq["a"] as inner:
            assert data_of(pq["a"].get()) == 1
            for each in (cursor, inner):
                assert isinstance(each, factory)
                each.execute("select 1 as a")
                assert column_a(each.fetchone()) == 1


def test_transaction_by_its_name_of_1_9_1(any_pq: PQ, sql: Sql) -> None:
    queue = any_pq["a"]
    with queue._transaction() as cursor:
        queue.put(1)
        cursor.execute("select count(*) from %s", (queue.table,))
        assert cursor.fetchone() == (1,)
        assert waiting_jobs(sql) == []
    assert waiting_jobs(sql) == [("a", 1)]


@pytest.mark.parametrize("kind", ["dsn", "connection", "pool"])
def test_a_queue_by_itself(dsn: str, sql: Sql, kind: str) -> None:
    if kind == "pool":
        queue = Queue("a", pool=driver.pool(1, 2, dsn))
    else:
        queue = Queue("a", conn=dsn if kind == "dsn" else driver.connect(dsn))
    try:
        queue.put(1)
        with queue as cursor:
            job = queue.get()
            cursor.execute("select dequeued_at is not null from %s where id = %s", (queue.table, job.id))
            assert cursor.fetchone() == (True,)
        assert waiting_jobs(sql) == []
        assert queue.get(timeout=0.01) is None
    finally:
        queue.close()


@pytest.mark.parametrize("how", ["commit", "rollback"])
@pytest.mark.parametrize("fails", [False, True])
def test_a_transaction_that_is_ended_by_sql_is_told(
    dsn: str, caplog: pytest.LogCaptureFixture, how: str, fails: bool
) -> None:
    with PQ(dsn) as pq:
        with suppress(ZeroDivisionError), pq["a"] as cursor:
            pq["a"].put("before")
            cursor.execute(how)
            pq["a"].put("behind")
            assert fails == bool(fails and 1 / 0)
        assert len(pq["a"]) == (2 if how == "commit" else 1)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "within its block" in caplog.text
