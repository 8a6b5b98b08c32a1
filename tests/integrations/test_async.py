"""From asynchronous programs: inside of `run_sync` of SQLAlchemy's sessions and connections."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from importlib.util import find_spec
from typing import Any

import pytest
from psycopg2.extensions import parse_dsn
from support import Background

from pq import PQ, LeaseLost, NewJob, TableMissing
from pq.tasks import PQ as TaskPQ

sqlalchemy = pytest.importorskip("sqlalchemy", minversion="2")
asyncio_of_sqlalchemy = pytest.importorskip("sqlalchemy.ext.asyncio")
pytest.importorskip("greenlet")

DRIVERS = [name for name in ("psycopg", "asyncpg") if find_spec(name)]

Sql = Callable[..., list[tuple[Any, ...]]]


@pytest.fixture(params=DRIVERS)
def url(request: pytest.FixtureRequest, dsn: str) -> Any:
    parts = parse_dsn(dsn)
    place = (parts["user"], None, parts["host"], int(parts["port"]), parts["dbname"])
    return sqlalchemy.engine.URL.create(f"postgresql+{request.param}", *place)


@pytest.fixture(params=["session", "connection"])
def within(request: pytest.FixtureRequest, url: Any) -> Callable[..., Any]:
    """Run functions, each given a session or connection, in one transaction; then commit, or roll back."""

    async def run(ends: str, *functions: Callable[[Any], Any]) -> Any:
        engine = asyncio_of_sqlalchemy.create_async_engine(url)
        made = asyncio_of_sqlalchemy.AsyncSession(engine) if request.param == "session" else engine.connect()
        try:
            async with made as given:
                results = [await given.run_sync(function) for function in functions]
                await getattr(given, ends)()
                return results[-1]
        finally:
            await engine.dispose()

    return lambda ends, *functions: asyncio.run(run(ends, *functions))


TEXTS = ["plain", "it's", 'back\\slash "quoted"', "100% %s %(x)s :name $1", "é\u2028\U0001f600", "{a,b}", "", "--x\n/*"]


@pytest.mark.parametrize("ends", ["commit", "rollback"])
def test_what_is_put_is_part_of_the_transaction(pq: PQ, within: Any, ends: str) -> None:
    def produce(given: Any) -> None:
        given.execute(sqlalchemy.text("create table if not exists orders (n int)"))
        given.execute(sqlalchemy.text("insert into orders values (1)"))
        for text in TEXTS:
            pq["a"].put({text: text}, conn=given)
        view = pq.bind(given)
        view["a"].put(1, expected_at=datetime(2030, 1, 2, 3, 4, 5, 6, tzinfo=timezone.utc))
        view["a"].put(2, schedule_at=timedelta(0), expected_at=timedelta(days=-1, microseconds=5))
        assert len(view["b"].put_many([1, NewJob("it's", "1h", None), {"x": None}])) == 3
        assert len(view["c"].put_many(range(2500))) == 2500
        assert pq["a"].count() == 0, "not committed yet"
        assert view["a"].count() == len(TEXTS) + 2

    within(ends, produce)
    if ends == "rollback":
        assert list(pq) == []
    else:
        assert pq["b"].counts()["scheduled"] == 1
        assert len(pq["c"]) == 2500
        found = [job.data for job in pq["a"].get_many(99)]
        assert found[0] == 2
        assert found[1] == 1
        assert found[2:] == [{text: text} for text in TEXTS]


@pytest.mark.parametrize("ends", ["commit", "rollback"])
def test_what_is_settled_is_part_of_the_transaction(pq: PQ, within: Any, ends: str) -> None:
    pq["a"].put_many(range(7))
    jobs: Any = pq["a"].get_many(7, lease="1m")

    def settle(given: Any) -> None:
        jobs[0].done({"it's": "%"}, conn=given)
        jobs[1].retry("1h", ValueError("it's \\ %"), conn=given)
        jobs[2].fail("why", conn=given)
        jobs[3].release(conn=given)
        jobs[4].extend("1h", conn=given)
        jobs[4].progress("half", conn=given)
        pq["a"].done([jobs[5]], conn=given)
        pq.settle([(jobs[6], RuntimeError("no"))], conn=given)
        with pytest.raises(LeaseLost):
            jobs[0].done(conn=given)

    within(ends, settle)
    counts = {state: count for state, count in pq["a"].counts().items() if count}
    if ends == "rollback":
        assert counts == {"running": 7}
    else:
        assert counts == {"ready": 1, "scheduled": 2, "running": 1, "dead": 1, "finished": 2}
        assert pq["a"].result(jobs[0].id) == {"it's": "%"}
        assert pq["a"].result(jobs[4].id) == "half"


@pytest.mark.parametrize("ends", ["commit", "rollback"])
def test_what_is_taken_is_part_of_the_transaction(pq: PQ, within: Any, ends: str) -> None:
    pq["a"].put_many(range(3))

    def take(given: Any) -> None:
        view = pq.bind(given)
        assert view["a"].get(timeout=0).data == 0
        job: Any = view["a"].get(block=False, lease="1m")
        assert (job.data, job.attempts, job.expiries) == (1, 1, 0)
        job.done()
        assert pq["a"].get(block=False, conn=given).data == 2
        assert view["a"].get(block=False) is None

    within(ends, take)
    assert pq["a"].count("ready") == (0 if ends == "commit" else 3)


def test_tasks_are_put_with_conn(dsn: str, within: Any) -> None:
    with TaskPQ(dsn) as pq:
        queue = pq["tasks"]

        @queue.task(name="mail")
        def mail(job_id: int, to: str) -> None: ...

        within("rollback", lambda given: mail("ann", _conn=given))
        assert len(queue) == 0
        within("commit", lambda given: mail("ann", _conn=given))
        job: Any = queue.get()
        assert job.data["function"] == "mail"
        assert job.data["args"] == ["ann"]


def test_blocks_are_savepoints(pq: PQ, within: Any) -> None:
    def produce(given: Any) -> None:
        view = pq.bind(given)
        view["a"].put("kept")
        with pytest.raises(ZeroDivisionError), view["a"]:
            view["a"].put("undone")
            raise ZeroDivisionError
        with view["a"] as cursor:
            cursor.execute("select 1")
            view["a"].put("kept, too")
        with pq.using(given, savepoint=True):
            pq["a"].put("and this")

    within("commit", produce)
    assert [job.data for job in pq["a"].get_many(9)] == ["kept", "kept, too", "and this"]


def test_a_put_wakes_who_waits(pq: PQ, within: Any) -> None:
    waiting = Background(pq["a"].get, timeout=30)
    within("commit", lambda given: pq["a"].put(1, conn=given))
    assert waiting.result().data == 1


def test_a_missing_table_is_named(empty_dsn: str, url: Any) -> None:
    async def main() -> None:
        engine = asyncio_of_sqlalchemy.create_async_engine(url)
        try:
            async with engine.connect() as conn:
                with pytest.raises(TableMissing, match='"absent"'):
                    await conn.run_sync(lambda given: PQ(empty_dsn, table="absent")["a"].put(1, conn=given))
        finally:
            await engine.dispose()

    asyncio.run(main())


# -- what can't work says what does


def test_what_cannot_work_is_a_type_error_that_says_what_does(pq: PQ, url: Any) -> None:
    pending = pq["a"].put(1, schedule_at="1h")

    async def main() -> None:
        engine = asyncio_of_sqlalchemy.create_async_engine(url)
        try:
            async with asyncio_of_sqlalchemy.AsyncSession(engine) as session, engine.connect() as conn:
                await session.execute(sqlalchemy.text("select 1"))
                raw = (await conn.get_raw_connection()).driver_connection
                for given in (session, conn, engine, session.sync_session, conn.sync_connection, raw):
                    with pytest.raises(TypeError, match=r"run_sync.*to_thread"):
                        pq["a"].put(1, conn=given)
                    with pytest.raises(TypeError, match=r"run_sync.*to_thread"):
                        pq.bind(given)["a"].put(1)
                for act in (
                    lambda given: pq.bind(given)["a"].get(timeout=1),
                    lambda given: pq["a"].get(conn=given),
                    lambda given: get_using(given),
                    lambda given: pq.bind(given)["a"].result(pending, timeout=1),
                    lambda given: pq.bind(given).results([pending], timeout=1),
                ):
                    with pytest.raises(TypeError, match="timeout=0"):
                        await session.run_sync(act)
                with pytest.raises(TypeError, match="put_many"):
                    await session.run_sync(lambda given: pq.bind(given)["a"].load([1]))
                await session.run_sync(lambda given: pq["a"].put("still works", conn=given))
                await session.commit()
        finally:
            await engine.dispose()

    def get_using(given: Any) -> None:
        with pq.using(given):
            pq["a"].get(timeout=1)

    asyncio.run(main())
    assert [job.data for job in pq["a"].get_many(9)] == ["still works"]
