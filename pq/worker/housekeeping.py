"""What a worker does for the room that it takes: it vacuums after many deletions, and closes connections."""

from __future__ import annotations

import time
from collections.abc import Callable

from .._logs import worker_log as logger
from .._loop import Loop
from .._table import Table
from .._table.vacuum import Vacuum
from .._text import describe
from .events import Events
from .held import Held

#: After so many jobs that are deleted when they are done the table is vacuumed. Autovacuum looks at it once a minute:
#: by then the indexes have grown, and keep their size. How far they grow depends on the longest time between two
#: vacuums, not on the usual one: this leaves room for one that comes late on a busy machine.
JOBS = 10_000

#: Seconds between two looks at that number while jobs are done, and while none is.
BUSY_PAUSE = 0.1
IDLE_PAUSE = 1.0

#: Seconds until this is tried again where it has failed.
ERROR_PAUSE = 60.0


class Housekeeping:
    """One thread.

    :param on_error: called with an error that the thread did not expect.
    :ivar reserve: the table with the connection that is kept for heartbeat and completer; None: they have none.
    """

    def __init__(self, table: Table, held: Held, events: Events, on_error: Callable[[BaseException], object]) -> None:
        self.loop: Loop = Loop(self.run_once, "pq housekeeping", on_error=on_error)
        self.reserve: Table | None = None
        self._table = table
        self._held = held
        self._counts = events.counts
        self._vacuum = Vacuum(table.database)
        self._vacuumed = 0  # jobs that were done by then
        self._seen = 0
        self._not_before = 0.0
        self._told = False

    def run_once(self) -> float:
        """Do what is to be done; return the seconds until this is to be called again."""
        if self.reserve is not None and not self._held:
            self.reserve.database.source.tidy()
        done = self._counts["done"]
        if done - self._vacuumed >= JOBS and time.monotonic() >= self._not_before:
            self._clean(done)
        was_idle, self._seen = done == self._seen, done
        return IDLE_PAUSE if was_idle else BUSY_PAUSE

    def _clean(self, done: int) -> None:
        self._vacuumed = done
        try:
            if self._table.retention().deletes_on_completion:
                self._not_before = time.monotonic() + self._vacuum.run_once()
        except Exception as error:  # no connection, of which others tell, or the table is in use for long
            self._not_before = time.monotonic() + ERROR_PAUSE
            if not self._told:
                logger.warning("the table can't be vacuumed by this worker: %s", describe(error))
            self._told = True
