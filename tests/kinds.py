"""A PQ on each kind of connection."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg2
from conftest import execute
from psycopg2.extensions import connection, make_dsn
from psycopg2.pool import ThreadedConnectionPool

from pq import PQ

#: Kinds with several connections, and such as are replaced when they break.
SEVERAL = ["dsn", "pool"]

#: One connection of the application's.
SINGLE = ["connection", "autocommit connection"]

#: All kinds but for "autocommit pool".
ALL = SEVERAL + SINGLE

#: The application_name of the sessions of these PQ.
NAME = "on trial"


class Autocommit(connection):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.autocommit = True


@contextmanager
def make_pq(kind: str, dsn: str, **options: Any) -> Iterator[PQ]:
    """Closed at the end, with its connections."""
    dsn = make_dsn(dsn, application_name=NAME)
    factory = Autocommit if kind.startswith("autocommit") else None
    if kind == "dsn":
        made = PQ(dsn, **options)
    elif kind.endswith("pool"):
        made = PQ(pool=ThreadedConnectionPool(1, 3, dsn, connection_factory=factory), **options)
    else:
        made = PQ(psycopg2.connect(dsn, connection_factory=factory), **options)
    with made:
        yield made


def terminate(dsn: str) -> None:
    """End the sessions of all that `make_pq` made; when it returns they are gone."""
    execute(
        dsn,
        """
        select pg_terminate_backend(pid, 30000) from pg_stat_activity
        where datname = current_database() and application_name = %s
        """,
        (NAME,),
    )
