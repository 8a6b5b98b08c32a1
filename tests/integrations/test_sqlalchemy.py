"""In a transaction of SQLAlchemy, and on its engines."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import closing
from importlib.util import find_spec
from typing import Any

import pytest
from psycopg2.extensions import parse_dsn
from support import Background

from pq import PQ, ForkedConnection, LeaseLost

sqlalchemy = pytest.importorskip("sqlalchemy", minversion="1.4")
orm = pytest.importorskip("sqlalchemy.orm")

NEW = sqlalchemy.__version__ >= "2"
#: SQLAlchemy knows psycopg 3 from 2.0 on.
DRIVERS = ["psycopg2", *(["psycopg"] if NEW and find_spec("psycopg") else [])]

Sql = Callable[..., list[tuple[Any, ...]]]


@pytest.fixture(params=DRIVERS)
def make_engine(request: pytest.FixtureRequest, dsn: str) -> Iterator[Callable[..., Any]]:
    made = []

    def make(**options: Any) -> Any:
        parts = parse_dsn(dsn)
        place = sqlalchemy.engine.URL.create(
            f"postgresql+{request.param}", parts["user"], None, parts["host"], int(parts["port"]), parts["dbname"]
        )
        made.append(sqlalchemy.create_engine(place, **{"future": True, **options}))
        return made[-1]

    yield make
    for engine in made:
        engine.dispose()


@pytest.fixture(params=["session", "scoped session", "connection", "raw connection", "raw cursor"])
def given(request: pytest.FixtureRequest, make_engine: Callable[..., Any]) -> Iterator[tuple[Any, Any]]:
    """What is given, and what has commit() and rollback()."""
    engine = make_engine()
    made = {
        "session": lambda: orm.Session(engine, future=True),
        "scoped session": lambda: orm.scoped_session(orm.sessionmaker(engine, future=True)),
        "connection": engine.connect,
        "raw connection": engine.raw_connection,
        "raw cursor": engine.raw_connection,
    }[request.param]()
    with closing(made):
        yield made.cursor() if request.param == "raw cursor" else made, made


def test_it_takes_effect_with_the_commit_and_vanishes_with_the_rollback(pq: PQ, given: Any) -> None:
    conn, transaction = given
    queue = pq["a"]
    for end, count in ((transaction.rollback, 0), (transaction.commit, 2502)):
        queue.put({"x": "ü"}, conn=conn)
        queue.put_many(range(2500), conn=conn)
        with pq.using(conn):
            queue.put(1)
        assert len(queue) == 0
        end()
        assert len(queue) == count
    for end, count in ((transaction.rollback, 2502), (transaction.commit, 2501)):
        assert queue.get(conn=conn).data == {"x": "ü"}
        end()
        assert len(queue) == count
    job = queue.get(lease="1m")
    with pytest.raises(ZeroDivisionError), job:
        job.done(conn=conn)
        transaction.rollback()
        raise ZeroDivisionError
    assert len(queue) == 2500
    job = queue.get(lease="1m")
    with job:
        job.done({"y": 1}, conn=conn)
        transaction.commit()
    assert queue.result(job.id) == {"y": 1}
    with pytest.raises(LeaseLost):
        job.done(conn=conn)
    transaction.rollback()


def test_a_block_of_the_session(pq: PQ, make_engine: Callable[..., Any], sql: Sql) -> None:
    sql("create table effect (n int)")
    with orm.Session(make_engine(), future=True) as session:
        with session.begin(), pq.using(session):
            session.execute(sqlalchemy.text("insert into effect values (1)"))
            pq["a"].put(1)
        with pytest.raises(ZeroDivisionError), session.begin(), pq.using(session):
            session.execute(sqlalchemy.text("insert into effect values (2)"))
            pq["a"].put(2)
            raise ZeroDivisionError
        with session.begin(), pq.using(session):
            with pytest.raises(ZeroDivisionError), session.begin_nested():
                pq["a"].put(3)
                raise ZeroDivisionError
            pq["a"].put(4)
    assert sql("select * from effect") == [(1,)]
    assert [job.data for job in pq["a"].get_many(9)] == [1, 4]


def test_a_session_that_commits_in_a_block_goes_on_in_its_next_transaction(
    pq: PQ, make_engine: Callable[..., Any]
) -> None:
    """Its connection went back to the pool, and is somebody else's now."""
    engine = make_engine()
    with orm.Session(engine, future=True) as session, pq.using(session):
        pq["a"].put(1)
        session.commit()
        with engine.connect() as other:
            other.execute(sqlalchemy.text("select 1"))
            pq["a"].put(2)
            other.rollback()
        assert session.in_transaction()
        session.commit()
        pq["a"].put(3)
        session.rollback()
    assert [job.data for job in pq["a"].get_many(9)] == [1, 2]


@pytest.mark.parametrize("kind", ["session", "scoped session", "connection"])
def test_a_block_begins_nothing_before_its_first_statement(
    pq: PQ, make_engine: Callable[..., Any], kind: str
) -> None:
    engine = make_engine()
    make = {
        "session": lambda: orm.Session(engine, future=True),
        "scoped session": lambda: orm.scoped_session(orm.sessionmaker(engine, future=True)),
        "connection": engine.connect,
    }[kind]
    with closing(make()) as given:
        for n in range(2):
            with pq.using(given), given.begin():
                pq["a"].put(n)
        with pq.using(given):
            for n in range(2, 4):
                with given.begin():
                    pq["a"].put(n)
    assert [job.data for job in pq["a"].get_many(9)] == [0, 1, 2, 3]


def test_with_job_after_the_connection_is_somebody_elses(pq: PQ, make_engine: Callable[..., Any]) -> None:
    engine = make_engine(pool_size=1, max_overflow=0)
    pq["a"].put(1)
    with orm.Session(engine, future=True) as session, pq["a"].get(lease="1m") as job:
        job.done(conn=session)
        session.rollback()
        with engine.connect() as other:
            other.execute(sqlalchemy.text("select 1"))
            job.__exit__(None, None, None)
    assert job.settled
    assert "a" not in pq


def test_autocommit(pq: PQ, make_engine: Callable[..., Any]) -> None:
    with make_engine(isolation_level="AUTOCOMMIT").connect() as conn:
        pq["a"].put(1, conn=conn)
        assert len(pq["a"]) == 1
        with pytest.raises(ValueError, match="autocommit"):
            pq["a"].get(conn=conn)
        pq["a"].get(lease="1m", conn=conn).done(conn=conn)
        assert "a" not in pq


def test_other_objects_are_type_errors(pq: PQ, make_engine: Callable[..., Any]) -> None:
    engine = make_engine()
    for given in (engine, orm.sessionmaker(engine), orm.Session, sqlalchemy.text("select 1")):
        with pytest.raises(TypeError, match="conn must be"):
            pq["a"].put(1, conn=given)
    sqlite = sqlalchemy.create_engine("sqlite://")
    refused = pytest.raises(TypeError, match=r"not sqlalchemy\S+Session on sqlite3.Connection")
    with orm.Session(sqlite) as session, refused:
        pq["a"].put(1, conn=session)
    sqlite.dispose()


def test_the_errors_are_those_of_sqlalchemy_or_of_the_driver(pq: PQ, make_engine: Callable[..., Any]) -> None:
    engine = make_engine()
    with orm.Session(engine, future=True) as session:
        with pytest.raises(sqlalchemy.exc.DBAPIError):
            session.execute(sqlalchemy.text("select 1/0"))
        with pytest.raises(engine.dialect.dbapi.Error) as failed:
            pq["a"].put(1, conn=session)
        assert type(failed.value).__name__ == "InFailedSqlTransaction"
        session.rollback()
        pq["a"].put(1, conn=session)
    conn = engine.connect()
    conn.close()
    with pytest.raises(sqlalchemy.exc.ResourceClosedError):
        pq["a"].put(1, conn=conn)


@pytest.mark.skipif(NEW, reason="gone in SQLAlchemy 2")
def test_a_connection_of_the_old_kind_must_be_in_a_transaction(pq: PQ, make_engine: Callable[..., Any]) -> None:
    with make_engine(future=False).connect() as conn:
        with pytest.raises(ValueError, match=r"begin\(\) first"):
            pq["a"].put(1, conn=conn)
        for end in ("rollback", "commit"):
            transaction = conn.begin()
            pq["a"].put(end, conn=conn)
            getattr(transaction, end)()
    assert [job.data for job in pq["a"].get_many(9)] == ["commit"]


def test_a_pq_on_an_engine(make_engine: Callable[..., Any], dsn: str, sql: Sql) -> None:
    engine = make_engine(pool_size=3)
    pq = PQ(engine)
    pq["a"].put(1)
    assert pq["a"].get().data == 1
    with pytest.raises(ZeroDivisionError), pq["a"]:
        pq["a"].put(2)
        raise ZeroDivisionError
    with orm.Session(engine, future=True) as session:
        pq["a"].put(3, conn=session)
        session.rollback()
    waiting = Background(pq["a"].get, timeout=30)
    with PQ(dsn) as producer:
        producer["a"].put(4)
    assert waiting.result().data == 4
    assert engine.pool.checkedout() == 0
    sql("select pg_terminate_backend(pid, 30000) from pg_stat_activity"
        " where datname = current_database() and pid <> pg_backend_pid()")
    pq["a"].put(5)
    assert pq["a"].get().data == 5
    pq.close()


def test_an_engine_whose_last_connection_is_given(make_engine: Callable[..., Any]) -> None:
    engine = make_engine(pool_size=1, max_overflow=0, pool_timeout=600)
    with PQ(engine) as pq, orm.Session(engine, future=True) as session:
        pq["a"].put(1, conn=session)
        assert pq["a"].get(conn=session).data == 1
        assert pq["a"].get(conn=session, timeout=0.1) is None


@pytest.mark.parametrize("kind", ["StaticPool", "SingletonThreadPool"])
def test_an_engine_that_would_share_connections_is_refused(make_engine: Callable[..., Any], kind: str) -> None:
    with pytest.raises(TypeError, match=f"one at a time, not a {kind}"):
        PQ(make_engine(poolclass=getattr(sqlalchemy.pool, kind)))


@pytest.mark.skipif(sqlalchemy.__version__ < "1.4.33", reason="dispose(close=False) is not known")
def test_an_engine_is_of_use_after_a_fork_when_it_is_disposed_of(make_engine: Callable[..., Any], pq: PQ) -> None:
    engine = make_engine()
    on_it = PQ(engine)
    on_it["a"].put("parent")
    child = os.fork()
    if child == 0:
        status = 1
        try:
            with pytest.raises(ForkedConnection):
                on_it["a"].put("not disposed of")
            engine.dispose(close=False)
            on_it["a"].put("child")
            PQ(engine)["a"].put("anew")
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    on_it["a"].put("parent")
    assert [job.data for job in pq["a"].get_many(9)] == ["parent", "child", "anew", "parent"]


def test_an_engine_of_another_driver_is_refused() -> None:
    with pytest.raises(TypeError, match="psycopg2 or psycopg"):
        PQ(sqlalchemy.create_engine("sqlite://"))


@pytest.mark.skipif("psycopg" not in DRIVERS, reason="there is no psycopg 3, or no dialect for it")
def test_an_asynchronous_engine_is_refused_as_such() -> None:
    with pytest.raises(TypeError, match="not asynchronously psycopg"):
        PQ(sqlalchemy.create_engine("postgresql+psycopg_async://"))
