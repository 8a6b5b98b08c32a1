"""One connection of a pool, kept for those who must not wait behind others."""

from __future__ import annotations

from typing import Any

from ..loan import Loan
from .base import Source
from .turns import Turn, Turns


class Reserved(Source):
    """A source of one connection, which it takes from another source and keeps until `close`.

    :param source: where the connection comes from, and goes back to.
    """

    def __init__(self, source: Source) -> None:
        super().__init__()
        self.driver = source.driver
        self.owned = source.owned
        self._source = source
        self._turns = Turns(1)
        self._turn: Turn | None = None
        self._loan = Loan(source)
        self._closed = False
        try:
            self._loan.acquire()
        except (self.driver.Error, self.driver.PoolError):
            pass  # the database is away: the first who asks tries again

    def acquire(self, timeout: float | None = None, into: Any = None) -> Any:
        turn = self._turns.acquire(timeout)
        try:
            conn = self._loan.conn
            if conn is not None and not self.driver.alive(conn):
                self._loan.release(lost=True)
                conn = None
            if conn is None:
                conn = self._loan.acquire(timeout)
            self._turn = turn
            return conn
        except BaseException:
            self._turns.release(turn)
            raise

    def release(self, conn: Any, lost: bool = False) -> None:
        turn, self._turn = self._turn, None
        if turn is None:
            return
        try:
            lost = self._is_suspect(conn) or lost
            if lost or self._closed or conn.closed or not self.driver.idle(conn):
                self._loan.release(lost)
        finally:
            self._turns.release(turn)

    def distrust(self) -> None:
        self._source.distrust()

    def open_listening_connection(self) -> Any:
        return self._source.open_listening_connection()

    def close(self) -> None:
        """Give the connection back now, or when whoever uses it is ready."""
        self._closed = True
        if self._turn is None:
            self._loan.release()
