"""Jobs that have ended are settled: several in one statement."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from .._jobs.settlement import MOST, Settlement, locked, settle
from .._logs import worker_log as logger
from ..errors import CommitUnknown, ConnectionLost
from .attempt import UNSURE
from .run import Run

if TYPE_CHECKING:
    from .worker import Worker

#: Seconds after which a job that has ended is settled at the latest, if the database allows.
LINGER = 0.01

#: Seconds that a settlement waits for a row that another transaction has locked, lest the others wait, too.
LOCK = 0.1

#: Seconds until it is tried again.
AGAIN = 0.5

#: How a job was settled that could not be.
UNSETTLED = "not settled, its lease will expire,"

End = tuple[Run, Settlement]


class Settler:
    """One thread, which settles what has ended while consumers go on.

    :param batch: how many are settled at once, whenever the first of them has ended.
    """

    def __init__(self, worker: Worker, batch: int) -> None:
        self._worker = worker
        self._batch = batch
        self._driver = worker.intake.database.driver
        self._changed = threading.Condition()
        self._ended: list[End] = []
        self._settling = threading.Lock()
        self._thread: threading.Thread | None = None
        self._wait: float | None = None  # seconds for a lock; who settles by itself has nothing else to do
        self._locked: list[End] = []
        self._again = float("inf")  # when these are tried again; monotonic seconds

    def add(self, *ends: End) -> None:
        """They have ended."""
        with self._changed:
            before = len(self._ended)
            self._ended += ends
            if before == 0 or before < self._batch <= len(self._ended):
                self._changed.notify()

    def start(self) -> None:
        self._wait = LOCK
        self._thread = threading.Thread(target=self._settle_on, name="pq settler", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Settle what is left."""
        with self._changed:
            thread, self._thread = self._thread, None
            self._changed.notify()
        if thread is not None:
            thread.join()

    def _settle_on(self) -> None:
        while True:
            with self._changed:
                while not self._ended and (pause := self._again - time.monotonic()) > 0:
                    if self._thread is not threading.current_thread():
                        break
                    self._changed.wait(min(pause, threading.TIMEOUT_MAX))
                over = self._thread is not threading.current_thread() and not self._ended
                # what is alone need not wait for company
                if 0 < len(self._ended) < self._batch and self._worker.busy:
                    self._changed.wait(LINGER)
            self.run_once(over)
            if over:
                return

    def run_once(self, last: bool = False) -> bool:
        """Settle what has ended; says whether there was something.

        :param last: after this nothing is tried again.
        """
        with self._settling:
            with self._changed:
                ended, self._ended = self._ended, []
                again: list[End] = []
                if last or time.monotonic() >= self._again:
                    again, self._locked, self._again = self._locked, [], float("inf")
            for ends, look in ((ended, False), (again, True)):
                for start in range(0, len(ends), MOST):
                    self._settle(ends[start : start + MOST], look)
            if last:
                for run, _ in self._locked:
                    self._worker.settled(run, UNSETTLED)
        return bool(ended or again)

    def _settle(self, ended: list[End], look: bool = False) -> None:
        """In one statement, as soon as the database allows.

        :param look: first look for rows that are locked.
        """
        worker = self._worker
        unknown = False
        while True:
            try:
                if look:
                    ended = self._unlocked(ended)
                    look = False
                lost = set(settle([settlement for _, settlement in ended], self._wait))
                break
            except self._driver.Unavailable as error:
                if self._driver.lock_timed_out(error):
                    look = True
                    continue
                unknown = unknown or isinstance(error, CommitUnknown)
                if isinstance(error, ConnectionLost) and not worker.intake.database.source.replaceable:
                    worker.broke(error)
                else:
                    worker.rest(worker.outage.pause(error))
                if worker.aborted or worker.broken:
                    for run, _ in ended:
                        worker.settled(run, UNSETTLED)
                    return
            except Exception as error:
                self._settle_alone(ended, error)
                return
        worker.outage.over()
        for run, settlement in ended:
            how = settlement.outcome
            if settlement.job in lost:
                how = UNSURE if unknown or run.unsure else "lost"
            worker.settled(run, how)

    def _unlocked(self, ended: list[End]) -> list[End]:
        """Those that can be settled now; the others are kept for later."""
        ids = locked([settlement.job for _, settlement in ended])
        if ids:
            with self._changed:
                self._locked += [end for end in ended if end[1].job.id in ids]
                self._again = time.monotonic() + AGAIN
        return [end for end in ended if end[1].job.id not in ids]

    def _settle_alone(self, ended: list[End], error: Exception) -> None:
        """One of them can't be settled like this: such as one with a result that is not JSON."""
        if len(ended) > 1:
            for end in ended:
                self._settle([end])
            return
        ((run, settlement),) = ended
        if isinstance(error, ValueError) and settlement.outcome == "done":
            self._settle([(run, run.attempt.end(error))])
        else:
            logger.error("job %s could not be settled", run.job.id, exc_info=error)
            self._worker.settled(run, UNSETTLED)
