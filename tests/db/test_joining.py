"""In the application's own transaction: `conn=` and `PQ.using`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from importlib.util import find_spec
from typing import Any, NamedTuple

import psycopg2
import psycopg2.extras
import pytest
from psycopg2.extensions import make_dsn
from support import Background, execute, wait_until
from support.driver import BOTH
from support.kinds import make_pq
from support.proxy import Proxy

from pq import PQ, JobNotFound, LeaseLost, LeasesLost, Retry, TableMissing
from pq._jobs.outcome import failed

INSTALLED = [name for name in BOTH if find_spec(name)]
#: What is given as `conn`.
GIVEN = [f"{name} {what}" for name in INSTALLED for what in ("connection", "cursor")]
#: What the PQ itself is on.
KINDS = ["dsn", "connection", "pool"]

Sql = Callable[..., list[tuple[Any, ...]]]


class Given(NamedTuple):
    """What an application has at hand, and the connection that it leads to."""

    package: Any
    conn: Any
    given: Any

    @property
    def status(self) -> int:
        return int(self.package.status(self.conn))


IDLE, IN_TRANSACTION, FAILED = 0, 2, 3


def opened(what: str, dsn: str, **options: Any) -> Given:
    name, kind = what.split()
    conn = BOTH[name].connect(dsn, **options)
    return Given(BOTH[name], conn, conn.cursor() if kind == "cursor" else conn)


@pytest.fixture(params=[what for what in GIVEN if "connection" in what])
def app(request: pytest.FixtureRequest, dsn: str) -> Iterator[Given]:
    made = opened(request.param, dsn)
    with closing(made.conn):
        yield made


def job_of(pq: PQ, lease: str = "1m") -> Any:
    pq["a"].put("leased")
    job = pq["a"].get(lease=lease)
    assert job is not None
    return job


# -- what is done there: before, the deed, and what can be seen of it afterwards


def put(pq: PQ, conn: Any, _: Any) -> None:
    pq["a"].put({"x": 'ü"\\'}, conn=conn)


def put_with_times(pq: PQ, conn: Any, _: Any) -> None:
    pq["a"].put(1, "1h", "2d", conn=conn)


def put_many(pq: PQ, conn: Any, _: Any) -> None:
    assert len(pq["a"].put_many([1, 2, 3], conn=conn)) == 3


def put_thousands(pq: PQ, conn: Any, _: Any) -> None:
    assert len(pq["a"].put_many(range(2100), conn=conn)) == 2100


def put_in_block(pq: PQ, conn: Any, _: Any) -> None:
    with pq.using(conn):
        pq["a"].put(1)
        pq["b"].put(2)
        with pq["c"]:
            pq["c"].put(3)


def load(pq: PQ, conn: Any, _: Any) -> None:
    with pq.using(conn):
        assert pq["a"].load(range(5)) == 5


def get(pq: PQ, conn: Any, _: Any) -> None:
    assert pq["a"].get(conn=conn).data == {"n": 0}


def get_leased(pq: PQ, conn: Any, _: Any) -> None:
    assert pq["a"].get(lease="1m", conn=conn).data == {"n": 0}


def get_many(pq: PQ, conn: Any, _: Any) -> None:
    assert [job.data["n"] for job in pq["a"].get_many(5, conn=conn)] == [0, 1]


def update(pq: PQ, conn: Any, ready: list[int]) -> None:
    assert pq["a"].update(ready[0], [1, 2], conn=conn) == 6


def assign(pq: PQ, conn: Any, _: Any) -> None:
    with pq.using(conn):
        pq["a"].get().data = "assigned"


def clear(pq: PQ, conn: Any, _: Any) -> None:
    pq["a"].clear(conn=conn)


DEEDS = [put, put_with_times, put_many, put_thousands, put_in_block, load]
DEEDS += [get, get_leased, get_many, update, assign, clear]

SETTLEMENTS: dict[str, Callable[[Any, Any], Any]] = {
    "done": lambda job, conn: job.done({"result": 1}, conn=conn),
    "retry": lambda job, conn: job.retry("1h", "why", conn=conn),
    "fail": lambda job, conn: job.fail("why", conn=conn),
    "release": lambda job, conn: job.release(conn=conn),
    "failed": lambda job, conn: job.settle(failed(job, Retry(in_="1h")), conn),
    "extend": lambda job, conn: job.extend("1h", conn=conn),
    "progress": lambda job, conn: job.progress([1], conn=conn),
    "queue.done": lambda job, conn: job.queue.done([job], conn=conn),
    "queue.settle": lambda job, conn: job.queue.settle([(job, ValueError())], conn=conn),
}


def rows(sql: Sql) -> list[tuple[Any, ...]]:
    return sql("select * from queue order by id")


def check_both_ends(app: Given, sql: Sql, act: Callable[[], Any]) -> None:
    """It vanishes with the application's rollback, takes effect with its commit, and neither is pq's."""
    before = rows(sql)
    act()
    assert app.status == IN_TRANSACTION
    assert rows(sql) == before
    app.conn.rollback()
    assert rows(sql) == before
    act()
    assert app.status == IN_TRANSACTION
    assert rows(sql) == before
    app.conn.commit()
    assert rows(sql) != before
    assert not app.conn.closed


@pytest.mark.parametrize("app", GIVEN, indirect=True)
@pytest.mark.parametrize("kind", KINDS)
def test_all_takes_effect_with_the_commit_and_vanishes_with_the_rollback(
    dsn: str, sql: Sql, app: Given, kind: str
) -> None:
    with make_pq(kind, dsn) as pq:
        for deed in DEEDS:
            ready = [pq["a"].put({"n": n}) for n in range(2)]
            check_both_ends(app, sql, partial(deed, pq, app.given, ready))
            pq["a"].clear()
        for settle in SETTLEMENTS.values():
            job = job_of(pq)
            check_both_ends(app, sql, partial(settle, job, app.given))
            pq["a"].clear()


def test_so_does_a_settlement_of_jobs_of_several_queues(pq: PQ, sql: Sql, app: Given) -> None:
    pq["b"].put(1)
    jobs = [job_of(pq), pq["b"].get(lease="1m")]
    check_both_ends(app, sql, lambda: pq.done(jobs, conn=app.given))


def test_it_is_counted_as_seen_from_there(pq: PQ, app: Given) -> None:
    queue = pq["a"]
    queue.put(1, conn=app.given)
    assert (queue.count(), queue.count("ready")) == (0, 0)
    assert (queue.count(conn=app.given), queue.count("ready", conn=app.given)) == (1, 1)
    assert queue.counts(conn=app.given)["ready"] == 1
    assert queue.counts()["ready"] == 0


@pytest.mark.parametrize("retain", ["7d", 0])
def test_a_job_taken_and_settled_there_is_finished(pq: PQ, sql: Sql, app: Given, retain: Any) -> None:
    pq.create(retain=retain)
    pq["a"].put({"x": 1})
    job = pq["a"].get(lease="1m", conn=app.given)
    app.conn.commit()
    job.done({"y": 2}, conn=app.given)
    app.conn.commit()
    assert len(rows(sql)) == (1 if retain else 0)
    assert "a" not in pq


@pytest.mark.parametrize("what", GIVEN)
def test_pq_sends_nothing_there_but_its_statements(dsn: str, pq: PQ, what: str) -> None:
    with Proxy(dsn) as proxy:
        app = opened(what, proxy.dsn)
        app.conn.cursor().execute("select 1")  # the driver begins
        proxy.seen.clear()
        pq["a"].put(1, conn=app.given)
        pq["a"].put_many(range(1500), conn=app.given)
        with pq.using(app.given):
            job = pq["a"].get(lease="1m")
            pq["a"].get()
            pq["a"].clear()
        with pytest.raises(LeaseLost):
            job.done(conn=app.given)
        words = [query.split()[0].lower() for query in proxy.seen]
        assert len(words) >= 7
        assert {"begin", "start", "commit", "rollback", "end", "savepoint", "set", "prepare"}.isdisjoint(words)
        app.conn.close()


@pytest.mark.parametrize("kind", ["dsn", "pool"])
def test_the_pq_needs_no_connection_of_its_own(dsn: str, sql: Sql, app: Given, kind: str) -> None:
    with make_pq(kind, dsn) as pq:
        before = sql("select count(*) from pg_stat_activity where datname = current_database()")
        pq["a"].put(1, conn=app.given)
        assert pq["a"].get(conn=app.given).data == 1
        app.conn.commit()
        assert sql("select count(*) from pg_stat_activity where datname = current_database()") == before


# -- blocks


def test_a_block_is_for_all_queues_of_the_pq_and_its_job_objects(pq: PQ, app: Given) -> None:
    job = job_of(pq)
    with pq.using(app.given):
        pq["b"].put(1)
        pq["c"].put(1)
        job.done()
    assert list(pq) == ["a"]
    app.conn.commit()
    assert list(pq) == ["b", "c"]


def test_a_block_is_for_its_thread_alone(pq: PQ, app: Given) -> None:
    with pq.using(app.given):
        pq["a"].put(1)
        Background(pq["a"].put, 2).result()
    app.conn.rollback()
    assert [job.data for job in pq["a"].get_many(5)] == [2]


def test_blocks_nest(dsn: str, pq: PQ, app: Given) -> None:
    with closing(psycopg2.connect(dsn)) as other:
        with pq.using(app.given):
            pq["a"].put(1)
            with pq.using(other):
                pq["a"].put(2)
                pq["a"].put(3, conn=app.given)
                with pq.using(None):
                    pq["a"].put(4)
            pq["a"].put(5)
        pq["a"].put(6)
        app.conn.rollback()
        other.commit()
    assert [job.data for job in pq["a"].get_many(9)] == [2, 4, 6]


@pytest.mark.parametrize("kind", KINDS)
def test_a_block_inside_of_a_transaction_of_pq_is_apart_from_it(dsn: str, app: Given, kind: str) -> None:
    with make_pq(kind, dsn) as pq:
        with pytest.raises(ZeroDivisionError), pq["a"]:
            pq["a"].put(1)
            pq["a"].put(2, conn=app.given)
            pq["a"].put(3)
            raise ZeroDivisionError
        app.conn.commit()
        assert [job.data for job in pq["a"].get_many(9)] == [2]


def block_of(cm: Any) -> Iterator[None]:
    with cm:
        yield


@pytest.mark.parametrize("ends_in", ["this thread", "another thread"])
@pytest.mark.parametrize("outer", ["using", "block of pq"])
def test_a_block_in_a_generator_can_end_after_the_one_around_it(
    dsn: str, pq: PQ, app: Given, outer: str, ends_in: str
) -> None:
    def end() -> None:
        if ends_in == "this thread":
            generator.close()
        else:
            with pq.using(app.given):
                generator.close()
                pq["a"].put("there")

    with closing(psycopg2.connect(dsn)) as other:
        with pq.using(other) if outer == "using" else pq["a"]:
            generator = block_of(pq.using(app.given))
            next(generator)
        end() if ends_in == "this thread" else Background(end).result()
        pq["a"].put("committed")
        other.rollback()
        app.conn.rollback()
        assert [job.data for job in pq["a"].get_many(9)] == ["committed"]


def test_an_exception_in_a_block_leaves_the_transaction_as_it_is(pq: PQ, app: Given) -> None:
    with pytest.raises(ZeroDivisionError), pq.using(app.given):
        pq["a"].put(1)
        raise ZeroDivisionError
    assert app.status == IN_TRANSACTION
    pq["a"].put(2)  # out of the block
    assert len(pq["a"]) == 1
    app.conn.commit()
    assert len(pq["a"]) == 2


def test_a_savepoint_lets_the_transaction_go_on(pq: PQ, app: Given) -> None:
    app.conn.cursor().execute("create table effect (n int unique)")
    app.conn.cursor().execute("insert into effect values (1)")
    with pytest.raises(app.package.errors.UniqueViolation), pq.using(app.given, savepoint=True):
        pq["a"].put("undone")
        with pq.using(app.given, savepoint=True):
            pq["a"].put("undone")
        app.conn.cursor().execute("insert into effect values (1)")
    assert app.status == IN_TRANSACTION
    with pq.using(app.given, savepoint=True):
        pq["a"].put("kept")
        with pytest.raises(ZeroDivisionError), pq.using(app.given, savepoint=True):
            pq["a"].put("undone")
            raise ZeroDivisionError
    app.conn.commit()
    assert [job.data for job in pq["a"].get_many(9)] == ["kept"]


@pytest.mark.parametrize("end", ["commit", "rollback", "terminate"])
def test_the_error_in_a_block_with_a_savepoint_that_is_gone_goes_on(pq: PQ, sql: Sql, app: Given, end: str) -> None:
    with pytest.raises(ZeroDivisionError), pq.using(app.given, savepoint=True):
        pq["a"].put(1)
        if end == "terminate":
            sql("select pg_terminate_backend(%s, 30000)", (app.package.pid(app.conn),))
        else:
            getattr(app.conn, end)()
        raise ZeroDivisionError
    assert app.status != IN_TRANSACTION, "refuses to go on"
    assert len(pq["a"]) == (1 if end == "commit" else 0)


def test_a_block_of_a_queue_is_a_savepoint_there_with_a_cursor_of_that_connection(pq: PQ, app: Given) -> None:
    with pq.using(app.given):
        with pytest.raises(ZeroDivisionError), pq["a"] as cursor:
            assert cursor.connection is app.conn
            pq["a"].put("undone")
            raise ZeroDivisionError
        with pq["a"]:
            pq["a"].put("kept")
    assert len(pq["a"]) == 0
    app.conn.commit()
    assert [job.data for job in pq["a"].get_many(9)] == ["kept"]


# -- autocommit


@pytest.fixture(params=[what for what in GIVEN if "cursor" in what])
def autocommit(request: pytest.FixtureRequest, dsn: str) -> Iterator[Given]:
    made = opened(request.param, dsn, autocommit=True)
    with closing(made.conn):
        yield made


def test_in_autocommit_mode_each_statement_is_committed(pq: PQ, autocommit: Given) -> None:
    pq["a"].put(1, conn=autocommit.given)
    assert len(pq["a"]) == 1
    job = pq["a"].get(lease="1m", conn=autocommit.given)
    assert pq["a"].get(timeout=0) is None
    job.done(conn=autocommit.given)
    assert job.settled
    assert autocommit.status == IDLE


def test_in_autocommit_mode_what_needs_a_transaction_is_refused(pq: PQ, sql: Sql, autocommit: Given) -> None:
    pq["a"].put(1)
    before = rows(sql)
    with pytest.raises(ValueError, match=r"get without a lease .* autocommit"):
        pq["a"].get(conn=autocommit.given)
    with pytest.raises(ValueError, match=r"several statements .* autocommit"):
        pq["a"].put_many(range(1001), conn=autocommit.given)
    with pytest.raises(ValueError, match=r"block .* autocommit"), pq.using(autocommit.given), pq["a"]:
        pass
    with pytest.raises(ValueError, match=r"savepoint .* autocommit"), pq.using(autocommit.given, savepoint=True):
        pass
    assert autocommit.status == IDLE
    assert rows(sql) == before
    pq["a"].put(2)  # the thread is out of all of it
    assert pq["a"].get().data == 1


def test_a_transaction_begun_by_hand_is_one(pq: PQ, autocommit: Given) -> None:
    pq["a"].put(1)
    autocommit.conn.cursor().execute("begin")
    assert pq["a"].get(conn=autocommit.given).data == 1
    autocommit.conn.cursor().execute("rollback")
    assert len(pq["a"]) == 1


def test_so_is_with_conn_of_psycopg2(pq: PQ, dsn: str) -> None:
    pq["a"].put(1)
    with closing(psycopg2.connect(dsn)) as conn:
        conn.autocommit = True
        with pytest.raises(ZeroDivisionError), conn:
            assert pq["a"].get(conn=conn).data == 1
            raise ZeroDivisionError
        assert len(pq["a"]) == 1
        with conn:
            assert pq["a"].get(conn=conn).data == 1
        assert len(pq["a"]) == 0


# -- what goes wrong


def test_the_errors_are_the_drivers(pq: PQ, app: Given) -> None:
    acts: list[Callable[[], Any]] = [
        lambda: pq["a"].put(1, conn=app.given),
        lambda: pq["a"].get(conn=app.given),
        lambda: pq["a"].get(conn=app.given, lease="1m"),
        lambda: pq["a"].clear(conn=app.given),
    ]
    with pytest.raises(app.package.Error):
        app.conn.cursor().execute("select 1/0")
    for act in acts:
        with pytest.raises(app.package.errors.InFailedSqlTransaction) as failed:
            act()
        assert type(failed.value) is app.package.errors.InFailedSqlTransaction
        assert app.status == FAILED
    app.conn.close()
    for act in acts:
        with pytest.raises((app.package.InterfaceError, app.package.OperationalError)) as closed:
            act()
        assert not type(closed.value).__module__.startswith("pq")


def test_so_it_is_when_the_connection_breaks(pq: PQ, sql: Sql, app: Given) -> None:
    pq["a"].put(1, conn=app.given)
    sql("select pg_terminate_backend(%s, 30000)", (app.package.pid(app.conn),))
    with pytest.raises(app.package.OperationalError) as lost:
        pq["a"].put(2, conn=app.given)
    assert not type(lost.value).__module__.startswith("pq")
    assert len(pq["a"]) == 0


def test_a_failed_statement_leaves_what_the_driver_leaves(dsn: str, app: Given) -> None:
    with PQ(dsn, encode=lambda data: "{") as pq, pytest.raises(ValueError, match="valid JSON"):
        pq["a"].put(1, conn=app.given)
    assert app.status == FAILED


class Wrapped:
    """As monitoring has them: in place of a connection, and hardly to be told from it."""

    def __init__(self, wrapped: Any) -> None:
        self.__dict__["wrapped"] = wrapped

    @property
    def __class__(self) -> Any:
        return type(self.wrapped)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.wrapped, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.wrapped, name, value)


@pytest.mark.parametrize("app", GIVEN, indirect=True)
def test_a_wrapper_stands_for_what_is_in_it(sql: Sql, pq: PQ, app: Given) -> None:
    check_both_ends(app, sql, lambda: pq["a"].put(1, conn=Wrapped(app.given)))
    on_it = PQ(Wrapped(app.conn))
    assert on_it["a"].get().data == 1
    assert on_it["a"].get(timeout=0.1) is None


class Thing:
    pass


def test_what_is_no_connection_is_a_type_error_that_says_what_is(pq: PQ) -> None:
    for given, named in ((5, "int"), ("dbname=x", "str"), (Thing(), "Thing"), (psycopg2, "module"), (Thing, "type")):
        with pytest.raises(TypeError, match=rf"conn must be a connection or cursor of psycopg2 .* not .*{named}"):
            pq["a"].put(1, conn=given)
        with pytest.raises(TypeError, match="conn must be"):
            pq.using(given)
    assert pq["a"].put(1) > 0


@pytest.mark.skipif("psycopg" not in INSTALLED, reason="psycopg is not installed")
def test_a_connection_of_asyncio_is_a_type_error(pq: PQ, dsn: str) -> None:
    import asyncio

    import psycopg

    async def attempt() -> None:
        async with await psycopg.AsyncConnection.connect(dsn) as conn:
            for given in (conn, conn.cursor()):
                with pytest.raises(TypeError, match="not psycopg"):
                    pq["a"].put(1, conn=given)

    asyncio.run(attempt())


def test_so_is_one_of_psycopg2_in_asynchronous_mode(pq: PQ, dsn: str) -> None:
    with closing(psycopg2.connect(dsn, async_=True)) as conn:
        psycopg2.extras.wait_select(conn)
        for given in (conn, conn.cursor()):
            with pytest.raises(TypeError, match="asynchronous psycopg2"):
                pq["a"].put(1, conn=given)
        with pytest.raises(TypeError, match="asynchronous"):
            PQ(conn)


@pytest.mark.parametrize("name", INSTALLED)
def test_a_server_side_cursor_is_a_value_error(pq: PQ, dsn: str, name: str) -> None:
    with closing(BOTH[name].connect(dsn)) as conn, closing(conn.cursor("big")) as cursor:
        with pytest.raises(ValueError, match="server-side cursor: 'big'"):
            pq["a"].put(1, conn=cursor)
        assert BOTH[name].status(conn) == IDLE


@pytest.mark.parametrize(("what", "kind"), list(zip(GIVEN, [*KINDS, "dsn"], strict=False)))
def test_a_missing_table_is_told_with_its_database(dsn: str, empty_dsn: str, what: str, kind: str) -> None:
    elsewhere = opened(what, empty_dsn)
    hidden = opened(what, make_dsn(dsn, options="-c search_path=pg_catalog"))
    with closing(elsewhere.conn), closing(hidden.conn), make_pq(kind, dsn) as pq:
        for app, place in ((elsewhere, empty_dsn), (hidden, dsn)):
            name = psycopg2.extensions.parse_dsn(place)["dbname"]
            with pytest.raises(TableMissing, match=f'"{name}".*call create') as missing:
                pq["a"].put(1, conn=app.given)
            assert isinstance(missing.value, app.package.ProgrammingError)
            assert app.status == FAILED
        assert pq["a"].put(1) > 0


def test_a_job_that_is_not_there_does_not_break_the_transaction(pq: PQ, app: Given) -> None:
    pq["a"].put(1, conn=app.given)
    with pytest.raises(JobNotFound):
        pq["a"].update(0, 1, conn=app.given)
    app.conn.commit()
    assert len(pq["a"]) == 1


# -- leases


def expire(sql: Sql) -> None:
    sql("update queue set due_at = now() - interval '1s' where due_at is not null")


def test_a_job_that_went_to_somebody_else_aborts_the_effect(pq: PQ, sql: Sql, app: Given) -> None:
    job = job_of(pq)
    sql("create table effect (n int)")
    expire(sql)
    other = pq["a"].get(lease="1m")
    app.conn.cursor().execute("insert into effect values (1)")
    for act in (lambda: job.done(conn=app.given), lambda: job.extend(conn=app.given)):
        with pytest.raises(LeaseLost):
            act()
    with pytest.raises(LeasesLost):
        pq.done([job], conn=app.given)
    assert app.status == IN_TRANSACTION
    app.conn.rollback()
    other.done(conn=app.given)
    app.conn.commit()
    assert sql("select * from effect") == []
    assert "a" not in pq


def test_a_job_of_another_pq_is_not_settled_outside_of_the_transaction(dsn: str, pq: PQ, app: Given) -> None:
    with PQ(dsn) as other:
        jobs = [job_of(other)]
        for end in (pq.done, pq["a"].done):
            with pytest.raises(ValueError, match="another PQ"):
                end(jobs, conn=app.given)
        jobs[0].done(conn=app.given)
    app.conn.rollback()
    assert pq["a"].counts()["running"] == 1


@pytest.mark.parametrize("raised", [None, ZeroDivisionError])
def test_with_job_does_not_wait_for_a_transaction_that_is_open(pq: PQ, sql: Sql, app: Given, raised: Any) -> None:
    job = job_of(pq)

    def handle() -> None:
        with job:
            job.done("there", conn=app.given)
            if raised:
                raise raised

    try:
        handle_in_background = Background(handle)
        if raised:
            with pytest.raises(raised):
                handle_in_background.result()
        else:
            handle_in_background.result()
    finally:
        app.conn.commit()
    assert pq["a"].result(job.id) == "there"
    assert "a" not in pq


def test_with_job_ends_what_was_rolled_back(pq: PQ, app: Given) -> None:
    job = job_of(pq)
    with job:
        job.done("there", conn=app.given)
        app.conn.rollback()
        app.conn.cursor().execute("select 1")  # another transaction
    assert pq["a"].result(job.id) is None
    assert "a" not in pq
    job = job_of(pq)
    with pytest.raises(ZeroDivisionError), job:
        job.done(conn=app.given)
        app.conn.rollback()
        app.conn.cursor().execute("select 1")
        raise ZeroDivisionError
    assert len(pq["a"]) == 0
    assert "a" in pq, "it waits for its retry"


def test_with_job_leaves_what_was_committed(pq: PQ, app: Given) -> None:
    job = job_of(pq)
    with pytest.raises(ZeroDivisionError), job:
        job.done("there", conn=app.given)
        app.conn.commit()
        raise ZeroDivisionError
    assert pq["a"].result(job.id) == "there"
    assert "a" not in pq


# -- waiting


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lease", [None, "1m"])
def test_a_get_there_waits_for_a_put_by_others(dsn: str, app: Given, kind: str, lease: Any) -> None:
    with make_pq(kind, dsn, poll_interval=0.2) as pq, PQ(dsn) as producer:
        waiting = Background(pq["a"].get, timeout=30, lease=lease, conn=app.given)
        wait_until(lambda: app.status != IDLE, "its first look")
        producer["a"].put("found")
        job = waiting.result()
        assert job.data == "found"
        app.conn.rollback()
        assert len(pq["a"]) == 1


def test_a_get_there_is_woken_by_the_put(dsn: str, app: Given) -> None:
    with PQ(dsn, poll_interval=300) as pq, PQ(dsn) as producer:
        waiting = Background(pq["a"].get, timeout=600, conn=app.given)
        gate = "select count(*) from pg_locks where locktype = 'advisory' and database = (select oid from pg_database"
        gate += " where datname = current_database())"
        wait_until(lambda: execute(dsn, gate) != [(0,)], "its gate")
        time.sleep(0.3)  # its looks are far apart now
        producer["a"].put("found")
        assert waiting.result().data == "found"


def test_a_get_there_times_out(pq: PQ, app: Given) -> None:
    assert pq["a"].get(timeout=0.1, conn=app.given) is None
    assert pq["a"].get(block=False, conn=app.given) is None
    assert app.status == IN_TRANSACTION


def test_a_get_there_waits_for_what_is_due(pq: PQ, app: Given) -> None:
    pq["a"].put(1, "1s", conn=app.given)
    assert pq["a"].get(timeout=30, conn=app.given).data == 1


def test_a_get_waits_for_the_table_that_the_connection_given_sees(
    dsn: str, make_database: Callable[..., str]
) -> None:
    """Not for that of the PQ, of which its notifications tell."""
    other = make_database()
    with PQ(dsn, poll_interval=0.2) as pq, PQ(other) as producer, closing(psycopg2.connect(other)) as conn:
        waiting = Background(pq["a"].get, timeout=30, conn=conn)
        wait_until(lambda: BOTH["psycopg2"].status(conn) != IDLE, "its first look")
        time.sleep(0.3)
        producer["a"].put("there")
        assert waiting.result().data == "there"
        conn.rollback()


def test_the_last_connection_of_a_pool_can_be_given(dsn: str) -> None:
    pool = BOTH["psycopg2"].pool(1, 1, dsn)
    with PQ(pool=pool) as pq:
        conn = pool.getconn()
        pq["a"].put(1, conn=conn)
        assert pq["a"].get(conn=conn).data == 1
        assert pq["a"].get(conn=conn, timeout=0.1) is None
        conn.rollback()
        pool.putconn(conn)


@pytest.mark.parametrize("kind", KINDS)
def test_a_commit_wakes_who_waits_within_its_poll_interval(dsn: str, app: Given, kind: str) -> None:
    with make_pq(kind, dsn, poll_interval=0.5) as pq:
        waiting = Background(pq["a"].get, timeout=30)
        pq["a"].put("there", conn=app.given)
        time.sleep(0.2)
        assert waiting.is_alive()
        app.conn.commit()
        assert waiting.result().data == "there"


def test_the_one_connection_of_a_pq_can_be_given_too(dsn: str) -> None:
    conn = psycopg2.connect(dsn)
    with PQ(conn, poll_interval=0.05) as pq:
        waiting = Background(pq["a"].get, timeout=30)
        # its first look is on this connection, where other threads must do nothing meanwhile
        wait_until(lambda: getattr(pq._table._room.queues.get("a"), "sure", False), "the sleep of the waiter")
        for n in range(50):  # while the waiting thread uses the connection, too
            pq["b"].put(n, conn=conn)
            conn.rollback()
        pq["a"].put("there", conn=conn)
        conn.commit()
        assert waiting.result().data == "there"
        assert len(pq["b"]) == 0
