"""The connections that SQLAlchemy gives inside of `run_sync`: asynchronous ones, behind a synchronous interface.

Only what a transaction of the application's needs works here. Statements are sent without parameters, since asyncpg
would ask the server for the type of each, and then refuse what pq passes as text.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Any

from .base import Driver, Rows
from .literal import rendered

#: The recipe for what can't work otherwise.
RECIPE = (
    "pq is synchronous. In asynchronous code use an AsyncSession or AsyncConnection of SQLAlchemy:"
    " `await session.run_sync(lambda session: queue.put(data, conn=session))`;"
    " or, for a transaction of pq's own, `await asyncio.to_thread(queue.put, data)`"
)


class Adapted(Driver):
    """psycopg or asyncpg, by way of SQLAlchemy.

    :param dbapi: what SQLAlchemy makes of the driver's package.
    """

    can_wait = False

    def __init__(self, dbapi: Any) -> None:
        super().__init__(dbapi, dbapi.OperationalError)

    def _run(self, conn: Any, sql: str, params: Any) -> Rows:
        check_greenlet()
        cursor = conn.cursor()
        try:
            cursor.execute(rendered(sql, params))
            return [tuple(row) for row in cursor.fetchall()] if cursor.description else []
        finally:
            cursor.close()

    def idle(self, conn: Any) -> bool:
        raw = _raw(conn)
        return raw.info.transaction_status == 0 if hasattr(raw, "info") else not raw.is_in_transaction()

    def works(self, conn: Any) -> bool:
        raw = _raw(conn)  # asyncpg does not tell whether a statement has failed
        return raw.info.transaction_status == 2 if hasattr(raw, "info") else bool(raw.is_in_transaction())

    def is_lost(self, conn: Any, error: BaseException | None) -> bool:
        raw = _raw(conn)
        return bool(raw.closed if hasattr(raw, "closed") else raw.is_closed())

    def database_name(self, conn: Any) -> str:
        raw = _raw(conn)
        found = raw.info.dbname if hasattr(raw, "info") else getattr(getattr(raw, "_params", None), "database", "?")
        return str(found)

    def _sqlstate(self, error: BaseException) -> str | None:
        return getattr(error, "sqlstate", None)

    def _copy(self, conn: Any, sql: str, file: Any) -> int:
        raise TypeError("load() does not work inside of run_sync: use put_many()")

    # -- what needs a connection of pq's own

    def _never(self, *args: Any) -> Any:
        raise TypeError(RECIPE)

    _parse: Any = _never
    _open: Any = _never
    _parameters_of: Any = _never
    backend_pid: Any = _never
    _status: Any = _never
    is_plain: Any = _never
    mogrify: Any = _never
    _begin: Any = _never
    listen: Any = _never
    receive: Any = _never
    has_notified: Any = _never
    take: Any = _never


@cache
def adapted(dbapi: Any) -> Adapted:
    return Adapted(dbapi)


def check_greenlet() -> None:
    """
    :raises TypeError: no greenlet of SQLAlchemy's runs here, so nothing could wait for the driver.
    """
    current = import_module("greenlet").getcurrent()  # an asynchronous engine can't be had without this package
    if not getattr(current, "__sqlalchemy_greenlet_provider__", False):
        raise TypeError(RECIPE)


def _raw(conn: Any) -> Any:
    return getattr(conn, "driver_connection", None) or conn._connection
