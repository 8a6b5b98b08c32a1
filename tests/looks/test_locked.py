"""Looks at tables that a session has locked: none of them waits for it."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from pq import PQ, Limit, Schedule, StatementTimeout, tasks
from pq._cli.main import main
from pq._cli.top import _Actions
from pq._cli.watch import Watch

#: Seconds that an answer may take: a few looks of a second each, on a slow machine. A statement may take 30 seconds.
MOST = 15.0

#: Each table of pq's and of a stream.
TABLES = [
    "queue", "queue_limits", "queue_slots", "queue_states", "queue_schedules", "queue_checks", "queue_stream_orders",
    "queue_slot0_orders", "queue_subscriptions_orders", "queue_positions_orders", "queue_batches_orders",
    "queue_origin_orders",
]  # fmt: skip

COMMANDS = [
    "queues", "queues --exact", "list q", "count q", "show q {dead}", "why q {ready}", "dead list", "dead groups",
    "limit", "schedules list", "streams", "stream info orders", "stream read orders", "top --once", "doctor",
]  # fmt: skip

PAGES = [
    "/", "/queue?q=q", "/queue?q=q&state=dead", "/queue?q=q&state=finished", "/running", "/retrying", "/dead",
    "/finished", "/workers", "/schedules", "/limits", "/streams", "/search?text=a", "/search?text=a&q=q&state=ready",
    "/health", "/job?id={ready}", "/job?id={dead}",
]  # fmt: skip


@pytest.fixture
def ids(pq: PQ) -> dict[str, int]:
    queue = pq["q"]
    made = {"ready": queue.put(1), "dead": queue.put(2)}
    for job in queue.get_many(2, lease="1h"):
        if job.id == made["dead"]:
            job.fail("no")
        else:
            job.release()
    pq.limits["q"] = Limit(running=1)
    pq.schedules["s"] = Schedule("q", 1, every="1h")
    pq.streams["orders"].create()
    pq.streams["orders"].subscribe("bills")
    return made


@pytest.fixture
def pq(dsn: str) -> Iterator[PQ]:
    with tasks.PQ(dsn) as made:
        yield made


@contextmanager
def locked(connect: Callable[..., Any], table: str) -> Iterator[None]:
    conn = connect()
    with conn.cursor() as cursor:
        cursor.execute(f"lock table {table}")
    yield
    conn.rollback()


@contextmanager
def soon(what: str) -> Iterator[None]:
    began = time.monotonic()
    yield
    assert time.monotonic() - began < MOST, what


def test_these_are_all_tables(ids: Any, sql: Callable[..., Any]) -> None:
    found = sql("select relname from pg_class where relkind in ('r', 'p') and relname like 'queue%'")
    assert {name for (name,) in found if name not in ("queue_slot1_orders", "queue_slot2_orders")} == set(TABLES)


@pytest.mark.parametrize("table", TABLES)
def test_no_command_waits(
    ids: dict[str, int], connect: Callable[..., Any], dsn: str, capsys: pytest.CaptureFixture[str], table: str
) -> None:
    said = ""
    with locked(connect, table):
        for command in COMMANDS:
            with soon(command):
                code = main([*command.format(**ids).split(), "--dsn", dsn])
            said = capsys.readouterr().err
            assert code == 0 or command == "doctor" or "Another session has locked a table" in said, (command, said)


@pytest.mark.skipif(importlib.util.find_spec("jinja2") is None, reason="without the extra there are no pages")
@pytest.mark.parametrize("table", TABLES)
def test_no_page_waits(pq: PQ, ids: dict[str, int], connect: Callable[..., Any], table: str) -> None:
    from pq.web import App

    app = App(pq, can=lambda user, action, queue: True)
    with locked(connect, table):
        for page in PAGES:
            path, _, query = page.format(**ids).partition("?")
            with soon(page):
                answer = app.answer(
                    {"REQUEST_METHOD": "GET", "PATH_INFO": path, "QUERY_STRING": query, "HTTP_HOST": "localhost"}
                )
            assert answer.status in (200, 503), (page, answer.body)
            if answer.status == 503:
                assert b"Another session has locked a table" in answer.body, page
                assert b'href="/health"' in answer.body, page


@pytest.mark.parametrize("table", TABLES)
def test_neither_top_nor_a_scrape_waits(
    pq: PQ, ids: dict[str, int], connect: Callable[..., Any], table: str
) -> None:
    actions = _Actions(pq)
    looks: dict[str, Callable[[], object]] = {
        "look": Watch(pq, 1.0).run_once, "jobs": lambda: actions.jobs("q"), "groups": actions.dead_groups,
        "about": lambda: actions.about("q", ids["ready"]),
    }  # fmt: skip
    if importlib.util.find_spec("prometheus_client"):
        from pq.contrib.prometheus import Collector

        looks["scrape"] = lambda: list(Collector(pq).collect())
    with locked(connect, table):
        for name, look in looks.items():
            with soon(name):
                try:
                    look()
                except StatementTimeout as error:
                    assert "Another session has locked a table" in str(error)
    actions.set_paused("q", True)
    assert pq["q"].paused
