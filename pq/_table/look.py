"""Statements that look at the table, for people and for monitoring: read only, within a time limit."""

from __future__ import annotations

from typing import Any

from .._db import Rows
from ..errors import ConnectionLost, StatementTimeout
from .table import Table

#: Seconds that a look may take: it must not add to what makes a server slow.
SECONDS = 1.0

#: Before the statement, in one message with it. It begins with "select", which says that it can be repeated. Looks are
#: short, and their costs, which the planner takes for high, are no reason to compile them.
_LIMITS = (
    "select set_config('statement_timeout', coalesce({limit}, current_setting('statement_timeout')), true),"
    " set_config('transaction_read_only', 'on', true), set_config('jit', 'off', true); "
)


def look(table: Table, sql: str, params: dict[str, Any] | None = None, seconds: float | None = SECONDS) -> Rows:
    """Execute a statement that changes nothing.

    In a transaction that the application has begun by SQL itself there is no limit, since that would stay.

    :param seconds: how long it may take; None: as long as any other statement.
    :raises StatementTimeout: it took longer.
    """
    database = table.database
    limits = _LIMITS.format(limit="null" if seconds is None else f"'{seconds * 1000:.0f}'")
    try:
        if database.in_transaction:
            return _in_transaction(table, sql, params or {}, limits)
        return table.execute(sql if database.stays_open else limits + sql, params or {})
    except database.driver.Error as error:
        told = isinstance(error, (ConnectionLost, StatementTimeout))
        if seconds is not None and database.driver.was_canceled(error) and not told:
            database.driver.raise_timed_out(error, seconds)
        raise


def _in_transaction(table: Table, sql: str, params: dict[str, Any], limits: str) -> Rows:
    """The transaction goes on: an error undoes only a savepoint, and at the savepoint's end it can write again."""
    with table.database.transaction():
        ((timeout, jit),) = table.execute("select current_setting('statement_timeout'), current_setting('jit')")
        table.execute(limits)
        rows = table.execute(sql, params)
        table.execute(
            "select set_config('statement_timeout', %(timeout)s, true), set_config('jit', %(jit)s, true)",
            {"timeout": timeout, "jit": jit},
        )
        return rows
