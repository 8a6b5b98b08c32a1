"""The table: created, upgraded, found by its name, and what a role must be granted to use it."""

from __future__ import annotations

import datetime as dt
import re
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from threading import Barrier
from typing import Any

import psycopg2
import pytest
from psycopg2.extensions import make_dsn
from support import Background, execute, wait_until
from support.catalog import describe, objects
from support.driver import driver

from pq import PQ, Queue, SchemaError, TableMissing
from pq import sql as _sql
from pq._table import migrations, schema
from pq.doctor import parts
from pq.schema import VERSION, migration

# what pq 1.9.1 creates; tests/table/test_upgrade.py has the real one
VERSION_1 = (
    migrations.steps()[0].sql
    + """
create index priority_idx_ on :table (schedule_at nulls first, expected_at nulls last, q_name)
  where dequeued_at is null and q_name = '';
create function pq_notify() returns trigger as $$ begin
  perform pg_notify(new.q_name, '');
  return null;
end $$ language plpgsql;
create trigger pq_insert after insert on :table for each row execute procedure pq_notify();
"""
)

NAMES = [
    'qu"ote',
    "per%cent",
    "%s",
    "%(queue)s",
    "back\\slash",
    "apo'strophe",
    "$pq$",
    ":table",
    "two words",
    "select",
    "semi;colon--",
    "Schlüsselwörter",
    "x" * 63,
    "€" * 21,
]


HERE = "database = (select oid from pg_database where datname = current_database())"


def version_1(dsn: str, table: str = "queue") -> None:
    execute(dsn, _sql.bind(VERSION_1, {"table": table}))


@pytest.fixture
def old_dsn(empty_dsn: str) -> str:
    """The DSN of a database with a table of version 1."""
    version_1(empty_dsn)
    return empty_dsn


def created(dsn: str, **options: Any) -> PQ:
    with PQ(dsn, **options) as pq:
        pq.create()
    return pq


def got(queue: Queue) -> Any:
    job = queue.get(block=False)
    return None if job is None else job.data


def waits_for_lock(dsn: str) -> bool:
    return bool(execute(dsn, f"select 1 from pg_locks where not granted and {HERE}"))


def somebody_waits_for_jobs(dsn: str) -> bool:
    """Whether a waiter has taken the gate of its queue."""
    return bool(execute(dsn, f"select 1 from pg_locks where granted and locktype = 'advisory' and {HERE}"))


# -- creating


def test_a_new_table_has_the_version_of_the_library(empty_dsn: str) -> None:
    with PQ(empty_dsn) as pq:
        assert pq.version() == 0
        pq.create()
        assert pq.version() == migrations.VERSION


def test_creating_again_touches_nothing(dsn: str) -> None:
    before = objects(dsn)
    created(dsn)
    assert objects(dsn) == before


def test_creating_again_waits_for_nobody(pq: PQ, connect: Callable[..., Any]) -> None:
    with connect() as other, other.cursor() as cursor:
        cursor.execute("lock table queue in access exclusive mode")
        cursor.execute(_sql.statements("schema.sql")["lock"])
        Background(pq.create).result()
    fixed = connect(options="-c default_transaction_isolation=serializable")
    with PQ(fixed)["a"]:
        PQ(fixed).create()


CREATE = """
import sys
from pq import PQ
print("ready", flush=True)
sys.stdin.read()
with PQ(sys.argv[1], schema=sys.argv[2] or None) as pq:
    pq.create()
    pq["a"].put(1)
"""


@pytest.mark.parametrize("isolation", ["read committed", "serializable"])
def test_thirty_threads_and_ten_processes_create_at_once(
    empty_dsn: str, make_database: Callable[..., str], isolation: str
) -> None:
    dsn = make_dsn(empty_dsn, options=f"-c default_transaction_isolation={isolation.replace(' ', chr(92) + ' ')}")
    schemas = ["", "fresh", "public"]
    execute(dsn, "drop schema public")
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", CREATE, dsn, schemas[i % 2 + 1]],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(10)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n", process.stderr and process.stderr.read()
    execute(dsn, "create schema public")
    start = Barrier(31)

    def create(name: str) -> None:
        with PQ(dsn, schema=name or None) as pq:
            start.wait()
            pq.create()
            pq["a"].put(1)

    threads = [Background(create, schemas[i % 3]) for i in range(30)]
    start.wait()
    for process in processes:
        assert process.stdin is not None
        process.stdin.close()
    for thread in threads:
        thread.result(patience=60)
    for process in processes:
        assert process.stderr is not None
        assert process.wait(60) == 0, process.stderr.read()
        process.stderr.close()
        assert process.stdout is not None
        process.stdout.close()
    puts = {name: execute(dsn, f"select count(*) from {name}.queue")[0][0] for name in ("public", "fresh")}
    assert puts == {"public": 25, "fresh": 15}


def test_two_tables_in_one_schema_keep_their_indexes_and_triggers(dsn: str) -> None:
    alone = describe(dsn)
    created(dsn, table="elsewhere")  # a word that no comment and no function has
    assert describe(dsn) == alone
    assert str(describe(dsn, "elsewhere")).replace("elsewhere", "queue") == str(alone)


def test_long_names_with_the_same_beginning_do_not_meet(empty_dsn: str) -> None:
    names = ["x" * 62 + end for end in "yz"]
    for name in names:
        with PQ(empty_dsn, table=name) as pq:
            pq.create()
            pq["a"].put(name, schedule_at=dt.timedelta(seconds=-1))
    for name in names:
        found = describe(empty_dsn, name)
        places = parts(_sql.TableName(name), migrations.VERSION)["places"]
        assert len(found["indexes"]) == 1 + places.count(f'"{name}"')
        assert len(found["triggers"]) == len(describe(empty_dsn, names[0])["triggers"])
        with PQ(empty_dsn, table=name) as pq:
            assert got(pq["a"]) == name


@pytest.mark.parametrize("name", NAMES)
def test_any_name_works_for_table_and_schema(empty_dsn: str, name: str) -> None:
    with PQ(empty_dsn, table=name, schema=name) as pq:
        queue = pq["a"]
        pq.create()
        pq.create()
        assert pq.version() == migrations.VERSION
        assert execute(
            empty_dsn, "select schemaname::text, tablename::text from pg_tables where tablename = %s", (name,)
        ) == [(name, name)]
        waiting = Background(queue.get, timeout=30)
        wait_until(lambda: somebody_waits_for_jobs(empty_dsn), "the waiter's gate")
        queue.put(1)
        assert waiting.result().data == 1
        queue.put(2, schedule_at=dt.timedelta(seconds=-1))
        queue.put(3, schedule_at="1h")
        assert len(queue) == 1
        with queue as cursor:
            job = queue.get(timeout=0)
            assert job is not None
            job.data = 4
            cursor.execute("select data, due_at from %s where id = %s", (queue.table, job.id))
            assert cursor.fetchall() == [(4, None)]
        assert list(pq) == ["a"]
        queue.clear()
        assert "a" not in pq


@pytest.mark.parametrize(("given", "meant"), [("Queue", "queue"), ("App.Jobs", "app.jobs"), ("_a1.Q2", "_a1.q2")])
def test_a_plain_name_is_folded_to_lower_case(empty_dsn: str, given: str, meant: str) -> None:
    created(empty_dsn, table=given)
    assert execute(empty_dsn, "select to_regclass(%s) is not null", (meant,)) == [(True,)]


def test_a_table_that_is_dropped_can_be_created_again(pq: PQ, sql: Callable[..., Any]) -> None:
    queue = pq["a"]
    queue.put(1)
    sql("drop table queue")
    with pytest.raises(TableMissing):
        queue.put(2)
    pq.create()
    queue.put(3)
    assert got(queue) == 3


# -- the search path


def test_the_table_is_created_in_the_first_schema_of_the_search_path_that_exists(empty_dsn: str) -> None:
    execute(empty_dsn, "create schema one; create schema two")
    created(make_dsn(empty_dsn, options="-c search_path=missing,two,one,public"))
    assert execute(empty_dsn, "select to_regclass('two.queue') is not null, to_regclass('one.queue')") == [(True, None)]


def test_a_table_in_a_later_schema_of_the_search_path_is_upgraded_where_it_is(empty_dsn: str) -> None:
    execute(empty_dsn, "create schema one; create schema two")
    version_1(empty_dsn, "two.queue")
    dsn = make_dsn(empty_dsn, options="-c search_path=one,two,public")
    with PQ(dsn) as pq:
        assert pq.version() == 1
        pq.create()
        assert pq.version() == migrations.VERSION
        pq["a"].put(1)
        assert got(pq["a"]) == 1
    assert not [name for _, name, _ in objects(empty_dsn) if name.startswith("one.")]
    assert execute(empty_dsn, "select count(*) from two.queue") == [(1,)]


def test_a_search_path_of_missing_schemas_is_said_so(empty_dsn: str) -> None:
    dsn = make_dsn(empty_dsn, options="-c search_path=missing")
    with PQ(dsn) as pq, pytest.raises(SchemaError, match="search path"):
        pq.create()


def test_a_schema_that_does_not_exist_is_created(empty_dsn: str) -> None:
    created(empty_dsn, schema="jobs")
    assert execute(empty_dsn, "select to_regclass('jobs.queue') is not null") == [(True,)]


# -- upgrading


def test_an_upgraded_table_is_the_same_as_a_new_one(old_dsn: str, dsn: str) -> None:
    with PQ(old_dsn) as pq:
        assert pq.version() == 1
        pq.create()
        assert pq.version() == migrations.VERSION
    assert describe(old_dsn) == describe(dsn)


def test_upgrading_keeps_what_the_owner_wrote(old_dsn: str) -> None:
    execute(old_dsn, "comment on table queue is e'Bob\\'s \\\\ jobs'; comment on column queue.data is 'what to do'")
    created(old_dsn)
    query = "select obj_description('queue'::regclass), col_description('queue'::regclass, 7)"
    assert execute(old_dsn, query) == [("Bob's \\ jobs", "what to do")]


@pytest.mark.parametrize("step", migrations.steps()[1:], ids=lambda step: step.name)
def test_each_step_marks_its_version(step: migrations.Step) -> None:
    assert step.sql.rstrip().endswith(f"(pq schema {step.version})';")


def test_steps_are_numbered_without_gaps() -> None:
    assert [step.version for step in migrations.steps()] == list(range(1, migrations.VERSION + 1))


def test_settings_of_the_owners_are_left_alone(old_dsn: str) -> None:
    execute(old_dsn, "alter table queue set (autovacuum_vacuum_scale_factor = 0.5, fillfactor = 90)")
    created(old_dsn)
    assert set(execute(old_dsn, "select unnest(reloptions) from pg_class where oid = 'queue'::regclass")) == {
        ("autovacuum_vacuum_scale_factor=0.5",),
        ("fillfactor=90",),
        ("autovacuum_vacuum_threshold=1000",),
    }


def test_a_newer_table_is_left_alone_and_works(pq: PQ, dsn: str, sql: Callable[..., Any]) -> None:
    sql("alter table queue add column later int; comment on column queue.due_at is 'Later. (pq schema 99)'")
    before = objects(dsn)
    pq.create()
    assert objects(dsn) == before
    assert pq.version() == 99
    pq["a"].put(1)
    assert got(pq["a"]) == 1


def test_without_its_mark_a_table_is_upgraded_once_more(pq: PQ, dsn: str, sql: Callable[..., Any]) -> None:
    before = describe(dsn)
    pq["a"].put("later", schedule_at="1h")
    pq["a"].put("now")
    sql("comment on column queue.due_at is null")
    pq.create()
    assert describe(dsn) == before
    assert [got(pq["a"]), got(pq["a"])] == ["now", None]


def test_a_table_that_is_no_queue_table_is_refused_and_not_changed(empty_dsn: str) -> None:
    execute(empty_dsn, "create table queue (id serial primary key, q_name text, data text, dequeued_at timestamptz)")
    before = objects(empty_dsn)
    with PQ(empty_dsn) as pq:
        for call in (pq.create, pq.version):
            with pytest.raises(SchemaError, match=r"no column enqueued_at, expected_at, schedule_at$"):
                call()
    assert objects(empty_dsn) == before


STEP_6 = migrations.steps()[5].sql
COLUMNS_6 = re.findall(r"add column if not exists (\w+)", STEP_6)


def version_5(dsn: str) -> None:
    for step in migrations.steps()[:5]:
        execute(dsn, migrations.for_table(step.sql, _sql.TableName("queue")))


@pytest.mark.parametrize("since", [0, 1, 5])
@pytest.mark.parametrize("name", ["key", "headers"])
def test_a_column_of_the_users_is_not_adopted(empty_dsn: str, since: int, name: str) -> None:
    """It is named, and nothing was changed."""
    if since == 5:
        version_5(empty_dsn)
    else:
        version_1(empty_dsn)
    execute(empty_dsn, f"alter table queue add column {name} text; comment on column queue.{name} is 'of (pq) or not'")
    before = objects(empty_dsn)
    with PQ(empty_dsn) as pq:
        with pytest.raises(SchemaError, match=rf'^table "\w+"."queue" has a column {name} that is not of pq'):
            pq.create()
        assert objects(empty_dsn) == before
        with pytest.raises(driver.errors.DuplicateColumn, match=name):
            execute(empty_dsn, migrations.script(_sql.TableName("queue"), since))
        assert objects(empty_dsn) == before
        execute(empty_dsn, f"alter table queue rename {name} to mine")
        pq.create()
        assert pq.version() == migrations.VERSION


def test_all_columns_of_the_last_steps_are_guarded() -> None:
    guarded = re.search(r"attname in \(([^)]*)\)", STEP_6)
    assert guarded
    assert re.findall(r"'(\w+)'", guarded[1]) == COLUMNS_6
    assert re.findall(r"comment on column :table\.(\w+) is '.* \(pq\)';", STEP_6) == COLUMNS_6
    assert {f"{word}_table" for word in re.findall(r"comment on table :(\w+)_table is '.* \(pq\)';", STEP_6)} == set(
        _sql.BESIDE
    )


@pytest.mark.parametrize("upgrade", [True, False])
@pytest.mark.parametrize("word", _sql.BESIDE)
def test_a_table_of_the_users_is_not_adopted(empty_dsn: str, word: str, upgrade: bool) -> None:
    if upgrade:
        version_5(empty_dsn)
    name = _sql.beside('"queue"', word)
    execute(empty_dsn, f"create table {name} (name text)")
    before = objects(empty_dsn)
    with PQ(empty_dsn) as pq:
        message = rf'^there is a table "\w+".{name} that is not of pq.*beside "\w+"."queue"'
        with pytest.raises(SchemaError, match=message):
            pq.create()
        with pytest.raises(driver.errors.DuplicateTable, match=name):
            execute(empty_dsn, migrations.script(_sql.TableName("queue")))
        assert objects(empty_dsn) == before
        execute(empty_dsn, f"alter table {name} rename to mine")
        pq.create()
        pq["a"].put(1)


@pytest.mark.parametrize("first", ["queue", "queue_limits"])
def test_two_tables_that_need_one_name(empty_dsn: str, first: str) -> None:
    second = {"queue", "queue_limits"} - {first}
    created(empty_dsn, table=first)
    before = objects(empty_dsn)
    with pytest.raises(SchemaError, match="queue_limits"):
        created(empty_dsn, table=second.pop())
    assert objects(empty_dsn) == before


@pytest.mark.parametrize("isolation", ["read committed", "repeatable read", "serializable"])
def test_a_job_scheduled_while_the_upgrade_waits_keeps_its_time(old_dsn: str, isolation: str) -> None:
    execute(old_dsn, f"alter database {psycopg2.extensions.parse_dsn(old_dsn)['dbname']} "
                     f"set default_transaction_isolation = '{isolation}'")
    put = "insert into queue (q_name, data, schedule_at) values ('a', '1', now() + interval '1 hour')"
    with closing(driver.connect(old_dsn)) as writer, writer.cursor() as cursor, PQ(old_dsn) as pq:
        cursor.execute(put)
        upgrade = Background(pq.create)
        wait_until(lambda: waits_for_lock(old_dsn), "create() to wait for the table")
        writer.commit()
        upgrade.result()
        assert execute(old_dsn, "select due_at = schedule_at from queue") == [(True,)]
        assert got(pq["a"]) is None


def test_the_indexes_serve_at_once_while_an_old_transaction_writes(old_dsn: str) -> None:
    execute(old_dsn, "insert into queue (q_name, data, schedule_at) select 'a', '1', now() from generate_series(1, 9)")
    with closing(driver.connect(old_dsn)) as writer, writer.cursor() as cursor:
        cursor.execute("select pg_current_xact_id()")
        created(old_dsn)
        waiting = "select indexrelid::regclass from pg_index where indcheckxmin and indrelid = 'queue'::regclass"
        assert execute(old_dsn, waiting) == []


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "LOCK_TIMEOUT", "50ms")


@pytest.mark.usefixtures("impatient")
def test_an_upgrade_that_never_gets_the_lock_says_so_and_changes_nothing(
    old_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "LOCK_ATTEMPTS", 2)
    before = objects(old_dsn)
    with closing(driver.connect(old_dsn)) as reader, reader.cursor() as cursor, PQ(old_dsn) as pq:
        cursor.execute("select * from queue")
        with pytest.raises(SchemaError, match="tried 2 times for 50ms"):
            pq.create()
        with pq["a"] as other, pytest.raises(SchemaError, match="tried 1 times"):
            pq.create()
        assert other.closed
    assert objects(old_dsn) == before


@pytest.mark.usefixtures("impatient")
def test_an_upgrade_lets_the_others_pass_and_tries_again(old_dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "LOCK_ATTEMPTS", 1000)
    with closing(driver.connect(old_dsn)) as reader, reader.cursor() as cursor, PQ(old_dsn) as pq:
        cursor.execute("select * from queue")
        upgrade = Background(pq.create)
        wait_until(lambda: waits_for_lock(old_dsn), "create() to wait for the table")
        wait_until(lambda: not waits_for_lock(old_dsn), "create() to step back")
        execute(old_dsn, "insert into queue (q_name, data) values ('a', '1')")
        reader.commit()
        upgrade.result()
        assert got(pq["a"]) == 1


# -- in the caller's transaction


def test_create_inside_a_transaction_is_part_of_it(empty_dsn: str) -> None:
    before = objects(empty_dsn)
    with PQ(empty_dsn) as pq:
        with pytest.raises(ZeroDivisionError), pq["a"]:
            pq.create()
            pq["a"].put(1)
            raise ZeroDivisionError
        assert objects(empty_dsn) == before
        with pq["a"]:
            pq.create()
            pq["a"].put(1)
        assert got(pq["a"]) == 1


@pytest.mark.parametrize("table", [True, False], ids=["upgrade", "new"])
def test_create_inside_a_transaction_leaves_its_lock_timeout(empty_dsn: str, table: bool) -> None:
    if table:
        version_1(empty_dsn)
    with PQ(empty_dsn) as pq, pq["a"] as cursor:
        cursor.execute("set local lock_timeout = '17s'")
        pq.create()
        cursor.execute("show lock_timeout")
        assert cursor.fetchone() == ("17s",)


@pytest.mark.usefixtures("impatient")
def test_a_failed_create_inside_a_transaction_leaves_it_usable(old_dsn: str) -> None:
    with closing(driver.connect(old_dsn)) as reader, reader.cursor() as reading, PQ(old_dsn) as pq:
        reading.execute("select * from queue")
        with pq["a"] as cursor:
            with pytest.raises(SchemaError, match="long transaction"):
                pq.create()
            cursor.execute("show lock_timeout")
            assert cursor.fetchone() == ("0",)
            cursor.execute("insert into queue (q_name, data) values ('a', '1')")
    assert execute(old_dsn, "select count(*) from queue") == [(1,)]


def test_create_inside_a_transaction_with_a_fixed_snapshot(old_dsn: str) -> None:
    """It might not see all rows that it must change: refused, unless there are none."""
    before = objects(old_dsn)
    with closing(driver.connect(old_dsn)) as conn:
        driver.set_session(conn, isolation_level="repeatable read")
        with pytest.raises(SchemaError, match="REPEATABLE READ"), PQ(conn)["a"]:
            PQ(conn).create()
        assert objects(old_dsn) == before
        with PQ(conn)["a"]:
            PQ(conn, table="new").create()
        PQ(conn).create()
        for table in ("queue", "new"):
            queue = PQ(conn, table=table)["a"]
            queue.put(table)
            assert got(queue) == table


# -- the table is missing, or too old


def test_a_missing_table_is_an_error_that_names_the_remedy(empty_dsn: str) -> None:
    with PQ(empty_dsn) as pq:
        queue = pq["a"]
        calls: list[Callable[[], Any]] = [
            lambda: queue.put(1),
            lambda: queue.get(block=False),
            lambda: queue.get(timeout=30),
            lambda: len(queue),
            lambda: queue.update(1, 1),
            queue.clear,
            lambda: list(pq),
            lambda: "a" in pq,
        ]
        for call in calls:
            with pytest.raises(TableMissing, match=r'table "queue" .*call create\(\)') as caught:
                call()
            assert isinstance(caught.value, driver.ProgrammingError)
        with pytest.raises(TableMissing), queue:
            queue.put(1)
        pq.create()
        queue.put(1)
        assert got(queue) == 1


def test_a_table_of_version_5_takes_plain_jobs_only(empty_dsn: str) -> None:
    version_5(empty_dsn)
    with PQ(empty_dsn) as pq:
        queue = pq["a"]
        queue.put(1)
        queue.put_many([2, 3])
        calls: list[Callable[[], Any]] = [
            lambda: queue.put(1, key="k"),
            lambda: queue.put(1, unique="t"),
            lambda: queue.get(block=False),
            lambda: queue.list(),
            lambda: list(pq.limits),
            lambda: list(pq.schedules),
            lambda: pq.key_state("a", "k"),
        ]
        for call in calls:
            with pytest.raises(TableMissing, match=r"call create\(\)"):
                call()
        pq.create()
        assert [got(queue) for _ in range(4)] == [1, 2, 3, None]


def test_a_table_of_1_9_1_takes_jobs_and_gives_them_once_it_is_upgraded(old_dsn: str) -> None:
    with PQ(old_dsn) as pq:
        queue = pq["a"]
        queue.put("now")
        queue.put("later", schedule_at="1h")
        for call in (lambda: queue.get(block=False), lambda: len(queue)):
            with pytest.raises(TableMissing, match=r"older version.*call create\(\)"):
                call()
        pq.create()
        assert [got(queue), got(queue)] == ["now", None]


# -- python -m pq sql


@pytest.fixture(scope="session")
def psql(pg_bin: Path) -> str:
    """The path of a psql: of the PostgreSQL under test, or of the system."""
    found = shutil.which("psql", path=pg_bin) or shutil.which("psql")
    if found is None:
        pytest.skip("there is no psql")
    return found


def run_script(psql: str, dsn: str, *args: str) -> None:
    printed = subprocess.run([sys.executable, "-m", "pq", "sql", *args], check=True, capture_output=True).stdout
    subprocess.run(
        [psql, "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", dsn], input=printed, check=True, capture_output=True
    )


@pytest.mark.parametrize(("name", "place"), [("queue", None), ("queue", "jobs"), ('a"%s\\\'$pq$', "b'%\\ ")])
def test_the_printed_sql_makes_the_same_table_however_often_it_runs(
    make_database: Callable[..., str], psql: str, name: str, place: str | None
) -> None:
    by_hand, by_create = make_database(table=False), make_database(table=False)
    created(by_create, table=name, schema=place)
    quoted = _sql.TableName(name, place).quoted
    where = [f"--table={name}"] if place is None else [f"--table={name}", f"--schema={place}"]
    for _ in range(2):
        run_script(psql, by_hand, *where)
        assert describe(by_hand, quoted) == describe(by_create, quoted)


def test_the_printed_sql_upgrades_and_keeps_the_owners_comment(old_dsn: str, dsn: str, psql: str) -> None:
    execute(old_dsn, "comment on table queue is 'mine'")
    run_script(psql, old_dsn, "--since", "1")
    assert describe(old_dsn) == describe(dsn)
    assert execute(old_dsn, "select obj_description('queue'::regclass)") == [("mine",)]
    with PQ(old_dsn) as pq:
        assert pq.version() == migrations.VERSION


@pytest.mark.parametrize("conforming", ["on", "off"])
def test_strings_may_be_read_the_old_way(empty_dsn: str, dsn: str, conforming: str) -> None:
    other = make_dsn(empty_dsn, options=f"-c standard_conforming_strings={conforming}")
    with PQ(other) as pq:
        pq.create()
        pq["back\\slash"].put("a \\ b'")
        assert got(pq["back\\slash"]) == "a \\ b'"
    assert describe(other) == describe(dsn)


# -- rows by plain SQL


def test_a_row_put_by_plain_sql_keeps_its_time_and_priority(pq: PQ, sql: Callable[..., Any]) -> None:
    sql(
        """
        insert into queue (q_name, data, schedule_at, expected_at) values
          ('a', '"unhurried"', null, null),
          ('a', '"scheduled"', now() + interval '1 hour', '2000-01-01'),
          ('a', '"was scheduled"', now() - interval '1 hour', '2001-01-02'),
          ('a', '"urgent"', null, '2001-01-01'),
          ('b', '"elsewhere"', null, null)
        """
    )
    assert [got(pq["a"]) for _ in range(4)] == ["urgent", "was scheduled", "unhurried", None]
    assert sql("select q_name, due_at = schedule_at from queue where dequeued_at is null order by id") == [
        ("a", True),
        ("b", None),
    ]


def test_a_job_may_be_moved_by_plain_sql(pq: PQ, sql: Callable[..., Any]) -> None:
    queue = pq["a"]
    id = queue.put(1, schedule_at="1h")
    sql("update queue set schedule_at = now() - interval '1 second' where id = %s", (id,))
    assert len(queue) == 1
    sql("update queue set schedule_at = now() + interval '2 hours' where id = %s", (id,))
    assert got(queue) is None
    sql("update queue set schedule_at = null where id = %s", (id,))
    assert got(queue) == 1
    sql("update queue set schedule_at = now() + interval '2 hours' where id = %s", (id,))  # too late
    assert got(queue) is None
    sql("update queue set dequeued_at = null where id = %s", (id,))  # once more, at once
    assert got(queue) == 1


@pytest.mark.parametrize("moment", ["infinity", "-infinity", "294276-12-31", "0044-03-15 BC"])
def test_times_that_python_does_not_have_break_nothing(
    pq: PQ, dsn: str, sql: Callable[..., Any], moment: str
) -> None:
    insert = "insert into queue (q_name, data, schedule_at, expected_at, enqueued_at) values ('a', '1', %s, %s, %s)"
    sql(insert, (None, moment, moment))
    job = pq["a"].get(block=False)
    assert job is not None
    assert job.expected_at == job.enqueued_at
    assert job.expected_at is not None
    assert job.expected_at.year in (1, 9999)
    repr(job)

    sql(insert, (moment, None, "now"))
    ((due,),) = sql("select %s::timestamptz <= now()", (moment,))
    assert len(pq["a"]) == due
    with pq["a"]:
        assert got(pq["a"]) == (1 if due else None)  # and is locked now: a waiter has to pass it
        waiting = Background(pq["a"].get, timeout=30)
        wait_until(lambda: somebody_waits_for_jobs(dsn), "the waiter's gate")
        sql("insert into queue (q_name, data) values ('a', '2')")
        assert waiting.result().data == 2


# -- grants

GRANTS = {
    "usage on schema": "usage on schema jobs",
    "select": "select on jobs.queue",
    "insert": "insert on jobs.queue",
    "update": "update on jobs.queue",
    "delete": "delete on jobs.queue",
    "usage on sequence": "usage on sequence jobs.queue_id_seq",
}


@pytest.fixture
def granted(empty_dsn: str) -> Iterator[Callable[..., PQ]]:
    """A PQ as a role that has the given grants on ``jobs.queue``, and nothing else."""
    role, password = f"pq_role_{uuid.uuid4().hex[:8]}", "secret"
    created(empty_dsn, schema="jobs")
    execute(empty_dsn, f"create role {role} login password '{password}'")
    opened = []

    def open_one(*grants: str) -> PQ:
        for grant in grants:
            execute(empty_dsn, f"grant {GRANTS[grant]} to {role}")
        opened.append(PQ(make_dsn(empty_dsn, user=role, password=password), schema="jobs"))
        return opened[-1]

    yield open_one
    for pq in opened:
        pq.close()
    execute(empty_dsn, f"drop owned by {role}; drop role {role}")


def test_a_role_with_these_grants_can_do_everything(granted: Callable[..., PQ], empty_dsn: str) -> None:
    pq = granted(*GRANTS)
    queue = pq["a"]
    pq.create()
    assert pq.version() == migrations.VERSION
    queue.put(1)
    queue.put(2, schedule_at=dt.timedelta(seconds=-1))
    assert len(queue) == 2
    with queue as cursor:
        job = queue.get(timeout=0)
        assert job is not None
        job.data = 3
        cursor.execute("select count(*) from %s", (queue.table,))
    assert got(queue) == 2
    waiting = Background(queue.get, timeout=30)
    wait_until(lambda: somebody_waits_for_jobs(empty_dsn), "the waiter's gate")
    queue.put(4)
    assert waiting.result().data == 4
    queue.put(5)
    assert list(pq) == ["a"]
    queue.clear()
    assert "a" not in pq


def put(queue: Queue) -> None:
    queue.put(1)


def get(queue: Queue) -> None:
    queue.get(block=False)


@pytest.mark.parametrize(
    ("grant", "operations"),
    [
        ("usage on schema", [put, get, len]),
        ("usage on sequence", [put]),
        ("insert", [put]),
        ("select", [put, get, len]),
        ("update", [get, lambda queue: queue.update(1, 1)]),
        ("delete", [Queue.clear]),
    ],
)
def test_each_grant_is_needed(
    granted: Callable[..., PQ], grant: str, operations: list[Callable[[Queue], Any]]
) -> None:
    pq = granted(*GRANTS.keys() - {grant})
    for operation in operations:
        with pytest.raises(driver.errors.InsufficientPrivilege):
            operation(pq["a"])


def test_a_role_that_only_puts_needs_no_more_than_this(granted: Callable[..., PQ]) -> None:
    pq = granted("usage on schema", "select", "insert", "usage on sequence")
    pq["a"].put(1, schedule_at="1h")
    with pq["a"]:
        pq["a"].put(2)
    assert len(pq["a"]) == 1


def test_a_role_that_only_gets_needs_no_more_than_this(granted: Callable[..., PQ], empty_dsn: str) -> None:
    pq = granted("usage on schema", "select", "update")
    execute(empty_dsn, "insert into jobs.queue (q_name, data) values ('a', '1')")
    job = pq["a"].get(timeout=30)
    assert job is not None
    job.data = 2


def test_a_current_table_needs_no_rights_to_be_created(granted: Callable[..., PQ]) -> None:
    granted("usage on schema").create()


def test_an_old_table_of_somebody_elses_is_not_upgraded(granted: Callable[..., PQ], empty_dsn: str) -> None:
    pq = granted(*GRANTS)
    execute(empty_dsn, "comment on column jobs.queue.due_at is null")
    before = objects(empty_dsn)
    with pytest.raises(driver.errors.InsufficientPrivilege):
        pq.create()
    assert objects(empty_dsn) == before
    pq["a"].put(1)
    assert got(pq["a"]) == 1


# -- for other tools


def test_migrations_for_other_tools(make_database: Callable[..., str]) -> None:
    """Step by step, in transactions of theirs, they make the table that `create` makes."""
    by_hand, made = make_database(table=False), make_database(table=False)
    with PQ(made, table="100%") as pq:
        pq.create()
    with closing(psycopg2.connect(by_hand)) as conn:
        for version in range(VERSION):
            with conn, conn.cursor() as cursor:
                cursor.execute(migration(version, version + 1, table="100%"))
    with PQ(by_hand, table="100%") as pq:
        assert pq.version() == VERSION
        pq.create()  # has nothing to do
        pq["a"].put(1)
        assert pq["a"].get().data == 1
    assert describe(by_hand, "100%") == describe(made, "100%")


def test_one_migration_of_a_schema_that_is_missing(empty_dsn: str) -> None:
    execute(empty_dsn, migration(schema="jobs"))
    with PQ(empty_dsn, schema="jobs") as pq:
        assert pq.version() == VERSION


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"since": -1}, ValueError), ({"since": "1"}, TypeError), ({"until": VERSION + 1}, ValueError),
        ({"since": 3, "until": 3}, ValueError), ({"since": VERSION}, ValueError), ({"until": None}, TypeError),
        ({"table": ""}, ValueError), ({"schema": 1}, TypeError),
    ],
    ids=repr,
)  # fmt: skip
def test_migrations_that_are_refused(given: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        migration(**given)
