"""The end of a table: `PQ.drop` and `PQ.reset`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from support import Background, execute, wait_until
from support.driver import driver

from pq import PQ, JobsLeft, Limit, Schedule, SchemaError, TableMissing
from pq._table.migrations import for_table, steps
from pq.sql import TableName

Sql = Callable[..., list[tuple[Any, ...]]]

#: All that somebody has made in the database.
OBJECTS = """
    select 'relation', relname::text from pg_class join pg_namespace on pg_namespace.oid = relnamespace
    where nspname not in ('pg_catalog', 'information_schema', 'pg_toast')
    union all
    select 'function', proname::text from pg_proc join pg_namespace on pg_namespace.oid = pronamespace
    where nspname not in ('pg_catalog', 'information_schema')
    union all
    select 'trigger', tgname::text from pg_trigger
    order by 1, 2
"""

ENDS: list[Callable[..., None]] = [PQ.drop, PQ.reset]


@pytest.mark.parametrize("table", ["queue", "Some 'queue'", "app.jobs", "x" * 63, "100%"])
def test_all_that_was_made_is_dropped(empty_dsn: str, table: str) -> None:
    execute(empty_dsn, "create schema app")
    before = execute(empty_dsn, OBJECTS)
    with PQ(empty_dsn, table=table) as pq:
        pq.create()
        assert len(execute(empty_dsn, OBJECTS)) > len(before)
        pq.drop()
        assert execute(empty_dsn, OBJECTS) == before
        pq.drop()  # there is none
        pq.create()
        pq["a"].put(1)
        assert pq["a"].get(timeout=0.01) is not None


def test_a_table_beside_it_goes_on(dsn: str) -> None:
    with PQ(dsn) as pq, PQ(dsn, table="queue_2") as other:
        other.create()
        pq.drop()
        other["a"].put(1, schedule_at="1h")
        assert other["a"].count("scheduled") == 1


def fill(pq: PQ, state: str) -> None:
    queue = pq["a"]
    queue.put(1, schedule_at="1h" if state == "scheduled" else None)
    if state in ("running", "dead"):
        job: Any = queue.get(lease="1h")
        if state == "dead":
            job.fail("no good")


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("state", ["ready", "scheduled", "running", "dead"])
def test_jobs_are_not_lost_unless_that_is_asked_for(dsn: str, end: Callable[..., None], state: str) -> None:
    with PQ(dsn) as pq:
        fill(pq, state)
        with pytest.raises(JobsLeft, match=f"\\b1 {state}\\b") as caught:
            end(pq)
        counts = {name: getattr(caught.value, name) for name in ("ready", "scheduled", "running", "dead")}
        assert counts == {"ready": 0, "scheduled": 0, "running": 0, "dead": 0, state: 1}
        assert pq["a"].count(state) == 1
        end(pq, force=True)
        pq.create()
        assert list(pq) == []


@pytest.mark.parametrize("end", ENDS)
def test_finished_jobs_and_pauses_do_not_count(dsn: str, end: Callable[..., None]) -> None:
    with PQ(dsn) as pq:
        pq["a"].put(1)
        pq["a"].get()
        pq["a"].pause()
        end(pq)
        pq.create()
        assert not pq["a"].paused
        assert pq["a"].count("finished") == 0


def test_after_a_reset_ids_go_on_and_the_settings_stay(dsn: str, sql: Sql) -> None:
    with PQ(dsn) as pq:
        pq.create(retain="3d")
        first = pq["a"].put(1)
        pq.reset(force=True)
        assert pq["a"].put(2) > first
        assert pq.retention.finished is not None
        assert pq.retention.finished.days == 3


def test_without_a_table_there_is_nothing_to_reset(empty_dsn: str) -> None:
    with PQ(empty_dsn) as pq, pytest.raises(TableMissing):
        pq.reset()


@pytest.mark.parametrize("end", ENDS)
def test_another_table_is_left_alone(empty_dsn: str, end: Callable[..., None]) -> None:
    execute(empty_dsn, "create table queue (name text)")
    with PQ(empty_dsn) as pq, pytest.raises(SchemaError, match="is not a queue table"):
        end(pq, force=True)
    assert execute(empty_dsn, "select * from queue") == []


@pytest.mark.parametrize("end", ENDS)
def test_what_depends_on_it_is_not_dropped(dsn: str, sql: Sql, end: Callable[..., None]) -> None:
    sql("create table mine (job bigint references queue)")
    with PQ(dsn) as pq, pytest.raises(driver.Error):
        end(pq, force=True)
    assert sql("select * from mine") == []
    with PQ(dsn) as pq:
        pq["a"].put(1)


@pytest.mark.parametrize("end", ENDS)
def test_a_put_does_not_slip_in_between(dsn: str, sql: Sql, end: Callable[..., None]) -> None:
    """One that is not committed yet is waited for, and then seen."""
    with PQ(dsn) as pq, PQ(dsn) as other:
        with other["a"]:
            other["a"].put(1)
            ending = Background(lambda: end(pq))
            wait_until(lambda: bool(sql("select 1 from pg_locks where not granted")), "somebody waiting for the table")
        with pytest.raises(JobsLeft, match="1 ready"):
            ending.result()
        assert len(pq["a"]) == 1


@pytest.mark.parametrize("end", ENDS)
def test_a_transaction_that_might_not_see_all_is_refused(dsn: str, end: Callable[..., None]) -> None:
    with PQ(dsn) as pq:
        with pytest.raises(SchemaError, match="REPEATABLE READ"), pq["a"] as cursor:
            cursor.execute("set transaction isolation level repeatable read")
            end(pq)
        with pq["a"]:
            end(pq)
        pq.create()


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("version", [1, 5])
def test_a_table_of_the_users_beside_an_older_one_is_left_alone(
    empty_dsn: str, version: int, end: Callable[..., None]
) -> None:
    execute(empty_dsn, ";".join(for_table(step.sql, TableName("queue")) for step in steps()[:version]))
    execute(empty_dsn, "create table queue_checks as select 1 as mine; create table queue_limits as select 1 as mine")
    with PQ(empty_dsn) as pq:
        end(pq, force=True)
        assert pq.version() == (version if end == PQ.reset else 0)
    assert execute(empty_dsn, "select * from queue_checks natural join queue_limits") == [(1,)]


def test_limits_and_schedules_survive_a_reset(pq: PQ, sql: Sql) -> None:
    pq.limits["a"] = Limit(running=1)
    pq.schedules["s"] = Schedule("a", 1, every="1h")
    pq["a"].put(1)
    pq.reset(force=True)
    assert (list(pq.limits), list(pq.schedules)) == (["a"], ["s"])
    pq["a"].put_many([1, 2])
    assert pq["a"].get(lease="1h", block=False) is not None
    assert pq["a"].get(lease="1h", block=False) is None


def test_in_a_block_it_is_part_of_that(dsn: str) -> None:
    with PQ(dsn) as pq:
        pq["a"].put(1)
        with pytest.raises(ZeroDivisionError), pq["a"]:
            pq.drop(force=True)
            raise ZeroDivisionError
        assert len(pq["a"]) == 1


@pytest.mark.parametrize("end", ENDS)
def test_a_table_of_1_9_1_is_not_judged(empty_dsn: str, end: Callable[..., None]) -> None:
    """What its rows mean, only an upgrade tells."""
    execute(empty_dsn, steps()[0].sql.replace(":table", "queue"))
    with PQ(empty_dsn) as pq:
        with pytest.raises(TableMissing, match="create"):
            end(pq)
        end(pq, force=True)
        pq.create()
        assert list(pq) == []
