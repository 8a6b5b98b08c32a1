"""The upkeep of a stream: slots whose events all have read are emptied, by whoever consumes."""

from __future__ import annotations

import time
from typing import Any

from .._logs import queue_log as logger
from .._text import describe
from ..errors import SchemaError, StreamRestored
from ..sql import stream_object
from . import schema
from .log import READ_COMMITTED, Log

#: Seconds between two looks of a consumer, and until the first: a program that has just begun has better things to do.
PAUSE = 60.0
BEGIN = 1.0

_SLOTS = ("first_slot", "second_slot", "third_slot")


class Upkeep:
    """Empties slots of one stream now and then."""

    def __init__(self) -> None:
        self._next_at = time.monotonic() + BEGIN
        self._told = False

    def run_if_due(self, log: Log) -> None:
        """Rotate, unless that was done a moment ago; an error is logged once."""
        now = time.monotonic()
        if now < self._next_at:
            return
        self._next_at = now + PAUSE
        try:
            rotate(log)
        except Exception as error:  # no right to empty a slot, or no connection, of which others tell
            if not self._told and not log._table.closed:
                logger.warning("old events of stream %r can't be removed: %s", log.name, describe(error))
            self._told = True


def rotate(log: Log) -> bool:
    """Empty the slot that the clock comes to next, if all of it is read and old enough; return whether that was done.

    :raises StreamMissing: there is no such stream.
    :raises StreamRestored: it is one of a restored dump.
    :raises ValueError: a transaction is open: it would hold up the stream until its end.
    """
    table, database = log._table, log._table.database
    if database.in_transaction:
        raise ValueError("rotate has a transaction of its own: call it outside of yours")
    settings = schema.find(table, log.name)
    if settings is None:
        raise log._missing()
    unread = settings.retain_unread
    params: dict[str, Any] = {
        "retain": settings.retain.total_seconds(),
        "retain_unread": None if unread is None else unread.total_seconds(),
        "log": stream_object(table.quoted, "log", log.name),
    }
    if not log._run("at_home")[0][0]:
        raise StreamRestored(stream=log.name)
    ((slot, has_events),) = table.execute(table.statements("stream_upkeep.sql", log.name)["next_slot"], params)
    if not has_events:
        return False
    sql = table.statements("stream_upkeep.sql", log.name, slot=_SLOTS[slot])

    def look() -> str:
        if table.execute(sql["spent"], params)[0][0]:
            return "spent"
        is_overdue = unread is not None and table.execute(sql["overdue"], params)[0][0]
        return "overdue" if is_overdue else "needed"

    if look() == "needed":
        return False
    try:
        with database.transaction():
            database.execute(READ_COMMITTED)
            if not table.execute(sql["one_at_a_time"], params)[0][0]:
                return False
            table.execute(sql["lock_slot"], {})
            state = look()  # once more: now nobody writes there
            if state == "needed":
                return False
            for name, lost in table.execute(sql["give_up"], params) if state == "overdue" else ():
                logger.warning("subscription %r of stream %r has lost %d events (retain_unread)", name, log.name, lost)
            table.execute(sql["truncate"], {})
    except database.driver.Error as error:
        if database.driver.lock_timed_out(error):
            return False  # somebody reads there for long: the doctor tells if it stays so
        raise
    return True


def rebase(log: Log) -> bool:
    """Make the positions of a restored stream mean what they meant; return whether that was to be done.

    :raises StreamMissing: there is no such stream.
    :raises SchemaError: there are more kinds of events, told apart by who has read them, than this server has had
        transactions.
    """
    table, database = log._table, log._table.database
    if schema.find(table, log.name) is None:
        raise log._missing()
    sql = table.statements("stream_upkeep.sql", log.name)
    params = {"event_id": stream_object(table.quoted, "event_id", log.name)}
    with database.transaction():
        table.execute(sql["lock_all"], {})
        if log._run("at_home")[0][0]:
            return False
        ((is_possible, _),) = table.execute(sql["rebase"], params)
        if not is_possible:
            raise SchemaError(f"stream {log.name!r} can't be rebased: this server has had too few transactions")
        table.execute(sql["settle_in"], {})
        table.execute(sql["settle_in_as"], {})
    return True
