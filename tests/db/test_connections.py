"""Where connections come from: DSNs, pools, single connections."""

from __future__ import annotations

import logging
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any

import pytest
from psycopg2.extensions import TRANSACTION_STATUS_IDLE, make_dsn, parse_dsn
from psycopg2.pool import PoolError, SimpleConnectionPool, ThreadedConnectionPool
from support import PATIENCE, Background, execute, wait_until
from support.driver import driver, only_psycopg2
from support.kinds import WITH_PSYCOPG3, make_pq, terminate
from support.signals import ctrl_c

from pq import PQ, CommitUnknown, ConnectionFailed, ConnectionLost, DecodeError, Queue, TableMissing
from pq._db.sources import dsn as own
from pq.sql import BESIDE

Sql = Callable[..., list[tuple[Any, ...]]]


def jobs(sql: Sql) -> list[Any]:
    return [data for (data,) in sql("select data from queue order by id")]


def got(queue: Queue, **kwargs: Any) -> Any:
    job = queue.get(**kwargs)
    return job and job.data


# -- DSNs


@pytest.mark.parametrize("form", ["key=value", "postgresql", "postgres", "postgresql+psycopg2", "postgres+psycopg2"])
def test_forms_of_a_dsn(dsn: str, form: str) -> None:
    url = "{form}://{user}@{host}:{port}/{dbname}?connect_timeout=7".format(form=form, **parse_dsn(dsn))
    with PQ(dsn if form == "key=value" else url) as pq:
        pq["a"].put(1)
        assert got(pq["a"]) == 1


@pytest.mark.parametrize("given", ["PQ_DSN", "DATABASE_URL", "PG*"])
def test_the_environment_says_where(dsn: str, monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    nowhere = "postgresql://nobody@127.0.0.1:1/nowhere"
    for name in ("PQ_DSN", "DATABASE_URL", "PGHOST", "PGPORT", "PGUSER", "PGDATABASE"):
        monkeypatch.delenv(name, raising=False)
    if given == "PG*":
        for name, value in parse_dsn(dsn).items():
            monkeypatch.setenv("PGDATABASE" if name == "dbname" else f"PG{name.upper()}", value)
    else:
        monkeypatch.setenv("PGPORT", "1")
        monkeypatch.setenv("DATABASE_URL", nowhere)
        monkeypatch.setenv(given, dsn)
    with PQ() as pq:
        pq["a"].put(1)
        assert got(pq["a"]) == 1


def test_parameters_of_the_dsn_win_over_those_of_pq(dsn: str) -> None:
    with PQ(make_dsn(dsn, application_name="mine", keepalives_idle=77)) as pq, pq["a"] as cursor:
        parameters = driver.parameters(cursor.connection)
        assert parameters["application_name"] == "mine"
        assert parameters["keepalives_idle"] == "77"
        assert parameters["tcp_user_timeout"] == "5000"


@pytest.mark.parametrize("argument", [3, object(), b"dbname=x"])
@pytest.mark.parametrize("option", ["conn", "pool"])
def test_something_else_is_refused(option: str, argument: Any) -> None:
    with pytest.raises(TypeError, match=type(argument).__name__):
        PQ(**{option: argument})


def test_a_function_that_returns_the_dsn(make_database: Callable[..., str]) -> None:
    """It is called for each connection: where passwords change, the next one has the new one."""
    dsns, asked = [make_database(), make_database()], []

    def current() -> str:
        asked.append(1)
        return dsns[0]

    with PQ(current) as pq:
        assert not asked
        pq["a"].put(1)
        assert pq["a"].conn is None
        count = len(asked)
        pq["a"].put(2)
        assert len(asked) == count  # that connection is kept
        others = "from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"
        execute(dsns.pop(0), f"select pg_terminate_backend(pid, 30000) {others}")
        wait_until(lambda: len(pq["a"]) == 0, "the other database")
        assert pq["b"].get(timeout=0.1) is None  # listens there
    with PQ(lambda: "no dsn") as pq, pytest.raises(ValueError, match="DSN"):
        pq["a"].put(1)


def test_nothing_is_connected_before_it_is_needed() -> None:
    with PQ("host=127.0.0.1 port=1") as pq:
        queue = pq["a"]
        with pytest.raises(ConnectionFailed) as caught:
            queue.put(1)
        assert isinstance(caught.value, driver.OperationalError)


# -- secrets

SECRET = "s3cr3t"


def all_of(error: BaseException) -> str:
    """What a log would show of it."""
    return repr(error) + "".join(traceback.format_exception(error))


@pytest.mark.parametrize(
    "dsn",
    [
        f"user=x pass word={SECRET}",
        f"host=x password={SECRET} nonsense",
        f"postgresql://x:{SECRET}@[::1/db",
        f"postgresql://x:%zz{SECRET}@host/db",
        f"postgresql://x:p@{SECRET}@host/db",
        f"postgresql://x:p@h,{SECRET}@host/db",
        f"postgresql://x:p@1:{SECRET}@host/db",
        f"postgresql://x:{SECRET}/y@host/db",
        f"postgresql+psycopg2://x:{SECRET}@host/db?nonsense=1",
    ],
)
@pytest.mark.parametrize("option", ["conn", "listen_dsn"])
def test_a_malformed_dsn_is_refused_without_quoting_it(option: str, dsn: str) -> None:
    with pytest.raises(ValueError, match="DSN") as caught:
        PQ(**{"conn": "", option: dsn})
    assert SECRET not in all_of(caught.value)


def test_a_socket_folder_may_have_an_at_sign(tmp_path: Any) -> None:
    with PQ(f"host='{tmp_path}/me@home' port=5432") as pq, pytest.raises(ConnectionFailed, match="me@home"):
        len(pq["a"])


@pytest.mark.parametrize(
    "wrong", [{"port": "1"}, {"host": "no-such-host.invalid"}, {"user": "nobody_here"}, {"dbname": "nowhere"}]
)
def test_no_password_is_shown_when_connecting_fails(
    dsn: str, wrong: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with PQ(make_dsn(dsn, **{"password": SECRET, **wrong})) as pq:
        with pytest.raises(ConnectionFailed) as caught:
            pq["a"].get(timeout=0)
        assert SECRET not in all_of(caught.value) + repr(pq) + repr(pq["a"]) + caplog.text


def test_no_payload_is_shown(dsn: str, sql: Sql, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with PQ(dsn, encode=lambda data: f"{{{data}") as pq, pytest.raises(ValueError, match="valid JSON") as invalid:
        pq["a"].put(SECRET)
    with make_pq("dsn", dsn) as pq:
        sql("insert into queue (q_name, data) values ('a', %s)", (f'"{SECRET}"',))
        with pytest.raises(DecodeError) as undecodable:
            pq["a/pickle"].get()
        assert SECRET not in repr(pq["a"].get())
        waiting = Background(pq["b"].get, timeout=1)
        pq["a"].put(SECRET)
        terminate(dsn)
        assert got(pq["a"]) == SECRET
        told = ""
        try:
            waiting.result()
        except (ConnectionLost, CommitUnknown) as error:  # its session ended in the middle of a claim
            told = all_of(error)
    assert SECRET not in all_of(invalid.value) + all_of(undecodable.value) + caplog.text + told


# -- connections of pq's own


def test_a_process_that_waits_closes_those_that_it_does_not_need(
    dsn: str, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own, "KEEP_IDLE", 0.0)
    count = "select count(*) from pg_stat_activity where application_name = 'waits'"
    with PQ(make_dsn(dsn, application_name="waits"), poll_interval=0.1) as pq:
        threads = [Background(pq["a"].get, timeout=PATIENCE) for _ in range(8)]
        wait_until(lambda: sql(count) == [(1,)], "all but the one that listens are closed")
        for number in range(8):
            pq["a"].put(number)
        assert {thread.result().data for thread in threads} == set(range(8))


def test_never_more_connections_than_allowed(dsn: str, sql: Sql) -> None:
    counts = []

    def work() -> None:
        with pq["a"] as cursor:
            assert pq["a"].get(block=False)
            cursor.execute("select count(*) from pg_stat_activity where application_name = 'bounded'")
            counts.append(cursor.fetchone()[0])
        assert pq["a"].get(block=False)

    sql("insert into queue (q_name, data) select 'a', '1' from generate_series(1, 60)")
    with PQ(make_dsn(dsn, application_name="bounded"), max_connections=3) as pq:
        for thread in [Background(work) for _ in range(30)]:
            thread.result()
        assert len(pq["a"]) == 0
    assert len(counts) == 30
    assert max(counts) == 3


def test_max_connections_is_at_least_one(dsn: str) -> None:
    with pytest.raises(ValueError, match="max_connections"):
        PQ(dsn, max_connections=0)


def test_close_lets_work_end_and_turns_the_others_away(dsn: str, sql: Sql) -> None:
    pq = PQ(dsn, max_connections=1)
    with pq["a"]:
        pq["a"].put(1)
        waiting = Background(pq["a"].put, 2)
        pq.close()
        with pytest.raises(ConnectionLost, match="closed"):
            waiting.result()
    with pytest.raises(ConnectionLost, match="closed"):
        pq["a"].put(3)
    assert jobs(sql) == [1]


@pytest.mark.parametrize("kind", [*WITH_PSYCOPG3, "autocommit pool"])
def test_work_changes_nothing_about_the_session(dsn: str, kind: str) -> None:
    def settings() -> Any:
        with pq["a"] as cursor:
            cursor.execute("select name, setting from pg_settings where source = 'session' order by name")
            conn, found = cursor.connection, cursor.fetchall()
        return found, conn.autocommit, conn.isolation_level

    with make_pq(kind, dsn) as pq:
        before = settings()
        pq["a"].put(1)
        assert got(pq["a"], timeout=1) == 1
        assert got(pq["a"], timeout=0.01) is None
        with pytest.raises(TableMissing):
            PQ(pq._db.conn, pq._db.pool, table="missing")["a"].put(1)
        assert settings() == before


# -- the application's own connections and pools


@only_psycopg2
@pytest.mark.parametrize("pool_class", [SimpleConnectionPool, ThreadedConnectionPool])
def test_many_threads_and_pqs_share_a_small_pool(dsn: str, sql: Sql, pool_class: Any) -> None:
    pool = pool_class(1, 2, dsn)
    pqs = [PQ(pool=pool) for _ in range(3)]

    def work(n: int) -> None:
        queue = pqs[n % 3]["a"]
        for _ in range(5):
            with queue:
                assert queue.get(block=False)
            queue.put("after")

    sql("insert into queue (q_name, data, expected_at) select 'a', '1', now() from generate_series(1, 60)")
    try:
        for thread in [Background(work, n) for n in range(12)]:
            thread.result()
        assert jobs(sql) == [1] * 60 + ["after"] * 60
        assert len(pqs[0]["a"]) == 60
    finally:
        pool.closeall()


def test_pqs_on_one_pool_take_part_in_one_transaction(dsn: str, sql: Sql) -> None:
    pool = driver.pool(1, 1, dsn)
    with PQ(pool=pool) as one:
        two = PQ(pool=pool)
        with pytest.raises(ZeroDivisionError), one["a"]:
            two["b"].put(1)
            raise ZeroDivisionError
        assert jobs(sql) == []


def test_a_pool_that_the_application_has_emptied_says_so(dsn: str) -> None:
    pool = driver.pool(1, 1, dsn)
    with PQ(pool=pool) as pq:
        conn = pool.getconn()
        pool.timeout = 0.1  # psycopg_pool's
        with pytest.raises(driver.PoolError, match=r"exhausted|couldn.t get a connection"):
            pq["a"].put(1)
        pool.putconn(conn)
        pq["a"].put(2)
        assert got(pq["a"]) == 2


def test_a_get_inside_a_transaction_needs_no_second_connection_of_the_pool(dsn: str, pq: PQ) -> None:
    waiting = threading.Event()

    def work() -> Any:
        with pooled["a"]:
            assert pooled["a"].get(block=False) is None
            waiting.set()
            return got(pooled["a"], timeout=60)

    with PQ(pool=driver.pool(1, 1, dsn), poll_interval=60) as pooled:
        thread = Background(work)
        assert waiting.wait(30)
        pq["a"].put(1)
        assert thread.result(patience=20) == 1


@only_psycopg2
def test_a_pool_that_is_closed_inside_a_transaction(dsn: str, sql: Sql) -> None:
    pool = driver.pool(1, 2, dsn)
    pq = PQ(pool=pool)
    with pytest.raises(ConnectionLost), pq["a"]:
        pq["a"].put(1)
        pool.closeall()
    with pytest.raises(PoolError, match="closed"):
        pq["a"].put(2)
    assert jobs(sql) == []


@pytest.mark.parametrize("commit", [True, False])
def test_a_connection_goes_back_to_its_pool_as_it_came(dsn: str, commit: bool) -> None:
    pool = driver.pool(1, 1, dsn)
    with PQ(pool=pool) as pq:
        for _ in range(3):
            try:
                with pq["a"]:
                    pq["a"].put(1)
                    1 / commit
            except ZeroDivisionError:
                pass
            conn = pool.getconn()
            assert driver.status(conn) == TRANSACTION_STATUS_IDLE
            assert not conn.autocommit
            pool.putconn(conn)


def test_close_closes_what_was_given(dsn: str, connect: Any) -> None:
    conn, pool = connect(), driver.pool(1, 1, dsn)
    PQ(conn).close()
    PQ(pool=pool).close()
    assert conn.closed
    assert pool.closed


def test_a_connection_that_the_application_closed(connect: Any) -> None:
    conn = connect()
    queue = PQ(conn)["a"]
    conn.close()
    for call in (lambda: queue.put(1), queue.get, lambda: len(queue), queue.__enter__):
        with pytest.raises(ConnectionLost, match="closed") as caught:
            call()
        assert isinstance(caught.value, driver.OperationalError)


# -- what may change under us


@pytest.mark.parametrize("kind", WITH_PSYCOPG3)
def test_after_discard_all(dsn: str, kind: str) -> None:
    with make_pq(kind, dsn, poll_interval=0.2) as pq:
        queue = pq["a"]
        queue.put(1)
        assert got(queue) == 1
        waiting = Background(got, queue, timeout=30)
        conn = pq._db.source.acquire()
        pq._db.driver.committed(conn, pq._db.driver.run, "discard all")
        pq._db.source.release(conn)
        queue.put(2)
        assert waiting.result() == 2
        with queue:
            queue.put(3)
            assert got(queue) == 3


@pytest.mark.parametrize("kind", WITH_PSYCOPG3)
def test_after_the_table_was_made_anew(dsn: str, sql: Sql, kind: str) -> None:
    with make_pq(kind, dsn) as pq:
        queue = pq["a"]
        queue.put(1)
        assert got(queue, timeout=1) == 1
        sql("drop table queue")
        for call in (lambda: queue.put(1), queue.get, lambda: len(queue), lambda: list(pq)):
            with pytest.raises(TableMissing, match="create"):
                call()
        with pytest.raises(TableMissing), queue:
            queue.get()
        pq.create()
        waiting = Background(got, queue, timeout=30)
        queue.put(2)
        assert waiting.result() == 2


@pytest.mark.parametrize("kind", WITH_PSYCOPG3)
def test_the_search_path_decides_where_no_schema_is_given(dsn: str, sql: Sql, kind: str) -> None:
    sql("create schema other")
    with PQ(dsn, schema="other") as pq:
        pq.create()
    options = make_dsn(dsn, options="-c search_path=other")
    with make_pq(kind, dsn) as here, make_pq(kind, options) as there, make_pq(kind, options, schema="public") as fixed:
        for n, pq in enumerate((here, there, fixed)):
            pq["a"].put(n)
        assert jobs(sql) == [0, 2]
        assert sql("select data from other.queue") == [(1,)]
        assert (got(there["a"]), got(fixed["a"]), got(here["a"])) == (1, 0, 2)


def test_the_search_path_of_a_connection_may_change(connect: Any, sql: Sql) -> None:
    conn = connect()
    queue = PQ(conn)["a"]
    queue.put("public")
    sql("create schema other")
    PQ(connect(), schema="other").create()
    conn.cursor().execute("set search_path to other")
    conn.commit()
    queue.put("other")
    assert jobs(sql) == ["public"]
    assert got(queue) == "other"
    waiting = Background(got, queue, timeout=30)
    with PQ(connect(), schema="other") as pq:
        pq["a"].put("again")
    assert waiting.result() == "again"


# -- names

NAMES = {
    "Queue": ("public", "queue"),
    "app.Queue": ("app", "queue"),
    'we"ird': ("public", 'we"ird'),
    "it's": ("public", "it's"),
    "100%": ("public", "100%"),
    "%s %(queue)s": ("public", "%s %(queue)s"),
    "two words": ("public", "two words"),
    "a.b.c": ("public", "a.b.c"),
    "a.b c": ("public", "a.b c"),
    ".": ("public", "."),
    "Wörter ✓": ("public", "Wörter ✓"),
    ":table; select": ("public", ":table; select"),
    "select": ("public", "select"),
    "1st": ("public", "1st"),
    "back\\slash $1 $$ {0}": ("public", "back\\slash $1 $$ {0}"),
    "x" * 63: ("public", "x" * 63),
}


def test_names_of_tables(empty_dsn: str) -> None:
    for table in NAMES:
        with PQ(empty_dsn, table=table, poll_interval=60) as pq:
            pq.create()
            pq.create()
            queue = pq["a"]
            with queue as cursor:
                job_id = queue.put(1)
                cursor.execute("select data from %s where id = %s", (queue.table, job_id))
                assert cursor.fetchone() == (1,)
            assert (len(queue), list(pq), "a" in pq) == (1, ["a"], True)
            job = queue.get()
            job.data = 2
            waiting = Background(got, queue, timeout=30)
            queue.put(3, schedule_at="0s")
            assert waiting.result() == 3
    tables = "select relnamespace::regnamespace::text, relname from pg_class where relkind = 'r' and oid >= 16384"
    found = set(execute(empty_dsn, tables))
    assert found >= set(NAMES.values())
    assert len(found) == len(NAMES) * (1 + len(BESIDE))


def test_names_of_schemas(empty_dsn: str) -> None:
    for schema in ("App", 'my "own" 100% schema', "a.b"):
        with PQ(empty_dsn, schema=schema, table="a.b") as pq:
            pq.create()
            pq["a"].put(1)
            assert got(pq["a"]) == 1
    found = execute(empty_dsn, "select schemaname from pg_tables where tablename = 'a.b' order by 1")
    assert found == [("a.b",), ("app",), ('my "own" 100% schema',)]


def test_two_tables_in_one_schema(dsn: str, sql: Sql) -> None:
    for other in ("jobs", "queue_2", "Queue 2", "queue%"):
        with PQ(dsn, poll_interval=60) as one, PQ(dsn, table=other, poll_interval=60) as two:
            two.create()
            waiting = [Background(got, pq["a"], timeout=30) for pq in (one, two)]
            two["a"].put("two")
            assert waiting[1].result() == "two"
            assert waiting[0].is_alive()
            one["a"].put("one")
            assert waiting[0].result() == "one"
            assert "two" not in jobs(sql)
            for pq in (one, two):
                pq["b"].put("later", schedule_at="1h")
                assert pq["b"].get(block=False) is None


# -- Ctrl-C


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("kind", WITH_PSYCOPG3)
def test_an_interrupted_statement_leaves_nothing_behind(
    dsn: str, connect: Any, sql: Sql, kind: str, inside: bool
) -> None:
    blocker = connect()
    blocker.cursor().execute("lock table queue in exclusive mode")
    with make_pq(kind, dsn) as pq:
        # libpq can't be interrupted: the exception comes when the statement is done
        with ctrl_c(lambda: sql("select from pg_locks where not granted"), then=blocker.rollback):
            if inside:
                with pq["a"]:
                    pq["a"].put(1)
            else:
                pq["a"].put(1)
        assert jobs(sql) == [] or not inside
        Background(pq["a"].put, 2).result()
        pq["a"].put(3)
        assert jobs(sql)[-2:] == [2, 3]
        with pq["a"] as cursor:
            conn = cursor.connection
        assert conn.autocommit == (kind == "dsn" or kind.startswith("autocommit"))


@pytest.mark.parametrize("kind", ["dsn", "pool", "connection"])
def test_an_interrupted_wait_for_a_connection_takes_none(dsn: str, sql: Sql, kind: str) -> None:
    if kind == "pool" and driver.package == "psycopg":
        pytest.skip("psycopg_pool gives the next connection to who was interrupted")
    over, entered = threading.Event(), threading.Event()

    def occupy() -> None:
        with pq["a"]:
            entered.set()
            over.wait(30)

    options = {"max_connections": 1} if kind == "dsn" else {}
    with make_pq(kind, dsn, **options) as pq:
        if kind == "pool":
            driver.limit(pq._db.pool, 1)
        thread = Background(occupy)
        assert entered.wait(30)
        waiting = threading.main_thread().ident
        with ctrl_c(lambda: "acquire" in names_of_calls(waiting)):
            pq["a"].put(1)
        others = [Background(pq["a"].put, n) for n in range(3)]
        over.set()
        for other in (thread, *others):
            other.result()
        pq["a"].put(3)
        assert sorted(jobs(sql)) == [0, 1, 2, 3]


def names_of_calls(thread: int | None) -> list[str]:
    frame = sys._current_frames().get(thread or 0)
    return [summary.name for summary in traceback.extract_stack(frame)]
