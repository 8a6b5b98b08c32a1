"""What happens when connections break: nothing is lost in silence, nothing happens twice."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from psycopg2.extensions import parse_dsn
from support import Background, execute, wait_until
from support.driver import driver
from support.kinds import ALL, SEVERAL, SINGLE, make_pq, terminate
from support.proxy import Proxy, cut_after, cut_before, dropped, swallow

import pq._db.execute
import pq._db.sources.dsn
from pq import PQ, CommitUnknown, ConnectionFailed, ConnectionLost, Queue
from pq._db.watchdog import Watchdog
from pq.embedded import Embedded

Sql = Callable[..., list[tuple[Any, ...]]]

@pytest.fixture
def proxy(dsn: str) -> Iterator[Proxy]:
    with Proxy(dsn) as made:
        yield made


@pytest.fixture(params=SEVERAL)
def proxied(request: pytest.FixtureRequest, proxy: Proxy) -> Iterator[PQ]:
    """A PQ that goes through the proxy, on connections that can be replaced; one of them is open."""
    with make_pq(request.param, proxy.dsn) as made:
        assert len(made["a"]) == 0
        yield made


@pytest.fixture(params=SINGLE)
def single(request: pytest.FixtureRequest, proxy: Proxy) -> Iterator[PQ]:
    with make_pq(request.param, proxy.dsn) as made:
        yield made


def jobs(sql: Sql) -> list[Any]:
    return [data for (data,) in sql("select data from queue where dequeued_at is null order by id")]


def with_put(queue: Queue) -> None:
    with queue as cursor:
        queue.put(2)
        cursor.execute("select 1")


# call, the text of its first statement, the jobs afterwards
CALLS: dict[str, tuple[Callable[[Queue], Any], str, list[int]]] = {
    "put": (lambda queue: queue.put(2), "insert into", [1, 2]),
    "get": (lambda queue: queue.get(block=False).id, "skip locked", []),
    "len": (len, "count(*)", [1]),
    "with": (with_put, "begin", [1, 2]),
}


# -- connections that can be replaced


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("kind", [*SEVERAL, "autocommit pool"])
def test_idle_connections_that_were_dropped_are_replaced(dsn: str, sql: Sql, kind: str, call: str) -> None:
    function, _, expected = CALLS[call]
    with make_pq(kind, dsn) as pq:
        pq["a"].put(1)
        with pq["a"]:
            Background(len, pq["a"]).result()  # on a second connection
        terminate(dsn)
        function(pq["a"])
        assert jobs(sql) == expected


@pytest.fixture
def doubtful(monkeypatch: pytest.MonkeyPatch) -> None:
    """However short ago it has answered, a connection is not taken to be alive."""
    monkeypatch.setattr(pq._db.execute, "HOT", 0)


@pytest.mark.usefixtures("doubtful")
@pytest.mark.parametrize("call", CALLS)
def test_one_that_is_dropped_in_the_same_instant_too(
    proxied: PQ, proxy: Proxy, dsn: str, sql: Sql, call: str
) -> None:
    function, text, expected = CALLS[call]
    proxied["a"].put(1)
    done = proxy.on(text, dropped(lambda: terminate(dsn)))
    function(proxied["a"])
    assert done.is_set()
    assert jobs(sql) == expected


@pytest.mark.parametrize("call", CALLS)
def test_a_farewell_whose_hangup_is_still_to_come(proxied: PQ, proxy: Proxy, dsn: str, sql: Sql, call: str) -> None:
    function, _, expected = CALLS[call]
    proxied["a"].put(1)
    proxy.keep_open = True
    terminate(dsn)
    function(proxied["a"])
    assert jobs(sql) == expected


@pytest.mark.usefixtures("doubtful")
@pytest.mark.parametrize("cut", [cut_before, cut_after])
def test_begin_is_repeated(proxied: PQ, proxy: Proxy, sql: Sql, cut: Any) -> None:
    done = proxy.on("begin", cut)
    with_put(proxied["a"])
    assert done.is_set()
    assert jobs(sql) == [2]


@pytest.mark.parametrize("cut", [cut_before, cut_after])
def test_a_block_just_after_an_answer_begins_with_its_first_statement(dsn: str, sql: Sql, cut: Any) -> None:
    """If the connection is lost then, nothing was done, and the next block has another connection."""
    with Proxy(dsn) as proxy, make_pq("dsn", proxy.dsn) as pq:
        pq["a"].put(1)
        with pq["a"]:  # on a connection that has just answered
            pass
        done = proxy.on("begin; ", cut)
        with pytest.raises(ConnectionLost):
            with_put(pq["a"])
        assert done.is_set()
        assert jobs(sql) == [1]
        with_put(pq["a"])
        assert jobs(sql) == [1, 2]


@pytest.mark.parametrize("cut", [cut_before, cut_after])
def test_a_put_is_repeated_as_long_as_its_commit_was_not_sent(dsn: str, proxy: Proxy, sql: Sql, cut: Any) -> None:
    # drivers give such a connection a BEGIN and a COMMIT around each statement
    with PQ(pool=driver.pool(1, 1, proxy.dsn, {"isolation_level": "repeatable read"})) as pq:
        done = proxy.on("insert into", cut)
        pq["a"].put(1)
        assert done.is_set()
        assert jobs(sql) == [1]
        pq["a"].put(2)  # which asks for the session, in a transaction of its own
        proxy.on("commit", cut)
        with pytest.raises(CommitUnknown):
            pq["a"].put(3)
        assert jobs(sql) == ([1, 2] if cut is cut_before else [1, 2, 3])


def test_without_a_server_to_connect_to(dsn: str, make_database: Any) -> None:
    elsewhere, name = make_database(table=False), parse_dsn(dsn)["dbname"]
    with make_pq("dsn", dsn) as own, make_pq("pool", dsn) as pooled:
        own["a"].put(1)
        pooled._db.pool.timeout = 1  # psycopg_pool's
        execute(elsewhere, f"alter database {name} allow_connections false")
        try:
            execute(
                elsewhere, "select pg_terminate_backend(pid, 30000) from pg_stat_activity where datname = %s", (name,)
            )
            for _ in range(3):
                with pytest.raises(ConnectionFailed, match="not currently accepting connections"):
                    own["a"].put(2)
                with pytest.raises(driver.OperationalError, match=r"not currently accepting|couldn't get a connection"):
                    pooled["a"].put(2)
        finally:
            execute(elsewhere, f"alter database {name} allow_connections true")
        pooled._db.pool.timeout = 30
        for pq in (own, pooled):
            pq["a"].put(3)
        assert [job.data for job in (own["a"].get(), own["a"].get(), pooled["a"].get())] == [1, 3, 3]


# -- commits


def outcome(call: Callable[[], Any]) -> type[BaseException] | None:
    try:
        call()
    except (CommitUnknown, ConnectionLost) as error:
        assert isinstance(error, driver.OperationalError)
        return CommitUnknown if isinstance(error, CommitUnknown) else ConnectionLost
    return None


@pytest.mark.parametrize("cut", [cut_before, cut_after])
@pytest.mark.parametrize("kind", ALL)
def test_a_transaction_cut_at_its_commit_is_in_doubt(dsn: str, proxy: Proxy, sql: Sql, kind: str, cut: Any) -> None:
    with make_pq(kind, proxy.dsn) as pq:
        pq["a"].put(1)
        done = proxy.on("commit", cut)
        with pytest.raises(CommitUnknown), pq["a"]:
            pq["b"].put(2)
            pq["a"].get().data = 3
        assert done.is_set()
        assert jobs(sql) == ([1] if cut is cut_before else [2])
        if kind in SINGLE:
            with pytest.raises(ConnectionLost):
                pq["b"].put(4)
        else:
            pq["b"].put(4)
            assert jobs(sql)[-1] == 4


@pytest.mark.parametrize("text", ["insert into", "commit"])
@pytest.mark.parametrize("hot", [0, 1000])
@pytest.mark.parametrize("kind", [*ALL, "autocommit pool"])
def test_a_put_never_happens_twice(
    dsn: str, sql: Sql, monkeypatch: pytest.MonkeyPatch, kind: str, hot: float, text: str
) -> None:
    monkeypatch.setattr(pq._db.execute, "HOT", hot)
    for n, cut in enumerate((cut_before, cut_after)):
        with Proxy(dsn) as proxy, make_pq(kind, proxy.dsn) as made:
            made["a"].put("before")
            done = proxy.on(text, cut)
            error = outcome(lambda queue=made["a"], n=n: queue.put(n))
        count = jobs(sql).count(n)
        if not done.is_set():  # no COMMIT of its own
            assert (error, count) == (None, 1)
        elif error is None:  # it was repeated, since COMMIT had not been sent
            assert (text, hot, count, kind in SINGLE) == ("insert into", 0, 1, False)
        else:
            assert (error, count) == (CommitUnknown, cut is cut_after)


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("text", ["skip locked", "insert into"])
def test_a_connection_that_is_dropped_inside(dsn: str, proxy: Proxy, sql: Sql, kind: str, text: str) -> None:
    with make_pq(kind, proxy.dsn) as pq:
        pq["a"].put(1)
        with pytest.raises(ConnectionLost), pq["a"]:
            proxy.on(text, dropped(lambda: terminate(dsn)))
            pq["a"].get()
            pq["a"].put(2)
        assert jobs(sql) == [1]


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("seen", [True, False])
def test_a_connection_that_broke_inside_was_not_committed(dsn: str, sql: Sql, kind: str, seen: bool) -> None:
    with make_pq(kind, dsn) as pq:
        with pytest.raises(ConnectionLost), pq["a"] as cursor:
            pq["a"].put(1)
            terminate(dsn)
            if seen:
                with pytest.raises(driver.OperationalError):
                    cursor.execute("select 1")
        assert jobs(sql) == []
        assert (outcome(lambda: pq["a"].put(2)) is None) == (kind in SEVERAL)


@pytest.mark.parametrize("nested", [False, True])
def test_no_job_is_lost_when_the_connection_breaks_while_one_is_worked_on(dsn: str, pq: PQ, nested: bool) -> None:
    pq["a"].put(1)
    with make_pq("dsn", dsn) as victim:
        with pytest.raises(ConnectionLost), victim["a"] as cursor:
            assert victim["a"].get().data == 1
            if nested:
                with victim["b"]:
                    terminate(dsn)
                    driver.poll(cursor.connection)
            terminate(dsn)
        assert pq["a"].get(block=False).data == 1


# -- single connections


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("instant", ["before", "same"])
def test_a_dropped_single_connection_is_an_error(
    single: PQ, proxy: Proxy, dsn: str, sql: Sql, call: str, instant: str
) -> None:
    function, text, _ = CALLS[call]
    single["a"].put(1)
    if instant == "before":
        terminate(dsn)
    else:
        proxy.on(text, dropped(lambda: terminate(dsn)))
    error = outcome(lambda: function(single["a"]))
    assert error is ConnectionLost or (error is CommitUnknown and instant == "same" and call in ("put", "get"))
    assert jobs(sql) == [1]
    with pytest.raises(ConnectionLost, match="closed"):
        function(single["a"])


# -- silence


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pq._db.execute, "GRACE", 0.2)
    monkeypatch.setattr(pq._db.sources.dsn, "SILENCE", 0.1)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("inside", [False, True])
def test_a_get_does_not_wait_for_ever_for_a_silent_server(proxy: Proxy, sql: Sql, inside: bool) -> None:
    def get() -> Any:
        if not inside:
            return queue.get(timeout=0.1)
        with queue:
            return queue.get(timeout=0.1)

    with PQ(proxy.dsn) as pq:
        queue = pq["a"]
        queue.put(1)
        proxy.on("skip locked", swallow)
        with pytest.raises((ConnectionLost, CommitUnknown)):
            Background(get).result()
        assert jobs(sql) == [1]
        assert get().data == 1


@pytest.mark.usefixtures("impatient")
def test_a_get_gives_up_when_a_lock_is_in_the_way(dsn: str, connect: Any, sql: Sql) -> None:
    blocker = connect()
    with PQ(dsn) as pq:
        pq["a"].put(1)
        blocker.cursor().execute("lock table queue")
        assert Background(pq["a"].get, timeout=0.1).result() is None
        blocker.rollback()
        assert jobs(sql) == [1]  # and nobody takes it after all
        assert pq["a"].get().data == 1


@pytest.mark.usefixtures("impatient")
def test_a_get_that_takes_long_succeeds_in_the_end(dsn: str, sql: Sql) -> None:
    sql("create function pause() returns trigger language plpgsql as 'begin perform pg_sleep(1); return new; end'")
    sql("create trigger pause before update on queue for each row execute function pause()")
    with PQ(dsn) as pq:
        pq["a"].put(1)
        assert wait_until(lambda: pq["a"].get(timeout=0), "the job").data == 1


@pytest.mark.usefixtures("impatient")
def test_a_get_gives_up_when_no_connection_is_free(dsn: str) -> None:
    with PQ(dsn, max_connections=1) as pq:
        pq["a"].put(1)
        with pq["b"]:
            assert Background(pq["a"].get, timeout=0.1).result() is None
        assert pq["a"].get().data == 1


def test_the_watchdog_cuts_nobody_else(dsn: str, proxy: Proxy) -> None:
    watchdog = Watchdog()
    silent, innocent = driver.connect(proxy.dsn), driver.connect(dsn)
    proxy.on("hush", swallow)
    try:
        with watchdog.guard(innocent, 30), watchdog.guard(silent, 0.1):
            with pytest.raises(driver.OperationalError):
                silent.cursor().execute("select 'hush'")
            silent.close()
            heir = driver.connect(dsn)  # has the descriptor of the other now
        for conn in (innocent, heir):
            conn.cursor().execute("select 1")
            conn.close()
    finally:
        watchdog.close()


def test_a_closed_watchdog_has_a_thread_for_as_long_as_something_is_guarded(dsn: str, proxy: Proxy) -> None:
    """What is under way when a PQ is closed must neither hang nor keep a thread."""
    watchdog = Watchdog()
    proxy.on("hush", swallow)
    conn = driver.connect(proxy.dsn)
    with watchdog.guard(conn, 0.2), pytest.raises(driver.OperationalError):
        watchdog.close()
        Background(conn.cursor().execute, "select 'hush'").result()
    conn.close()
    wait_until(lambda: watchdog._loop.ident is None, "the end of its thread", 10)
    with closing(driver.connect(dsn)) as conn:
        with watchdog.guard(conn, 60):
            assert watchdog._loop.ident is not None
        wait_until(lambda: watchdog._loop.ident is None, "the end of its second thread", 10)


# -- the server itself


@contextmanager
def folder() -> Iterator[Path]:
    """Short, and with a way in for the account that the server runs as."""
    path = Path(tempfile.mkdtemp(prefix="pq-"))
    path.chmod(0o755)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


@pytest.mark.usefixtures("doubtful")  # the server may be back within a second
def test_the_server_is_started_anew() -> None:
    with (
        folder() as path,
        Embedded(path / "data") as server,
        make_pq("dsn", server.dsn) as own,
        make_pq("pool", server.dsn) as pooled,
    ):
        own.create()
        expected: list[int] = []
        for how in (signal.SIGKILL, signal.SIGQUIT, signal.SIGINT):
            for pq in (own, pooled):
                assert len(pq["a"]) == len(expected)
            os.kill(int((path / "data" / "data" / "postmaster.pid").read_text().split()[0]), how)
            wait_until(lambda: is_down(server.dsn), "the end of the server")
            server.start()
            for pq in (own, pooled):
                expected.append(len(expected))
                pq["a"].put(expected[-1])
        with own["a"]:
            assert [own["a"].get(block=False).data for _ in expected] == expected


def is_down(dsn: str) -> bool:
    try:
        driver.connect(dsn).close()
    except driver.OperationalError:
        return True
    return False
