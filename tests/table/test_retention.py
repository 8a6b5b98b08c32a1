"""How long rows are kept: stored with the table, changed by its owner, and what pruning deletes."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from typing import Any

import pytest
from psycopg2.extensions import make_dsn
from support import Background, execute
from support.catalog import objects
from support.driver import driver

from pq import PQ, DecodeError, Discard, JobNotFound, Queue, Retry, TableMissing
from pq import sql as _sql
from pq._table import migrations, retention
from pq._table import table as table_module
from pq._table.retention import Pruner, Retention

Sql = Callable[..., list[tuple[Any, ...]]]
DAY = timedelta(days=1)
NOTHING = timedelta()
NEW = Retention(7 * DAY, 30 * DAY)
ALWAYS = Retention(None, None)
COMMENT = "select col_description('queue'::regclass, attnum) from pg_attribute where attrelid = 'queue'::regclass " \
    "and attname = 'result'"


def note(sql: Sql, comment: str | None) -> None:
    sql("comment on column queue.result is %s", (comment,))


# -- how long


def test_a_new_table_keeps_finished_jobs_for_7_days_and_dead_ones_for_30(empty_dsn: str) -> None:
    with PQ(empty_dsn) as pq:
        assert pq.retention == ALWAYS  # nothing is there that could be deleted
        pq.create()
        assert pq.retention == NEW


def test_a_table_made_by_the_printed_sql_is_a_new_one(empty_dsn: str) -> None:
    for _ in range(2):
        execute(empty_dsn, migrations.script(_sql.TableName("queue")))
        with PQ(empty_dsn) as pq:
            assert pq.retention == NEW


@pytest.mark.parametrize("version", [1, 2, 3])
@pytest.mark.parametrize("by", ["create", "printed", "printed since"])
def test_an_older_table_keeps_everything_until_somebody_says_otherwise(dsn: str, version: int, by: str) -> None:
    table = _sql.TableName("queue", "old")
    execute(dsn, "create schema old")
    for step in migrations.steps()[:version]:
        execute(dsn, migrations.for_table(step.sql, table))
    with closing(driver.connect(dsn)) as conn, PQ(conn, schema="old") as pq:
        if by == "create":
            with pq["a"]:
                PQ(conn, table="new").create()  # a new one in the same transaction
                pq.create()
        else:
            execute(dsn, migrations.script(table, version if by == "printed since" else 0))
        assert pq.version() == migrations.VERSION
        assert pq.retention == ALWAYS
        pq.create()
        assert pq.retention == ALWAYS
        pq.create(retain="1d")
        assert pq.retention == Retention(DAY, None)


@pytest.mark.parametrize("table", ['qu"ote', "apo'strophe", "back\\slash", "$pq$", "per%cent"])
def test_any_name_of_a_table_has_its_retention(empty_dsn: str, table: str) -> None:
    with PQ(empty_dsn, table=table, schema=table) as pq:
        pq.create()
        assert pq.retention == NEW
        pq.create(retain=None)
        assert pq.retention == Retention(None, 30 * DAY)
        assert pq.prune() == 0


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ({"retain": "1d"}, Retention(DAY, 30 * DAY)),
        ({"retain": "1h30m"}, Retention(timedelta(minutes=90), 30 * DAY)),
        ({"retain": timedelta(seconds=61)}, Retention(timedelta(seconds=61), 30 * DAY)),
        ({"retain": 0}, Retention(NOTHING, 30 * DAY)),
        ({"retain": "0s"}, Retention(NOTHING, 30 * DAY)),
        ({"retain": timedelta()}, Retention(NOTHING, 30 * DAY)),
        ({"retain": None}, Retention(None, 30 * DAY)),
        ({"retain_dead": "1d"}, Retention(7 * DAY, DAY)),
        ({"retain_dead": None}, Retention(7 * DAY, None)),
        ({"retain": timedelta(days=1_000_000), "retain_dead": "90m"}, Retention(DAY * 1_000_000, DAY / 16)),
        ({"retain": None, "retain_dead": None}, ALWAYS),
    ],
    ids=str,
)
def test_what_is_given_is_kept_until_something_else_is_given(
    dsn: str, given: dict[str, Any], kept: Retention
) -> None:
    for table in ("queue", "new"):
        with PQ(dsn, table=table) as pq:
            pq.create(**given)
            assert pq.retention == kept
            before = objects(dsn)
            pq.create()
            pq.create(**given)
            assert objects(dsn) == before
            assert pq.retention == kept
            assert pq.retention.deletes_on_completion == (kept.finished == NOTHING)


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"retain": -7}, ValueError, "retain must not be negative"),
        ({"retain": False}, TypeError, "retain must be .* not bool: False"),
        ({"retain": 0.5}, ValueError, "retain must be whole seconds"),
        ({"retain": "a week"}, ValueError, "retain must be of the form"),
        ({"retain": ""}, ValueError, "retain must be of the form"),
        ({"retain": -DAY}, ValueError, "retain must not be negative"),
        ({"retain": timedelta(milliseconds=1)}, ValueError, "retain must be whole seconds"),
        ({"retain": "9999999d"}, ValueError, "retain is out of range"),
        ({"retain": timedelta.max}, ValueError, "retain is out of range"),
        ({"retain_dead": 0}, ValueError, "retain_dead must be positive"),
        ({"retain_dead": b"1d"}, TypeError, "retain_dead must be .* not bytes"),
    ],
    ids=str,
)
def test_what_can_not_be_is_refused_before_anything_is_sent(
    given: dict[str, Any], error: type[Exception], words: str
) -> None:
    with PQ("host=127.0.0.1 port=1") as pq, pytest.raises(error, match=words):
        pq.create(**given)


@pytest.mark.parametrize("mark", ["(pq keeps finished soon, dead 1d)", "(pq keeps finished 7d)", "pq keeps nothing"])
def test_a_comment_that_does_not_say_how_long_keeps_everything(pq: PQ, sql: Sql, mark: str) -> None:
    note(sql, mark)
    assert pq.retention == ALWAYS


def test_the_owners_comment_stays(pq: PQ, sql: Sql) -> None:
    note(sql, "Bob's \\ 100%")
    pq.create(retain="1d")
    pq.create(retain="2d", retain_dead="90d")
    assert sql(COMMENT) == [("Bob's \\ 100% (pq keeps finished 2d, dead 90d)",)]


def test_on_a_newer_table_it_can_be_set(pq: PQ, sql: Sql) -> None:
    sql("comment on column queue.due_at is 'Later. (pq schema 99)'")
    pq.create(retain="1d")
    assert pq.retention == Retention(DAY, 30 * DAY)
    assert pq.version() == 99


def test_it_is_set_while_others_write(pq: PQ, connect: Callable[..., Any], sql: Sql) -> None:
    before = sql("select relfilenode from pg_class where oid = 'queue'::regclass")
    with connect() as writer, writer.cursor() as cursor:
        cursor.execute("insert into queue (q_name, data) values ('a', '1')")
        Background(pq.create, retain="1d").result()
        with pq["a"]:
            pq.create(retain="2d")
            Background(sql, "insert into queue (q_name, data) values ('a', '1')").result()
    assert pq.retention == Retention(2 * DAY, 30 * DAY)
    assert sql("select relfilenode from pg_class where oid = 'queue'::regclass") == before


def test_in_a_transaction_it_is_part_of_that(pq: PQ) -> None:
    with pytest.raises(ZeroDivisionError), pq["a"]:
        pq.create(retain=None)
        raise ZeroDivisionError
    assert pq.retention == NEW


def test_what_the_table_says_in_other_words_is_left_as_it_is(pq: PQ, sql: Sql) -> None:
    note(sql, "mine (pq keeps finished 24h, dead always)")
    pq.create(retain="1d", retain_dead=None)
    assert sql(COMMENT) == [("mine (pq keeps finished 24h, dead always)",)]


def test_others_than_the_owner_can_read_and_not_set_it(pq: PQ, dsn: str, sql: Sql) -> None:
    role = f"pq_role_{uuid.uuid4().hex[:8]}"
    sql(f"create role {role} login")
    try:
        with PQ(make_dsn(dsn, options=f"-c role={role}")) as other:
            assert other.retention == other._table.retention() == NEW
            other.create(retain="7d", retain_dead="30d")
            with pytest.raises(driver.errors.InsufficientPrivilege):
                other.create(retain="8d")
        assert pq.retention == NEW
    finally:
        sql(f"drop role {role}")


# -- what hot paths ask


def test_the_current_retention_is_asked_for_once_in_a_while(
    pq: PQ, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert pq._table.retention() == NEW
    with PQ(dsn) as other:
        other.create(retain=0)
        assert other._table.retention().deletes_on_completion
    assert pq._table.retention() == NEW
    assert pq["a"]._table.retention() == NEW
    monkeypatch.setattr(table_module, "RETENTION_FRESH", 0.0)
    assert pq._table.retention().deletes_on_completion


def test_what_this_process_sets_is_current_at_once(pq: PQ) -> None:
    assert pq._table.retention() == NEW
    pq.create(retain=0)
    assert pq._table.retention().deletes_on_completion


def test_without_a_table_nothing_is_deleted_on_completion(empty_dsn: str) -> None:
    with PQ(empty_dsn) as pq, pq["a"] as cursor:
        assert pq._table.retention() == ALWAYS
        assert Pruner(pq._db).run_once() == 0
        cursor.execute("select 1")  # the transaction goes on


# -- what pruning deletes

#: All states a row can be in, as pq leaves it.
STATES = {
    "ready": "null, null, null",
    "tried again": "null, null, 'why'",
    "scheduled": "null, now() + interval '1 day', null",
    "due": "null, now() - interval '1 year', null",
    "to be tried again": "null, now() + interval '1 day', 'why'",
    "held": "null, 'infinity', null",
    "running": "now() - interval '1 year', now() + interval '1 day', null",
    "running again": "now() - interval '1 year', now() + interval '1 day', 'why'",
    "expired": "now() - interval '1 year', now() - interval '1 year', null",
    "finished": "now() - interval '1 year', null, null",
    "finished young": "now() - interval '3 days', null, null",
    "finished now": "now(), null, null",
    "dead": "now() - interval '1 year', null, 'why'",
    "dead young": "now() - interval '3 days', null, 'why'",
}


def add(sql: Sql, *states: str, count: int = 1, enqueued: str = "1 year") -> None:
    for state in states:
        sql(
            "insert into queue (q_name, data, dequeued_at, due_at, error, enqueued_at)"
            f" select 'a', to_json(%s::text), {STATES[state]}, now() - %s::interval from generate_series(1, %s)",
            (state, enqueued, count),
        )


def left(sql: Sql) -> set[str]:
    return {state for (state,) in sql("select data #>> '{}' from queue")}


@pytest.mark.parametrize(
    ("retain", "retain_dead", "over"),
    [
        ("7d", "30d", {"finished", "dead"}),
        ("1d", "30d", {"finished", "finished young", "dead"}),
        ("30d", "1d", {"finished", "dead", "dead young"}),
        (0, None, {"finished", "finished young"}),
        (None, "30d", {"dead"}),
        (None, None, set()),
        ("1000d", "1000d", set()),
    ],
)
def test_what_is_over_is_deleted_and_nothing_else(
    pq: PQ, sql: Sql, retain: Any, retain_dead: Any, over: set[str]
) -> None:
    pq.create(retain=retain, retain_dead=retain_dead)
    add(sql, *STATES)
    rows = "select * from queue where data #>> '{}' <> all (%s) order by id"
    before = sql(rows, (list(over),))
    deleted = 0
    while count := pq.prune():
        deleted += count
    assert deleted == len(over)
    assert sql(rows, ([""],)) == before


def test_a_role_without_ddl_rights_prunes(pq: PQ, dsn: str, sql: Sql) -> None:
    role = f"pq_role_{uuid.uuid4().hex[:8]}"
    add(sql, "finished")
    sql(f"create role {role} login; grant select, update, delete on queue to {role}")
    try:
        with PQ(make_dsn(dsn, options=f"-c role={role}")) as other:
            assert other.prune() == 1
    finally:
        sql(f"drop owned by {role}; drop role {role}")


@pytest.mark.parametrize("state", ["finished", "dead"])
def test_so_many_at_a_time_until_none_is_left(pq: PQ, sql: Sql, state: str) -> None:
    add(sql, state, count=25)
    assert [pq.prune(limit=10) for _ in range(4)] == [10, 10, 5, 0]
    add(sql, state)
    assert pq.prune() == 1


@pytest.mark.parametrize(("limit", "error"), [(0, ValueError), (-1, ValueError), (1.0, TypeError), (True, TypeError)])
def test_limits_that_can_not_be(pq: PQ, limit: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="limit must be"):
        pq.prune(limit)


def test_pruning_a_table_that_is_missing_is_an_error(empty_dsn: str) -> None:
    with PQ(empty_dsn) as pq, pytest.raises(TableMissing):
        pq.prune()


def test_in_a_transaction_pruning_is_part_of_it(pq: PQ, sql: Sql) -> None:
    add(sql, "finished")
    with pytest.raises(ZeroDivisionError), pq["a"]:
        assert pq.prune() == 1
        raise ZeroDivisionError
    assert left(sql) == {"finished"}
    while pq.prune():
        pass
    assert left(sql) == set()


@pytest.mark.parametrize("ahead", ["scheduled", "dead young", "finished young"])
def test_what_stays_is_stepped_over_however_many_rows_there_are(pq: PQ, sql: Sql, ahead: str) -> None:
    add(sql, ahead, count=5 * retention.LOOKED_AT)
    add(sql, "finished", count=3)
    assert [pq.prune(limit=2) for _ in range(3)] == [2, 1, 0]


def test_a_young_row_among_old_ones_does_not_stop_it(pq: PQ, sql: Sql) -> None:
    """Ids are not quite in the order of time: rows of long transactions, and those with times of their own."""
    add(sql, "ready", enqueued="-1 year")
    add(sql, "finished")
    assert pq.prune() == 1


@pytest.mark.parametrize("limit", [1, 10])
def test_rows_that_were_put_while_the_clock_was_ahead_hide_none_behind(pq: PQ, sql: Sql, limit: int) -> None:
    add(sql, "finished", count=25 * retention.LOOKED_AT * limit)
    sql("update queue set enqueued_at = now() + interval '1 year', dequeued_at = now() + interval '1 year'")
    add(sql, "finished", "dead", count=3)
    deleted = 0
    while count := pq.prune(limit):
        deleted += count
    assert deleted == 6
    assert sql("select count(*) from queue") == [(25 * retention.LOOKED_AT * limit,)]


def test_a_pass_ends_at_the_young_rows_and_rests(pq: PQ, sql: Sql) -> None:
    add(sql, "finished", count=10)
    add(sql, "ready", enqueued="0", count=10 * retention.LOOKED_AT)
    pruner = Pruner(pq._db)
    assert [(pruner.run_once(limit=10), pruner.pause < retention.PASS_PAUSE) for _ in range(3)] == [
        (10, True),  # a full batch
        (0, True),  # a tenth of the young rows
        (0, False),  # the dead ones
    ]


@pytest.mark.parametrize(
    ("kept", "pause"),
    [
        (Retention(NOTHING, 30 * DAY), 60), (Retention(DAY, 30 * DAY), 86.4), (NEW, 600), (ALWAYS, 600),
        (Retention(None, timedelta(hours=1)), 60),
    ],
)  # fmt: skip
def test_where_rows_are_kept_for_long_passes_are_rare(kept: Retention, pause: float) -> None:
    assert kept.pass_pause == pause


def test_who_looks_at_many_rows_in_vain_rests_longer(
    pq: PQ, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "IN_VAIN", 100)
    pq.create(retain="1h")
    add(sql, "scheduled", count=250)
    pruner = Pruner(pq._db)
    found = [(pruner.run_once(), pruner.pause) for _ in range(2)]
    assert found == [(0, retention.STATEMENT_PAUSE), (0, 3 * retention.PASS_PAUSE)]


def test_rows_that_others_have_locked_are_passed_over(pq: PQ, connect: Callable[..., Any], sql: Sql) -> None:
    add(sql, "finished", "dead", count=2)
    with closing(connect()) as conn, conn.cursor() as cursor:
        cursor.execute("select id from queue where id in (1, 3) for update")
        assert [Background(pq.prune).result() for _ in range(3)] == [1, 1, 0]
    assert sql("select id from queue order by id") == [(1,), (3,)]


def test_a_dead_job_that_is_being_retried_is_left_alone(pq: PQ, dsn: str, sql: Sql) -> None:
    add(sql, "dead")
    with PQ(dsn) as other, other["a"]:
        assert other["a"].dead.retry(all=True) == 1
        assert Background(pq.prune).result() == 0
    assert pq.prune() == 0
    assert len(pq["a"]) == 1


def test_several_prune_at_the_same_time(pq: PQ, dsn: str, sql: Sql) -> None:
    add(sql, "finished", count=600)
    add(sql, "ready", count=10)
    add(sql, "finished", count=600)

    def prune() -> int:
        with PQ(dsn) as own:
            total = 0
            while count := own.prune(limit=50):
                total += count
            return total

    threads = [Background(prune) for _ in range(4)]
    assert sum(thread.result() for thread in threads) + sum(iter(pq.prune, 0)) == 1200
    assert left(sql) == {"ready"}


# -- deletion on completion


def got(queue: Queue) -> Any:
    job = queue.get(block=False)
    assert job is not None
    return job.data


def test_without_retention_what_is_done_or_got_leaves_no_row(pq: PQ, sql: Sql) -> None:
    pq.create(retain=0)
    queue = pq["a"]
    queue.put_many(range(6))
    assert got(queue) == 0
    leased = queue.get_many(2, lease="1h")
    leased[0].done("result")
    queue.settle([(leased[1], None)])
    with queue:
        assert got(queue) == 3
    assert sql("select data::text from queue order by id") == [("4",), ("5",)]
    with pytest.raises(JobNotFound):
        queue.result(leased[0].id)


def test_without_retention_what_is_rolled_back_failed_or_cannot_be_decoded_stays(pq: PQ, sql: Sql) -> None:
    pq.create(retain=0)
    queue = pq["a"]
    queue.put_many(["rolled back", "failed", "released", "again"])
    with pytest.raises(ZeroDivisionError), queue:
        assert got(queue) == "rolled back"
        raise ZeroDivisionError
    assert got(queue) == "rolled back"
    failed, released, again = queue.get_many(3, lease="1h")
    queue.settle([(failed, Discard("bad")), (released, Retry(in_="1h")), (again, Retry(in_="0s"))])
    assert sql("select data::text from queue order by id") == [('"failed"',), ('"released"',), ('"again"',)]
    before = sql("insert into queue (q_name, data, expected_at) values ('b', '5', now()) returning *")
    with pytest.raises(DecodeError, match="it was left where it is"):
        pq["b/pickle"].get()
    assert sql("select * from queue where q_name = 'b'") == before
    with pytest.raises(DecodeError):
        pq["b/pickle"].get()


def test_a_job_got_a_moment_ago_may_still_be_given_back(pq: PQ, sql: Sql) -> None:
    pq.create(retain="1s")
    sql("insert into queue (q_name, data, enqueued_at) values ('a', '1', now() - interval '1 year')")
    job = pq["a"].get()
    assert pq.prune() == 0
    assert job is not None
    job.data = 2


# -- names, and plans


def plan(sql: Sql, path: str, statement: str, **params: Any) -> str:
    rows = sql("explain (costs off) " + _sql.bound(path, '"queue"')[statement], params)
    return "\n".join(line for (line,) in rows)


@pytest.fixture(params=["without statistics", "analyzed"])
def large(request: pytest.FixtureRequest, sql: Sql) -> None:
    """Very many queues, and finished rows by far the most."""
    sql("alter table queue set (autovacuum_enabled = off)")
    sql(
        "insert into queue (q_name, data, dequeued_at, enqueued_at) select 'q' || mod(i, 10000), '1', now(), now()"
        " from generate_series(1, 100000) as i"
    )
    sql("insert into queue (q_name, data) select 'r' || i, '1' from generate_series(1, 10000) as i")
    add(sql, "dead", count=9)
    sql("update queue set q_name = 'd' || mod(id, 9) where error is not null")
    if request.param == "analyzed":
        sql("analyze queue")


@pytest.mark.usefixtures("large")
def test_a_large_table_is_never_read_as_a_whole(pq: PQ, sql: Sql) -> None:
    plans = [plan(sql, "queue.sql", name, queue="r1") for name in ("names", "has_jobs")]
    plans.append(plan(sql, "browse.sql", "count_ready", queue="r1"))
    plans += [
        plan(sql, "retention.sql", "finished", position=0, kept=1, limit=1000, look=10000),
        plan(sql, "retention.sql", "dead", kept=1, limit=1000),
    ]
    for each in plans:
        assert "Seq Scan" not in each
        assert re.search(r"Index.* Scan using queue_|Bitmap Index Scan on queue_", each)
    assert "Sort Key: queue.id" not in plans[3]  # to sort, it would read all rows first
    assert len(list(pq)) == 10009
    assert [name in pq for name in ("r1", "d1", "q1")] == [True, True, False]
    assert [len(pq[name]) for name in ("r1", "d1", "q1")] == [1, 0, 0]


def test_the_names_are_those_of_queues_with_jobs(pq: PQ, sql: Sql) -> None:
    add(sql, *STATES)
    sql("update queue set q_name = data #>> '{}'")
    assert list(pq) == sorted(state for state in STATES if not state.startswith("finished"))
    assert [name in pq for name in STATES] == [not state.startswith("finished") for state in STATES]


def test_a_queue_with_jobs_of_all_kinds_is_named_once(pq: PQ, sql: Sql) -> None:
    names = ["b", "a", "aa", "B"]
    for name in names:
        for _ in range(2):
            add(sql, *STATES)
            sql("update queue set q_name = %s where q_name = 'a'", (name + " ",))
    assert set(pq) == {name + " " for name in names}
    assert len(list(pq)) == len(names)


