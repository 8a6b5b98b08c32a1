"""One statement that is a transaction of its own: its limits, its repetition, and what its errors mean."""

from __future__ import annotations

import math
import time
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from .._logs import queue_log as logger
from ..errors import ConnectionLost
from .drivers.base import Params, Rows
from .loan import Loan
from .prepared import Plans
from .sources.base import Session, Source
from .watchdog import SILENCE

#: How often a statement is tried again after a deadlock or serialization failure.
ATTEMPTS = 5

READ_COMMITTED = "set transaction isolation level read committed; "

#: Seconds that a statement may take beyond the caller's timeout before the server gives it up.
GRACE = 4.0

#: Longer limits, in seconds, are none.
LONGEST = 1e6


class Executor:
    """Executes single statements on the connections of a source.

    :param table: the quoted name of the queue table, for error messages.
    """

    def __init__(self, source: Source, table: str) -> None:
        self._source = source
        self._driver = source.driver
        self._table = table
        self._plans = Plans()
        self._slack = 1

    def execute(
        self,
        sql: str,
        params: Params | None,
        timeout: float | None,
        lock_timeout: float | None,
        prepare: bool,
        patient: bool,
    ) -> Rows:
        """See `Database.execute`."""
        source, driver = self._source, self._driver
        changes = not sql.startswith("select")
        bound = self.bound(timeout)
        began = time.monotonic()
        deadline = began + (bound or source.statement_timeout or math.inf)
        isolation = ""
        attempt = 1
        while True:
            loan = Loan(source)
            conn = None
            lost = False
            try:
                conn = loan.take(bound)
                alone = driver.idle(conn)  # otherwise the application has a transaction open, which we'd lose
                plans = prepare and alone and self._plans.repeats(conn, sql)
                session = source.session(conn) if alone and (plans or bound or source.owned) else Session()
                limits = self._limits(session, bound if alone else None, lock_timeout, patient)
                with self.guard(conn, bound if alone else None), driver.committed(conn):
                    text = isolation + limits + (self._plans.text(conn, sql) if plans and not session.hidden else sql)
                    if patient:
                        rows = source.run_patiently(conn, text, params)
                    elif changes and alone and conn.autocommit and source.is_doubtful(conn):
                        rows = driver.run_and_commit(conn, text, params)
                    else:
                        rows = driver.run(conn, text, params)
                source.proved(conn)
                source.executed(sql)
                if bound is not None:
                    self._slack = 1
                return rows
            except driver.Error as error:
                if conn is None:
                    raise
                lost = driver.is_lost(conn, error)
                read_only = source.note(conn, error)
                certain = read_only or not changes or isinstance(error, ConnectionLost)
                if alone and not lost and attempt < ATTEMPTS and driver.may_be_repeated(error):
                    attempt += 1
                    isolation = READ_COMMITTED  # at a stricter default it might only fail again
                elif alone and driver.is_unprepared(error) and self._plans.lost(conn):
                    pass  # at once, without
                elif read_only and source.has_served(conn) and time.monotonic() < deadline:
                    pass  # it could write before: others may have become read-only with it
                elif (
                    attempt == 1 and (lost or read_only) and certain and source.replaceable
                    and time.monotonic() < deadline
                ):  # fmt: skip
                    attempt = ATTEMPTS  # once more
                elif timeout is not None and driver.was_canceled(error) and source.replaceable:
                    # a locked table, or a statement that takes so long: allow the next one more, lest none succeeds
                    self._slack = min(2 * self._slack, 64)
                    logger.warning("a statement was cancelled after %.0f seconds", time.monotonic() - began)
                    raise TimeoutError from error
                elif alone and driver.was_canceled(error) and source.is_overdue(time.monotonic() - began):
                    driver.raise_timed_out(error, source.statement_timeout)
                else:
                    driver.fail(conn, error, changes, self._table)
            finally:
                loan.give(lost)

    def bound(self, timeout: float | None) -> float | None:
        """The seconds after which a statement of a caller with this timeout is given up; None: no limit of its own."""
        if timeout is None or not self._source.replaceable:
            return None
        bound = (timeout + GRACE) * self._slack
        return _rounded(bound) if bound < LONGEST else None

    def _limits(self, session: Session, bound: float | None, lock_timeout: float | None, patient: bool) -> str:
        """SQL before the statement. The server must give up before we do: nobody would hear of what it does later."""
        if session.limited and bound is None and lock_timeout is None and not patient:
            return ""  # mostly
        text = ""
        ours = (round(seconds * 1000) for seconds in (bound, self._source.statement_timeout) if seconds)
        limit = session.own_limit if patient else min(filter(None, (*ours, session.own_limit)), default=0)
        if limit != (round((self._source.statement_timeout or 0) * 1000) if session.limited else session.own_limit):
            text = f"set local statement_timeout = {limit}; "
        if lock_timeout is not None:
            text += f"set local lock_timeout = {_rounded(lock_timeout) * 1000:.0f}; "
        return text

    def guard(self, conn: Any, bound: float | None) -> AbstractContextManager[Any]:
        """Return a context manager around a statement that the server gives up after so many seconds."""
        return nullcontext() if bound is None else self._source.guard(conn, bound + SILENCE)


def _rounded(seconds: float) -> float:
    """Up to 1, 2 or 5 times a power of ten: each number makes a statement of its own in the server's statistics."""
    if seconds <= 0.001:
        return 0.001
    power = 10.0 ** math.floor(math.log10(seconds))
    return next((step * power for step in (1, 2, 5) if step * power >= seconds * 0.999), 10 * power)
