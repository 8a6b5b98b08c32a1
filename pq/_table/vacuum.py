"""Vacuums of a table from which many rows are deleted: autovacuum looks at it once a minute, by default."""

from __future__ import annotations

import time

from .._db import Database
from .._db.watchdog import SILENCE
from ..sql import bound

#: Seconds that a vacuum waits for a lock, and that it may take.
LOCK_TIMEOUT = 0.1
TIME_LIMIT = 60.0

#: A vacuum may take one part in so many of the time.
SHARE = 10

#: Seconds until another role, or another server, may be there.
NEVER = 3600.0


class Vacuum:
    """Vacuums a table on a connection of its own, where the role may.

    It gives up if somebody else vacuums the table, or changes it. It never truncates the table, which would take a lock
    that holds up everybody.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def run_once(self) -> float:
        """Vacuum the table, and return for how many seconds no other vacuum is to follow; `NEVER` if it can't be done
        here: the role may not, the server is behind a pooler, or the application has given the only connection.

        :raises Error: it has failed.
        """
        source = self._database.source
        driver = source.driver.limited(None)
        conn = source.open_listening_connection()
        if conn is None:
            return NEVER
        sql = bound("vacuum.sql", self._database.table)
        limits = {"lock": f"{LOCK_TIMEOUT * 1000:.0f}", "time": f"{TIME_LIMIT * 1000:.0f}"}
        try:
            with source.watchdog.guard(conn, TIME_LIMIT + LOCK_TIMEOUT + SILENCE):
                if driver.backend_is_hidden(conn):
                    return NEVER
                if driver.run(conn, sql["may_vacuum"], {"table": self._database.table, **limits}) != [(True,)]:
                    return NEVER
                began = time.monotonic()  # to connect may take longer, and costs the table nothing
                driver.run(conn, sql["vacuum"])
                return SHARE * (time.monotonic() - began)
        finally:
            conn.close()
