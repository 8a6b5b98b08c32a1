"""Jobs that a worker holds: their leases are extended, and those past their timeout are given up."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from .._jobs.settlement import held, note_cancelled
from ..errors import TaskTimeout
from ..sql import array
from .fetcher import HOLD
from .run import Run

if TYPE_CHECKING:
    from .worker import Worker


class Heartbeat:
    """One thread for all running jobs of a worker, and one statement for all of their leases.

    :param overdue: called with a run whose timeout is over.
    """

    def __init__(self, worker: Worker, overdue: Callable[[Run, TaskTimeout], None]) -> None:
        self._worker = worker
        self._overdue = overdue
        self._changed = threading.Condition()
        self._runs: dict[Run, None] = {}
        self._thread: threading.Thread | None = None
        self._wakes = float("inf")  # when the thread is going to look

    @property
    def runs(self) -> list[Run]:
        """Oldest first."""
        return list(self._runs)

    def __bool__(self) -> bool:
        """Whether the worker holds any."""
        return bool(self._runs)

    def add(self, runs: Iterable[Run]) -> None:
        for run in runs:
            self._runs[run] = None
            self.watch(min(run.beats, run.taken + HOLD))

    def watch(self, moment: float) -> None:
        """Look then at the latest."""
        if moment < self._wakes:
            with self._changed:
                self._changed.notify()

    def remove(self, run: Run) -> bool:
        """Whether it was still there: who removes it settles it. One step, so that only one can."""
        return self._runs.pop(run, self) is None

    def start(self) -> None:
        self._thread = threading.Thread(target=self._beat, name="pq heartbeat", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        with self._changed:
            thread, self._thread = self._thread, None
            self._changed.notify()
        if thread is not None:
            thread.join()

    def _beat(self) -> None:
        while True:
            with self._changed:
                if self._thread is not threading.current_thread():
                    return
                self._wakes = float("inf")  # from here on, what comes or begins calls: it may not be among these
                self._wakes = min(map(_next, self.runs), default=float("inf"))
                pause = self._wakes - time.monotonic()
                if pause > 0:
                    self._changed.wait(min(pause, threading.TIMEOUT_MAX))
                    continue
            self.run_once()

    def run_once(self) -> None:
        """Give up what is overdue, and extend all leases if one of them is due for that."""
        now = time.monotonic()
        self._worker.give_back(self._worker.intake.withdraw(now))
        runs = self.runs
        for run in runs:
            if run.ends <= now and self.remove(run):
                self._overdue(run, run.overdue())
        held = [run for run in runs if run.ends > now and not run.lost]
        if any(run.beats <= now for run in held):
            self._extend(held, now)

    def _extend(self, runs: list[Run], now: float) -> None:
        for run in runs:
            run.beats = now + run.interval
        queue = runs[0].job.queue
        try:
            rows = queue._run(
                queue._statements("lease.sql")["extend_all"],
                **held([run.job for run in runs]),
                leases=array(run.job.lease.total_seconds() for run in runs),
            )
        except Exception as error:
            pause = self._worker.outage.pause(error)
            for run in runs:
                run.beats = min(run.beats, now + pause)
            return
        self._worker.outage.over()
        kept = {id for (id,) in rows}
        lost = [run for run in runs if run.job.id not in kept and run in self._runs]  # others have ended meanwhile
        note_cancelled([run.job for run in lost])
        for run in lost:
            run.lost = True
            self._worker.lost(run)


def _next(run: Run) -> float:
    """When something is to be done about it."""
    return min(run.beats, run.ends, run.taken + HOLD if run.consumer is None else run.ends)
