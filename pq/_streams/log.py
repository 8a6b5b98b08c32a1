"""The log of a stream as the rest of pq uses it: its name, its codec, its statements."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from .._args import check_text
from .._db import Rows
from .._queue import Queue
from .._table import Table
from ..errors import StreamMissing, SubscriptionNotFound, TableMissing
from .event import Codec

if TYPE_CHECKING:
    from typing_extensions import Self

#: Whatever the default is: what follows a lock must see what was committed before it.
READ_COMMITTED = "set transaction isolation level read committed"

#: Stands behind the name of a stream whose data is text.
TEXT = "/text"


class Log:
    """The base of `Stream`.

    :param queue_of: returns a queue of the PQ, by its name.
    """

    def __init__(self, table: Table, name: str, queue_of: Callable[[str], Queue]) -> None:
        check_text("stream name", name)
        is_text = name.endswith(TEXT) and name != TEXT
        self.name: str = name.removesuffix(TEXT) if is_text else name
        self._codec = Codec(is_text)
        self._table = table
        self._queue_of = queue_of
        self._sql = table.statements("stream.sql", self.name)

    def __repr__(self) -> str:
        return f"<pq.Stream {self.name!r}>"

    def _bind(self, conn: Any) -> Self:
        return self._on(self._table.bind(conn))

    def _on(self, table: Table) -> Self:
        view = object.__new__(type(self))
        view.__dict__.update(self.__dict__, _table=table)
        return view

    def _run(self, statement: str, *, prepare: bool = False, **params: Any) -> Rows:
        return self._execute(self._sql[statement], params, prepare=prepare)

    def _execute(self, sql: str, params: Mapping[str, Any], **options: Any) -> Rows:
        try:
            return self._table.execute(sql, params, **options)
        except TableMissing as error:
            raise self._meaning(error) from error

    def _meaning(self, error: Exception) -> Exception:
        if not isinstance(error, TableMissing) or isinstance(error, StreamMissing):
            return error
        return StreamMissing(stream=self.name, table=error.table, database=error.database)

    def _missing(self) -> StreamMissing:
        ((database,),) = self._run("database")
        return StreamMissing(stream=self.name, table=self._table.quoted, database=database)

    def _unknown(self, subscription: str) -> SubscriptionNotFound:
        known = ", ".join(repr(row[0]) for row in self._run("all_subscriptions"))
        return SubscriptionNotFound(stream=self.name, subscription=subscription, known=known or "none")
