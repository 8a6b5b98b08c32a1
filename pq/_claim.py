"""Taking the next job of a queue, by statements that stay cheap however many rows there are."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from . import _sql
from ._db import Database

#: Ids below the last one taken that the next claim still looks at.
SLACK = 1000

#: Seconds after which it looks at all of them again.
FORGET = 1.0


class Claim:
    """Takes jobs of one queue.

    While an old transaction is open somewhere, the entries of taken jobs stay in the index, in front of those of ready
    ones, and each claim would step over all of them. So where jobs have no priority, the usual claim begins at the
    *low-water mark*: somewhat below the last id that this process took. What is ready below it (put by a long
    transaction, or given back) is seen when the mark is dropped: once a second, and whenever nothing is found above it.
    """

    def __init__(self, queue: str, table: str) -> None:
        self._queue = queue
        self._taken = _sql.bound("claim.sql", table)
        self._leased = _sql.bound("claim.sql", table, taken="leased")
        # Threads may overwrite each other's: one of their marks is as good as another's.
        self._mark = 0
        self._dropped_at = 0.0  # monotonic seconds

    def take(self, database: Database, timeout: float, lease: timedelta | None = None) -> tuple[Any, ...] | None:
        """Take the best job: the columns of `claim.sql`; None if there is none.

        :param timeout: the seconds that the caller has.
        :param lease: None: it is taken for good, or as the transaction ends.
        """
        params: dict[str, Any] = {"queue": self._queue, "mark": self._low_water()}
        sql = self._taken
        if lease is not None:
            sql = self._leased
            params["lease"] = lease.total_seconds()
        try:
            for name in self._statements(database):
                rows = database.execute(sql[name], params, timeout=timeout)
                if rows:
                    self._saw(rows[0], name)
                    return rows[0]
        except TimeoutError:
            pass
        return None

    def _statements(self, database: Database) -> Iterator[str]:
        """Their names, from the cheapest to the complete one."""
        if self._mark:
            yield "claim_above"
            self._mark = 0
        yield "claim_ready"
        yield "claim_in_transaction" if database.in_transaction else "claim"

    def _low_water(self) -> int:
        now = time.monotonic()
        if now - self._dropped_at > FORGET:
            self._dropped_at = now
            self._mark = 0
        return self._mark

    def _saw(self, row: tuple[Any, ...], statement: str) -> None:
        id, expected_at = row[0], row[5]
        if expected_at is None and statement in ("claim_above", "claim_ready"):  # the others made more rows ready
            self._mark = max(self._mark, id - SLACK)
