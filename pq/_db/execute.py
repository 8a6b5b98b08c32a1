"""One statement that is a transaction of its own: its limits, its repetition, and what its errors mean."""

from __future__ import annotations

import math
import time
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from typing import Any

from .._logs import queue_log as logger
from ..errors import ConnectionLost
from .drivers.base import Params, Rows
from .known import ServerSession, doubt, known
from .loan import Loan
from .sources.base import Source

#: Seconds after an answer for which a connection is taken to be alive. The less, the rarer a `CommitUnknown`; the more,
#: the fewer round trips. Where one connection is found lost, all others are doubted, however lately they have answered:
#: see `known.doubt`. What vanishes without a word hardly does so just after an answer.
HOT = 1.0

#: How often a statement is tried again after a deadlock or serialization failure.
MAX_ATTEMPTS = 5

READ_COMMITTED = "set transaction isolation level read committed; "

#: Seconds that a statement may take beyond the caller's timeout before the server gives it up.
GRACE = 4.0

#: Longer limits, in seconds, are none.
LONGEST_LIMIT = 1e6

_NOT_ASKED = ServerSession()
_NOTHING = nullcontext()


class Executor:
    """Executes single statements on the connections of a source.

    :param table: the quoted name of the queue table, for error messages.
    """

    def __init__(self, source: Source, table: str) -> None:
        self._source = source
        self._driver = source.driver
        self._table = table
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
        """See `Database.execute`.

        The loop goes round again where the try before has done nothing: after a deadlock; with a statement that the
        server had prepared and forgotten; on a session that can write in place of one that can't any more; and, once,
        after a connection was lost, unless the statement may have changed something.
        """
        source, driver = self._source, self._driver
        bound = None if timeout is None else self.bound(timeout)
        began = time.monotonic()
        isolation = ""
        attempt = 1
        while True:
            loan = Loan(source)
            conn = None
            lost = False
            try:
                conn = loan.acquire(bound)
                its = known(conn)
                # else the application has a transaction open, which must not be ended
                alone = source.owned or driver.idle(conn)
                at_most = bound if alone else None
                session = its.session
                if session is None:
                    asks = alone and (bound or source.owned or (prepare and sql in its.prepared.used))
                    session = source.session(conn) if asks else _NOT_ASKED
                remains = its.limit
                text = its.prepared.text(sql) if prepare and alone and not session.hidden else sql
                usual = source.statement_timeout
                limit = usual if at_most is None or (usual is not None and at_most > usual) else at_most
                if session.limited:
                    wanted = session.own_limit if patient else round((limit or 0) * 1000)
                    if wanted != its.limit:
                        # in the session, where the next statement is likely to want it, too
                        if wanted == its.wanted or wanted == round((usual or 0) * 1000):
                            remains, its.limit = wanted, None  # until the statement has succeeded
                            text = f"set statement_timeout = {wanted}; {text}"
                        else:
                            text = f"set local statement_timeout = {wanted}; {text}"
                    its.wanted = wanted
                elif limit is not None or patient:
                    text = _limit(session, limit, patient) + text
                if lock_timeout is not None:
                    text = f"set local lock_timeout = {_rounded(lock_timeout) * 1000:.0f}; {text}"
                if isolation:
                    text = isolation + text
                now = time.monotonic()
                doubtful = now - its.answered_at > HOT and alone and source.replaceable and _may_change(sql)
                if usual is not None and not (doubtful or patient):  # one call to the server, under one guard
                    assert limit is not None
                    guard = its.guards.get(limit)
                    if guard is None:
                        guard = its.guards[limit] = source.guard(conn, limit)
                    with guard:
                        rows = driver._run(conn, text, params)
                else:
                    run = driver.run_and_commit if doubtful else driver.run
                    with self.guard(conn, at_most):
                        rows = driver.committed(conn, source.run_patiently if patient else run, text, params)
                its.answered_at = time.monotonic()
                its.limit = remains
                source.executed(sql)
                if bound is not None:
                    self._slack = 1
                return rows
            except driver.Error as error:
                if conn is None:
                    raise
                lost = driver.is_lost(conn, error)
                if lost:
                    doubt()
                read_only = source.note(conn, error)
                changes = _may_change(sql)
                in_time = time.monotonic() < began + (bound or source.statement_timeout or math.inf)
                certain = read_only or not changes or isinstance(error, ConnectionLost)
                if alone and not lost and attempt < MAX_ATTEMPTS and driver.may_be_repeated(error):
                    attempt += 1
                    isolation = READ_COMMITTED  # at a stricter default it might only fail again
                elif alone and driver.is_unprepared(error) and its.prepared.lost():
                    pass  # at once, as a plain statement
                elif read_only and its.answered_at and in_time:
                    pass  # it could write before: others may have become read-only with it
                elif attempt == 1 and (lost or read_only) and certain and source.replaceable and in_time:
                    attempt = MAX_ATTEMPTS  # once more, and not again
                elif timeout is not None and driver.was_canceled(error) and source.replaceable:
                    # a locked table, or a statement that takes so long: allow the next one more, lest none succeeds
                    self._slack = min(2 * self._slack, 64)
                    logger.warning("a statement was cancelled after %.0f seconds", time.monotonic() - began)
                    raise TimeoutError from error
                elif alone and driver.was_canceled(error) and source.is_overdue(time.monotonic() - began):
                    driver.raise_timed_out(error, source.statement_timeout)
                else:
                    driver.raise_meaning(conn, error, changes, self._table)
            except BaseException:  # interrupted, perhaps before a guard was left, which would cut the connection later
                if conn is not None:
                    for guard in known(conn).guards.values():
                        guard.pause()  # the traceback may keep it alive
                raise
            finally:
                loan.release(lost)

    def bound(self, timeout: float | None) -> float | None:
        """The seconds after which a statement of a caller with this timeout is given up; None: no limit of its own."""
        if timeout is None or timeout >= LONGEST_LIMIT or not self._source.replaceable:
            return None
        return _bound(math.ceil(timeout), self._slack)  # who waits has another timeout each time

    def guard(self, conn: Any, bound: float | None) -> AbstractContextManager[Any]:
        """Return a context manager around a statement that the server gives up after so many seconds."""
        return _NOTHING if bound is None else self._source.guard(conn, bound)


def is_hot(conn: Any) -> bool:
    """Whether a connection has answered a moment ago."""
    return time.monotonic() - known(conn).answered_at <= HOT


def _may_change(sql: str) -> bool:
    return not sql.startswith("select")


@lru_cache(maxsize=256)
def _limit(session: ServerSession, limit: float | None, patient: bool) -> str:
    """SQL before a statement on a session whose limit is not pq's to set. The server must give up before we do: nobody
    would hear of what it does later.

    :param limit: seconds.
    """
    own = session.own_limit
    wanted = own if patient else min(filter(None, (round((limit or 0) * 1000), own)), default=0)
    return "" if wanted == own else f"set local statement_timeout = {wanted}; "


@lru_cache(maxsize=256)
def _bound(timeout: int, slack: int) -> float | None:
    bound = (timeout + GRACE) * slack
    return _rounded(bound) if bound < LONGEST_LIMIT else None


def _rounded(seconds: float) -> float:
    """Up to 1, 2 or 5 times a power of ten: each number makes a statement of its own in the server's statistics."""
    if seconds <= 0.001:
        return 0.001
    power = 10.0 ** math.floor(math.log10(seconds))
    return next((step * power for step in (1, 2, 5) if step * power >= seconds * 0.999), 10 * power)
