"""Autocommit mode around a single statement, on a connection that is not in it."""

from __future__ import annotations

from typing import Any, Protocol


class Modes(Protocol):
    """What is asked of a driver."""

    def idle(self, conn: Any) -> bool: ...
    def commit(self, conn: Any) -> None: ...
    def switch_off(self, conn: Any) -> None: ...


class AtOnce:
    """A context manager: the connection is in autocommit mode. A class, since it is in the way of each statement."""

    __slots__ = ("_conn", "_driver")

    def __init__(self, driver: Modes, conn: Any) -> None:
        self._driver = driver
        self._conn = conn

    def __enter__(self) -> None:
        try:
            self._conn.autocommit = True
        except BaseException:
            self._driver.switch_off(self._conn)
            raise

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        driver, conn = self._driver, self._conn
        try:
            try:
                if error is None and not driver.idle(conn):  # in psycopg2's `with conn:`
                    driver.commit(conn)
            finally:
                driver.switch_off(conn)
        finally:
            driver.switch_off(conn)  # an interrupt may have come before the first of these two
