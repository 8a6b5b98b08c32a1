"""Which driver a connection or pool belongs to, and which one pq uses for connections that it opens."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import cache, lru_cache, partial
from importlib import import_module
from types import FunctionType, MethodType
from typing import Any

from .base import Driver
from .psycopg2 import Psycopg2
from .psycopg3 import Psycopg3

#: For connections that pq opens itself: the first that can be imported.
PREFERRED = ("psycopg2", "psycopg")


def driver_of(conn: object) -> Driver:
    """Return the driver of a connection.

    :raises TypeError: it is no connection of a known driver.
    """
    for package in _packages(conn):
        if package == "psycopg2" and callable(getattr(conn, "get_transaction_status", None)):
            if getattr(conn, "async_", False):
                raise TypeError("an asynchronous connection of psycopg2 can't be used")
            return driver(package)
        if package == "psycopg" and isinstance(conn, import_module(package).Connection):
            return driver(package)
    hint = ""
    if hasattr(conn, "ensure_connection"):
        hint = (
            ". In a Django project: from pq.contrib.django import pq, with that app in INSTALLED_APPS; or PQ(dsn), and "
            "conn=connection at each call"
        )
    elif "sqlalchemy" in _packages(conn):
        hint = ". Give the Engine, or a URL as text; for a Session: PQ(engine), and pq.bind(session)"
    raise TypeError(
        "a psycopg2 or psycopg connection, a DSN, an Engine of SQLAlchemy or pool= is needed, "
        f"not {type(conn).__name__}{hint}"
    )


def is_dsn(given: object) -> bool:
    """Return whether it is a DSN, or a function that returns one."""
    return isinstance(given, (str, FunctionType, MethodType, partial))


def is_engine(given: object) -> bool:
    """Return whether it is an Engine of SQLAlchemy. An asynchronous one has no pool that pq could use."""
    return "sqlalchemy" in _packages(given) and hasattr(given, "dialect") and hasattr(given, "dispose")


def driver_of_pool(pool: Any) -> Driver:
    """Return the driver of a pool. A pool of the application's own making is taken for one of psycopg2.

    :raises TypeError: it is no pool.
    """
    packages = _packages(pool)
    if is_engine(pool):
        dialect = pool.dialect
        if dialect.driver in ("psycopg2", "psycopg") and not dialect.is_async:
            return driver(dialect.driver)
        how = "asynchronously " if dialect.is_async else ""
        raise TypeError(f"the engine must use psycopg2 or psycopg, not {how}{dialect.driver}")
    if "psycopg_pool" in packages:
        if isinstance(pool, import_module("psycopg_pool").ConnectionPool):
            return driver("psycopg")
    elif callable(getattr(pool, "getconn", None)) and callable(getattr(pool, "putconn", None)):
        return driver("psycopg2")
    raise TypeError(f"pool must be a psycopg2 or psycopg_pool pool, not {type(pool).__name__}")


def own_driver() -> Driver:
    """Return the driver for connections that pq opens.

    :raises ImportError: no driver can be imported.
    """
    for package in PREFERRED:
        try:
            return driver(package)
        except ImportError:
            pass
    raise ImportError(f"none of these can be imported: {', '.join(PREFERRED)}")


def check_source(conn: Any, pool: Any) -> None:
    """Check what is to be the source of connections; the arguments and errors are those of `Database`."""
    if pool is not None or is_engine(conn):
        driver_of_pool(conn if pool is None else pool)
    elif isinstance(conn, str):
        own_driver().parameters(conn)
    elif is_dsn(conn):
        own_driver()
    else:
        driver_of(conn)


def interruptible() -> AbstractContextManager[None]:
    """Return a context manager: inside, Ctrl-C ends statements. Use it in a process of one thread."""
    found = own_driver()
    return found.interruptible() if isinstance(found, Psycopg2) else nullcontext()


@cache
def driver(package: str) -> Driver:
    return Psycopg3() if package == "psycopg" else Psycopg2(package)


def _packages(given: object) -> list[str]:
    # not type(): a wrapper, of a monitoring tool for example, shows the class of what is in it
    kind: Any = given.__class__
    return _packages_of(kind)


@lru_cache(maxsize=64)
def _packages_of(kind: type) -> list[str]:
    return [cls.__module__.split(".")[0] for cls in kind.__mro__]
