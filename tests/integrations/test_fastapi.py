"""200 people sign up at once, and half of the signups fail: who has a row has a job, and who has none has none."""

# ruff: noqa: B008

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from psycopg2.extensions import parse_dsn

from pq import PQ, BlockError

fastapi = pytest.importorskip("fastapi")
httpx = pytest.importorskip("httpx")
sqlalchemy = pytest.importorskip("sqlalchemy", minversion="2")
orm = pytest.importorskip("sqlalchemy.orm")

Sql = Callable[..., list[tuple[Any, ...]]]

SIGNUPS = 200


@pytest.fixture
def make_session(dsn: str, sql: Sql) -> Iterator[Any]:
    sql("create table users (name text primary key)")
    parts = parse_dsn(dsn)
    place = (parts["user"], None, parts["host"], int(parts["port"]), parts["dbname"])
    engine = sqlalchemy.create_engine(
        sqlalchemy.engine.URL.create("postgresql+psycopg2", *place), pool_size=35
    )
    yield orm.sessionmaker(engine)
    engine.dispose()


def sign_up_all(app: Any) -> list[int]:
    """The status of each answer; 30 requests at a time."""

    async def main() -> list[int]:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        few = asyncio.Semaphore(30)

        async def post(number: int) -> int:
            async with few:
                return int((await client.post(f"/signup/{number}")).status_code)

        async with httpx.AsyncClient(transport=transport, base_url="http://test", timeout=60) as client:
            return list(await asyncio.gather(*map(post, range(SIGNUPS))))

    return asyncio.run(main())


def add(session: Any, number: int) -> None:
    session.execute(sqlalchemy.text("insert into users values (:name)"), {"name": str(number)})


@pytest.mark.parametrize("endpoint", ["def", "async def"])
def test_with_bind_there_is_no_job_without_a_user_nor_a_user_without_a_job(
    pq: PQ, sql: Sql, make_session: Any, endpoint: str
) -> None:
    app = fastapi.FastAPI()

    def get_session() -> Iterator[Any]:
        with make_session.begin() as session:
            yield session

    def mails(session: Any = fastapi.Depends(get_session)) -> Any:
        return pq.bind(session)["mails"]

    def sign_up(
        number: int, session: Any = fastapi.Depends(get_session), queue: Any = fastapi.Depends(mails)
    ) -> None:
        add(session, number)
        queue.put(str(number))
        if number % 2:
            raise RuntimeError("it failed")

    async def sign_up_asynchronously(
        number: int, session: Any = fastapi.Depends(get_session), queue: Any = fastapi.Depends(mails)
    ) -> None:
        sign_up(number, session, queue)

    app.post("/signup/{number}")(sign_up if endpoint == "def" else sign_up_asynchronously)
    statuses = sign_up_all(app)
    users = {name for (name,) in sql("select name from users")}
    jobs = [job.data for job in pq["mails"].get_many(SIGNUPS, block=False)]
    assert users == {str(number) for number in range(0, SIGNUPS, 2)}
    assert sorted(jobs) == sorted(users)
    assert statuses.count(200) == len(users)


@pytest.mark.parametrize("endpoint", ["def", "async def"])
@pytest.mark.parametrize("dependency", ["using", "with queue"])
def test_a_block_in_a_dependency_that_runs_in_a_thread_is_refused(
    pq: PQ, sql: Sql, make_session: Any, dependency: str, endpoint: str
) -> None:
    """It is entered in a copy of the context, which the endpoint does not see."""
    app = fastapi.FastAPI()
    told: list[BaseException] = []

    def get_session() -> Iterator[Any]:
        try:
            if dependency == "using":
                with make_session.begin() as session, pq.using(session):
                    yield session
            else:
                with make_session.begin() as session, pq["mails"]:
                    yield session
        except BlockError as error:
            told.append(error)
            raise

    def sign_up(number: int, session: Any = fastapi.Depends(get_session)) -> None:
        add(session, number)
        # what the endpoint puts here would be committed by itself

    async def sign_up_asynchronously(number: int, session: Any = fastapi.Depends(get_session)) -> None:
        sign_up(number, session)

    app.post("/signup/{number}")(sign_up if endpoint == "def" else sign_up_asynchronously)
    sign_up_all(app)
    assert len(told) == SIGNUPS
    assert all("pq.bind(conn)" in str(error) for error in told)
    assert sql("select count(*) from users") == [(0,)], "nothing was committed"
    assert pq["mails"].count() == 0
    pq["mails"].put("goes on")


def test_an_endpoint_that_sees_the_block_from_another_thread_is_told_at_once(
    pq: PQ, sql: Sql, make_session: Any
) -> None:
    """An asynchronous dependency runs in the request's own context, of which the endpoint's thread has a copy."""
    app = fastapi.FastAPI()

    async def get_session() -> Any:
        with make_session.begin() as session, pq.using(session):
            yield session

    def sign_up(number: int, session: Any = fastapi.Depends(get_session)) -> None:
        add(session, number)
        pq["mails"].put(str(number))

    app.post("/signup/{number}")(sign_up)
    assert set(sign_up_all(app)) == {500}
    assert sql("select count(*) from users") == [(0,)]
    assert pq["mails"].count() == 0
