"""The connection behind what an application has at hand. Packages are told by their names: none is imported."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from .drivers.adapted import RECIPE, adapted, check_greenlet
from .drivers.base import Driver
from .drivers.detect import driver_of

ACCEPTED = (
    "a connection or cursor of psycopg2 or psycopg, a Session or Connection of SQLAlchemy, or a connection of Django"
)


def connection_of(given: Any) -> tuple[Driver, Any]:
    """Return the driver's connection, and its driver.

    :raises TypeError: there is none, it is another driver's, or it can be used by awaiting alone.
    :raises ValueError: the cursor is a server-side one.
    """
    conn: Any = given
    if _is_of_sqlalchemy(given):
        connection = _connection_of_sqlalchemy(given)
        is_pooled = hasattr(connection, "driver_connection")
        pooled: Any = connection if is_pooled else getattr(connection, "connection", None)
        dialect: Any = getattr(connection, "dialect", None)
        if getattr(dialect, "is_async", False) and dialect.driver in ("asyncpg", "psycopg", "psycopg_async"):
            return adapted(dialect.dbapi), getattr(pooled, "dbapi_connection", None) or pooled.connection
        # SQLAlchemy before 1.4.24 has the one name, later ones both
        conn = getattr(pooled, "driver_connection", None) or getattr(pooled, "connection", None)
    elif hasattr(given, "ensure_connection"):
        conn = _connection_of_django(given)
    elif hasattr(given, "fetchone"):
        if getattr(given, "name", None):
            raise ValueError(f"conn must not be a server-side cursor: {given.name!r}")
        conn = getattr(given, "connection", None)
    try:
        return driver_of(conn), conn
    except TypeError:
        behind = f" on {_named(conn)}" if conn is not None and conn is not given else ""
        recipe = f". {RECIPE}" if _is_asynchronous(given) or _is_asynchronous(conn) else ""
        raise TypeError(f"conn must be {ACCEPTED}, not {_named(given)}{behind}{recipe}") from None


def note_error(given: Any) -> None:
    """Tell Django of an error: otherwise it goes on with a connection that is of no use any more."""
    if hasattr(given, "ensure_connection"):
        given.errors_occurred = True


def is_marked(given: Any) -> bool:
    """Return whether Django is to roll the transaction back, and until then refuses all statements."""
    return bool(getattr(given, "needs_rollback", False))


def unmark(given: Any) -> None:
    """Tell Django that what failed was rolled back."""
    if is_marked(given):
        given.set_rollback(False)


def begins(given: object) -> bool:
    """Return whether looking for the connection begins a transaction, as of a Session or Connection of SQLAlchemy."""
    return _is_of_sqlalchemy(given) and (hasattr(given, "get_bind") or hasattr(given, "in_transaction"))


def _is_of_sqlalchemy(given: object) -> bool:
    """Whether this is SQLAlchemy's, other than for asyncio, where the application would have to await it."""
    kind: Any = given.__class__
    return _is_kind_of_sqlalchemy(kind)


@lru_cache(maxsize=64)
def _is_kind_of_sqlalchemy(kind: type) -> bool:
    modules = [cls.__module__ for cls in kind.__mro__]
    return any(module.startswith("sqlalchemy.") for module in modules) and not any(".asyncio" in m for m in modules)


def _is_asynchronous(given: object) -> bool:
    kinds = given.__class__.__mro__
    return any(cls.__module__.startswith("asyncpg") or ".asyncio" in cls.__module__ for cls in kinds) or any(
        cls.__name__.startswith("Async") for cls in kinds
    )


def _connection_of_sqlalchemy(given: Any) -> Any:
    if hasattr(given, "get_bind"):  # a session, which begins its transaction now if need be
        if getattr(getattr(getattr(given, "bind", None), "dialect", None), "is_async", False):
            check_greenlet()
        given = given.connection()
    if getattr(getattr(given, "dialect", None), "is_async", False):
        check_greenlet()
    if hasattr(given, "in_transaction") and not given.in_transaction():
        # A statement of the application's would begin one, too; without, its commit would do nothing.
        if not hasattr(given, "commit"):
            raise ValueError("conn must be in a transaction: this Connection can't commit, call its begin() first")
        given.begin()
    return given


def _connection_of_django(given: Any) -> Any:
    """Django opens its connection when it is used."""
    if hasattr(given, "close_if_health_check_failed"):
        given.close_if_health_check_failed()
    given.ensure_connection()
    return given.connection


def _named(given: object) -> str:
    kind = type(given)
    if getattr(given, "async_", False):  # which psycopg2 does not tell by the class
        return f"asynchronous {kind.__module__}.{kind.__name__}"
    return kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"
