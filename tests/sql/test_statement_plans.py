"""The plans of all statements, whatever the planner believes of the table."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from support import execute
from support.driver import driver
from support.plan import filled_tables, nodes

from pq._db.prepared import _prepared
from pq.sql import bound

ROWS = """
    insert into {0} (q_name, data, dequeued_at) select 'a', '1', now() from generate_series(1, 20000);
    insert into {0} (q_name, data, expected_at)
      select 'a', '1', case when i % 2 = 0 then now() + i * interval '1 s' end from generate_series(1, 10000) as i;
    insert into {0} (q_name, data, schedule_at)
      select 'a', '1', now() + i * interval '1 h' from generate_series(1, 10000) as i;
    insert into {0} (q_name, data, schedule_at)
      select 'a', '1', now() - i * interval '1 s' from generate_series(1, 5000) as i;
    insert into {0} (q_name, data, dequeued_at, due_at, attempts)
      select 'a', '1', '2026-01-01', '9000-01-01', 1 from generate_series(1, 5000);
    insert into {0} (q_name, data, dequeued_at, error)
      select 'a', '1', now() - i * interval '1 s', 'why' from generate_series(1, 10000) as i;
"""
HUGE = """
    update pg_class set reltuples = reltuples * 20000
    where oid in (select indexrelid from pg_index where indrelid = '{0}'::regclass) or oid = '{0}'::regclass
"""
FILLS = {
    "never": ROWS,
    "emptied": ROWS + "delete from {0}; vacuum (truncate off) {0}; " + ROWS,
    "stale": "insert into {0} (q_name, data) values ('b', '1'), ('c', '2'); analyze {0};" + ROWS,
    "current": ROWS + "analyze {0};",
    "huge": ROWS + "analyze {0};" + HUGE,
}


@pytest.fixture(scope="module")
def filled(server: str) -> Iterator[str]:
    """The DSN of a database with a table for each state of the statistics."""
    with filled_tables(server, dict.fromkeys(FILLS, "select 1")) as dsn:
        for name, fill in FILLS.items():
            for statement in fill.format(name).split(";"):
                if statement.strip():
                    execute(dsn, statement)
        yield dsn


def deliveries(count: int) -> dict[str, Any]:
    """`count` deliveries, with each outcome, of which one has a result."""
    outcomes = [("done", "retry", "dead", "released", "broken")[i % 5] for i in range(count)]
    return {
        "ids": array(range(45001, 45001 + count)),
        "attempts": array([1] * count),
        "dequeued_at": array(["2026-01-01"] * count),
        "outcomes": array(outcomes),
        "delays": array(1 if outcome == "retry" else "NULL" for outcome in outcomes),
        "errors": array("why" if outcome == "dead" else "NULL" for outcome in outcomes),
        "results": array("1" if outcome == "done" else "NULL" for outcome in outcomes),
        "leases": array([30] * count),
        "exact": array(["f"] * count),
    }


def array(values: Any) -> str:
    return "{" + ",".join(str(value) for value in values) + "}"


ONE = {"id": 45001, "attempts": 1, "dequeued_at": "2026-01-01", "lease": 30, "data": "1", "result": "1"}
TIMES = {"schedule_at": None, "schedule_in": "1 h", "expected_at": None, "expected_in": None}
CHANGE = {"ids": "{45001,45002,45003}", "schedules": True, "expects": True, "target": "b", **TIMES}

#: The statements that have to go by the primary key, with their parameters and what stands in place of a fragment.
BY_ID: dict[str, tuple[str, str, dict[str, Any], dict[str, str]]] = {
    **{
        f"{statement}, {count}": ("lease.sql", statement, deliveries(count), {})
        for statement in ("settle", "settle_and_remove", "extend_all", "locked")
        for count in (1, 50, 1000)
    },
    **{
        name: ("lease.sql", name, ONE, {})
        for name in (
            "done", "done_and_remove", "free", "failed_lately", "extend", "progress", "write", "write_ended",
            "key_state", "steps",
        )
    },
    **{
        f"{name} {count}": (
            "lease.sql", name,
            {"ids": array(range(45001, 45001 + count)), "attempts": 1, "dequeued_at": "2026-01-01", "result": None},
            {"is_its_row": "is_one_of_claim"},
        )
        for name in ("done", "done_and_remove")
        for count in (2, 1000)
    },
    "add_step": ("lease.sql", "add_step", ONE | {"entry": '"a": 1'}, {}),
    "cancelled": ("lease.sql", "cancelled", CHANGE, {}),
    **{name: ("control.sql", name, CHANGE, {}) for name in ("cancel", "reschedule")},
    "move": ("control.sql", "move", CHANGE | {"room": 500}, {"which": "fits"}),
    "longest": ("control.sql", "longest", CHANGE | {"room": 500}, {}),
    "cancel all": ("control.sql", "cancel", CHANGE, {"which": "unfinished", "removes": "does_remove"}),
    **{name: ("queue.sql", name, ONE, {}) for name in ("give_back", "update", "result")},
    "browse.find": ("browse.sql", "find", ONE, {}),
    "browse.progress": ("browse.sql", "progress", ONE, {}),
    **{
        f"browse.ends {count}": ("browse.sql", "ends", {"ids": array(range(45001, 45001 + count))}, {})
        for count in (1, 50, 1000)
    },
    "browse.place": ("browse.sql", "place", ONE, {}),
    **{
        f"browse.{statement} {count}": (
            "browse.sql", statement, {"ids": array(range(45001, 45001 + count)), "text": "1", "limit": count}, {},
        )
        for statement in ("these", "matching")
        for count in (1, 50, 1000)
    },
    "dead.find": ("dead.sql", "find", ONE, {"some": "all"}),
    "dead.retry": ("dead.sql", "retry", {"ids": "{45001,60001}", "delay": 1}, {"some": "these"}),
    "dead.retry_each": ("dead.sql", "retry_each", {"ids": "{45001,60001}", "delays": "{1,2}"}, {"some": "these"}),
    "dead.discard": ("dead.sql", "discard", {"ids": "{45001,60001}"}, {"some": "these"}),
}

CLAIMS = {
    f"{statement}, {limit}{', at marks' if slow else ''}": (
        "claim.sql",
        statement,
        {
            "limit": limit, "mark": -(2**63), "urgent_mark": "-infinity", "due_mark": "-infinity",
            "lease": 30, "worker": "host:1",
        },
        {"taken": "leased", **({"since": "since_mark", "urgent_since": "urgent_since_mark"} if slow else {})},
    )
    for statement in ("claim", "claim_in_transaction", "claim_ready", "claim_first")
    for limit in ((1,) if statement == "claim_first" else (1, 1000))
    for slow in (False, True)
}


def plan(dsn: str, table: str, case: tuple[str, str, dict[str, Any], dict[str, str]], prepared: bool) -> Any:
    """What EXPLAIN ANALYZE says of a statement, which is rolled back."""
    path, statement, params, instead = case
    sql = bound(path, f'"{table}"', **instead)[statement]
    with closing(driver.connect(dsn)) as conn, conn.cursor() as cursor:
        if prepared:
            _, prepare, sql = _prepared(sql)
            cursor.execute(f"set plan_cache_mode = force_generic_plan; {prepare}", {})
        cursor.execute(f"explain (analyze, format json) {sql}", {"queue": "a", **params})
        found = cursor.fetchone()[0][0]
        conn.rollback()  # not later, as after a mere close: the next claim would meet these locks
        return found


def of_table(found: Any, table: str) -> Iterator[dict[str, Any]]:
    for node in nodes(found["Plan"]):
        if node.get("Relation Name") == table and node["Node Type"] != "ModifyTable":
            yield node


@pytest.mark.parametrize("prepared", [False, True], ids=["", "prepared"])
@pytest.mark.parametrize("table", list(FILLS))
@pytest.mark.parametrize("case", list(BY_ID))
def test_what_is_known_by_its_id_is_found_by_its_id(filled: str, case: str, table: str, prepared: bool) -> None:
    found = plan(filled, table, BY_ID[case], prepared)
    most = 5000 if case.endswith("1000") else 250  # with the looks at the table's name, to notify
    for node in of_table(found, table):
        assert node["Node Type"] != "Seq Scan", node
        if "Index Name" in node:
            assert node["Index Name"] == f"{table}_pkey"
            assert "id =" in node["Index Cond"]
    for node in nodes(found["Plan"]):
        removed = node.get("Rows Removed by Join Filter", 0) + node.get("Rows Removed by Filter", 0)
        assert (node["Actual Rows"] + removed) * node["Actual Loops"] <= most, node


@pytest.mark.parametrize("prepared", [False, True], ids=["", "prepared"])
@pytest.mark.parametrize("table", list(FILLS))
@pytest.mark.parametrize("case", list(CLAIMS))
def test_a_claim_seems_cheap_and_is(filled: str, case: str, table: str, prepared: bool) -> None:
    found = plan(filled, table, CLAIMS[case], prepared)
    assert found["Plan"]["Total Cost"] < 100_000  # the server's default of jit_above_cost
    assert "JIT" not in found
    for node in of_table(found, table):
        assert node["Node Type"] != "Seq Scan", node
        assert node["Actual Rows"] * node["Actual Loops"] <= 2100, node


def test_the_claims_of_millions_of_jobs_would_be_compiled_without_the_limit(filled: str) -> None:
    """The statistics of the table say what they have to, for the test above to mean something."""
    ((plans,),) = execute(
        filled,
        "explain (format json) select id from huge where q_name = 'a' and dequeued_at is null and due_at is null"
        " order by q_name, expected_at, id limit (select 1)",
    )
    assert plans[0]["Plan"]["Total Cost"] > 100_000


PATHS = ["lease.sql", "control.sql", "queue.sql", "browse.sql", "dead.sql"]


@pytest.mark.parametrize("path", PATHS)
def test_all_statements_that_name_an_id_are_looked_at(path: str) -> None:
    named = {
        name
        for name, sql in bound(path, '"queue"', **({"some": "these"} if path == "dead.sql" else {})).items()
        if re.match(r"(with|select|update|delete|insert)\b", sql) and re.search(r"%\(ids?\)s", sql)
    }
    ordered = {"next", "put_back"}  # a page after a job; a row that is put
    assert named - ordered <= {case[1] for case in BY_ID.values() if case[0] == path} | {"retry", "discard"}
