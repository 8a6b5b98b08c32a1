"""A thread that takes one job after the other."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..attempt import UNSURE
from ..errors import CommitUnknown, ConnectionLost, DecodeError, LeaseLost, PQError
from ..lease import LeasedJob
from .heartbeat import Run

if TYPE_CHECKING:
    from .._db import Waiter
    from .worker import Worker


logger = logging.getLogger("pq.tasks")


class Consumer(threading.Thread):
    """Takes, runs and settles jobs until the worker stops.

    :ivar abandoned: its handler hangs, and another consumer has taken its place: it ends with that handler.
    """

    def __init__(self, worker: Worker, number: int) -> None:
        super().__init__(name=f"pq worker {number}", daemon=True)
        self._worker = worker
        self._idle_name = self.name
        self._waiter: Waiter | None = None
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

    def cancel(self) -> None:
        """Do not wait for jobs any more."""
        waiter = self._waiter
        if waiter is not None:
            waiter.cancel()

    def run_once(self, block: bool) -> bool:
        """Handle one job; False if there is none, or the worker stops."""
        worker = self._worker
        if worker.stopping or not worker.intake.admit():
            return False
        job = None
        try:
            job = self._take(block)
        except DecodeError as error:  # it has been settled as a failed attempt
            worker.undecodable(error)
            return True
        except (PQError, self._driver.Error, self._driver.PoolError) as error:
            return self._pause(error) and block
        finally:
            if job is None:
                worker.intake.dismiss()
        if job is None:
            return False
        worker.outage.over()
        self._handle(job)
        return True

    # -- taking

    def _take(self, block: bool) -> LeasedJob | None:
        """A job; None if there is none in time, or the worker stops."""
        worker = self._worker
        job = worker.intake.claim()
        if job is not None or not block:
            return job
        with worker.intake.database.waiter_for_all([queue.name for queue in worker.queues]) as waiter:
            self._waiter = waiter
            try:
                while not worker.stopping and waiter.wait(worker.intake.patience()):
                    job = worker.intake.claim()
                    if job is not None:
                        return job
            finally:
                self._waiter = None
        return None

    def _pause(self, error: Exception) -> bool:
        """The database does not serve us. False if it never will."""
        if isinstance(error, ConnectionLost) and not self._worker.intake.database.source.replaceable:
            raise error
        self._worker.rest(self._worker.outage.pause(error))
        return not self._worker.stopping

    # -- handling

    def _handle(self, job: LeasedJob) -> None:
        worker = self._worker
        if worker.stopping:  # it came at the last moment
            self._settle(job, lambda: self._release(job))
            return
        attempt = worker.attempt(job)
        run = Run(self, attempt)
        if attempt.options.lease is not None:
            job.lease = attempt.options.lease
            run.beats = time.monotonic()
        worker.heartbeat.add(run)
        self.name = f"{self._idle_name}: job {job.id}"
        try:
            worker.started(run)
            settle = self._run(run)
            run.settling = True
            if worker.heartbeat.remove(run):
                worker.settled(run, self._settle(job, settle))
            else:
                worker.late(run)
        finally:
            worker.heartbeat.remove(run)
            self.name = self._idle_name

    def _run(self, run: Run) -> Callable[[], str]:
        try:
            return run.attempt.run()
        except BaseException as error:  # sys.exit() and the like, in a handler: the worker goes on
            return run.attempt.end(error)

    def _settle(self, job: LeasedJob, settle: Callable[[], str]) -> str:
        """Settle the job, as soon as the database allows; says how, or ``'lost'``."""
        unknown = False
        while True:
            try:
                how = settle()
                self._worker.outage.over()
                return how
            except LeaseLost:
                return UNSURE if unknown else "lost"
            except self._driver.Unavailable as error:
                unknown = unknown or isinstance(error, CommitUnknown)
                self._worker.rest(self._worker.outage.pause(error))
                if self._worker.aborted:
                    return "not settled, its lease will expire,"
            except Exception:
                logger.exception("job %s could not be settled", job.id)
                return "not settled, its lease will expire,"

    def _release(self, job: LeasedJob) -> str:
        job.release()
        return "given back"
