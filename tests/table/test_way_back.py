"""From version 6 of the table to 5, by the SQL that ``pq sql --down`` prints; and up again, while others go on."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from typing import Any

import psycopg2
import pytest
from support import Background, execute, wait_until
from support.catalog import describe, objects
from support.driver import driver
from support.versions import Library, await_ready, result, tell

from pq import PQ, TableMissing
from pq._table import migrations
from pq.sql import TableName

Sql = Callable[..., list[tuple[Any, ...]]]


def version_5(dsn: str, table: TableName) -> None:
    steps = ";".join(step.sql for step in migrations.steps()[:5])
    execute(dsn, migrations.for_table(f"set pq.table_is_new = 'true'; {steps}", table))


def names(dsn: str) -> list[tuple[str, str]]:
    """The kinds and names of all that is there."""
    return [(kind, name) for kind, name, _ in objects(dsn)]


@pytest.mark.parametrize("name", ["queue", 'a"%s\\\'$pq$', "x" * 63, "app.jobs"])
def test_what_is_left_is_a_table_of_version_5(make_database: Callable[..., str], name: str) -> None:
    table = TableName(name)
    new, old = make_database(table=False), make_database(table=False)
    for dsn in (new, old):
        execute(dsn, "create schema app")
    with PQ(new, table=name) as pq:
        pq.create()
        execute(new, migrations.way_back(table, 5))
        assert pq.version() == 5
    version_5(old, table)
    assert describe(new, table.quoted) == describe(old, table.quoted)
    assert names(new) == names(old)


def test_the_command_prints_it(pq: PQ, dsn: str) -> None:
    for arguments in (["--down"], ["--down", "5"]):
        command = [sys.executable, "-m", "pq", "sql", *arguments]
        printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        assert printed == migrations.way_back(TableName("queue"), 5)
        execute(dsn, printed)
        assert pq.version() == 5
        pq.create()
    for arguments in (["--down", "4"], ["--down", "6"], ["--down", "--since", "5"]):
        assert subprocess.run([*command[:4], *arguments], capture_output=True).returncode == 2


def test_jobs_are_kept(pq: PQ, dsn: str, sql: Sql) -> None:
    """Those that were held are ready; all others are what they were."""
    queue = pq["a"]
    queue.put("dead", key="other")
    dead: Any = queue.get(lease="1h")
    dead.fail("no good")
    queue.put("running", key="k")
    assert queue.get(lease="1h") is not None
    held = queue.put("held", key="k")
    urgent = queue.put("held, urgent", expected_at="0s", key="k")
    queue.put("scheduled", schedule_at="1h", key="k")
    queue.put("with a token", unique="t", schedule_at="1h")
    queue.put("ready")
    never = queue.put("never", schedule_at="1h")
    sql("update queue set schedule_at = 'infinity' where id = %s", (never,))
    before = dict(sql(ROWS))
    assert before[held] == before[urgent] == before[never] == "(infinity,infinity,,0,)"
    execute(dsn, migrations.way_back(TableName("queue"), 5))
    after = dict(sql(ROWS))
    for id in (held, urgent):
        del before[id]
        assert after.pop(id) == "(,,,0,)"
    assert after == before


ROWS = "select id, row(due_at, schedule_at, dequeued_at, attempts, error)::text from queue"


def test_whoever_has_this_version_is_told(pq: PQ, dsn: str, old_5: Library) -> None:
    """A job that was put with a key is one for all to take."""
    pq["a"].put(1, key="k")
    pq["a"].put(2, key="k")
    execute(dsn, migrations.way_back(TableName("queue"), 5))
    with pytest.raises(TableMissing, match=r"call create\(\)"):
        pq["a"].put(3, key="k")
    with pytest.raises(TableMissing, match=r"call create\(\)"):
        pq["a"].get(block=False)
    code = 'print(json.dumps([pq["a"].get(block=False).data for _ in range(2)]))'
    assert old_5.run(dsn, code) == [1, 2]
    pq.create()
    pq["a"].put(3, key="k")
    job = pq["a"].get(block=False)
    assert job is not None
    assert job.data == 3


@pytest.mark.parametrize("way", ["get", "lease", "item", "shared"])
def test_whoever_waits_meanwhile_is_told(dsn: str, connect: Any, way: str) -> None:
    """The look of the listening session fails, so those who wait claim, each for itself."""
    with PQ(connect() if way == "shared" else dsn) as pq:
        queue = pq["a"]
        call: Callable[..., Any] = queue.item(timeout=3600.0).__enter__ if way == "item" else queue.get
        options = {} if way == "item" else {"timeout": 3600.0, "lease": "1h" if way == "lease" else None}
        waiter = Background(call, **options)
        wait_until(lambda: getattr(pq._table._room.queues.get("a"), "sure", False), "the sleep of the waiter")
        execute(dsn, migrations.way_back(TableName("queue"), 5))
        with pytest.raises(TableMissing, match=r"call create\(\)"):
            waiter.result()
        pq.create()
        pq["a"].put(1)
        assert queue.get(timeout=10).data == 1  # type: ignore[union-attr]


def test_a_lock_that_it_does_not_get_changes_nothing(pq: PQ, dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(migrations, "LOCK_TIMEOUT", "50ms")
    before = objects(dsn)
    with pq["a"] as cursor:
        cursor.execute("select from queue")
        with pytest.raises(driver.errors.LockNotAvailable):
            execute(dsn, migrations.way_back(TableName("queue"), 5))
    assert objects(dsn) == before


# -- under load

PRODUCE = """
print("ready", flush=True)
sys.stdin.readline()
ids = []
for n in range(args[0]):
    ids.append(pq["load"].put(n, [None, "1s", None, None][n % 4], [None, None, "1h", "0s"][n % 4]))
    time.sleep(0.005)
print(json.dumps(ids))
"""

CONSUME = """
from select import select
print("ready", flush=True)
ids = []
queue = pq["load"]
while not select([sys.stdin], [], [], 0)[0]:
    if args[0] == "block":
        with queue as cursor:
            job = queue.get(timeout=0.1)
    else:
        job = queue.get(timeout=0.1, lease="30s")
        if job is not None:
            job.done()
    if job is not None:
        ids.append(job.id)
print(json.dumps(ids))
"""


@pytest.mark.parametrize("version", [1, 2, 3, 4, 5])
def test_every_job_is_got_once_while_the_table_goes_up_and_back(
    request: pytest.FixtureRequest, new: Library, empty_dsn: str, version: int
) -> None:
    """Up from each version. Back again goes only what works with version 5; then processes of this one join in."""
    library: Library = request.getfixturevalue("old_5" if version == 5 else "old")
    table, jobs = TableName("queue"), 200
    execute(empty_dsn, ";".join(migrations.for_table(step.sql, table) for step in migrations.steps()[:version]))
    kinds = ["block", "lease"] if version == 5 else ["block", "block"]
    with PQ(empty_dsn) as pq, closing(psycopg2.connect(empty_dsn)) as conn:
        conn.autocommit = True
        assert pq.version() == version
        consumers = [library.start(empty_dsn, CONSUME, kind) for kind in kinds]
        producers = [library.start(empty_dsn, PRODUCE, jobs) for _ in range(2)]
        for process in consumers + producers:
            await_ready(process)
        for process in producers:
            tell(process, "go\n")
        for step, move in enumerate([pq.create, lambda: down(empty_dsn), pq.create]):
            wait_until(lambda: count(conn, "dequeued_at is not null") > 20 + 60 * step, "them to work")  # noqa: B023
            assert count(conn, "true") < 2 * jobs, "the producers were done before"
            move()
            assert pq.version() == (5 if step == 1 else migrations.VERSION)
        if version in (1, 5):
            producers.append(new.start(empty_dsn, PRODUCE, jobs))
            consumers.append(new.start(empty_dsn, CONSUME, "lease"))
            for process in producers[-1], consumers[-1]:
                await_ready(process)
            tell(producers[-1], "go\n")
        put = [id for process in producers for id in result(process)]
        wait_until(lambda: count(conn, "dequeued_at is null or due_at is not null") == 0, "all jobs to be done")
        got = [result(process) for process in consumers]
    assert sorted(id for ids in got for id in ids) == sorted(put)
    assert all(got), "one of the consumers got nothing"


def down(dsn: str) -> None:
    """As somebody does it who has to try again where it does not get the lock."""
    while True:
        try:
            return execute(dsn, migrations.way_back(TableName("queue"), 5)) and None
        except (psycopg2.errors.LockNotAvailable, psycopg2.errors.DeadlockDetected):
            pass


def test_the_upgrade_rewrites_no_row(empty_dsn: str) -> None:
    execute(empty_dsn, ";".join(migrations.for_table(step.sql, TableName("queue")) for step in migrations.steps()[:5]))
    execute(empty_dsn, "insert into queue (q_name, data) select 'a', '1' from generate_series(1, 1000)")
    look = "select pg_relation_filenode('queue'), array_agg(ctid::text || xmin::text order by id) from queue"
    before = execute(empty_dsn, look)
    with PQ(empty_dsn) as pq:
        pq.create()
        assert pq.version() == migrations.VERSION
    assert execute(empty_dsn, look) == before


def count(conn: Any, condition: str) -> int:
    with conn.cursor() as cursor:
        cursor.execute(f"select count(*) from queue where {condition}")
        (number,) = cursor.fetchone()
    return int(number)
