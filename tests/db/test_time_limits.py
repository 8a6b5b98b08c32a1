"""No call waits for ever for a server that stands still, and none is cut short that the server works on."""

from __future__ import annotations

import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from psycopg2.extensions import make_dsn
from support import Background, execute, wait_until
from support.driver import driver
from support.frozen import frozen
from support.kinds import make_pq
from support.proxy import Proxy, swallow

import pq._db.execute
import pq._db.sources.base
import pq._db.sources.dsn
import pq._db.watchdog
from pq import PQ, CommitUnknown, ConnectionFailed, ConnectionLost, PQError, StatementTimeout
from pq.embedded import Embedded

Sql = Callable[..., list[tuple[Any, ...]]]

#: Seconds in which a call must be over: the limit, the silence, and an attempt to connect.
BOUND = 25.0


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pq._db.execute, "GRACE", 0.5)
    monkeypatch.setattr(pq._db.sources.base, "SILENCE", 0.5)
    monkeypatch.setattr(pq._db.sources.dsn, "SILENCE", 0.5)
    monkeypatch.setattr(pq._db.sources.dsn, "ANSWER_TIMEOUT", 1.0)
    monkeypatch.setattr(pq._db.watchdog, "QUESTION_TIMEOUT", 2.0)


@pytest.fixture
def proxy(dsn: str) -> Iterator[Proxy]:
    with Proxy(dsn) as made:
        yield made


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """With a short path, for sockets, and a way in for the account that the server runs as."""
    path = Path(tempfile.mkdtemp(prefix="pq-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path, ignore_errors=True)


def block(pq: PQ) -> None:
    with pq["a"]:
        pq["a"].put(2)


def lease(pq: PQ) -> None:
    job = pq["leased"].get(lease="1h", timeout=0)
    assert job is not None
    job.done()


INSERT, CLAIM = "insert into|execute pq_", "skip locked|execute pq_"

# call -> the text of a statement of it that the server does not answer any more
CALLS: dict[str, tuple[Callable[[PQ], Any], str]] = {
    "put": (lambda pq: pq["a"].put(2), INSERT),
    "put_many": (lambda pq: pq["a"].put_many(range(2000)), INSERT),
    "get": (lambda pq: pq["a"].get(timeout=0), CLAIM),
    "get without end": (lambda pq: pq["a"].get(timeout=None), CLAIM),
    "len": (lambda pq: len(pq["a"]), "count(*)"),
    "list": (lambda pq: pq["a"].list(), "select"),
    "clear": (lambda pq: pq["a"].clear(), "delete"),
    "prune": (lambda pq: pq.prune(), "delete"),
    "put in a block": (block, INSERT),
    "commit": (block, "commit"),
    "settle": (lease, "set finished_at = statement_timestamp"),
    "load": (lambda pq: pq["a"].load(range(10)), "copy"),
    "create": (lambda pq: pq.create(retain="9d"), "comment on"),
    "drop": (lambda pq: pq.drop(force=True), "drop table"),
    "reset": (lambda pq: pq.reset(force=True), "lock table"),
}


@pytest.mark.parametrize("call", CALLS)
def test_a_call_ends_though_its_server_is_silent(proxy: Proxy, sql: Sql, call: str) -> None:
    function, text = CALLS[call]
    with PQ(proxy.dsn, statement_timeout=1) as pq:
        pq["a"].put(1)
        pq["leased"].put(1)
        done = proxy.when(re.compile(text.replace("(*)", r"\(\*\)").encode()), swallow)
        began = time.monotonic()
        with pytest.raises((ConnectionLost, CommitUnknown)) as caught:
            Background(function, pq).result(BOUND)
        wait_until(done.is_set, "the silence")
        assert time.monotonic() - began < BOUND
        if isinstance(caught.value, ConnectionLost):  # so nothing was done
            wait_until(lambda: sql("select count(*) from queue where data::text = '1'") == [(2,)], "it is as it was")
        pq["a"].put(3)  # by another connection


def test_a_block_that_meets_silence_at_its_beginning_is_begun_anew(
    proxy: Proxy, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pq._db.execute.HOT", 0)
    with PQ(proxy.dsn, statement_timeout=1) as pq:
        pq["a"].put(1)
        done = proxy.on("begin", swallow)
        Background(block, pq).result(BOUND)
        wait_until(done.is_set, "the silence")
        assert sql("select count(*) from queue") == [(2,)]


def test_just_after_an_answer_its_first_statement_meets_the_silence(
    proxy: Proxy, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pq._db.execute.HOT", 1e9)
    with PQ(proxy.dsn, statement_timeout=1) as pq:
        pq["a"].put(1)
        done = proxy.on("begin; ", swallow)
        with pytest.raises(ConnectionLost):
            Background(block, pq).result(BOUND)
        wait_until(done.is_set, "the silence")
        assert sql("select count(*) from queue") == [(1,)]
        block(pq)
        assert sql("select count(*) from queue") == [(2,)]


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc")
def test_no_call_hangs_on_a_frozen_server(short_folder: Path) -> None:
    with Embedded(short_folder / "data") as server, PQ(server.dsn, statement_timeout=1) as pq:
        pq.create()
        pq["leased"].put(1)
        job = pq["leased"].get(lease="1h")
        assert job is not None
        entered, left = Background(lambda: None), []
        entered.result()
        calls = {
            "put": lambda: pq["a"].put(1),
            "get": lambda: pq["a"].get(timeout=1),
            "block": lambda: block(pq),
            "done": job.done,
            "load": lambda: pq["a"].load([1]),
            "create": pq.create,
            "len": lambda: len(pq["a"]),
        }
        with pq["a"]:
            pq["a"].put("before")
            with frozen(short_folder / "data"):
                began = time.monotonic()
                threads = {name: Background(call) for name, call in calls.items()}
                for name, thread in threads.items():
                    with pytest.raises((ConnectionLost, CommitUnknown, ConnectionFailed)):
                        thread.result(BOUND)
                    left.append(name)
                assert time.monotonic() - began < BOUND
        assert set(left) == set(calls)
        pq["a"].put("after")
        assert pq["a"].get().data == "before"


def test_a_frozen_server_at_a_commit_leaves_it_in_doubt(short_folder: Path) -> None:
    with Embedded(short_folder / "data") as server, PQ(server.dsn, statement_timeout=1) as pq:
        pq.create()

        def work() -> None:
            with pq["a"]:
                pq["a"].put(1)
                freeze.__enter__()

        freeze = frozen(short_folder / "data")
        try:
            with pytest.raises(CommitUnknown):
                Background(work).result(BOUND)
        finally:
            freeze.__exit__(None, None, None)


# -- the server gives up first


@pytest.mark.parametrize("kind", ["first", "repeated"])
def test_a_put_that_waits_for_a_lock_is_given_up_and_nothing_is_done(
    dsn: str, connect: Any, sql: Sql, kind: str
) -> None:
    with PQ(dsn, statement_timeout=1) as pq:
        for number in range(3 if kind == "repeated" else 0):
            pq["a"].put(number)
        blocker = connect()
        blocker.cursor().execute("lock table queue")
        with pytest.raises(StatementTimeout, match="1 second") as caught:
            Background(pq["a"].put, "late").result(BOUND)
        assert isinstance(caught.value, (driver.OperationalError, PQError))
        blocker.rollback()
        time.sleep(0.2)
        assert sql("select count(*) from queue where data::text = '\"late\"'") == [(0,)]
        pq["a"].put(4)


def test_a_get_without_end_goes_on_waiting_behind_a_lock(dsn: str, connect: Any, sql: Sql) -> None:
    with PQ(dsn, statement_timeout=0.5) as pq:
        pq["a"].put(1)
        blocker = connect()
        blocker.cursor().execute("lock table queue")
        thread = Background(pq["a"].get, timeout=None)
        wait_until(lambda: sql("select count(*) from pg_locks where not granted") != [(0,)], "it waits")
        thread.join(2)
        assert thread.is_alive()
        blocker.rollback()
        assert thread.result().data == 1


@pytest.mark.parametrize("where", ["role", "database", "dsn"])
def test_a_shorter_limit_of_the_users_stays_in_force(dsn: str, connect: Any, sql: Sql, where: str) -> None:
    ((database,),) = sql("select current_database()")
    sql("create role limited login superuser")
    own = make_dsn(dsn, user="limited")
    try:
        if where == "role":
            sql("alter role limited set statement_timeout = '700ms'")
        elif where == "database":
            sql(f"alter database {database} set statement_timeout = '700ms'")
        else:
            own = make_dsn(own, options="-c statement_timeout=700ms")
        blocker = connect()
        with PQ(own) as pq:
            with pq["a"] as cursor:
                cursor.execute("show statement_timeout")
                assert cursor.fetchone() == ("700ms",)
            pq["a"].put(1)
            blocker.cursor().execute("lock table queue")
            began = time.monotonic()
            with pytest.raises(driver.OperationalError, match="timeout"):
                Background(pq["a"].put, 2).result(BOUND)
            assert Background(pq["a"].get, timeout=60).is_alive()
            blocker.rollback()
            assert time.monotonic() - began < 10
    finally:
        sql("drop owned by limited")
        sql("drop role limited")


@pytest.mark.parametrize("own", ["0", "1h"])
def test_statements_of_the_users_in_a_block_have_the_limit_that_they_had(dsn: str, own: str) -> None:
    with PQ(make_dsn(dsn, options=f"-c statement_timeout={own}"), statement_timeout=0.5) as pq:
        for _ in range(2):
            with pq["a"] as cursor:
                cursor.execute("show statement_timeout")
                assert cursor.fetchone() == (own,)
                cursor.execute("select pg_sleep(1.2)")
                pq["a"].put(1)


@pytest.mark.parametrize("limit", [None, 3600])
def test_the_limit_can_be_set(dsn: str, sql: Sql, limit: float | None) -> None:
    with PQ(make_dsn(dsn, application_name="limited"), statement_timeout=limit) as pq:
        pq["a"].put(1)
        conn = pq._db.source.acquire()
        try:
            assert pq._db.driver.run(conn, "show statement_timeout") == [("1h" if limit else "0",)]
        finally:
            pq._db.source.release(conn)


# -- what the server works on is not cut


def slow(sql: Sql, seconds: float, what: str, table: str = "queue") -> None:
    sql(
        f"create function pause() returns trigger language plpgsql as"
        f" 'begin perform pg_sleep({seconds}); return coalesce(new, old); end'"
    )
    sql(f"create trigger pause before {what} on {table} for each row execute function pause()")


@pytest.mark.parametrize("call", ["put in a block", "load", "clear", "prune"])
def test_what_the_server_works_on_may_take_longer(dsn: str, sql: Sql, call: str) -> None:
    with PQ(dsn, statement_timeout=0.5) as pq:
        if call in ("clear", "prune"):
            pq["a"].put(1)
            sql("update queue set dequeued_at = now() - interval '1 year', data = '2' where %s", (call == "prune",))
            slow(sql, 3, "delete")
        else:
            slow(sql, 3, "insert")
        Background(CALLS[call][0] if call != "load" else lambda pq: pq["a"].load([1]), pq).result()
        assert sql("select count(*) from queue") == [(0 if call in ("clear", "prune") else 1,)]


def test_the_statement_that_a_block_begins_with_may_take_longer(dsn: str, sql: Sql) -> None:
    with PQ(dsn, statement_timeout=0.5) as pq:
        stream = pq.streams["orders"]
        stream.create()
        subscription = stream.subscribe("billing")
        stream.publish(1)
        slow(sql, 3, "delete", "queue_batches_orders")

        def take() -> list[Any]:
            with subscription.batch(timeout=5) as batch:
                return [event.data for event in batch]

        assert Background(take).result() == [1]


def test_create_may_take_longer(empty_dsn: str) -> None:
    with PQ(empty_dsn, statement_timeout=0.5) as pq:
        execute(
            empty_dsn,
            """
            create function pause() returns event_trigger language plpgsql as 'begin perform pg_sleep(2); end';
            create event trigger pause on ddl_command_end when tag in ('CREATE INDEX') execute function pause()
            """,
        )
        pq.create()
        assert pq.version() > 0


def test_whoever_feeds_a_load_may_be_slow(dsn: str) -> None:
    def items() -> Iterator[int]:
        yield 1
        time.sleep(2)
        yield 2

    with PQ(dsn, statement_timeout=0.5) as pq:
        assert pq["a"].load(items()) == 2


# -- pools


@pytest.mark.parametrize("kind", ["pool", "autocommit pool"])
def test_a_black_holed_network_does_not_hold_a_get_on_a_pool(proxy: Proxy, sql: Sql, kind: str) -> None:
    with make_pq(kind, proxy.dsn) as pq:
        pq["a"].put(1)
        for _ in range(2):
            assert pq["b"].get(timeout=0) is None
        done = proxy.when(re.compile(CLAIM.encode()), swallow)
        with pytest.raises((ConnectionLost, CommitUnknown)):
            Background(pq["a"].get, timeout=1).result(BOUND)
        wait_until(done.is_set, "the silence")
        assert pq["a"].get(timeout=1).data == 1


@pytest.mark.parametrize("kind", ["pool", "autocommit pool"])
def test_a_get_on_a_pool_gives_up_when_a_lock_is_in_the_way(dsn: str, connect: Any, sql: Sql, kind: str) -> None:
    blocker = connect()
    with make_pq(kind, dsn) as pq:
        pq["a"].put(1)
        blocker.cursor().execute("lock table queue")
        assert Background(pq["a"].get, timeout=0.1).result(BOUND) is None
        blocker.rollback()
        assert pq["a"].get().data == 1


def test_a_shorter_limit_of_a_pools_stays_in_force(dsn: str, connect: Any) -> None:
    blocker = connect()
    pool = driver.pool(1, 1, make_dsn(dsn, options="-c statement_timeout=300ms"))
    with PQ(pool=pool) as pq:
        pq["a"].put(1)
        blocker.cursor().execute("lock table queue")
        began = time.monotonic()
        assert Background(pq["a"].get, timeout=0).result(BOUND) is None
        assert time.monotonic() - began < 10
        blocker.rollback()
        assert pq["a"].get().data == 1


# -- what is counted in the server's statistics


def test_limits_have_few_values(dsn: str, proxy: Proxy) -> None:
    with PQ(proxy.dsn) as pq:
        for number in range(40):
            pq["a"].get(timeout=0.001 * number)
        limits = {text.split(";")[0] for text in proxy.seen if text.startswith("set local statement_timeout")}
    assert 1 <= len(limits) <= 3
