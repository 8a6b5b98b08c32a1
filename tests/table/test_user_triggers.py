"""Triggers of the user's that drop rows: what was not written is told."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.driver import driver

from pq import PQ, JobNotFound, NewJob, Queue, RowsDropped, TableMissing

Sql = Callable[..., list[tuple[Any, ...]]]


@pytest.fixture(autouse=True)
def dropping(sql: Sql) -> Iterator[None]:
    """A trigger that drops each row whose data says so, when it is put and when it is changed."""
    sql(
        """
        create function dropping() returns trigger language plpgsql as $$ begin
            return case when new.data::text like '%dropped%' then null else new end;
        end $$;
        create trigger a_trigger before insert or update of data on queue for each row execute function dropping()
        """
    )
    yield


PUTS: dict[str, Callable[[Queue, Any], Any]] = {
    "put": lambda queue, data: queue.put(data),
    "put, with a time": lambda queue, data: queue.put(data, schedule_at="1h"),
    "put_many": lambda queue, data: queue.put_many([data]),
    "put_many, with times": lambda queue, data: queue.put_many([NewJob(data, expected_at="1h")]),
    "load": lambda queue, data: queue.load([data]),
}


@pytest.mark.parametrize("block", [False, True], ids=["alone", "in a block"])
@pytest.mark.parametrize("put", list(PUTS))
def test_a_put_whose_row_is_dropped_says_so(pq: PQ, sql: Sql, put: str, block: bool) -> None:
    queue = pq["a"]
    PUTS[put](queue, "kept")
    if block:
        with queue:
            with pytest.raises(RowsDropped) as caught:
                PUTS[put](queue, "dropped")
            PUTS[put](queue, "kept")
    else:
        with pytest.raises(RowsDropped) as caught:
            PUTS[put](queue, "dropped")
    error = caught.value
    assert (error.queue, error.dropped, error.count, error.ids) == ("a", 1, 1, [])
    assert "trigger" in str(error)
    assert sql("select data from queue") == [("kept",)] * (1 + block)


def test_of_jobs_that_are_put_by_one_statement_the_others_are_put_and_named(pq: PQ, sql: Sql) -> None:
    with pytest.raises(RowsDropped) as caught:
        pq["a"].put_many(["kept", "dropped", "kept"])
    assert (caught.value.dropped, caught.value.count) == (1, 3)
    assert [(id,) for id in caught.value.ids] == sql("select id from queue order by id")
    assert len(caught.value.ids) == 2


@pytest.mark.parametrize("write", [Queue.put_many, Queue.load])
def test_of_jobs_that_are_put_in_a_transaction_none_is_put(pq: PQ, sql: Sql, write: Any) -> None:
    with pytest.raises(RowsDropped):
        write(pq["a"], [*range(1500), "dropped"])
    assert sql("select count(*) from queue") == [(0,)]


def test_a_change_of_data_that_is_dropped_says_so(pq: PQ, sql: Sql) -> None:
    queue = pq["a"]
    id = queue.put("kept")
    with pytest.raises(RowsDropped):
        queue.update(id, "dropped")
    with pytest.raises(JobNotFound):
        queue.update(id + 1, "kept")
    job = queue.get(block=False)
    assert job is not None
    with pytest.raises(RowsDropped):
        job.data = "dropped"
    assert job.data == "kept"
    assert sql("select data from queue") == [("kept",)]


# -- triggers that fail


FAULTS = {
    "table": "insert into audit_log values (new.id)",
    "column": "perform nothing",
    "field": "new.nothing := 1",
}


@pytest.mark.parametrize("fault", list(FAULTS))
@pytest.mark.parametrize("block", [False, True], ids=["alone", "in a block"])
@pytest.mark.parametrize("put", ["put", "load"])
def test_what_a_trigger_misses_is_not_the_queue_table(pq: PQ, sql: Sql, put: str, block: bool, fault: str) -> None:
    sql(
        f"""
        create function failing() returns trigger language plpgsql as $$ begin {FAULTS[fault]}; return new; end $$;
        create trigger b_trigger before insert on queue for each row execute function failing()
        """
    )
    with pytest.raises(driver.Error) as caught:
        if block:
            with pq["a"]:
                PUTS[put](pq["a"], 1)
        else:
            PUTS[put](pq["a"], 1)
    assert not isinstance(caught.value, TableMissing)
    assert "failing()" in str(caught.value)


@pytest.mark.parametrize("put", ["put", "load"])
def test_that_the_queue_table_is_missing_has_a_cause(pq: PQ, sql: Sql, put: str) -> None:
    sql("drop table queue")
    with pytest.raises(TableMissing) as caught:
        PUTS[put](pq["a"], 1)
    assert isinstance(caught.value.__cause__, driver.Error)
