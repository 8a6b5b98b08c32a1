"""Running jobs: their leases are extended, and those past their timeout are given up."""

from __future__ import annotations

import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..attempt import Attempt
from ..errors import TaskTimeout
from ..failure import TRACEBACK

if TYPE_CHECKING:
    from .consumer import Consumer
    from .worker import Worker

#: Beats for each lease: two may fail.
BEATS = 3


class Run:
    """An attempt that a consumer is at."""

    def __init__(self, consumer: Consumer, attempt: Attempt) -> None:
        now = time.monotonic()
        self.consumer = consumer
        self.attempt = attempt
        self.job = attempt.job
        self.started = now
        timeout = attempt.options.timeout
        self.ends = now + timeout.total_seconds() if timeout else float("inf")
        self.beats = now + self.interval
        self.settling = False  # from now on the job may be settled any moment
        self.lost = False

    @property
    def interval(self) -> float:
        return self.job.lease.total_seconds() / BEATS

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started

    def overdue(self) -> TaskTimeout:
        """Its timeout is over: says so, with where the thread is now for a traceback."""
        error = TaskTimeout(timeout=self.attempt.options.timeout)
        frame = sys._current_frames().get(self.consumer.ident or 0)
        if frame is not None:
            error.stack = "".join(traceback.format_stack(frame))[-TRACEBACK:]
        return error


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
        with self._changed:
            return list(self._runs)

    def add(self, run: Run) -> None:
        with self._changed:
            self._runs[run] = None
            if min(run.beats, run.ends) < self._wakes:
                self._changed.notify()

    def remove(self, run: Run) -> bool:
        """Whether it was still there: who removes it settles it."""
        with self._changed:
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
                self._wakes = min((min(run.beats, run.ends) for run in self._runs), default=float("inf"))
                pause = self._wakes - time.monotonic()
                if pause > 0:
                    self._changed.wait(min(pause, threading.TIMEOUT_MAX))
                    continue
            self.run_once()

    def run_once(self) -> None:
        """Give up what is overdue, and extend all leases if one of them is due for that."""
        now = time.monotonic()
        runs = self.runs
        for run in runs:
            if run.ends <= now and self.remove(run):
                self._overdue(run, run.overdue())
        held = [run for run in runs if run.ends > now and not run.settling and not run.lost]
        if any(run.beats <= now for run in held):
            self._extend(held, now)

    def _extend(self, runs: list[Run], now: float) -> None:
        jobs = [run.job for run in runs]
        for run in runs:
            run.beats = now + run.interval
        queue = jobs[0].queue
        try:
            rows = queue._run(
                queue._statements("lease.sql")["extend_all"],
                ids=[job.id for job in jobs],
                attempts=[job.attempts for job in jobs],
                dequeued_at=[job.dequeued_at for job in jobs],
                leases=[job.lease.total_seconds() for job in jobs],
            )
        except Exception as error:
            pause = self._worker.outage.pause(error)
            for run in runs:
                run.beats = min(run.beats, now + pause)
            return
        self._worker.outage.over()
        kept = {id for (id,) in rows}
        for run in runs:
            if run.job.id not in kept and not run.settling:
                run.lost = True
                self._worker.lost(run)
