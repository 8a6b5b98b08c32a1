"""The statement of a claim, and what it returns beside the jobs; see ``sql/claim.sql``."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from .._db import Rows
from .._jobs.row import EXPECTED_AT, ID, KEY
from ..sql import bound
from .refusal import REMOVED

#: Behind the columns of a job and `REMOVED`: the lowest id of the jobs that the claim has made ready.
PROMOTED = REMOVED + 1

#: Behind that, if a claim tells of the rest: how many jobs were ready, and the seconds until a row becomes due.
READY, DUE_IN = PROMOTED + 1, PROMOTED + 2


def is_all(rows: Rows) -> bool:
    """Return whether a claim that tells of the rest has taken all that was ready or due. Without a job it tells
    nothing, and jobs with keys may leave something to be done for their key."""
    if not rows or rows[0][READY] > len(rows) or (rows[0][DUE_IN] is not None and rows[0][DUE_IN] <= 0):
        return False
    return all(row[KEY] is None and row[PROMOTED] is None for row in rows)


def order(row: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return what to sort the rows of a claim by: the order in which jobs are taken."""
    expected_at = row[EXPECTED_AT]
    return expected_at is None, expected_at, row[ID]


@lru_cache(maxsize=512)
def statement(
    table: str, how: str, slow: bool, in_transaction: bool, is_limited: bool, tells: bool, name: str | None = None
) -> str:
    """Return the statement that takes jobs.

    :param how: ``'taken'`` for good, ``'removed'`` for good from a table that keeps no finished jobs, or ``'leased'``.
    :param slow: nothing below the marks of urgent and due jobs is looked at; see `Marks`.
    :param in_transaction: it is part of one that goes on; see ``claim_in_transaction``.
    :param is_limited: take no more than the limits of the queue allow.
    :param tells: it is to tell what is left; see `is_all`.
    :param name: that of another statement than the one that every claim can use.
    """
    instead = {"since": "since_mark", "urgent_since": "urgent_since_mark"} if slow else {}
    if how != "taken":
        instead["short"] = f"short_{how}"
    if how == "leased":
        instead |= {"returned": "returned_with_headers", "headers": "headers_read"}
    if how == "removed":
        instead |= {
            "takes": "does_remove", "removes": "does_remove", "no_others": "others", "all_taken": "all_with_others",
            "returned": "returned_with_others", "headers": "headers_read",
        }  # fmt: skip
    if is_limited:
        instead |= {name: f"{name}_limited" for name in ("open", "most", "best", "told", "slot", "noted")}
    if is_limited and in_transaction and how != "leased":
        instead |= {"keeps": "keeps_places", "is_kept": "is_kept_here"}
    if in_transaction:
        instead |= {"holds": "passes_over", "may_begin": "may_take"}
    if tells:
        instead |= {"rest": "rest_told", "short": "short_told"}
    sql = bound("claim.sql", table, taken=how, **instead)
    return sql[name or ("claim_in_transaction" if in_transaction else "claim")]
