"""A PQ on each kind of connection."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

from psycopg2.extensions import make_dsn

from pq import PQ
from support import execute
from support.driver import BOTH, driver
from support.driver import NAME as DRIVER

#: Kinds with several connections, and such as are replaced when they break.
SEVERAL = ["dsn", "pool"]

#: One connection of the application's.
SINGLE = ["connection", "autocommit connection"]

#: All kinds but for "autocommit pool".
ALL = SEVERAL + SINGLE

#: And those of the other driver, where it is installed. Not in all tests: they have a run of their own.
WITH_PSYCOPG3 = [
    *ALL,
    *(["psycopg 3 connection", "psycopg 3 pool"] if DRIVER == "psycopg2" and find_spec("psycopg_pool") else []),
]

#: The application_name of the sessions of these PQ.
NAME = "on trial"


def kit_of(kind: str) -> Any:
    """The driver of a kind."""
    return BOTH["psycopg"] if kind.startswith("psycopg 3") else driver


@contextmanager
def make_pq(kind: str, dsn: str, **options: Any) -> Iterator[PQ]:
    """Closed at the end, with its connections."""
    dsn = make_dsn(dsn, application_name=NAME)
    chosen = kit_of(kind)
    autocommit = kind.startswith("autocommit")
    if kind == "dsn":
        made = PQ(dsn, **options)
    elif kind.endswith("pool"):
        made = PQ(pool=chosen.pool(1, 3, dsn, {"autocommit": True} if autocommit else None), **options)
    else:
        made = PQ(chosen.connect(dsn, autocommit=autocommit), **options)
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
