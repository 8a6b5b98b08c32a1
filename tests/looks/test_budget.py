"""No look at the queues reads the whole table, or more rows than it says, whatever the planner believes of the table.

Every statement that the looks, top, the pages and a scrape execute is explained, on a table of 100,000 rows.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
from support.driver import driver
from support.plan import filled_tables, nodes

from pq import PQ
from pq._db import Database

#: In 4 queues: more of each state than any look may read.
FILL = """
    insert into {0} (q_name, data, dequeued_at, finished_at) select 'q' || i % 4, '1', now(), now()
      from generate_series(1, 30000) as i;
    insert into {0} (q_name, data, dequeued_at, error)
      select 'q' || i % 4, '{{"function": "a.b"}}', now() - i * interval '1 s', '{{"type": "E", "message": "why"}}'
      from generate_series(1, 15000) as i;
    insert into {0} (q_name, data, dequeued_at, due_at, attempts)
      select 'q' || i % 4, '1', now() - i * interval '1 s', now() + interval '1 d', 1
      from generate_series(1, 10000) as i;
    insert into {0} (q_name, data, expected_at)
      select 'q' || i % 4, '1', case when i % 8 < 4 then now() + i * interval '1 s' end
      from generate_series(1, 20000) as i;
    insert into {0} (q_name, data, schedule_at)
      select 'q' || i % 4, '1', now() + interval '2 d' + i * interval '1 s' from generate_series(1, 20000) as i;
    insert into {0} (q_name, data, due_at) select 'q' || i % 4, '1', 'infinity' from generate_series(1, 10000) as i;
"""
TABLES = {"known": FILL + "vacuum analyze {0};", "unknown": FILL}

PREFIX = re.compile(r"^(?:select set_config\(.*?\); |set local [^;]*; )+")

#: Rows that a part of a statement may read in one go; and where there are looks with a larger cap: of `PQ.history`, and
#: the pages of rows that no index leads to.
MOST = 2100
WIDE = 10_001
WIDER = ("history", "top", "page /", "page /queue", "page /retrying", "page /finished")


@pytest.fixture(scope="module")
def filled(server: str) -> Iterator[str]:
    """The DSN of a database with these tables."""
    with filled_tables(server, dict.fromkeys(TABLES, "select 1")) as dsn:
        for name, fill in TABLES.items():
            with closing(driver.connect(dsn)) as conn:
                conn.autocommit = True
                for statement in fill.format(name).split(";"):
                    if statement.strip():
                        conn.cursor().execute(statement)
        yield dsn


def why(number: int) -> Callable[[PQ], Any]:
    """Ask why a job of the queue does not run."""
    return lambda pq: pq["q1"].why(number)


def page(path: str) -> Callable[[PQ], Any]:
    """A visit to a page."""

    def visit(pq: PQ) -> None:
        pytest.importorskip("jinja2")
        from pq.web import App

        answers: list[str] = []
        environ = {"REQUEST_METHOD": "GET", "PATH_INFO": path.partition("?")[0], "QUERY_STRING": path.partition("?")[2],
                   "SERVER_NAME": "localhost", "SERVER_PORT": "80", "wsgi.url_scheme": "http"}  # fmt: skip
        app = App(pq, can=lambda user, action, queue: True)
        body = b"".join(app(environ, lambda status, headers, *_: answers.append(status)))
        assert answers[0].startswith("200"), (answers, body[-500:])

    return visit


def scrape(pq: PQ) -> None:
    pytest.importorskip("prometheus_client")
    from pq.contrib.prometheus import Collector

    assert list(Collector(pq, findings=False).collect())


def top(pq: PQ) -> None:
    from pq._cli.watch import Watch

    Watch(pq, 2.0).look(doctor=False)


LOOKS: dict[str, Callable[[PQ], Any]] = {
    "overview": PQ.overview,
    "running": PQ.running,
    "workers": PQ.workers,
    "dead_groups": PQ.dead_groups,
    "dead_groups of a queue": lambda pq: pq.dead_groups("q1"),
    "history": PQ.history,
    "history of a queue": lambda pq: pq.history("q1"),
    # the fill has ids from 1 on, and each fourth is of the queue
    "why, finished": why(1),
    "why, dead": why(45_000 - 3),
    "why, running": why(55_000 - 3),
    "why, ready": why(75_000 - 3),
    "why, scheduled": why(95_000 - 3),
    "why, held": why(105_000 - 3),
    "top": top,
    "scrape": scrape,
    **{f"page {path}": page(path) for path in (
        "/", "/queue?q=q1", "/queue?q=q1&state=held", "/queue?q=q1&state=running", "/running", "/workers",
        "/dead", "/dead?q=q1", "/retrying", "/finished",
    )},
}  # fmt: skip


def executed(pq: PQ, look: Callable[[PQ], Any], monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Any]]:
    """The statements that a look executes."""
    found: list[tuple[str, Any]] = []
    execute = Database.execute

    def note(self: Database, sql: str, params: Any = None, **options: Any) -> Any:
        found.append((sql, params))
        return execute(self, sql, params, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Database, "execute", note)
        look(pq)
    return found


@pytest.mark.parametrize("look", list(LOOKS))
@pytest.mark.parametrize("table", list(TABLES))
def test_no_statement_reads_more_than_it_says(
    filled: str, table: str, look: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    most = WIDE if look.partition("?")[0] in WIDER or look.startswith("history") else MOST
    with PQ(filled, table=table) as pq:
        statements = executed(pq, LOOKS[look], monkeypatch)
    explained = 0
    with closing(driver.connect(filled)) as conn, conn.cursor() as cursor:
        for sql, params in statements:
            sql = PREFIX.sub("", sql)
            if f'"{table}"' not in sql or not re.match("select|with", sql):
                continue
            cursor.execute(f"explain (analyze, format json) {sql}", params or {})
            plan = cursor.fetchone()[0][0]["Plan"]
            conn.rollback()
            explained += 1
            for node in nodes(plan):
                if node.get("Relation Name") == table and node["Actual Loops"]:
                    assert "Seq Scan" not in node["Node Type"], (sql, node)
                    removed = node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Index Recheck", 0)
                    assert node["Actual Rows"] + removed <= most, (sql, node)
    assert explained
