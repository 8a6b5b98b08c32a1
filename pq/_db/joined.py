"""Transactions of the application's that pq has joined."""

from __future__ import annotations

from typing import Any, NoReturn

from .drivers.base import Driver, Params, Rows
from .sources.base import Source
from .transaction import Transaction
from .unwrap import begins, connection_of, is_marked, note_error, unmark


class Joined(Transaction):
    """The application's transaction: pq neither begins nor ends it, and its errors are the driver's.

    :param given: what leads to the connection.
    """

    owned = False

    def __init__(self, source: Source, table: str, given: object) -> None:
        super().__init__(source, table)
        self._given = given
        if not begins(given):  # which the first statement is to do: the application may be about to do it itself
            self._find()

    @property
    def commits_at_once(self) -> bool:
        self._find()
        return bool(self.conn.autocommit) and self.driver.idle(self.conn)

    def run(
        self, sql: str, params: Params | None = None, limit: float | None = None, prepare: bool = False
    ) -> Rows:
        self._find()
        with self._source.exclusive(self.conn):
            return super().run(sql, params, limit)

    def copy(self, sql: str, file: Any) -> int:
        self._find()
        with self._source.exclusive(self.conn):
            return super().copy(sql, file)

    @property
    def failed(self) -> bool:
        self._find()
        return super().failed or is_marked(self._given)

    def went_back(self) -> None:
        unmark(self._given)

    def _find(self) -> None:
        """A session that has committed meanwhile has given its connection back, and somebody else may have it."""
        driver, conn = connection_of(self._given)
        self.driver: Driver = driver
        self.conn: Any = conn

    def _fail(self, error: Exception) -> NoReturn:
        note_error(self._given)
        if self.driver.table_is_missing(error):
            super()._fail(error)
        raise error
