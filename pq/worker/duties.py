"""Deletes what need not be kept any more, while a worker runs."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from .._logs import worker_log as logger
from .._table.retention import REST, Pruner
from .._text import describe

if TYPE_CHECKING:
    from .worker import Worker




class Janitor:
    """A thread that prunes the table of a worker's queues."""

    def __init__(self, worker: Worker) -> None:
        self._database = worker.intake.database
        self._pruner = Pruner(self._database)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._prune, name="pq janitor", daemon=True)
        self._told = False

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self._thread.join()

    def _prune(self) -> None:
        pause = 1.0  # what has just begun has better things to do
        while not self._over.wait(pause):
            pause = self.run_once()

    def run_once(self) -> float:
        """Delete some rows; returns the seconds until it should be called again."""
        try:
            self._pruner.run_once()
        except Exception as error:  # no right to delete; or no connection, of which the others tell
            if not self._told:
                logger.warning("what need not be kept can't be deleted: %s", describe(error))
            self._told = True
            return REST
        return self._pruner.pause
