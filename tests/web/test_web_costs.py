"""What the pages read: never the whole table, whatever the planner believes of it."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest
from psycopg2.extensions import make_dsn
from support import execute, wait_until
from visitor import Visitor

from pq import PQ
from pq.web import App

#: In each of two queues: finished jobs, ready, scheduled and running ones, some that wait for their retry, dead ones.
ROWS = """
    insert into queue (q_name, data, enqueued_at, dequeued_at, finished_at)
      select ('{{a,b}}'::text[])[1 + i % 2], {data}, now() - i * interval '1 s', now(), now()
      from generate_series(1, 120000) as i;
    insert into queue (q_name, data, expected_at)
      select ('{{a,b}}'::text[])[1 + i % 2], {data}, case when i % 2 = 0 then now() + i * interval '1 s' end
      from generate_series(1, 40000) as i;
    insert into queue (q_name, data, schedule_at, due_at, attempts, error)
      select ('{{a,b}}'::text[])[1 + i % 2], {data}, now() + i * interval '1 h', now() + i * interval '1 h', 0,
        case when i % 3 = 0 then '{{"type": "E", "message": "no"}}' end
      from generate_series(1, 40000) as i;
    insert into queue (q_name, data, dequeued_at, due_at, attempts)
      select ('{{a,b}}'::text[])[1 + i % 2], {data}, now(), now() + interval '1 d', 1 from generate_series(1, 500) as i;
    insert into queue (q_name, data, dequeued_at, attempts, error)
      select ('{{a,b}}'::text[])[1 + i % 2], {data}, now() - i * interval '1 s', 1, '{{"type": "E", "message": "no"}}'
      from generate_series(1, 20000) as i;
""".format(data="json_build_object('function', 'task', 'args', json_build_array(i), 'kwargs', json_build_object())")
#: What the planner believes.
BELIEFS = {
    "nothing": "",
    "what is so": "analyze queue;",
    "that there is nothing": "",  # analyzed while it was empty
    "that it is huge": """
        analyze queue;
        update pg_class set reltuples = reltuples * 2000
        where oid in (select indexrelid from pg_index where indrelid = 'queue'::regclass) or oid = 'queue'::regclass;
    """,
}

PAGES = [
    "/", "/?sort=ready", "/queue?q=a", "/queue?q=a&state=scheduled", "/queue?q=a&state=held",
    "/queue?q=a&state=running", "/queue?q=a&state=dead", "/queue?q=a&state=finished", "/running", "/retrying", "/dead",
    "/dead?q=a", "/finished", "/finished?before=60000", "/workers", "/schedules", "/limits", "/streams",
    "/search?text=nothing", "/search?text=nothing&q=a&state=dead", "/search?text=nothing&q=a&state=ready",
    "/search?text=%5B7%5D&q=a&state=dead", "/job?id=60000", "/job?id=150000", "/job?id=220000",
]  # fmt: skip

#: Rows that a page may read. Looks without an index read 10,000, and two of them are on some pages.
MOST = 40_000

#: `PQ.running` goes past the scheduled jobs as long as nothing is known of a table.
MORE = {"/running": 60_000, "/workers": 60_000}


@pytest.fixture(scope="module", params=BELIEFS)
def large(server: str, request: pytest.FixtureRequest) -> Iterator[str]:
    """The DSN of a database with a large table."""
    name = f"pq_test_{uuid.uuid4().hex[:8]}"
    execute(server, f"create database {name} template template0")
    dsn = make_dsn(server, dbname=name)
    with PQ(dsn) as pq:
        pq.create()
    before = "analyze queue;" if request.param == "that there is nothing" else ""
    everything = f"alter table queue set (autovacuum_enabled = off); {before} {ROWS} {BELIEFS[request.param]}"
    for statement in everything.split(";"):
        if statement.strip():
            execute(dsn, statement)
    yield dsn
    execute(server, f"drop database {name} with (force)")


def reads(dsn: str) -> tuple[int, int]:
    """How often the table was read from end to end, and how many of its rows were fetched, since all began."""
    ((scans, rows),) = execute(
        dsn,
        "select seq_scan, idx_tup_fetch + seq_tup_read from pg_stat_user_tables where relid = 'queue'::regclass",
    )
    return scans, rows


def test_no_page_reads_the_whole_table(large: str) -> None:
    """By the server's own count, which it completes when a session ends."""
    if int(execute(large, "show server_version_num")[0][0]) < 150000:
        pytest.skip("PostgreSQL 14 counts later than a session ends")
    seen = reads(large)[0]
    execute(large, "select count(*) from queue")
    wait_until(lambda: reads(large)[0] > seen, "the server's count")
    for url in PAGES:
        before = reads(large)
        with PQ(large) as pq:
            page = Visitor(App(pq, can=lambda *_: True)).get(url)
            pids = [int(pid) for (pid,) in pq._db.execute("select pg_backend_pid()")]
        assert page.status == 200, (url, page.text)
        wait_until(
            lambda pids=pids: not execute(large, "select 1 from pg_stat_activity where pid = any(%s)", (pids,)),
            "the end of the session",
        )
        after = reads(large)
        assert after[0] == before[0], f"{url} has read the whole table"
        assert after[1] - before[1] < MORE.get(url, MOST), f"{url} has fetched {after[1] - before[1]} rows"
