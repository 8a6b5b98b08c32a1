"""The tokens of rates for a transaction that stays open: whoever else wants them must not wait for its end.

So they are taken on a further connection: reserved before the claim, and noted as taken, or given back, after it.
"""

from __future__ import annotations

from ..sql import array
from .base import QueueBase


class Tokens:
    """Tokens that are reserved for a claim.

    :ivar count: for how many jobs.
    """

    def __init__(self, queue: QueueBase, rows: list[tuple[str, int, int, int]]) -> None:
        self._queue = queue
        self._rows = rows
        self.count: int = rows[0][-1] if rows else 0

    @classmethod
    def reserve(cls, queue: QueueBase, table: int, limit: int) -> Tokens | None:
        """Reserve tokens of all rates of a queue, for a while; None: there is no connection for that.

        :param table: the oid of the table of the limits, as the transaction sees it.
        :param limit: for how many jobs at most.
        """
        if queue._db.joined is not None and not queue._db.source.owned:
            return None  # the pool may have no other connection
        sql = queue._table.statements("limits.sql")["reserve_tokens"]
        rows = queue._table.outside.execute(sql, {"queue": queue.name, "table": table, "limit": limit})
        if rows is None or not rows:
            return None
        return cls(queue, [row for row in rows if row[0] is not None])

    def settle(self, used: int) -> None:
        """So many jobs have begun: a period after now, their tokens are free. The others are free at once.

        If this fails, all of them are free when the reservation is over.
        """
        if self._rows:
            sql = self._queue._table.statements("limits.sql")["settle_tokens"]
            names, ns, numbers = (array(column) for column in list(zip(*self._rows, strict=True))[:3])
            self._queue._table.outside.execute(sql, {"names": names, "ns": ns, "numbers": numbers, "used": used})
