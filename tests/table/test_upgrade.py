"""From pq 1.9.1 to this version, in place and one process after the other: with the real 1.9.1, from PyPI."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import execute, wait_until
from support.catalog import describe
from support.versions import Library, result

from pq import PQ, Queue
from pq._table import migrations

LONG = "n" * 80

@pytest.fixture
def old_dsn(old: Library, empty_dsn: str) -> str:
    """The DSN of a database with a table made by pq 1.9.1."""
    old.run(empty_dsn, "pq.create()")
    return empty_dsn


@pytest.fixture
def old_pq(old_dsn: str) -> Iterator[PQ]:
    """This library on a table that was made by pq 1.9.1, and is upgraded."""
    with PQ(old_dsn) as pq:
        pq.create()
        yield pq


def drain(queue: Queue) -> list[Any]:
    found = []
    while (job := queue.get(block=False)) is not None:
        found.append(job.data)
    return found


# -- in place

FILL = """
a, b, long = pq["a"], pq["b"], pq[args[0] + "/pickle"]
for n in range(3):
    a.put({"taken": n})
    assert a.get(block=False).data == {"taken": n}
past, future = dt.datetime(2000, 1, 1), dt.datetime(3000, 1, 1)
for queue in (a, b):
    queue.put("plain")
    queue.put("second", expected_at=future)
    queue.put("first", expected_at=past)
    queue.put("overdue", past)
    queue.put("overdue first", past, past)
    queue.put("future", future, past)
    queue.put("in an hour", "1h")
pq["b/pickle"].put({1, dt.date(2000, 1, 1)})
long.put({2, dt.date(2000, 1, 1)})
long.put("in an hour", "1h")
with a as cursor:
    a.put("rolled back")
    conn.rollback()
"""

ROWS = """
    select id, enqueued_at, dequeued_at, expected_at, schedule_at, q_name, data::text from queue order by id
"""


def test_a_table_in_use_is_upgraded_in_place(old: Library, old_dsn: str) -> None:
    old.run(old_dsn, FILL, LONG)
    before = execute(old_dsn, ROWS)
    with PQ(old_dsn) as pq:
        assert pq.version() == 1
        pq.create()
        pq.create()
        assert pq.version() == migrations.VERSION
        assert execute(old_dsn, ROWS) == before
        wrong = "select id from queue where due_at is distinct from case when dequeued_at is null then schedule_at end"
        assert execute(old_dsn, wrong) == []
        assert sorted(pq) == ["a", "b", LONG]
        assert [len(pq["a"]), len(pq["b"]), len(pq[LONG])] == [5, 6, 1]

        in_order = ["first", "overdue first", "second", "plain", "overdue"]
        assert drain(pq["a"]) == in_order
        assert [pq["b"].get(block=False).data for _ in in_order] == in_order  # type: ignore[union-attr]
        for name, n in [("b", 1), (LONG, 2)]:
            assert [set(map(str, data)) for data in drain(pq[f"{name}/pickle"])] == [{str(n), "2000-01-01"}]
    left = "select q_name, count(*) from queue where dequeued_at is null group by 1 order by 1"
    assert execute(old_dsn, left) == [("a", 2), ("b", 2), (LONG, 1)]
    assert [row[0] for row in execute(old_dsn, ROWS)] == [row[0] for row in before]


def test_the_upgraded_table_is_the_same_as_a_new_one(old_pq: PQ, old_dsn: str, dsn: str) -> None:
    assert describe(old_dsn) == describe(dsn)


def test_a_table_in_a_schema_is_upgraded_there(old: Library, empty_dsn: str) -> None:
    execute(empty_dsn, "create schema app; set search_path = app")
    old.run(empty_dsn, 'conn.cursor().execute("set search_path = app, public"); pq.create(); pq["a"].put(1)')
    with PQ(empty_dsn, table="app.queue") as pq:
        assert pq.version() == 1
        pq.create()
        assert drain(pq["a"]) == [1]


# -- side by side


def test_the_old_one_gets_what_this_one_put(old: Library, old_dsn: str, old_pq: PQ) -> None:
    for name in ("a", LONG):
        old_pq[name].put({"kind": "Cöx"})
        old_pq[f"{name}/pickle"].put({"day": (1, 2)})
        old_pq[name].put("tomorrow", "24h")
    code = """
    counts = [len(pq[name]) for name in args]
    jobs = [
        (pq[name].get(block=False), pq[name + "/pickle"].get(block=False), pq[name].get(block=False)) for name in args
    ]
    print(json.dumps([counts, [(plain.data, repr(pickled.data), third) for plain, pickled, third in jobs]]))
    """
    got = [{"kind": "Cöx"}, "{'day': (1, 2)}", None]
    assert old.run(old_dsn, code, "a", LONG) == [[2, 2], [got, got]]
    assert [len(old_pq["a"]), len(old_pq[LONG])] == [0, 0]


def test_this_one_gets_what_the_old_one_put(old: Library, old_dsn: str, old_pq: PQ) -> None:
    code = """
    for name in args:
        pq[name].put({"kind": "Cöx"}, expected_at="1h")
        pq[name + "/pickle"].put({"day": (1, 2)}, expected_at="2h")
        pq[name].put("overdue", dt.datetime(2000, 1, 1))
        pq[name].put("tomorrow", "24h")
    """
    old.run(old_dsn, code, "a", LONG)
    for name in ("a", LONG):
        queue, pickled = old_pq[name], old_pq[f"{name}/pickle"]
        assert len(queue) == 3
        jobs = [queue.get(block=False), pickled.get(block=False), queue.get(block=False), queue.get(block=False)]
        assert [job and job.data for job in jobs] == [{"kind": "Cöx"}, {"day": (1, 2)}, "overdue", None]


@pytest.mark.parametrize("promoted", [False, True])
def test_a_scheduled_job_that_the_old_one_took_does_not_come_back(
    old: Library, old_dsn: str, old_pq: PQ, promoted: bool
) -> None:
    queue = old_pq["a"]
    due_at = "select due_at from queue where id = %s"
    id = queue.put("scheduled", "1h")
    if promoted:
        queue.put("urgent", "1h", expected_at="0s")
    execute(old_dsn, "update queue set schedule_at = now()")
    if promoted:
        job = queue.get(block=False)  # and makes ready the one that it leaves
        assert job is not None
        assert job.data == "urgent"
    assert (execute(old_dsn, due_at, (id,)) == [(None,)]) == promoted
    assert old.run(old_dsn, 'print(json.dumps(pq["a"].get(block=False).data))') == "scheduled"
    assert len(queue) == 0
    assert drain(queue) == []
    assert execute(old_dsn, due_at, (id,)) == [(None,)]


def test_a_scheduled_job_that_the_old_one_took_and_rolled_back_comes_back(
    old: Library, old_dsn: str, old_pq: PQ
) -> None:
    old_pq["a"].put(1)
    execute(old_dsn, "update queue set schedule_at = now()")
    code = """
    with pq["a"] as cursor:
        assert pq["a"].get(block=False).data == 1
        conn.rollback()
    """
    old.run(old_dsn, code)
    assert drain(old_pq["a"]) == [1]


def test_data_that_the_old_one_writes_is_seen(old: Library, old_dsn: str, old_pq: PQ) -> None:
    id = old_pq["a"].put(1, "1h")
    code = """
    assert pq["a"].update(args[0], "by update") == len('"by update"')
    pq["a"].put(2)
    job = pq["a"].get(block=False)
    job.data = "by assignment"
    """
    old.run(old_dsn, code, id)
    assert execute(old_dsn, "select data from queue order by id") == [("by update",), ("by assignment",)]


def test_the_old_one_waits_on_an_upgraded_table(old: Library, old_dsn: str, old_pq: PQ) -> None:
    """It is no longer notified, and finds the job when its timeout ends."""
    code = """
    queue = pq["a"]
    queue.timeout = 0.2
    print(json.dumps(next(job.data for job in queue if job is not None)))
    """
    process = old.start(old_dsn, code)
    looked = "select 1 from pg_stat_activity where datname = current_database() and query = 'COMMIT' and state = 'idle'"
    wait_until(lambda: execute(old_dsn, looked), "the old one to find nothing")
    old_pq["a"].put("found")
    assert result(process) == "found"


def test_create_of_the_old_one_does_no_harm(old: Library, old_dsn: str, old_pq: PQ) -> None:
    before = describe(old_dsn)
    old_pq["a"].put(1)
    old_pq["a"].put(2, "1h")
    old.run(old_dsn, 'pq.create(); pq["a"].put(3)')
    after = describe(old_dsn)
    after["triggers"] = [trigger for trigger in after["triggers"] if trigger[0] != "pq_insert"]
    after["functions"] = [function for function in after["functions"] if "pq_notify()" not in function[0]]
    assert after == before
    old_pq.create()
    old_pq["a"].put(4)
    old_pq[LONG].put(5)
    assert drain(old_pq["a"]) == [1, 3, 4]
    assert drain(old_pq[LONG]) == [5]


# -- tasks

CHORES = """
import os
import psycopg2
from pq.tasks import PQ

conn = psycopg2.connect(os.environ["PQ_TEST_CHORES"])
queue = PQ(conn)["chores"]
queue.timeout = 0.05


@queue.task()
def note(job_id, what, by="nobody"):
    with conn.cursor() as cursor:
        cursor.execute("insert into done values (%s)", (what + " for " + by,))
    conn.commit()


@queue.task(max_retries=1, retry_in="0s")
def clumsy(job_id):
    raise ValueError("dropped it")


@queue.task(schedule_at="1h")
def later(job_id):
    raise AssertionError("too early")
"""


def test_tasks_put_by_one_are_performed_by_the_other(
    old: Library, new: Library, old_dsn: str, old_pq: PQ, tmp_path: Path
) -> None:
    (tmp_path / "chores.py").write_text(CHORES)
    execute(old_dsn, "create table done (what text)")
    put = 'import chores; chores.note(args[0], by="you"); chores.clumsy(); chores.later()'
    perform = "import chores; chores.queue.work(burst=True)"
    for puts, performs in [(old, new), (new, old)]:
        puts.run(old_dsn, put, puts.version)
        performs.run(old_dsn, perform)
    assert execute(old_dsn, "select what from done") == [(f"{library.version} for you",) for library in (old, new)]
    tries = "select data->>'retried' from queue where data->>'function' = 'chores.clumsy' and dequeued_at is not null"
    # here the second attempt is at the same row, there at a copy
    assert sorted(execute(old_dsn, tries)) == [("0",), ("0",), ("1",)]
    assert len(old_pq["chores"]) == 0
