"""What the doctor finds: each thing is brought about, found, and cured by the remedy that is told."""

from __future__ import annotations

import json
import re
import shlex
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from psycopg2.extensions import make_dsn, parse_dsn
from support import Background, execute, wait_until
from support.driver import driver, either
from support.server import Server

from pq import PQ, ConnectionLost, Limit, Schedule
from pq import sql as _sql
from pq._cli.main import main
from pq._schedules import Ticker
from pq._table import migrations
from pq.doctor import LIMITS, Finding, parts
from pq.doctor import findings as _findings
from pq.doctor import jobs as _jobs
from pq.doctor import streams as _streams

Sql = Callable[..., list[tuple[Any, ...]]]

#: A server that nothing is wrong with, unlike the one of the other tests, and where all that can be found can be made.
SETTINGS = "-h 127.0.0.1 -c max_connections=40 -c shared_buffers=64MB -c logging_collector=off"
FEATURES = "-c wal_level=logical -c max_prepared_transactions=5"

#: As pq 1.9.1 makes it.
OLD_TRIGGER = """
    create function pq_notify() returns trigger as $$ begin return null; end $$ language plpgsql;
    create trigger pq_insert after insert on queue for each row execute procedure pq_notify();
"""


OLD_INDEXES = """
    create index priority_idx_ on queue (schedule_at nulls first, expected_at nulls first, q_name)
    where dequeued_at is null and q_name = '';
    create index priority_idx_no_ on queue (schedule_at nulls first, expected_at nulls first, q_name)
    where dequeued_at is null and q_name != '';
"""


@pytest.fixture(scope="module")
def server(pg_bin: Path) -> Iterator[str]:
    with Server(bin=pg_bin, postgres_args=f"{SETTINGS} {FEATURES}") as running:
        dsn = f"host=127.0.0.1 port={running.settings['port']} user=postgres dbname=postgres"
        switch(dsn, "fsync", "off")  # for speed, and not by an argument: `durable` can switch it on
        yield dsn


def switch(dsn: str, setting: str, value: str) -> None:
    """Change a setting of the server, and wait until new sessions have it."""
    execute(dsn, f"alter system set {setting} = {value}")
    execute(dsn, "select pg_reload_conf()")
    wait_until(lambda: execute(dsn, f"show {setting}") == [(value,)], "the new setting")


@pytest.fixture
def durable(server: str) -> Iterator[None]:
    """For tests in which nothing may be left out of the findings."""
    switch(server, "fsync", "on")
    yield
    switch(server, "fsync", "off")


@pytest.fixture(scope="module")
def template(server: str) -> str:
    execute(server, "create database pq_template")
    with PQ(make_dsn(server, dbname="pq_template")) as pq:
        pq.create()
    return "pq_template"


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is wrong only when it has lasted is wrong at once."""
    for name in ("transaction_age", "idle_age"):
        monkeypatch.setitem(LIMITS, name, timedelta(0))
    monkeypatch.setitem(LIMITS, "xmin_age", 0)


@pytest.fixture
def role(dsn: str, sql: Sql) -> Iterator[str]:
    """An ordinary role."""
    sql(
        'create role "app role" login; grant select, insert, update, delete on queue to "app role";'
        'grant select on queue_schedules to "app role";'
        'grant usage on sequence queue_id_seq to "app role"'
    )
    yield make_dsn(dsn, user="app role")
    sql('drop owned by "app role"; drop role "app role"')


def look(pq: PQ) -> list[Finding]:
    """The findings but for the one that these tests are to be fast with."""
    return [finding for finding in pq.doctor() if finding.data != {"name": "fsync"}]


def names(pq: PQ) -> list[str]:
    return [finding.name for finding in look(pq)]


def found(pq: PQ, name: str, **data: Any) -> list[Finding]:
    """The findings of that name whose data are these."""
    return [each for each in look(pq) if each.name == name and data.items() <= each.data.items()]


def cure(dsn: str, finding: Finding, capsys: pytest.CaptureFixture[str]) -> None:
    """Do what the remedy says."""
    command = re.search(r"python -m pq (.*)", finding.remedy)
    if command is None:
        text = re.search(r"(?s)\b(?:select|alter|create|drop|reindex|rollback prepared|vacuum) .*;$", finding.remedy)
        assert text, finding.remedy
        for statement in text[0].split("; "):  # one by one, as psql does it
            execute(dsn, statement)
        return
    text, _, pipe = command[1].partition(" | ")
    capsys.readouterr()
    arguments = shlex.split(text)
    assert main([*arguments, *([] if pipe else ["--dsn", dsn])]) == 0
    if pipe:
        assert pipe == "psql"
        execute(dsn, capsys.readouterr().out)


# -- the table


def test_of_a_new_table_nothing_is_found(pq: PQ, durable: None) -> None:
    pq["a"].put(1)
    pq["a"].put(2, schedule_at="1h")
    pq["a"].get(lease="1m")
    assert pq.doctor() == []


@pytest.mark.parametrize(
    ("before", "name"),
    [
        ("select 1", "table_missing"),
        (_sql.bind(migrations.steps()[0].sql, {"table": "queue"}), "table_outdated"),
        (
            "".join(migrations.for_table(step.sql, _sql.TableName("queue")) for step in migrations.steps()[:2]),
            "table_outdated",
        ),
    ],
    ids=["none", "1.9.1", "2"],
)
def test_a_table_that_is_to_be_created_or_upgraded(
    empty_dsn: str, before: str, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    execute(empty_dsn, before)
    with PQ(empty_dsn) as pq:
        (finding,) = look(pq)
        assert (finding.name, finding.severity) == (name, "error")
        cure(empty_dsn, finding, capsys)
        assert look(pq) == []


def test_a_table_that_is_none_of_ours(empty_dsn: str) -> None:
    execute(empty_dsn, "create table queue (id int)")
    with PQ(empty_dsn) as pq:
        (finding,) = look(pq)
    assert finding.name == "table_unknown"
    assert "q_name" in finding.what


def test_a_table_of_a_later_version(pq: PQ, sql: Sql) -> None:
    sql(f"comment on column queue.due_at is '(pq schema {migrations.VERSION + 1})'")
    sql("drop trigger queue_arrive_trigger on queue")  # which that version may not need any more
    (finding,) = look(pq)
    assert (finding.name, finding.severity) == ("table_newer", "warning")


BROKEN = {
    "index_missing": "drop index queue_ready_index",
    "beside_missing": "drop table queue_limits",
    "index_missing index_missing": "drop index queue_unique_index; drop index queue_checks_index",
    "trigger_missing": "drop trigger queue_notify_trigger on queue",
    "trigger_missing trigger_missing":
        "drop function queue_arrive_function() cascade; drop trigger queue_line_trigger on queue",
    "trigger_disabled": "alter table queue disable trigger queue_arrive_trigger",
    "trigger_obsolete": OLD_TRIGGER,
    "index_obsolete index_obsolete": OLD_INDEXES,
    "autovacuum_off": "alter table queue set (autovacuum_enabled = off)",
    "table_unlogged": "alter table queue set unlogged",
    "ids": "alter table queue alter id type integer; select setval('queue_id_seq', 2000000000)",
}


@pytest.mark.parametrize("expected", BROKEN)
def test_what_is_broken_is_cured_by_the_remedy(
    pq: PQ, dsn: str, sql: Sql, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    sql(BROKEN[expected])
    assert names(pq) == expected.split()
    while findings := look(pq):
        cure(dsn, findings[0], capsys)
        assert len(look(pq)) < len(findings)


def test_a_trigger_of_old_that_is_disabled_does_no_harm(pq: PQ, sql: Sql) -> None:
    sql(OLD_TRIGGER)
    sql("alter table queue disable trigger pq_insert")
    assert look(pq) == []


def test_an_index_whose_creation_was_broken_off_is_invalid(
    pq: PQ, dsn: str, sql: Sql, connect: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    sql("drop index queue_ready_index")
    (finding,) = look(pq)
    other = connect()
    other.cursor().execute("lock table queue in row exclusive mode")
    sql("set lock_timeout = '50ms'")
    with pytest.raises(either("LockNotAvailable")):
        sql(finding.remedy)
    other.rollback()
    (finding,) = look(pq)
    assert finding.name == "index_invalid"
    cure(dsn, finding, capsys)
    assert look(pq) == []


@pytest.mark.parametrize("table", [{"table": "app.jobs"}, {"table": 'a"b %s {x}', "schema": "My Schema"}], ids=str)
def test_remedies_are_for_the_table_that_is_looked_at(
    empty_dsn: str, table: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    with PQ(empty_dsn, **table) as pq:
        name = pq._table.name
        cure(empty_dsn, look(pq)[0], capsys)
        for kind in ("ready_index", "notify_trigger", "arrive_trigger"):
            own = _sql.quote(_sql.object_name(name.name, kind))
            execute(
                empty_dsn,
                f"drop index {_sql.quote(name.schema or '')}.{own}"
                if kind.endswith("index")
                else f"drop trigger {own} on {name.quoted}"
                if kind == "notify_trigger"
                else f"alter table {name.quoted} disable trigger {own}",
            )
        while findings := look(pq):
            cure(empty_dsn, findings[0], capsys)
            assert len(look(pq)) < len(findings)
        pq["a"].put(1)


@pytest.mark.parametrize("version", range(1, migrations.VERSION + 1))
def test_the_parts_that_a_table_is_to_have_are_those_that_its_steps_leave(empty_dsn: str, version: int) -> None:
    for step in migrations.steps()[:version]:
        execute(empty_dsn, migrations.for_table(step.sql, _sql.TableName("queue")))
    expected = parts(_sql.TableName("queue"), version)
    indexes = "select relname, indrelid::regclass::text from pg_index join pg_class on oid = indexrelid"
    triggers = "select tgname from pg_trigger where tgrelid = 'queue'::regclass and not tgisinternal"
    there = execute(empty_dsn, f"{indexes} where relname like 'queue%' and not indisprimary")
    places = [place.strip('"') for place in expected["places"]]
    assert sorted(there) == sorted(zip(expected["indexes"], places, strict=True))
    tables = {name for (name,) in execute(empty_dsn, "select tablename from pg_tables where tablename like 'queue%'")}
    assert tables == {"queue", *(name.strip('"') for name in expected["beside"])}
    assert {name for (name,) in execute(empty_dsn, triggers)} == set(expected["triggers"])


def test_dead_rows(pq: PQ, dsn: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(LIMITS, "dead_rows", 200)
    # so that it leaves them alone, although it is on
    execute(dsn, "alter table queue set (autovacuum_vacuum_threshold = 150, autovacuum_analyze_threshold = 100000)")
    execute(dsn, "insert into queue (q_name, data) select 'a', '1' from generate_series(1, 299)")
    execute(dsn, "delete from queue")
    assert not found(pq, "dead_rows")  # not twice what autovacuum is to wait for
    execute(dsn, "alter table queue set (autovacuum_vacuum_threshold = 100)")
    finding: Finding = wait_until(lambda: found(pq, "dead_rows"), "the statistics")[0]
    assert (finding.data["dead"], finding.data["due"], finding.data["last"]) == (299, 100, "never vacuumed")
    cure(dsn, finding, capsys)
    wait_until(lambda: look(pq) == [], "the statistics")


# -- jobs


@pytest.mark.parametrize("lease", [None, "1m"])
def test_a_job_that_is_due_and_that_nobody_takes(pq: PQ, sql: Sql, lease: str | None) -> None:
    id = pq["a"].put(1, schedule_at=None if lease else "1h")
    if lease:
        pq["a"].get(lease=lease)
    sql("update queue set due_at = now() - interval '9 minutes'")
    assert look(pq) == []
    sql("update queue set due_at = now() - interval '11 minutes'")
    (finding,) = look(pq)
    assert (finding.name, finding.data["queue"], finding.data["id"]) == ("overdue_job", "a", id)
    assert ("lease" in finding.what) is bool(lease)
    assert pq["a"].get(block=False)
    assert look(pq) == []


def test_a_job_that_is_ready_and_that_nobody_takes(pq: PQ, sql: Sql) -> None:
    for queue in "ab":
        for _ in range(2):
            pq[queue].put(1)
    sql("update queue set enqueued_at = now() - interval '59 minutes'")
    assert look(pq) == []
    sql("update queue set enqueued_at = now() - interval '61 minutes' where q_name = 'b'")
    (finding,) = look(pq)
    assert (finding.name, finding.severity, finding.data["queue"]) == ("waiting_job", "warning", "b")
    for _ in range(2):
        assert pq["b"].get(block=False)
    assert look(pq) == []


def test_a_job_that_was_ready_only_after_its_schedule_has_not_waited_since_it_was_put(pq: PQ, sql: Sql) -> None:
    pq["a"].put(1)
    sql("update queue set enqueued_at = now() - interval '1 day', schedule_at = now(), due_at = null")
    sql("update queue set due_at = null")
    assert look(pq) == []


def test_a_dead_job_that_is_retried_has_not_waited_since_it_was_put(pq: PQ, sql: Sql) -> None:
    for _ in range(2):
        pq["a"].put(1)
    sql("update queue set enqueued_at = now() - interval '3 days'")
    assert found(pq, "waiting_job")
    for _ in range(2):
        (job := pq["a"].get(lease="1m")).fail("no")
    pq["a"].dead.retry(job.id)
    pq["a"].dead.retry(all=True, in_="0s")
    assert look(pq) == []


def test_jobs_of_a_paused_queue_are_noted_and_not_missed(
    pq: PQ, dsn: str, sql: Sql, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for queue in ("empty", "other", "it's"):
        pq[queue].pause()
    pq["other"].put(1, schedule_at="1h")
    pq["it's"].put(1)
    pq["it's"].put(1, schedule_at="1h")
    sql(
        "update queue set enqueued_at = now() - interval '2 hours', due_at = due_at - interval '2 hours'"
        " where q_name = 'it''s' and due_at is distinct from '200000-01-01 00:00:00+00'"
    )
    (finding,) = look(pq)
    assert (finding.name, finding.severity, finding.data["queue"]) == ("paused_queue", "note", "it's")
    assert finding.data["jobs"] == "2" and finding.data["since"] in finding.what
    monkeypatch.setitem(LIMITS, "counted", 1)
    (finding,) = look(pq)
    assert finding.data["jobs"] == "1 or more"
    cure(dsn, finding, capsys)
    assert set(names(pq)) == {"overdue_job", "waiting_job"}


def test_dead_jobs(pq: PQ, dsn: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for queue in ("a", "it's"):
        for _ in range(2):
            pq[queue].put(1)
            job = pq[queue].get(lease="1m")
            assert look(pq) == [] or queue == "it's" or _
            job.fail("no")
    first, second = look(pq)
    assert (first.name, first.severity, first.data["queue"]) == ("dead_jobs", "warning", "it's")
    assert (first.data["id"], first.data["jobs"]) == (job.id, "2")
    assert second.data["queue"] == "a"
    cure(dsn, first, capsys)  # which shows them
    assert f"{job.id}  " in capsys.readouterr().out
    monkeypatch.setitem(LIMITS, "counted", 1)
    monkeypatch.setitem(LIMITS, "at_most", 1)
    (first,) = look(pq)
    assert (first.data["queue"], first.data["jobs"]) == ("it's", "1 or more")
    for queue in ("a", "it's"):
        pq[queue].dead.retry(all=True)
    assert look(pq) == []


def finished(pq: PQ, sql: Sql, age: str, **retain: Any) -> int:
    """Make a finished job of that age, in a table that keeps such jobs so long; return its id."""
    pq.create(**retain)
    id: int = pq["a"].put(1)
    assert pq["a"].get(block=False)
    sql("update queue set dequeued_at = now() - %s::interval where id = %s", (age, id))
    return id


@pytest.mark.parametrize("comment", ["(pq keeps finished 7 days, dead 30d)", "mine (pq keeps finished 7x, dead 30d)"])
def test_a_retention_that_can_not_be_read(
    pq: PQ, dsn: str, sql: Sql, comment: str, capsys: pytest.CaptureFixture[str]
) -> None:
    sql(f"comment on column queue.result is '{comment}'")
    (finding,) = look(pq)
    assert (finding.name, finding.severity, finding.data) == ("retention_unreadable", "warning", {"comment": comment})
    cure(dsn, finding, capsys)
    assert look(pq) == []
    assert (pq.retention.finished, pq.retention.dead) == (timedelta(days=7), timedelta(days=30))
    ((kept,),) = sql("select col_description('queue'::regclass, attnum) from pg_attribute"
                     " where attrelid = 'queue'::regclass and attname = 'result'")
    assert kept.count("pq keeps") == 1 and kept.startswith("mine") is comment.startswith("mine")


def test_a_large_table_that_keeps_everything(
    pq: PQ, dsn: str, sql: Sql, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sql("insert into queue (q_name, data) select 'a', '1' from generate_series(1, 99)")
    monkeypatch.setitem(LIMITS, "many_rows", 100)
    pq.create(retain=None)
    sql("analyze queue")
    assert look(pq) == []
    pq["b"].put(1)
    sql("analyze queue")
    assert look(pq) == []  # nothing is finished
    assert pq["b"].get(block=False)
    (finding,) = look(pq)
    assert (finding.name, finding.severity, finding.data["rows"]) == ("retention_unlimited", "warning", 100)
    cure(dsn, finding, capsys)
    assert look(pq) == []


def test_finished_jobs_that_nobody_deletes(
    pq: PQ, dsn: str, sql: Sql, capsys: pytest.CaptureFixture[str]
) -> None:
    finished(pq, sql, "100 days", retain=None)
    assert look(pq) == []
    sql("delete from queue")
    finished(pq, sql, "7 days 23 hours", retain="7d")
    assert look(pq) == []
    id = finished(pq, sql, "8 days 1 hour")
    (finding,) = look(pq)
    assert (finding.name, finding.severity) == ("retention_overdue", "warning")
    assert (finding.data["id"], finding.data["state"], finding.data["kept"]) == (id, "finished", "7 days")
    cure(dsn, finding, capsys)
    assert look(pq) == []


def test_dead_jobs_that_nobody_deletes(pq: PQ, dsn: str, sql: Sql, capsys: pytest.CaptureFixture[str]) -> None:
    for queue in "ab":
        for _ in range(2):
            pq[queue].put(1)
            (job := pq[queue].get(lease="1m")).fail("no")
    assert not found(pq, "retention_overdue")
    sql("update queue set dequeued_at = now() - interval '32 days' where id = %s", (job.id,))
    (finding,) = found(pq, "retention_overdue")
    assert (finding.data["id"], finding.data["queue"], finding.data["state"]) == (job.id, "b", "dead")
    cure(dsn, finding, capsys)
    assert not found(pq, "retention_overdue")


def test_a_sequence_that_is_behind_the_ids(
    pq: PQ, dsn: str, sql: Sql, capsys: pytest.CaptureFixture[str]
) -> None:
    sql("insert into queue (id, q_name, data) values (1, 'a', '1')")  # before the sequence was used at all
    (finding,) = look(pq)
    assert (finding.name, finding.severity, finding.data["last"]) == ("sequence_behind", "error", 0)
    sql("insert into queue (id, q_name, data) values (7, 'a', '1'); select setval('queue_id_seq', 6)")
    (finding,) = look(pq)
    assert (finding.data["last"], finding.data["largest"]) == (6, 7)
    with pytest.raises(driver.Error):
        pq["a"].put(1)
    sql("select setval('queue_id_seq', 3)")
    cure(dsn, found(pq, "sequence_behind")[0], capsys)
    assert pq["a"].put(1) == 8
    assert look(pq) == []


def test_of_many_queues_those_that_wait_longest_are_told(pq: PQ, sql: Sql) -> None:
    sql("insert into queue (q_name, data) select 'q' || i, '1' from generate_series(1, 15) as i")
    sql("update queue set enqueued_at = now() - make_interval(days => id::int)")
    findings = look(pq)
    assert [finding.data["queue"] for finding in findings] == [f"q{i}" for i in range(15, 5, -1)]


@pytest.mark.parametrize(
    ("sql_of", "problem"),
    [
        ("delete from queue_slots where kind = 'running' and n > 1", "2 of its 3 places are missing"),
        ("delete from queue_slots where kind = 'rate'", "5 of its 5 tokens are missing"),
        ("delete from queue where q_name = 'a'", "queue 'a' has no mark of it"),
    ],
    ids=["places", "tokens", "mark"],
)
def test_a_limit_of_which_a_part_is_gone(pq: PQ, sql: Sql, sql_of: str, problem: str) -> None:
    pq.limits["it's"] = Limit(running=3, rate="5/m", queues=["a", "b"])
    pq.limits["keys"] = Limit(per_key=2)
    pq["a"].put(1)
    pq["a"].get(lease="1m")
    assert look(pq) == []
    sql(sql_of)
    (finding,) = look(pq)
    assert (finding.name, finding.severity, finding.data["name"]) == ("broken_limit", "error", "it's")
    assert problem in finding.what
    command = finding.remedy.partition(": ")[2]
    exec(command, {"pq": pq})
    assert look(pq) == []


def test_a_schedule_that_nobody_fires(pq: PQ, sql: Sql) -> None:
    for name in ("fired", "paused", "late"):
        pq.schedules[name] = Schedule("a", 1, every="1h")
    pq.schedules["paused"].pause()
    sql("update queue_schedules set next_at = now() - interval '9 minutes'")
    assert look(pq) == []
    sql("update queue_schedules set next_at = now() - interval '11 minutes' where name <> 'fired'")
    (finding,) = look(pq)
    assert (finding.name, finding.severity) == ("overdue_schedule", "error")
    assert (finding.data["name"], finding.data["queue"]) == ("late", "a")
    Ticker(pq._table).look()  # what workers and the command of the remedy do
    assert [finding.name for finding in look(pq)] == ["overdue_job"]  # the one that was put


@pytest.mark.parametrize("pauses", [True, False])
def test_a_schedule_that_fails(dsn: str, pq: PQ, sql: Sql, pauses: bool, capsys: pytest.CaptureFixture[str]) -> None:
    """It is paused for its rule; a trigger of the user's may let the next one pass."""
    for name in ("right", "wrong way"):
        pq.schedules[name] = Schedule(name, 1, every="1h")
    if pauses:
        sql("update queue_schedules set rule = 'no rule' where q_name = 'wrong way'")
    else:
        sql("alter table queue add constraint refused check (q_name <> 'wrong way')")
    sql("update queue_schedules set next_at = now() - interval '20 minutes'")
    Ticker(pq._table).look()
    pq["right"].clear()
    (finding,) = look(pq)
    assert (finding.name, finding.severity, finding.data["name"]) == ("failed_schedule", "error", "wrong way")
    assert finding.data["error"] == pq.schedules["wrong way"].error
    assert finding.data["error"] in finding.what and ("paused" in finding.what) is pauses
    sql("update queue_schedules set rule = 'every 1h'" if pauses else "alter table queue drop constraint refused")
    cure(dsn, finding, capsys)
    Ticker(pq._table).look()
    assert [finding.name for finding in look(pq)] == ["overdue_job"]


# -- what holds dead rows back


@pytest.mark.parametrize("begin", ["begin; select txid_current()", "begin isolation level repeatable read; select 1"])
def test_an_old_transaction(
    pq: PQ, dsn: str, connect: Callable[..., Any], begin: str, impatient: None, capsys: pytest.CaptureFixture[str]
) -> None:
    holder = connect(application_name="holder")
    holder.autocommit = True
    pid = holder.info.backend_pid
    holder.cursor().execute("begin; select 1")  # at read committed no snapshot is held between statements
    assert not found(pq, "old_transaction", pid=pid)
    holder.cursor().execute("rollback")
    holder.cursor().execute(begin)
    (finding,) = found(pq, "old_transaction", pid=pid, application="holder", state="idle in transaction")
    assert finding.data["since"] in finding.what
    cure(dsn, finding, capsys)
    wait_until(lambda: not found(pq, "old_transaction", pid=pid), "the end of the session")


def test_a_transaction_that_is_not_old_is_not_found(pq: PQ, connect: Callable[..., Any]) -> None:
    connect().cursor().execute("select txid_current() from queue for update")
    assert look(pq) == []


def test_of_other_databases_only_transactions_that_write_count(
    pq: PQ, make_database: Callable[..., str], impatient: None
) -> None:
    with closing(driver.connect(make_database())) as other:
        driver.set_session(other, isolation_level="repeatable read")
        other.cursor().execute("select 1")
        assert not found(pq, "old_transaction", pid=other.info.backend_pid)
        other.cursor().execute("select txid_current()")
        assert found(pq, "old_transaction", pid=other.info.backend_pid)


def test_a_vacuum_holds_nothing_back(pq: PQ, sql: Sql, connect: Callable[..., Any], impatient: None) -> None:
    sql("insert into queue (q_name, data) select 'a', '1' from generate_series(1, 5000)")
    slow = connect(options="-c vacuum_cost_delay=100 -c vacuum_cost_limit=1")
    slow.autocommit = True
    running = Background(slow.cursor().execute, "vacuum queue")
    pid = slow.info.backend_pid
    wait_until(lambda: sql("select from pg_stat_progress_vacuum where pid = %s", (pid,)), "the vacuum")
    assert not found(pq, "old_transaction", pid=pid)
    slow.cancel()
    with pytest.raises(either("QueryCanceled")):
        running.result()


def test_a_transaction_that_was_prepared_and_forgotten(
    pq: PQ, dsn: str, connect: Callable[..., Any], impatient: None, capsys: pytest.CaptureFixture[str]
) -> None:
    connect().cursor().execute("select txid_current(); prepare transaction 'it''s'")
    try:
        (finding,) = found(pq, "old_prepared_transaction")
        assert finding.data["gid"] == "it's"
        cure(dsn, finding, capsys)
        assert not found(pq, "old_prepared_transaction")
    finally:
        for (command,) in execute(dsn, "select format('rollback prepared %L', gid) from pg_prepared_xacts"):
            execute(dsn, command)


def test_a_replication_slot_that_nobody_uses(
    pq: PQ, dsn: str, sql: Sql, impatient: None, capsys: pytest.CaptureFixture[str]
) -> None:
    sql("select pg_create_logical_replication_slot('it', 'pgoutput')")
    try:
        sql("select txid_current()")
        (finding,) = found(pq, "old_replication_slot", slot="it", kind="logical", pid=None)
        assert "not in use" in finding.what
        cure(dsn, finding, capsys)
        assert not found(pq, "old_replication_slot")
    finally:
        sql("select pg_drop_replication_slot(slot_name) from pg_replication_slots")


@contextmanager
def standby(dsn: str, xmin: int, slot: str = "") -> Iterator[socket.socket]:
    """What a standby with hot_standby_feedback says of a query that runs there and sees transactions from `xmin` on."""

    def message(kind: bytes, body: bytes) -> bytes:
        return kind + struct.pack("!i", len(body) + 4) + body

    given = parse_dsn(dsn)
    ((lsn,),) = execute(dsn, "select pg_current_wal_flush_lsn()::text")
    with socket.create_connection((given["host"], int(given["port"]))) as conn:
        options = f"user\0{given['user']}\0replication\0true\0application_name\0standby\0\0".encode()
        conn.sendall(message(b"", struct.pack("!i", 196608) + options))
        where = f"SLOT {slot}" if slot else ""  # this language has its words in capitals only
        conn.sendall(message(b"Q", f"START_REPLICATION {where} PHYSICAL {lsn}\0".encode()))
        conn.sendall(message(b"d", b"h" + struct.pack("!qIIII", 0, xmin, 0, 0, 0)))
        yield conn


@pytest.mark.parametrize("slot", ["", "it"])
def test_a_standby_with_an_old_query(
    pq: PQ, dsn: str, sql: Sql, slot: str, impatient: None, capsys: pytest.CaptureFixture[str]
) -> None:
    if slot:
        sql("select pg_create_physical_replication_slot(%s)", (slot,))
    ((xmin,),) = sql("select txid_current()")
    sql("select txid_current()")
    name = "old_replication_slot" if slot else "old_standby"
    try:
        with standby(dsn, xmin, slot):
            (finding,) = wait_until(lambda: found(pq, name), "the feedback")
            assert finding.data["transactions"] > 0
            ((pid,),) = sql("select pid from pg_stat_replication")
            assert finding.data["pid"] == pid
            if not slot:
                cure(dsn, finding, capsys)
                wait_until(lambda: not found(pq, name), "the end of the session")
    finally:
        wait_until(lambda: not sql("select from pg_stat_replication"), "the end of the session")
        sql("select pg_drop_replication_slot(slot_name) from pg_replication_slots")


def test_a_session_that_is_idle_while_it_holds_jobs(
    pq: PQ, dsn: str, connect: Callable[..., Any], impatient: None, capsys: pytest.CaptureFixture[str]
) -> None:
    pq["a"].put(1)
    conn = connect()
    conn.cursor().execute("select id from queue")
    assert not found(pq, "idle_in_transaction")
    conn.cursor().execute("select id from queue for update")
    (finding,) = found(pq, "idle_in_transaction")
    assert finding.data["pid"] == conn.info.backend_pid
    assert pq["a"].get(block=False) is None
    cure(dsn, finding, capsys)
    wait_until(lambda: pq["a"].get(block=False), "the job")
    assert not found(pq, "idle_in_transaction")


# -- the server


@pytest.mark.parametrize(
    ("setting", "name"),
    [
        ("fsync", "not_durable"),
        ("full_page_writes", "not_durable"),
        ("synchronous_commit", "synchronous_commit_off"),
        ("autovacuum", "autovacuum_off"),
        ("track_counts", "autovacuum_off"),
    ],
)
def test_settings_that_matter(
    dsn: str, durable: None, setting: str, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def doctor() -> list[Finding]:
        with PQ(dsn) as pq:
            return pq.doctor()

    switch(dsn, setting, "off")
    try:
        (finding,) = doctor()
        assert finding.name == name
        assert setting in finding.what + finding.remedy
        cure(dsn, finding, capsys)
        wait_until(lambda: doctor() == [], "the new setting")
    finally:
        switch(dsn, setting, "on")


def test_the_queue_of_notifications(
    pq: PQ, sql: Sql, connect: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(LIMITS, "notify_queue", 0.0)
    listener = connect()
    listener.cursor().execute("listen it")
    listener.commit()
    listener.cursor().execute("select 1")
    sql("select pg_notify('it', repeat('x', 7000) || i) from generate_series(1, 20) as i")
    assert found(pq, "notify_queue")
    listener.rollback()
    wait_until(lambda: not found(pq, "notify_queue"), "the end of the queue")


def test_connections_run_out(pq: PQ, connect: Callable[..., Any]) -> None:
    assert look(pq) == []
    for _ in range(34):  # of 37
        connect()
    (finding,) = found(pq, "connections")
    assert finding.data["allowed"] == 37
    assert 34 <= finding.data["used"] <= 37


def test_a_clock_that_is_wrong(pq: PQ, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = time.time
    monkeypatch.setattr(time, "time", lambda: clock() + 3600)
    (finding,) = look(pq)
    assert finding.name == "clock_skew"
    assert finding.data["seconds"] == pytest.approx(-3600, abs=60)


# -- who looks, and how


def test_a_role_without_rights_of_its_own_is_told_what_it_can_not_see(
    role: str, dsn: str, sql: Sql, impatient: None, capsys: pytest.CaptureFixture[str]
) -> None:
    sql("begin; select txid_current()")
    with PQ(role) as pq:
        (finding,) = look(pq)
        assert (finding.name, finding.severity) == ("hidden_sessions", "note")
        assert finding.data["sessions"] >= 1
        sql("commit")
        sql(finding.remedy)
        assert "hidden_sessions" not in names(pq)


def test_rights_that_are_missing(role: str, dsn: str, sql: Sql) -> None:
    sql('revoke delete on queue from "app role"; revoke usage on sequence queue_id_seq from "app role"')
    with PQ(role) as pq:
        assert {finding.data["missing"] for finding in found(pq, "rights")} == {"delete", "usage of queue_id_seq"}
        for finding in found(pq, "rights"):
            assert finding.severity == "note"
            sql(finding.remedy.partition(": ")[2])
        assert not found(pq, "rights")
        assert pq["a"].put(1)
        pq["a"].clear()


def test_a_session_that_can_only_read(dsn: str) -> None:
    with PQ(make_dsn(dsn, options="-c default_transaction_read_only=on")) as pq:
        (finding,) = found(pq, "read_only")
        assert "default_transaction_read_only" in finding.what


def test_a_role_that_may_not_read_the_table_is_told_so(role: str, sql: Sql) -> None:
    sql('revoke all on queue from "app role"')
    with PQ(role) as pq:
        findings = [finding for finding in look(pq) if finding.name not in ("hidden_sessions", "rights")]
    assert {finding.name for finding in findings} == {"not_seen"}
    assert "overdue_job" in {finding.data["finding"] for finding in findings}
    assert "permission denied" in findings[0].what


def test_an_ordinary_role_finds_what_is_wrong_with_the_table(role: str, sql: Sql) -> None:
    sql("alter table queue disable trigger user; alter table queue set (autovacuum_enabled = off)")
    with PQ(role) as pq:
        assert {"trigger_disabled", "autovacuum_off"} <= set(names(pq))


def test_a_table_that_is_in_use_for_a_moment_is_no_finding(pq: PQ, connect: Callable[..., Any]) -> None:
    connect().cursor().execute("lock table queue in share mode")
    assert look(pq) == []


def test_a_table_that_is_locked_is_one_finding(
    pq: PQ, dsn: str, connect: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """However short the lock: what nobody may look at can't be told from what has been locked for long."""
    monkeypatch.setattr("pq.doctor.LOCK_TIMEOUT", "50ms")
    holder = connect(application_name="it's")
    holder.cursor().execute("lock table queue")
    (finding,) = look(pq)
    assert (finding.name, finding.severity, finding.data["pid"]) == (
        "table_locked", "error", holder.info.backend_pid
    )  # fmt: skip
    assert finding.data["since"] in finding.what and "lock table queue" in finding.what and "it''s" in finding.what
    cure(dsn, finding, capsys)
    wait_until(lambda: look(pq) == [], "the end of the session")


@pytest.mark.parametrize(
    ("lock", "hides"),
    [("lock table queue", True), ("lock table queue in share mode", False), ("lock table queue_slots", True)],
)
def test_who_has_had_a_lock_for_long_is_told_and_nothing_waits_for_it(
    pq: PQ, sql: Sql, connect: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, lock: str, hides: bool
) -> None:
    pq["a"].put(1)
    sql("update queue set enqueued_at = now() - interval '2 hours'")
    monkeypatch.setitem(LIMITS, "lock_age", timedelta(0))
    connect().cursor().execute(lock)
    began = time.monotonic()
    assert [finding.name for finding in look(pq)] == ["table_locked", *([] if hides else ["waiting_job"])]
    assert time.monotonic() - began < 1  # which is what a look at a locked table takes


def test_who_waits_for_a_lock_has_all_others_wait_behind_him(
    pq: PQ, dsn: str, connect: Callable[..., Any], impatient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(LIMITS, "lock_age", timedelta(0))
    reader, waiter = connect(), connect()
    reader.cursor().execute("select from queue")
    running = Background(waiter.cursor().execute, "alter table queue add column it int")
    (finding,) = wait_until(lambda: found(pq, "table_locked"), "the session that waits")
    assert finding.data["pid"] == waiter.info.backend_pid
    assert f"behind session {reader.info.backend_pid}" in finding.what
    execute(dsn, "select pg_terminate_backend(%s)", (waiter.info.backend_pid,))
    with pytest.raises(driver.Error):
        running.result()
    wait_until(lambda: not found(pq, "table_locked"), "the end of the session")


def test_a_prepared_transaction_may_have_the_lock(
    pq: PQ, dsn: str, connect: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(LIMITS, "lock_age", timedelta(0))
    connect().cursor().execute("lock table queue; prepare transaction 'it''s'")
    try:
        (finding,) = found(pq, "table_locked")
        assert "'it''s'" in finding.what
        cure(dsn, finding, capsys)
        assert look(pq) == []
    finally:
        for (command,) in execute(dsn, "select format('rollback prepared %L', gid) from pg_prepared_xacts"):
            execute(dsn, command)


def test_another_lock_that_a_look_waits_for_is_a_note(
    pq: PQ, connect: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pq.doctor.LOCK_TIMEOUT", "50ms")
    monkeypatch.setitem(pq._table.statements("doctor.sql"), "read_only", "select from other")  # type: ignore[arg-type]
    conn = connect()
    conn.cursor().execute("create table other (x int)")
    conn.commit()
    conn.cursor().execute("lock table other")
    (finding,) = look(pq)
    assert (finding.name, finding.data["finding"]) == ("not_seen", "read_only")
    assert "lock timeout" in finding.what


@pytest.mark.parametrize("failing", [False, True])
def test_the_transaction_of_the_caller_goes_on(pq: PQ, failing: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if failing:
        monkeypatch.setitem(LIMITS, "transaction_age", "no interval")
    with pq["a"] as cursor:
        cursor.execute("set local statement_timeout = '59s'; set local lock_timeout = '58s'")
        pq["a"].put(1)
        assert bool(found(pq, "not_seen")) is failing
        pq["a"].put(2)
        cursor.execute("select current_setting('statement_timeout'), current_setting('lock_timeout')")
        assert cursor.fetchone() == ("59s", "58s")
    assert len(pq["a"]) == 2


def test_what_an_application_has_open_on_its_connection_is_not_lost(sql: Sql, connect: Callable[..., Any]) -> None:
    conn = connect()
    sql("create table other (x int)")
    conn.cursor().execute("insert into other values (1)")
    with PQ(conn) as pq:
        assert look(pq) == []
    assert sql("select x from other") == [(1,)]


def test_nothing_is_changed_whatever_a_look_sets_off(role: str, sql: Sql) -> None:
    sql("insert into queue (q_name, data) values ('a', '1')")
    sql("create table log (x int); grant insert on log to \"app role\"")
    sql("create function note() returns bool language sql as 'insert into log values (1); select true'")
    sql("alter table queue enable row level security; create policy it on queue using (note())")
    with PQ(role) as pq:
        assert any("read-only transaction" in finding.what for finding in found(pq, "not_seen"))
        assert sql("select from log") == []
        assert list(pq) == ["a"]  # and others are not affected
    assert sql("select from log") != []


def test_a_connection_that_breaks_is_no_finding(connect: Callable[..., Any], sql: Sql) -> None:
    conn = connect()
    with PQ(conn) as pq:
        sql("select pg_terminate_backend(%s)", (conn.info.backend_pid,))
        with pytest.raises(ConnectionLost):
            look(pq)


# -- the command


def test_the_command_tells_what_is_wrong(dsn: str, durable: None, sql: Sql, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--dsn", dsn]) == 0
    assert capsys.readouterr().out == 'table "queue": nothing is wrong\n'
    sql(BROKEN["trigger_disabled"])
    assert main(["doctor", "--dsn", dsn]) == 1
    with PQ(dsn) as pq:
        (finding,) = look(pq)
    assert capsys.readouterr().out == f"{finding}\n"
    assert finding.what in str(finding)
    assert finding.remedy in str(finding)


def test_the_command_prints_json(dsn: str, durable: None, sql: Sql, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--dsn", dsn, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []
    sql(BROKEN["index_missing index_missing"])
    assert main(["doctor", "--dsn", dsn, "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    with PQ(dsn) as pq:
        assert [Finding(**each) for each in document] == look(pq)
    assert len(document) == 2


def test_a_note_is_no_failure_of_the_command(role: str, durable: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--dsn", role]) == 0
    assert capsys.readouterr().out.startswith("note: hidden_sessions: ")


@pytest.mark.parametrize(
    ("args", "code"), [(["--table", ""], 2), (["--dsn", "postgresql://postgres@127.0.0.1:1/nowhere"], 3)]
)
def test_the_command_fails_like_the_others(dsn: str, args: list[str], code: int) -> None:
    assert main(["doctor", "--dsn", dsn, *args]) == code


def test_the_documentation_has_all_findings() -> None:
    page = Path(__file__).parents[2].joinpath("docs", "howto", "doctor.rst").read_text("utf-8")
    kinds = (
        _findings.PARTS, _jobs.JOBS, _findings.SERVER, _streams.CHECKS, vars(_findings).values(), vars(_jobs).values()
    )  # fmt: skip
    checks = {check for group in kinds for check in group if isinstance(check, _findings.Check)}
    assert len(checks) > 25
    for check in checks:
        (row,) = re.findall(rf"^   \* - (?:``\w+``, )*``{check.name}``.*\n     - (.*)$", page, re.MULTILINE)
        assert row == check.severity or check.severity == "note"
