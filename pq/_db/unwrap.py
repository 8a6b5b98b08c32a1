"""The connection behind what an application has at hand. Packages are told by their names: none is imported."""

from __future__ import annotations

from typing import Any

from .drivers.base import Driver
from .drivers.detect import driver_of

ACCEPTED = (
    "a connection or cursor of psycopg2 or psycopg, a Session or Connection of SQLAlchemy, or a connection of Django"
)


def connection_of(given: object) -> tuple[Driver, Any]:
    """The driver's connection, and its driver.

    :raises TypeError: there is none, or it is another driver's.
    :raises ValueError: the cursor is a server-side one.
    """
    conn = _behind(given)
    try:
        return driver_of(conn), conn
    except TypeError:
        behind = f" on {_named(conn)}" if conn is not None and conn is not given else ""
        raise TypeError(f"conn must be {ACCEPTED}, not {_named(given)}{behind}") from None


def note_error(given: Any) -> None:
    """Django looks whether a connection that it keeps is still of use only if it has heard of an error."""
    if hasattr(given, "ensure_connection"):
        given.errors_occurred = True


def begins(given: object) -> bool:
    """Whether to look for the connection begins a transaction: of a Session or Connection of SQLAlchemy."""
    return _is_of_sqlalchemy(given) and (hasattr(given, "get_bind") or hasattr(given, "in_transaction"))


def _is_of_sqlalchemy(given: object) -> bool:
    """But for asyncio: there the connection is of its kind, and the session would have to be awaited."""
    modules = [cls.__module__ for cls in given.__class__.__mro__]
    return any(module.startswith("sqlalchemy.") for module in modules) and not any(".asyncio" in m for m in modules)


def _behind(given: Any) -> Any:
    if _is_of_sqlalchemy(given):
        return _behind_sqlalchemy(given)
    if hasattr(given, "ensure_connection"):  # Django's opens itself when it is used
        if hasattr(given, "close_if_health_check_failed"):
            given.close_if_health_check_failed()
        given.ensure_connection()
        return given.connection
    if hasattr(given, "fetchone"):
        if getattr(given, "name", None):
            raise ValueError(f"conn must not be a server-side cursor: {given.name!r}")
        return getattr(given, "connection", None)
    return given


def _behind_sqlalchemy(given: Any) -> Any:
    if hasattr(given, "get_bind"):  # a session, which begins its transaction now if need be
        given = given.connection()
    if hasattr(given, "in_transaction") and not given.in_transaction():
        # as a statement of its own would do; else its commit would do nothing
        if not hasattr(given, "commit"):
            raise ValueError("conn must be in a transaction: this Connection can't commit, call its begin() first")
        given.begin()
    pooled = given if hasattr(given, "driver_connection") else getattr(given, "connection", None)
    # SQLAlchemy before 1.4.24 has the one name, later ones both
    return getattr(pooled, "driver_connection", None) or getattr(pooled, "connection", None)


def _named(given: object) -> str:
    kind = type(given)
    if getattr(given, "async_", False):  # which psycopg2 does not tell by the class
        return f"asynchronous {kind.__module__}.{kind.__name__}"
    return kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"
