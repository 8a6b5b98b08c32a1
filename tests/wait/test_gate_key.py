"""The key of a queue's gate: all sessions, and all versions of the table, compute one and the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import psycopg2
import pytest
from psycopg2.extensions import make_dsn
from support import Background, wait_until

from pq import PQ
from pq import sql as sql_files
from pq._table import migrations
from pq._wait.session import Gate

Sql = Callable[..., list[tuple[Any, ...]]]

HOUR = 3600.0

QUOTES = "-c quote_all_identifiers=on"

#: Names that need no quotes, that need some, that are keywords, and that hold a quote.
TABLES = ["queue", "Two Words", "table", "setof", "a\"b", "_x1"]


def sleeps(pq: PQ, name: str = "a") -> None:
    """Wait until somebody waits for the queue, and is sure to be told of a put."""

    def settled() -> bool:
        queue = pq._table._room.queues.get(name)
        return bool(queue and queue.sure and not queue.stale)

    wait_until(settled, "the sleep of the waiter")


@pytest.fixture(params=TABLES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=["plain waits", "quoting waits"])
def pair(request: pytest.FixtureRequest, dsn: str, name: str) -> Iterator[tuple[PQ, PQ]]:
    """One that waits and one that puts; the session of one of them has quote_all_identifiers on."""
    plain, quoting = (PQ(each, table=name, poll_interval=HOUR) for each in (dsn, make_dsn(dsn, options=QUOTES)))
    with plain, quoting:
        plain.create()
        yield (plain, quoting) if request.param == "plain waits" else (quoting, plain)


def test_a_put_from_a_session_that_quotes_all_identifiers_wakes(pair: tuple[PQ, PQ]) -> None:
    waits, puts = pair
    waiter = Background(waits["a"].get, timeout=HOUR)
    sleeps(waits)
    puts["a"].put(1)
    assert waiter.result().data == 1


def test_a_retry_from_a_session_that_quotes_all_identifiers_wakes(pair: tuple[PQ, PQ]) -> None:
    waits, settles = pair
    settles["a"].put(1)
    job = settles["a"].get(lease="1h")
    waiter = Background(waits["a"].get, timeout=HOUR)
    sleeps(waits)
    job.release()
    assert waiter.result().data == 1


def test_a_resume_from_a_session_that_quotes_all_identifiers_wakes(pair: tuple[PQ, PQ]) -> None:
    waits, resumes = pair
    resumes["a"].pause()
    resumes["a"].put(1)
    waiter = Background(waits["a"].get, timeout=HOUR)
    sleeps(waits)
    resumes["a"].resume()
    assert waiter.result().data == 1


def test_the_setting_of_the_session_stays(dsn: str) -> None:
    with PQ(make_dsn(dsn, options=QUOTES)) as pq, pq["a"] as cursor:
        pq["a"].put(1)
        pq["a"].get(lease="1h").release()  # type: ignore[union-attr]
        cursor.execute("show quote_all_identifiers")
        assert cursor.fetchone() == ("on",)


ICU = "create collation mine (provider = icu, locale = 'de', deterministic = {})"


@pytest.mark.parametrize("make", ["create collation mine from \"POSIX\"", ICU.format("true"), ICU.format("false")])
def test_a_column_with_a_collation_of_its_own(dsn: str, sql: Sql, make: str) -> None:
    try:
        sql(make)
    except psycopg2.errors.FeatureNotSupported:
        pytest.skip("PostgreSQL without ICU")
    sql("alter table queue alter column q_name type text collate mine")
    with PQ(dsn, poll_interval=HOUR) as pq:
        waiter = Background(pq["a"].get, timeout=HOUR)
        sleeps(pq)
        job_id = pq["a"].put(1)
        assert waiter.result().id == job_id
        pq["a"].put(2)
        job = pq["a"].get(lease="1h")
        waiter = Background(pq["a"].get, timeout=HOUR)
        sleeps(pq)
        job.release()  # type: ignore[union-attr]
        assert waiter.result().data == 2


@pytest.mark.parametrize("version", range(2, migrations.VERSION + 1))
def test_the_triggers_of_older_tables_wake(make_database: Callable[..., str], sql: Sql, version: int) -> None:
    """At the gate and on the channel of this library's key, whose looks themselves need a table of its version."""
    dsn = make_database(table=False)
    with psycopg2.connect(dsn) as conn, conn.cursor() as cursor, PQ(dsn) as pq:
        cursor.execute("set local pq.table_is_new = true")
        for step in migrations.steps()[:version]:
            cursor.execute(migrations.for_table(step.sql, pq._table.name))
        conn.commit()
        statements = sql_files.bound("waiting.sql", pq._table.quoted)
        ((_, key),) = pq._table.execute(statements["keys"], {"queues": "{a}", "table": pq._table.quoted})
        with closing(psycopg2.connect(dsn)) as listener, listener.cursor() as listening:
            listener.autocommit = True
            listening.execute(f'listen "{Gate(key).channel}"')
            listening.execute(statements["take_gates"], {"keys": [key]})
            assert listening.fetchall() == [(key, True)]
            cursor.execute("insert into queue (q_name, data) values ('a', '1')")
            conn.commit()
            wait_until(lambda: bool(listener.poll() or listener.notifies), "the notification")


def test_all_ways_to_the_key_agree(dsn: str, name: str) -> None:
    """The trigger's, computed by PostgreSQL as it was in version 2, and that of the statements in each session."""
    for options in ("-c quote_all_identifiers=off", QUOTES):
        with PQ(make_dsn(dsn, options=options), table=name) as pq:
            pq.create()
            statements = sql_files.bound("waiting.sql", pq._table.quoted)
            rows = pq._table.execute(statements["keys"], {"queues": '{"ä b"}', "table": pq._table.quoted})
            with pq["a"] as cursor:
                cursor.execute("set local quote_all_identifiers = off")
                cursor.execute("select hashtextextended(format('%%I.%%I %%s', 'public', %s, 'ä b'), 0)", (name,))
                assert [key for _, key in rows] == [key for (key,) in cursor.fetchall()]
