"""Statements that look at the table, for people and for monitoring: read only, within a time limit."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from .._db import Rows
from ..errors import ConnectionLost, StatementTimeout
from .table import Table

#: Seconds that a look may take: it must not add to what makes a server slow.
SECONDS = 1.0

#: Seconds that it waits for a lock; fewer, so that it is known what it has waited for.
LOCK_SECONDS = 0.8

#: Before the statement, in one message with it. It begins with "select", which says that it can be repeated. Looks are
#: short, and their costs, which the planner takes for high, are no reason to compile them.
_LIMITS = (
    "select set_config('statement_timeout', coalesce({limit}, current_setting('statement_timeout')), true),"
    f" set_config('lock_timeout', '{1000 * LOCK_SECONDS:.0f}', true),"
    " set_config('transaction_read_only', 'on', true), set_config('jit', 'off', true); "
)

#: What is as it was after a look that is part of a transaction.
_KEPT = ("statement_timeout", "lock_timeout", "jit")


def look(table: Table, sql: str, params: Mapping[str, Any] | None = None, seconds: float | None = SECONDS) -> Rows:
    """Execute a statement that changes nothing.

    In a transaction that the application has begun by SQL itself there is no limit, since that would stay.

    :param seconds: how long it may take; None: as long as any other statement.
    :raises StatementTimeout: it took longer, or a session has locked a table.
    """
    database = table.database
    limits = _LIMITS.format(limit="null" if seconds is None else f"'{seconds * 1000:.0f}'")
    try:  # not by table.execute, which of a `Looking` is this function
        if database.in_transaction:
            return _in_transaction(table, sql, params or {}, limits)
        return Table.execute(table, sql if database.stays_open else limits + sql, params or {})
    except database.driver.Error as error:
        if database.driver.lock_timed_out(error):
            database.driver.raise_locked(error, LOCK_SECONDS)
        told = isinstance(error, (ConnectionLost, StatementTimeout))
        if seconds is not None and database.driver.was_canceled(error) and not told:
            database.driver.raise_timed_out(error, seconds)
        raise


def _in_transaction(table: Table, sql: str, params: Mapping[str, Any], limits: str) -> Rows:
    """The transaction goes on: an error undoes only a savepoint, and at the savepoint's end it can write again."""
    with table.database.transaction():
        run = partial(Table.execute, table)
        (values,) = run(f"select {', '.join(f'current_setting({name!r})' for name in _KEPT)}")
        run(limits)
        rows = run(sql, params)
        back = ", ".join(f"set_config({name!r}, %({name})s, true)" for name in _KEPT)
        run(f"select {back}", dict(zip(_KEPT, values, strict=True)))
        return rows


class Looking(Table):
    """A view of a table that only looks, for what reads it by `Table.execute`: each statement is a `look`."""

    _seconds: float | None

    def execute(self, sql: str, params: Mapping[str, Any] | None = None, **options: Any) -> Rows:
        """Execute one statement; the options are of no use for that."""
        return look(self, sql, params, self._seconds)


def looking(table: Table, seconds: float | None = SECONDS) -> Looking:
    """Return such a view.

    :param seconds: as for `look`.
    """
    view = object.__new__(Looking)
    view.__dict__.update(table.__dict__, _seconds=seconds)
    return view
