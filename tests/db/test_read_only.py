"""A server that can only be read, as a primary that was demoted: another connection may lead to its successor."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from psycopg2.extensions import make_dsn
from support import Background
from support.driver import driver
from support.kinds import make_pq

from pq import PQ
from pq._db.known import known

Sql = Callable[..., list[tuple[Any, ...]]]

CALLS: dict[str, Callable[[PQ], Any]] = {
    "put": lambda pq: pq["a"].put(2),
    "put_many": lambda pq: pq["a"].put_many(range(100)),
    "get": lambda pq: pq["a"].get(timeout=0).id,
    "get with a lease": lambda pq: pq["a"].get(timeout=0, lease="1h").id,
    "clear": lambda pq: pq["a"].clear(),
}


def make_read_only(pq: PQ, count: int = 3) -> None:
    """Of `count` connections that have served; a new one is well."""
    source, kit = pq._db.source, pq._db.driver
    held = [source.acquire() for _ in range(count)]
    for conn in held:
        known(conn).answered_at = time.monotonic()
        autocommit, conn.autocommit = conn.autocommit, True
        kit.run(conn, "set default_transaction_read_only = on")
        conn.autocommit = autocommit
    for conn in held:
        source.release(conn)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("kind", ["dsn", "pool", "autocommit pool"])
def test_a_call_goes_to_another_connection(dsn: str, sql: Sql, kind: str, call: str) -> None:
    with make_pq(kind, dsn) as pq:
        pq["a"].put(1)
        make_read_only(pq)
        CALLS[call](pq)
        for _ in range(4):  # and so do all that follow, in blocks, too
            with pq["b"]:
                pq["b"].put(3)


@pytest.mark.parametrize("who", ["pq", "cursor"])
@pytest.mark.parametrize("kind", ["dsn", "pool", "autocommit pool"])
def test_a_block_raises_and_the_next_uses_another(dsn: str, sql: Sql, kind: str, who: str) -> None:
    with make_pq(kind, dsn) as pq:
        make_read_only(pq)

        def work() -> None:
            with pq["a"] as cursor:
                if who == "pq":
                    pq["a"].put(1)
                else:
                    cursor.execute("insert into queue (q_name, data) values ('a', '1')")

        with pytest.raises(driver.Error, match="read-only"):
            work()
        work()
        assert len(pq["a"]) == 1


def test_one_that_stays_read_only_is_told_and_not_tried_for_ever(dsn: str, sql: Sql) -> None:
    read_only = make_dsn(dsn, options="-c default_transaction_read_only=on")
    for kind in ("dsn", "pool"):
        with make_pq(kind, read_only) as pq, pytest.raises(driver.Error, match="read-only"):
            Background(pq["a"].put, 1).result(20)


def test_an_only_connection_is_not_closed_for_that(connect: Any) -> None:
    conn = connect(autocommit=True)
    pq = PQ(conn)
    conn.cursor().execute("set default_transaction_read_only = on")
    with pytest.raises(driver.Error, match="read-only"):
        pq["a"].put(1)
    conn.cursor().execute("set default_transaction_read_only = off")
    pq["a"].put(1)
    assert not conn.closed


@pytest.mark.parametrize("kind", ["dsn", "pool", "autocommit pool"])
def test_a_reserved_connection_is_replaced(dsn: str, sql: Sql, kind: str) -> None:
    """The one that a worker's heartbeat and settlements have."""
    with make_pq(kind, dsn) as pq:
        reserved = pq["a"]._table.reserve()
        assert reserved is not None
        source = reserved.database.source
        insert = "insert into queue (q_name, data) values ('a', '1')"
        reserved.execute(insert)
        conn = source.acquire()
        autocommit, conn.autocommit = conn.autocommit, True
        pq._db.driver.run(conn, "set default_transaction_read_only = on")
        conn.autocommit = autocommit
        source.release(conn)
        Background(lambda: reserved.execute(insert)).result()
        assert len(pq["a"]) == 2
        source.close()
