"""The room that a worker takes: vacuums after many deletions, and connections that are not needed."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from psycopg2.extensions import make_dsn
from support import Background, wait_until
from support.tasks import working

from pq import Worker
from pq._db.sources import dsn as own
from pq._table import vacuum
from pq._table.instruments import Instruments
from pq.tasks import PQ
from pq.worker import housekeeping
from pq.worker.events import Events
from pq.worker.held import Held
from pq.worker.housekeeping import JOBS, Housekeeping

Sql = Callable[..., list[tuple[Any, ...]]]
Connect = Callable[..., Any]

VACUUMS = "select vacuum_count from pg_stat_user_tables where relname = 'queue'"


@pytest.fixture
def deleting(dsn: str) -> Iterator[str]:
    with PQ(dsn) as pq:
        pq.create(retain=0)
    yield dsn


def made(pq: PQ) -> Housekeeping:
    """That of a worker which has done as many jobs as make it vacuum."""
    events = Events(print, Instruments())
    events.counts["done"] = JOBS
    return Housekeeping(pq._table, Held(1), events, print)


def vacuums(sql: Sql) -> int:
    ((count,),) = sql(VACUUMS)
    return int(count)


def test_a_worker_vacuums_after_so_many_jobs(deleting: str, sql: Sql, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(housekeeping, "JOBS", 20)
    with PQ(deleting) as pq:
        pq["a"].task(name="t")(lambda job_id: None)
        pq["a"].put_many([{"function": "t", "args": [], "kwargs": {}}] * 50)
        with working(Worker(pq, ["a"])):
            wait_until(lambda: vacuums(sql) > 0, "the vacuum")


def test_the_next_vacuum_comes_after_as_many_again_and_takes_a_share_of_the_time(
    deleting: str, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vacuum, "SHARE", 1e6)
    with PQ(deleting) as pq:
        it = made(pq)
        it.run_once()
        it.run_once()
        assert vacuums(sql) == 1
        it._counts["done"] += JOBS
        it.run_once()  # too soon
        assert vacuums(sql) == 1
        it._not_before = 0.0
        it.run_once()
        assert vacuums(sql) == 2


def test_the_time_that_it_takes_to_connect_does_not_count(deleting: str, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    connect = own.DsnPool.open_listening_connection

    def slowly(source: own.DsnPool) -> Any:
        now[0] += 100
        return connect(source)

    monkeypatch.setattr(own.DsnPool, "open_listening_connection", slowly)
    monkeypatch.setattr(vacuum, "time", SimpleNamespace(monotonic=lambda: now[0]))
    with PQ(deleting) as pq:
        assert vacuum.Vacuum(pq._db).run_once() == 0


def test_where_jobs_are_kept_autovacuum_does_it(dsn: str, sql: Sql) -> None:
    with PQ(dsn) as pq:
        made(pq).run_once()
    assert vacuums(sql) == 0


@pytest.fixture
def other_role(deleting: str, sql: Sql) -> Iterator[str]:
    """A role that may read the table, no more."""
    name = f"pq_worker_{uuid.uuid4().hex[:8]}"
    sql(f"create role {name} login")
    sql(f"grant select on queue to {name}")
    yield name
    sql(f"drop owned by {name}; drop role {name}")


def test_only_a_role_vacuums_that_may(
    deleting: str, sql: Sql, other_role: str, caplog: pytest.LogCaptureFixture
) -> None:
    with PQ(make_dsn(deleting, user=other_role)) as pq:
        made(pq).run_once()
        assert vacuums(sql) == 0
        if sql("select current_setting('server_version_num')::integer >= 170000") == [(True,)]:
            sql(f"grant maintain on queue to {other_role}")
            made(pq).run_once()
            assert vacuums(sql) == 1
    assert not caplog.records


def test_it_waits_for_nobody_who_has_the_table(deleting: str, sql: Sql, connect: Connect) -> None:
    other = connect()
    other.cursor().execute("lock table queue in share update exclusive mode")
    with PQ(deleting) as pq:
        Background(made(pq).run_once).result()
        assert vacuums(sql) == 0


def test_the_only_connection_of_the_application_is_left_alone(deleting: str, sql: Sql, connect: Connect) -> None:
    conn = connect()
    made(PQ(conn)).run_once()
    assert vacuums(sql) == 0


def test_an_idle_worker_has_one_connection(dsn: str, sql: Sql, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own, "KEEP_IDLE", 0.5)
    count = "select count(*) from pg_stat_activity where application_name = 'idle'"
    with PQ(make_dsn(dsn, application_name="idle"), poll_interval=0.2) as pq:
        ran: list[int] = []
        pq["a"].task(name="t")(lambda job_id: ran.append(1))
        pq["a"].put({"function": "t", "args": [], "kwargs": {}})
        with working(Worker(pq, ["a", "b", "c"])):
            wait_until(lambda: ran, "the job")
            wait_until(lambda: sql(count) == [(1,)], "all but the one that listens are closed")
            pq["b"].put(1)
            wait_until(lambda: len(pq["b"]) == 0, "the next job")
