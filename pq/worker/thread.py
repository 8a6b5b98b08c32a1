"""A thread that handles one job after the other."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from .._jobs.settlement import Settlement
from ..errors import ConnectionLost, LeaseLost, PQError, TableMissing
from .run import Run

if TYPE_CHECKING:
    from .worker import Worker


class Consumer(threading.Thread):
    """Handles jobs until the worker stops.

    :ivar abandoned: its handler hangs, and another consumer has taken its place: it ends with that handler.
    """

    def __init__(self, worker: Worker, number: int) -> None:
        super().__init__(name=f"pq worker {number}", daemon=True)
        self._worker = worker
        self._idle_name = self.name
        self._driver = worker.intake.database.driver
        self.abandoned = False

    def run(self) -> None:
        try:
            while not self.abandoned and self.run_once(block=True):
                pass
        except BaseException as error:
            self._worker.broke(error)
        finally:
            self._worker.ended(self)

    def run_once(self, block: bool) -> bool:
        """Handle one job; False if there is none, or the worker stops."""
        worker = self._worker
        try:
            run = worker.intake.next(block, worker)
        except (PQError, self._driver.Error, self._driver.PoolError) as error:
            return self._pause(error) and block
        if run is None:
            return False
        self._handle(run)
        return True

    def _pause(self, error: Exception) -> bool:
        """The database does not serve us. False if it never will."""
        if isinstance(error, ConnectionLost) and not self._worker.intake.database.source.replaceable:
            raise error
        refused = isinstance(error, TableMissing) or self._driver.is_refused(error)
        if refused and not self._worker.outage.served:
            raise error  # it is not down: this worker was not set up
        self._worker.rest(self._worker.outage.pause(error))
        return not self._worker.stopping

    def _handle(self, run: Run) -> None:
        worker = self._worker
        run.begin(self, worker.attempt(run.job))
        worker.heartbeat.watch(min(run.beats, run.ends))
        self.name = f"{self._idle_name}: job {run.job.id}"
        try:
            worker.started(run)
            how = self._run(run)
            if worker.heartbeat.remove(run):
                worker.finished(run, how)
            else:
                worker.late(run)
        finally:
            worker.heartbeat.remove(run)
            self.name = self._idle_name

    def _run(self, run: Run) -> Settlement | str:
        """How it is to be settled, or how it was."""
        try:
            return run.attempt.run() or "done"
        except LeaseLost:
            return "lost"
        except BaseException as error:  # sys.exit() and the like, in a handler: the worker goes on
            return run.attempt.end(error)
