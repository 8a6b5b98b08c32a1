"""The worker: threads that perform tasks, and what keeps them going."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterable
from itertools import count
from typing import TYPE_CHECKING, Any

from .._args import integer, timeout_seconds
from .._db import Waker, wait_readable
from .._jobs.lease import LeasedJob
from .._jobs.settlement import Settlement
from .._logs import worker_log as logger
from .._times import Delay, delay_of
from ..errors import TaskTimeout
from .attempt import Attempt
from .backoff import Outage
from .completer import Settler
from .duties import Janitor
from .events import Event, Events, log
from .fetcher import Intake, choose
from .heartbeat import Heartbeat
from .run import Run
from .signals import Handler, Signals, report
from .thread import Consumer

if TYPE_CHECKING:
    from .._manager import PQ
    from ..tasks import Queue


class Worker:
    """Performs the tasks of queues.

    :param pq: a `pq.tasks.PQ`, or one of its queues.
    :param queues: queues of it, or their names; default: all that have tasks in this process.
    :param threads: how many jobs run at the same time.
    :param lease: as ``'30s'`` or a timedelta: how long after this process was killed its jobs come back. While they
        run, their leases are extended three times as often.
    :param burst: stop when there was no job for the queue's `timeout`.
    :param max_jobs: stop after so many.
    :param max_idle: stop after so many seconds without a job.
    :param shutdown_timeout: how long jobs that run may go on when the worker is to stop; then they are given back.
    :param batch: how many jobs may be taken, and settled, together, at most. Where handlers take little time, so many
        are taken as they can do in 0.1 seconds. 1: each job is taken when the one before it was settled.
    :param strict: take from a queue only if there is nothing in those before it; default: from all in turn.
    :raises TypeError: an argument of another type.
    :raises ValueError: no queue; a time or number out of range.
    """

    def __init__(
        self,
        pq: PQ | Queue,
        queues: Iterable[str | Queue] | None = None,
        threads: int = 1,
        lease: Delay = "30s",
        burst: bool = False,
        max_jobs: int | None = None,
        max_idle: float | None = None,
        shutdown_timeout: Delay = "30s",
        strict: bool = False,
        batch: int = 500,
    ) -> None:
        self.threads = integer("threads", threads, 1)
        self.intake = Intake(choose(pq, queues), self.threads, lease, strict, burst, max_jobs, batch)
        self.queues = self.intake.queues
        self.outage = Outage()
        self.events = Events()
        self.heartbeat = Heartbeat(self, self._overdue)
        self.settler = Settler(self, self.intake.batch)
        self.stopping = False
        self.aborted = False
        self._max_idle = None if max_idle is None else timeout_seconds(max_idle, "max_idle")
        self._grace = delay_of("shutdown_timeout", shutdown_timeout).total_seconds()
        self._bell = Waker()
        self._lock = threading.Lock()
        self._rest = threading.Event()
        self._consumers: set[Consumer] = set()
        self._numbers = count(1)
        self.broken: BaseException | None = None
        self._report = False
        self._ends: Callable[[], bool] | None = None
        self._began = time.monotonic()

    # -- what users call

    def run(self) -> None:
        """Perform jobs until `stop`, SIGTERM or SIGINT; in the main thread, SIGUSR1 prints `status` to stderr as JSON.

        Then no more are taken, those that run may end within `shutdown_timeout`, and the others are given back. At a
        second signal they are given back at once. A worker can run only once.

        :raises ConnectionLost: the one connection that the application has given is gone; pq can't replace it.
        :raises Exception: at the beginning, if there is no table (`TableMissing`), or the role may not use it.
        """
        handlers: dict[str, Handler] = {"SIGTERM": self._signalled, "SIGINT": self._signalled, "SIGUSR1": self._asked}
        with Signals(handlers, self._bell):
            logger.info("working on %s", self)
            self.intake.busy_at = time.monotonic()
            self.heartbeat.start()
            self.settler.start()
            janitor = Janitor(self)
            janitor.start()
            try:
                for _ in range(self.threads):
                    self._start_consumer()
                self._control()
            finally:
                self._end()
                janitor.stop()
        if self.broken is not None:
            raise self.broken

    def stop(self) -> None:
        """Have `run` end, as a signal does. From any thread, and from a signal handler."""
        self.stopping = True
        self._bell.ring()

    def run_once(self) -> bool:
        """Perform one job in this thread, if there is one; says whether there was."""
        self.heartbeat.start()
        try:
            return Consumer(self, 0).run_once(block=False)
        finally:
            self.settler.run_once()
            self.heartbeat.stop()

    def until(self, condition: Callable[[], bool]) -> None:
        """Stop when this is true; `run` asks every second."""
        self._ends = condition

    def status(self) -> dict[str, Any]:
        """What it is doing, for JSON: queues, threads, running jobs, counts of events, and whether it is stopping."""
        return {
            "pid": os.getpid(),
            "seconds": round(time.monotonic() - self._began, 3),
            "queues": [queue.name for queue in self.queues],
            "threads": self.threads,
            "running": [run.describe() for run in self.heartbeat.runs if run.consumer is not None],
            "counts": dict(self.events.counts),
            "stopping": self.stopping,
            "database": "ok" if self.outage.error is None else type(self.outage.error).__name__,
        }

    def on(self, event: str, function: Callable[[Event], Any]) -> None:
        """Have a function called with an `Event`, after it was committed, in a thread of the worker. What it raises
        is logged.

        :param event: ``'start'``, ``'done'``, ``'retry'``, ``'dead'``, ``'lost'`` or ``'cancelled'``.
        :raises ValueError: another event.
        """
        self.events.on(event, function)

    def __str__(self) -> str:
        return ", ".join(repr(queue.name) for queue in self.queues)

    # -- the thread that controls

    def _control(self) -> None:
        deadline = None
        while True:
            self._bell.silence()
            if self._report:
                self._report = False
                report(self.status)
            with self._lock:
                consumers = list(self._consumers)
            if not consumers or self.aborted:
                return
            if self.stopping:
                self._rest.set()
                self.give_back(self.intake.close())
                if deadline is None:
                    deadline = time.monotonic() + self._grace
                if time.monotonic() >= deadline:
                    return
            wait_readable((self._bell.fileno(),), self._next_look(deadline))

    def _next_look(self, deadline: float | None) -> float:
        if deadline is not None:
            return deadline - time.monotonic()
        if self._ends is not None and self._ends():
            self.stop()
        tick = 3600.0 if self._ends is None else 1.0
        if self._max_idle is None:
            return tick
        idle = 0.0 if self.heartbeat.runs else time.monotonic() - self.intake.busy_at
        if idle >= self._max_idle:
            self.stop()
        return min(tick, max(0.05, self._max_idle - idle))

    def _end(self) -> None:
        """What is still running is ready again, for others; what has ended is settled."""
        self.stopping = True
        self._rest.set()
        self.give_back(self.intake.close())
        self.give_back(self.heartbeat.runs)
        self.aborted = True
        self.settler.stop()
        self.heartbeat.stop()
        logger.info("stopped working on %s", self)

    def _signalled(self, number: int) -> None:
        self.aborted = self.stopping
        self.stop()

    def _asked(self, number: int) -> None:
        self._report = True
        self._bell.ring()

    def _start_consumer(self) -> None:
        consumer = Consumer(self, next(self._numbers))
        with self._lock:
            self._consumers.add(consumer)
        consumer.start()

    # -- what consumers call

    def rest(self, pause: float) -> None:
        """Sleep for so many seconds, but not when the worker stops."""
        if self._rest.wait(pause):
            time.sleep(min(pause, 0.1))

    def attempt(self, job: LeasedJob) -> Attempt:
        queue: Any = job.queue
        attempt: Attempt = queue.attempt(job)
        return attempt

    def started(self, run: Run) -> None:
        self.events.tell("start", run)

    def finished(self, run: Run, how: Settlement | str) -> None:
        """Its handler has ended: it is to be settled, or was."""
        run.ended = time.monotonic()
        self.intake.ended(run.seconds)
        if isinstance(how, str):
            self.settled(run, how)
        else:
            self.settler.add((run, how))
            if self.intake.batch == 1:
                self.settler.run_once()

    def give_back(self, runs: Iterable[Run]) -> None:
        """They are to be ready again, for others."""
        given = [(run, Settlement(run.job, "released")) for run in runs if self.heartbeat.remove(run)]
        if given:
            self.settler.add(*given)

    @property
    def busy(self) -> bool:
        """Whether it holds jobs that have not ended."""
        return bool(self.heartbeat)

    def settled(self, run: Run, how: str) -> None:
        self.intake.busy_at = time.monotonic()
        if how == "released":
            level = logging.DEBUG if run.consumer is None else logging.WARNING
            log(level, "given back", run)
        elif how not in self.events.counts:
            log(logging.WARNING, how, run)
        elif not run.lost:
            self.events.tell(how, run)

    def late(self, run: Run) -> None:
        """Its handler has ended after its job was given up."""
        log(logging.WARNING, "the handler that hung has ended", run)

    def lost(self, run: Run) -> None:
        self.events.tell("lost", run)

    def broke(self, error: BaseException) -> None:
        """A consumer can't go on."""
        self.broken = error
        self.stop()

    def ended(self, consumer: Consumer) -> None:
        with self._lock:
            self._consumers.discard(consumer)
        self._bell.ring()

    # -- what happens to jobs

    def _overdue(self, run: Run, error: TaskTimeout) -> None:
        consumer = run.consumer
        assert consumer is not None
        run.attempt.error = error
        consumer.abandoned = True
        with self._lock:
            self._consumers.discard(consumer)
        if not self.stopping:
            self._start_consumer()
        self.settler.add((run, run.job.failure(error)))
        self._bell.ring()
