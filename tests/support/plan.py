"""What the tests of query plans share."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from psycopg2.extensions import make_dsn

from pq import PQ
from support import execute


@contextmanager
def filled_tables(server: str, fills: Mapping[str, str]) -> Iterator[str]:
    """The DSN of a database with queue tables of these names, each filled by its SQL, and not vacuumed by itself."""
    name = f"pq_test_{uuid.uuid4().hex[:8]}"
    execute(server, f"create database {name} template template0")
    dsn = make_dsn(server, dbname=name)
    for table, fill in fills.items():
        with PQ(dsn, table=table) as pq:
            pq.create()
        execute(dsn, f"alter table {table} set (autovacuum_enabled = off); {fill}")
    yield dsn
    execute(server, f"drop database {name} with (force)")


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """All nodes of a plan, as EXPLAIN (FORMAT JSON) has it."""
    yield plan
    for child in plan.get("Plans", []):
        yield from nodes(child)
