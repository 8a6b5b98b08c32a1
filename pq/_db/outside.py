"""A further connection, for what must be committed while a transaction is open."""

from __future__ import annotations

import os
import threading
from typing import Any

from .._logs import queue_log as logger
from .._text import describe
from .drivers.base import Params, Rows
from .inherited import leave_to_the_parent
from .sources.base import Source

#: Seconds that a statement may take.
TIME_LIMIT = 4.0


class Outside:
    """Executes statements, one at a time, on a connection that nobody else has. It is opened when it is needed."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._reset()

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._conn: Any = None

    def execute(self, sql: str, params: Params) -> Rows | None:
        """Execute a statement and commit; None: there is no such connection, or the statement failed."""
        if self._pid != os.getpid():
            leave_to_the_parent(self._conn)
            self._reset()
        driver = self._source.driver.limited(None)
        with self._lock:
            try:
                if self._conn is None:
                    self._conn = self._source.open_listening_connection()
                if self._conn is None:
                    return None
                limit = f"set local statement_timeout = {TIME_LIMIT * 1000:.0f}; "
                with self._source.watchdog.guard(self._conn, TIME_LIMIT + 1):
                    rows: Rows = driver.run(self._conn, limit + sql, params)
                return rows
            except driver.Error as error:
                logger.warning("a statement on a further connection has failed: %s", describe(error))
                self._discard()
                return None
            except BaseException:
                self._discard()
                raise

    def close(self) -> None:
        if self._pid == os.getpid():
            with self._lock:
                self._discard()

    def _discard(self) -> None:
        conn, self._conn = self._conn, None
        try:
            if conn is not None:
                conn.close()
        except self._source.driver.Error:
            pass  # it is gone, and that was the aim
