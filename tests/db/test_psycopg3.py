"""psycopg 3: what is special to it. That it does what psycopg2 does is seen in the other tests, by their kinds and with
``PQ_TEST_DRIVER=psycopg``."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from support import Background, execute, kinds, wait_until
from support.driver import BOTH
from support.kinds import make_pq

import pq as this_library
from pq import PQ, ConnectionFailed, ConnectionLost, Queue, TableMissing
from pq._db.drivers import detect as drivers

if not (find_spec("psycopg") and find_spec("psycopg_pool")):
    pytest.skip("psycopg 3 is not installed", allow_module_level=True)

import psycopg
import psycopg_pool
from psycopg import sql as composed
from psycopg.rows import dict_row, namedtuple_row

Sql = Callable[..., list[tuple[Any, ...]]]


@pytest.fixture
def conn(dsn: str) -> Iterator[psycopg.Connection[Any]]:
    """As psycopg makes it."""
    with psycopg.connect(dsn) as made:
        yield made
        made.rollback()


@pytest.fixture
def pool(dsn: str) -> Iterator[psycopg_pool.ConnectionPool]:
    with psycopg_pool.ConnectionPool(dsn, min_size=1, max_size=2, open=True) as made:
        yield made


@pytest.fixture
def preferred(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if psycopg2 were not installed."""
    monkeypatch.setattr(drivers, "PREFERRED", ("psycopg",))


def data_of(job: Any) -> Any:
    return job and job.data


# -- which driver

PROGRAM = """
import sys
dsn, missing, other = sys.argv[1:]
for name in missing.split():
    sys.modules[name] = None  # can't be imported
from pq import PQ
if other == "psycopg2":
    import psycopg2, psycopg2.pool
    conn, pool = psycopg2.connect(dsn), psycopg2.pool.ThreadedConnectionPool(1, 2, dsn)
else:
    import psycopg, psycopg_pool
    conn, pool = psycopg.connect(dsn), psycopg_pool.ConnectionPool(dsn, min_size=1, open=True)
for pq in (PQ(dsn), PQ(conn), PQ(pool=pool)):
    with pq:
        queue = pq["a"]
        queue.put(other)
        assert queue.get(timeout=0.1).data == other
        assert queue.get(timeout=0.01) is None
        with queue as cursor:
            queue.put(other)
            assert type(cursor).__module__.split(".")[0] in (other, "psycopg2")
        queue.get(lease="1m").done()
assert not any(sys.modules.get(name) for name in missing.split())
print("done")
"""


@pytest.mark.parametrize(
    ("missing", "other"),
    [("psycopg2", "psycopg"), ("psycopg psycopg_pool", "psycopg2")],
    ids=["without psycopg2", "without psycopg"],
)
def test_one_driver_is_enough(dsn: str, missing: str, other: str) -> None:
    command = [sys.executable, "-W", "error", "-c", PROGRAM, dsn, missing, other]
    env = {**os.environ, "PYTHONPATH": str(Path(this_library.__file__).parents[1])}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=env)
    assert (done.stdout, done.stderr) == ("done\n", "")


def test_psycopg_is_not_imported_for_psycopg2_nor_the_other_way_round(dsn: str) -> None:
    for mine, others in (("psycopg2", "psycopg"), ("psycopg", "psycopg2")):
        program = f"import sys, {mine}\nfrom pq import PQ\nPQ({mine}.connect(sys.argv[1])).close()\n"
        program += f"assert {others!r} not in sys.modules"
        env = {**os.environ, "PYTHONPATH": str(Path(this_library.__file__).parents[1])}
        subprocess.run([sys.executable, "-c", program, dsn], check=True, timeout=60, env=env)


def test_without_any_driver_a_dsn_is_an_import_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drivers, "PREFERRED", ("no_such_driver",))
    with pytest.raises(ImportError, match="no_such_driver"):
        PQ("dbname=x")


def test_what_is_asynchronous_is_refused(dsn: str) -> None:
    connection = psycopg.AsyncConnection.__new__(psycopg.AsyncConnection)
    with pytest.raises(TypeError, match="not AsyncConnection"):
        PQ(connection)
    with pytest.raises(TypeError, match="not AsyncConnectionPool"):
        PQ(pool=psycopg_pool.AsyncConnectionPool(dsn, open=False))


def test_pipeline_mode_is_refused_before_anything_is_done(conn: Any, pq: PQ) -> None:
    pq["a"].put(1)
    job = pq["a"].get(lease="1m")
    deeds = [lambda: pq["a"].put(2, conn=conn), lambda: job.done(conn=conn), lambda: pq["a"].clear(conn=conn)]
    for deed in deeds:
        with pytest.raises(psycopg.NotSupportedError, match="pipeline mode"), conn.pipeline():
            deed()
        conn.commit()
    assert pq["a"].counts()["running"] == 1
    pq["a"].put(2, conn=conn)


@pytest.mark.usefixtures("preferred")
def test_times_are_read_whatever_style_the_database_has(dsn: str, sql: Sql) -> None:
    sql("do $$ begin execute format('alter database %I set datestyle to german', current_database()); end $$")
    with PQ(dsn) as pq:
        pq["a"].put(1)
        assert pq["a"].get().data == 1


def test_both_drivers_side_by_side(dsn: str, conn: Any, pool: Any) -> None:
    """PQ on either, on the same queues, in the same thread, one in the block of the other."""
    with PQ(BOTH["psycopg2"].connect(dsn)) as old:
        for here, there in ((old, PQ(conn)), (PQ(pool=pool), old), (PQ(conn), PQ(pool=pool))):
            with here["a"]:
                here["a"].put(1)
                there["b"].put(2)
                assert data_of(there["a"].get(block=False)) is None
            assert data_of(there["a"].get()) == 1
            assert data_of(here["b"].get()) == 2


@pytest.mark.usefixtures("preferred")
def test_errors_are_also_those_of_psycopg(dsn: str, empty_dsn: str) -> None:
    with PQ("host=127.0.0.1 port=1") as pq, pytest.raises(ConnectionFailed) as failed:
        len(pq["a"])
    with PQ(empty_dsn) as pq, pytest.raises(TableMissing, match=r"call create\(\)") as missing:
        pq["a"].put(1)
    with PQ(dsn) as pq, pytest.raises(ConnectionLost) as lost, pq["a"]:
        pq["a"].put(1)
        terminate(dsn)
    assert isinstance(failed.value, psycopg.OperationalError)
    assert isinstance(missing.value, psycopg.ProgrammingError)
    assert isinstance(lost.value, psycopg.OperationalError)


def terminate(dsn: str) -> None:
    execute(
        dsn,
        "select pg_terminate_backend(pid, 30000) from pg_stat_activity"
        " where datname = current_database() and pid <> pg_backend_pid() and backend_type = 'client backend'",
    )


# -- cursors


@pytest.mark.parametrize("cursor", ["Cursor", "ClientCursor", "RawCursor", "ServerCursor"])
@pytest.mark.parametrize("row", [dict_row, namedtuple_row])
def test_the_factories_of_the_connection_do_not_disturb_pq(conn: Any, cursor: str, row: Any) -> None:
    conn.row_factory = row
    if cursor == "ServerCursor":
        conn.server_cursor_factory = psycopg.ServerCursor
    else:
        conn.cursor_factory = getattr(psycopg, cursor)
    queue = PQ(conn)["a"]
    queue.put_many([{"%": 1}, 2])
    assert len(queue) == 2
    assert data_of(queue.get()) == {"%": 1}
    with queue as mine:
        assert data_of(queue.get()) == 2
        mine.execute("select 1 as a")
        found = mine.fetchone()
        assert (found["a"] if row is dict_row else found.a) == 1


def test_arguments_of_the_cursor(conn: Any) -> None:
    queue = Queue("a", conn=conn, cursor_kwargs={"row_factory": dict_row})
    with queue as cursor:
        queue.put(1)
        assert cursor.execute("select data from queue").fetchone() == {"data": 1}


def test_the_name_of_the_table_in_sql_of_ones_own(conn: Any) -> None:
    queue = PQ(conn)["a"]
    queue.put(1)
    with queue as cursor:
        cursor.execute(composed.SQL("select count(*) from {}").format(queue.table))
        assert cursor.fetchone() == (1,)
        with psycopg.ClientCursor(conn) as bound:
            assert bound.execute("select count(*) from %s", (queue.table,)).fetchone() == (1,)


@pytest.mark.usefixtures("preferred")
def test_the_cursor_of_a_connection_of_pqs_own_binds_as_psycopg2_does(dsn: str) -> None:
    with PQ(dsn) as pq, pq["a"] as cursor:
        pq["a"].put(1)
        cursor.execute("set local work_mem = '1MB'; select count(*) from %s where q_name = %s", (pq["a"].table, "a"))
        assert cursor.nextset()
        assert cursor.fetchone() == (1,)


@pytest.mark.usefixtures("preferred")
def test_nothing_is_prepared_behind_our_back(dsn: str) -> None:
    with PQ(dsn) as pq:
        for _ in range(20):
            pq["a"].put(1)
            assert pq["a"].get()
        with pq["a"] as cursor:
            cursor.execute("select name from pg_prepared_statements")
            assert all(name.startswith("pq_") for (name,) in cursor.fetchall())


# -- transactions


@pytest.mark.parametrize("level", list(psycopg.IsolationLevel))
def test_a_block_on_an_autocommit_connection_has_its_settings(conn: Any, level: Any) -> None:
    conn.autocommit, conn.isolation_level, conn.read_only, conn.deferrable = True, level, True, False
    show = ["transaction_isolation", "transaction_read_only", "transaction_deferrable"]
    with PQ(conn)["a"] as cursor:
        found = [cursor.execute(f"show {name}").fetchone()[0] for name in show]
    assert found == [level.name.lower().replace("_", " "), "on", "off"]


def test_in_the_applications_block_psycopg_refuses_the_commit(conn: Any, sql: Sql) -> None:
    queue = PQ(conn)["a"]
    with pytest.raises(psycopg.ProgrammingError, match="Transaction"), conn.transaction():
        queue.put(1)
    assert sql("select count(*) from queue") == [(0,)]


def test_what_a_signal_handler_raises_leaves_the_connection_usable(conn: Any, dsn: str, sql: Sql) -> None:
    """psycopg itself sees to KeyboardInterrupt, but to nothing else."""

    class Enough(Exception):
        pass

    def enough(*args: object) -> None:
        raise Enough

    pq = PQ(conn)
    pid = conn.info.backend_pid
    before = signal.signal(signal.SIGUSR1, enough)
    try:
        with BOTH["psycopg2"].connect(dsn) as blocker, blocker.cursor() as cursor:
            cursor.execute("lock queue in exclusive mode")

            def interrupt() -> None:
                waits = "select 1 from pg_stat_activity where pid = %s and wait_event_type = 'Lock'"
                wait_until(lambda: execute(dsn, waits, (pid,)), "the wait for the lock")
                os.kill(os.getpid(), signal.SIGUSR1)

            thread = Background(interrupt)
            with pytest.raises(Enough):
                pq["a"].put(1)
            thread.result()
        blocker.close()
    finally:
        signal.signal(signal.SIGUSR1, before)
    pq["a"].put(2)
    assert sql("select data from queue") == [(2,)]


# -- notifications


def test_others_go_to_the_applications_handlers(conn: Any, sql: Sql) -> None:
    heard: list[str] = []
    conn.autocommit = True  # else pq waits on a connection of its own, and reads nothing from this one
    conn.add_notify_handler(lambda notify: heard.append(notify.channel))
    with PQ(conn, poll_interval=0.2)["a"] as cursor:
        cursor.execute("listen mine")
    pq = PQ(conn, poll_interval=60)
    waiter = Background(pq["a"].get, timeout=30)
    wait_until(lambda: sql("select 1 from pg_locks where locktype = 'advisory'"), "the gate")
    sql("notify mine")
    wait_until(lambda: heard, "the notification")
    sql("insert into queue (q_name, data) values ('a', '1')")
    assert data_of(waiter.result()) == 1
    assert heard == ["mine"]


def test_others_come_out_of_notifies(conn: Any, sql: Sql) -> None:
    if not hasattr(conn, "_notifies_backlog"):
        pytest.skip("this psycopg forgets what comes while nobody is in notifies()")
    conn.autocommit = True
    conn.execute("listen mine")
    pq = PQ(conn, poll_interval=60)
    waiter = Background(pq["a"].get, timeout=30)
    wait_until(lambda: sql("select 1 from pg_locks where locktype = 'advisory'"), "the gate")
    sql("notify mine")
    sql("insert into queue (q_name, data) values ('a', '1')")
    assert data_of(waiter.result()) == 1
    assert [notify.channel for notify in conn.notifies(timeout=1, stop_after=1)] == ["mine"]


# -- pools


def test_a_pool_that_is_closed_inside_a_block(dsn: str, sql: Sql) -> None:
    """psycopg_pool leaves the connections that are out alone until they come back."""
    pool = psycopg_pool.ConnectionPool(dsn, min_size=1, open=True)
    pq = PQ(pool=pool)
    with pq["a"] as cursor:
        pq["a"].put(1)
        pool.close()
    assert cursor.connection.closed
    with pytest.raises(psycopg_pool.PoolClosed):
        pq["a"].put(2)
    assert sql("select data from queue") == [(1,)]


def test_a_pool_that_is_not_open_says_so(dsn: str) -> None:
    with pytest.raises(psycopg_pool.PoolClosed, match="open"):
        PQ(pool=psycopg_pool.ConnectionPool(dsn, open=False))["a"].put(1)


def test_lost_connections_of_a_pool_are_replaced(dsn: str, sql: Sql) -> None:
    with make_pq("psycopg 3 pool", dsn) as pq:
        for number in range(3):
            pq["a"].put(number)
            kinds.terminate(dsn)
        pq["a"].put(3)
    assert sql("select count(*) from queue") == [(4,)]


def test_a_pool_of_one_connection_for_many_threads(dsn: str, sql: Sql) -> None:
    with psycopg_pool.ConnectionPool(dsn, min_size=1, max_size=1, open=True) as pool:
        queue = PQ(pool=pool)["a"]

        def work(number: int) -> None:
            with queue:
                queue.put(number)
            queue.put(number)

        for thread in [Background(work, number) for number in range(20)]:
            thread.result()
        assert len(queue) == 40


@pytest.mark.parametrize("pool_class", [psycopg_pool.ConnectionPool, psycopg_pool.NullConnectionPool])
def test_waiting_on_a_pool(dsn: str, sql: Sql, pool_class: Any) -> None:
    with pool_class(dsn, min_size=0, max_size=2, open=True) as pool:
        pq = PQ(pool=pool, poll_interval=60)
        waiter = Background(pq["a"].get, timeout=30)
        wait_until(lambda: sql("select 1 from pg_locks where locktype = 'advisory'"), "the gate")
        pq["a"].put(1)
        assert data_of(waiter.result()) == 1
        pq.close()


def test_a_pool_without_a_limit_has_a_second_connection(dsn: str) -> None:
    with psycopg_pool.NullConnectionPool(dsn, open=True) as pool:
        source = PQ(pool=pool)._db.source
        assert source.capacity == math.inf
        reserved = source.reserve()
        assert reserved is not None
        reserved.close()
    with psycopg_pool.NullConnectionPool(dsn, max_size=1, open=True) as pool:
        assert PQ(pool=pool)._db.source.reserve() is None


def test_an_interrupt_in_the_look_for_notifications_leaves_no_lock(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal may be served when `acquire` has returned; not so in a "with"."""
    with PQ(psycopg.connect(dsn)) as pq:
        assert pq["a"].get(timeout=0.01) is None  # from now on it listens there
        conn = pq._db.conn
        lock = conn.lock

        class Interrupted:
            locked, __enter__, __exit__ = lock.locked, lock.__enter__, lock.__exit__

            def acquire(self, *args: Any, **kwargs: Any) -> bool:
                lock.acquire(*args, **kwargs)
                raise KeyboardInterrupt

        monkeypatch.setattr(conn, "lock", Interrupted())
        with suppress(KeyboardInterrupt):
            pq["a"].put(1)
        monkeypatch.undo()
        assert not lock.locked()
        assert Background(pq["a"].put, 2).result() > 0
