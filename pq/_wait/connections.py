"""The connections on which a session listens."""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import Any

from .._db.drivers.base import Driver
from .._db.loan import Loan
from .._db.sources.base import Source
from .._db.watchdog import Watchdog

#: Seconds after which a connection of our own is cut, since the server does not answer at all.
SILENCE_LIMIT = 5.0

#: Seconds that the leader waits for the single connection.
BUSY_TIMEOUT = 0.05


class Busy(Exception):
    """The single connection is in a transaction that is not ours."""


class OwnConnection:
    """A connection for the session alone."""

    def __init__(self, driver: Driver, conn: Any) -> None:
        self.driver = driver
        self.conn = conn
        self._watchdog = Watchdog()

    def use(self, action: Callable[..., Any], *args: Any) -> Any:
        with self._watchdog.guard(self.conn, SILENCE_LIMIT):
            return action(self.conn, *args)

    def notified(self, channels: Container[str]) -> set[str]:
        """Take the notifications of these channels that have arrived, without a word to the server."""
        self.driver.receive(self.conn)
        return self.driver.take(self.conn, channels)

    def close(self) -> None:
        self._watchdog.close()
        try:
            self.conn.close()
        except self.driver.Error:
            pass  # it is gone, and the gates with it


class SharedConnection:
    """The application's connection, used when no transaction is open on it."""

    def __init__(self, source: Source) -> None:
        self.driver = source.driver
        self._source = source

    @property
    def conn(self) -> Any:
        return self._source.conn

    def use(self, action: Callable[..., Any], *args: Any) -> Any:
        """:raises Busy: another thread has a transaction open on it, or the application itself."""
        loan = Loan(self._source)
        try:
            try:
                conn = loan.acquire(BUSY_TIMEOUT)
            except TimeoutError:
                raise Busy from None
            if not self.driver.idle(conn):
                raise Busy  # not ours to commit
            return self.driver.committed(conn, action, *args)
        finally:
            loan.release()

    def notified(self, channels: Container[str]) -> set[str]:
        """Take the notifications of these channels that have arrived.

        :raises Busy: as `use`.
        """
        notified: set[str] = self.use(self.driver.notified, channels)
        return notified

    def close(self) -> None:
        """Do nothing: the connection is the application's."""
