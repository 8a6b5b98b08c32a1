"""Taking jobs of a queue that is limited: the claim first locks places and tokens, then takes as many jobs."""

from __future__ import annotations

from typing import Any, NamedTuple

from .._db import Rows
from .._jobs.row import ID, OWN
from ..sql import array
from .base import QueueBase
from .limits import trim
from .rates import Tokens

SAVEPOINT = "pq_limit"

#: What a claim of a limited queue tells behind the columns of a job, `REMOVED` and `PROMOTED`; see claim.sql.
TOLD = slice(OWN + 2, OWN + 8)


class Told(NamedTuple):
    """What a claim has told of the limits.

    :ivar places: for how many jobs there were places.
    :ivar is_limited: whether the queue has a limit.
    :ivar has_places: whether one is of how many run at a time.
    :ivar has_tokens: whether one is a rate.
    :ivar table: the oid of the table of the limits.
    :ivar is_over: whether there are more places than the limit allows, so that none can be had.
    """

    places: int
    is_limited: bool
    has_places: bool | None
    has_tokens: bool | None
    table: int | None
    is_over: bool | None


def told(rows: Rows) -> Told | None:
    """Return what a claim has told; None if it had places, and found no job."""
    return Told(*rows[0][TOLD]) if rows else None


def jobs(rows: Rows) -> Rows:
    return [row for row in rows if row[ID] is not None]


class Found(NamedTuple):
    """What one claim has found.

    :ivar most: how many jobs it could have taken; 0 if the queue is paused, or a limit full.
    """

    rows: Rows
    most: int


class Limited:
    """Whether a queue is limited, as its claims tell, and the claims of one that is.

    :ivar known: whether the last claim said so.
    :ivar alone: nobody waits for what an open transaction takes: it takes tokens itself, on no further connection.
    :ivar full: whether it had fewer places than it wanted, and nothing but the end of a job can change that.
    """

    def __init__(self) -> None:
        self.known: bool = False
        self.full: bool = False
        self.alone: bool = False
        self._rates: int | None = None  # the oid of the table of the limits, if there are rates among the queue's

    def claim(self, queue: QueueBase, sql: str, params: dict[str, Any], timeout: float) -> Found | None:
        """Claim jobs, each with a place in all limits of the queue; None: the queue is not limited any more.

        :param sql: the statement, for a limited queue.
        :param params: its parameters, but for those of limits.
        """
        if queue._db.in_transaction:
            return self._claim_in_transaction(queue, sql, params, timeout)
        found = self._execute(queue, sql, params, timeout)
        if found is not None and found[1] is not None and found[1].is_over and _make_fit(queue):
            found = self._execute(queue, sql, params, timeout)
        return None if found is None else found[0]

    def _execute(
        self, queue: QueueBase, sql: str, params: dict[str, Any], timeout: float, tokens: bool = True
    ) -> tuple[Found, Told | None] | None:
        rows = queue._db.execute(sql, {**params, "tokens": tokens}, timeout=timeout, prepare=True)
        tells = told(rows)
        self.known = tells is None or tells.is_limited
        self.full = (
            tells is not None and self.known and bool(tells.has_places) and not tells.has_tokens
            and tells.places < params["limit"]
        )  # fmt: skip
        if tells is not None:
            self._rates = tells.table if tells.has_tokens else None
        if not self.known:
            return None
        return Found(jobs(rows), params["limit"] if tells is None else tells.places), tells

    def _claim_in_transaction(
        self, queue: QueueBase, sql: str, params: dict[str, Any], timeout: float
    ) -> Found | None:
        """Claim jobs in a transaction that stays open. It keeps the places of the jobs that it takes, and no others; of
        tokens it keeps none, if there is a further connection on which to take them."""
        tokens, known = None, self._rates
        if known is not None and not self.alone:
            tokens = Tokens.reserve(queue, known, params["limit"])
        if tokens is not None:
            if not tokens.count:
                return Found([], 0)
            params = {**params, "limit": min(params["limit"], tokens.count)}
        count = 0
        try:
            answer = self._claim_as_many(queue, sql, params, timeout, tokens is None)
            if known is None and self._rates is not None:  # nothing was kept: now we know
                return self._claim_in_transaction(queue, sql, params, timeout)
            count = len(answer[0].rows) if answer else 0
        finally:
            if tokens is not None:
                tokens.settle(count)
        if answer is None:
            return None
        found, tells = answer
        if tells is not None and tells.is_over and not found.rows:
            _make_fit(queue)
        if found.rows and tells is not None and tells.has_places:
            _wake_sharers(queue)
        return found

    def _claim_as_many(
        self, queue: QueueBase, sql: str, params: dict[str, Any], timeout: float, takes_tokens: bool
    ) -> tuple[Found, Told | None] | None:
        """Claim jobs, and see to it that no place is kept that has no job, nor tokens if that is avoidable."""
        run = queue._db.execute
        known = self._rates
        limit = params["limit"]
        run(f"savepoint {SAVEPOINT}")
        while True:
            answer = self._execute(queue, sql, {**params, "limit": limit}, timeout, takes_tokens)
            found, _ = answer or (Found([], 0), None)
            is_news = known is None and self._rates is not None
            if len(found.rows) == found.most > 0 and not is_news:
                break
            run(f"rollback to {SAVEPOINT}")
            if not found.rows or is_news:
                break
            limit = len(found.rows)
        run(f"release {SAVEPOINT}")
        return answer


def _make_fit(queue: QueueBase) -> bool:
    """Take away places that a limit has too many; return False if somebody else is about to."""
    sql = queue._table.statements("limits.sql")
    with queue._table.database.grouped():
        names = [name for (name,) in queue._run(sql["held_for"])]
        if names:
            trim(queue._table, array(names))
    return bool(names)


def _wake_sharers(queue: QueueBase) -> None:
    """When the transaction is committed, wake those who wait for the places that it has."""
    sql = queue._table.statements("limits.sql")
    queues = [name for (name,) in queue._run(sql["sharers"])]
    queue._table.execute(sql["wake"], {"queues": array(queues), "table": queue._table.quoted})
