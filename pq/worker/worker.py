"""The worker: fetch, run, settle, and what keeps that honest.

Each worker thread does the same again and again (`Worker._perform_next`): the `Fetcher` hands it a job, one of several
that it has claimed by one statement; the handler runs; and the job, with how it is to be settled, is left to the
`Completer`, which settles several by one statement. All of them share two things: `Held`, the jobs that the worker
holds from their claim to their settlement, and `Events`, what it tells of them.

What keeps it honest:

* The `Heartbeat` extends the leases of all that is held. Of a job whose handler hangs see `Worker._give_up`.
* Whoever ends a job (its handler, its timeout, a stop) takes it out of `Held.open`, in one step: only one can.
* The heartbeat and the completer have a connection that no handler can take.
* While the database is away, all rest for the same growing pauses (`Backoff`). What has ended waits in `Held`, its
  lease extended as soon as that can be; when too much waits, nothing more is begun.
* No thread ends in silence: what a service thread (`Loop`) or a worker thread did not expect ends the worker, which
  raises it (`Stop.fail`).
* It always stops: see `Worker._end`.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from .._args import check_text, integer
from .._jobs.settlement import Settlement
from .._logs import worker_log as logger
from .._times import Delay, delay_of, wait_of
from ..errors import ConnectionLost, LeaseLost, PQError, TableMissing
from .events import Event, Events, log
from .execution import Execution
from .fetcher import Fetcher
from .heartbeat import lease_of
from .queues import check_alone, check_connections, choose
from .services import Services
from .signals import Signals, handlers, report
from .stop import Stop
from .thread import ThisThread, Threads, WorkerThread

#: Seconds for the end of a worker, after `shutdown_timeout`.
END_TIMEOUT = 4.0

#: Threads whose handlers may hang past their timeout. With more, only another process helps.
MAX_ABANDONED = 100
#: Seconds between two looks of the thread that called `run`.
TICK = 1.0


class Worker:
    """Performs the tasks of queues.

    :param pq: a `PQ`, or one of its queues.
    :param queues: queues of that PQ, or their names; default: all that have tasks in this process.
    :param threads: how many jobs run at the same time.
    :param lease: as ``'30s'``, a timedelta or seconds: how long after this process was killed its jobs come back. While
        they run, their leases are extended three times as often. At least 100 milliseconds.
    :param burst: stop when the queues were empty for the first queue's `timeout`.
    :param max_jobs: stop after so many jobs.
    :param max_idle: stop after so long without a job, as ``'5m'``, a timedelta or seconds.
    :param shutdown_timeout: as ``'30s'``, a timedelta or seconds: how long running jobs may go on when the worker is to
        stop; after that they are given back.
    :param batch: how many jobs may be fetched, and settled, together, at most. Where handlers take little time, so many
        are fetched as they can do in 0.1 seconds. 1: each job is settled before its thread takes another.
    :param strict: take from a queue only if there is nothing in those before it; default: from all in turn.
    :param name: what the log, the status and the names of the threads call this worker; default: ``'pq worker'``.
    :param capture_signals: let `run`, in the main thread, handle SIGTERM, SIGINT and SIGUSR1.
    :raises TypeError: an argument of another type; a queue of another PQ.
    :raises ValueError: there is no queue; a time or number is out of range; a task is transactional, and there is only
        one connection.
    """

    def __init__(
        self,
        pq: Any,
        queues: Iterable[Any] | None = None,
        threads: int = 1,
        lease: Delay = "30s",
        burst: bool = False,
        max_jobs: int | None = None,
        max_idle: Delay | None = None,
        shutdown_timeout: Delay = "30s",
        strict: bool = False,
        batch: int = 500,
        *,
        name: str = "pq worker",
        capture_signals: bool = True,
    ) -> None:
        self.name: str = check_text("name", name)
        self.queues: list[Any] = choose(pq, queues)
        self.threads: int = integer("threads", threads, 1)
        self._stop = stop = Stop(name)
        self._table = self.queues[0]._table
        self.events: Events = Events(stop.exit, self._table.instruments)
        self._batch = integer("batch", batch, 1)
        self._max_idle = wait_of(max_idle, "max_idle")
        self._grace = delay_of("shutdown_timeout", shutdown_timeout).total_seconds()
        self._captures = capture_signals
        self._services = Services(self.queues, batch, self.events, self._give_up, stop.fail)
        self._held, self._lease = self._services.held, lease_of(lease)
        self._fetcher = Fetcher(
            self._services, self.queues, self.events, threads=self.threads, lease=self._lease,
            strict=strict, burst=burst, max_jobs=max_jobs, batch=batch,
        )  # fmt: skip
        check_connections(self.queues)
        self._threads = Threads(name, self._perform_next, stop.thread_ended)
        self._ran = False
        self._began = time.monotonic()

    # -- what users call

    def run(self) -> None:
        """Perform jobs until `stop`, SIGTERM or SIGINT; SIGUSR1 prints `status` to stderr as JSON.

        Then no more are fetched, those that run may end within `shutdown_timeout`, and the others are given back. After
        a second signal they are given back at once. It returns within 5 seconds after that, whatever the server does.

        :raises RuntimeError: the worker has run before, or no thread can be started.
        :raises ConnectionLost: the one connection that the application has given is gone; pq can't replace it.
        :raises Exception: at the beginning, if there is no table (`TableMissing`), or the role may not use it. Later,
            what ended one of the worker's own threads.
        """
        if self._ran:
            raise RuntimeError("a worker can run only once")
        self._ran = True
        check_connections(self.queues)
        stop = self._stop
        with Signals(handlers(stop) if self._captures else {}, stop.waker):
            logger.info("%s: working on %s", self.name, self)
            try:
                self._services.start()
                for _ in range(self.threads):
                    self._threads.start()
                self._wait_for_threads()
            finally:
                self._end()
        if stop.error is not None:
            raise stop.error

    def stop(self) -> None:
        """Have `run` end, as a signal does. From any thread, and from a signal handler."""
        self._stop.ask()

    def run_once(self) -> bool:
        """Perform one job in this thread, if there is one; return whether there was. Several threads may call it."""
        with self._services.briefly():
            thread = ThisThread()
            execution = self._fetcher.one(thread)
            if execution is not None:
                self._perform(execution, thread)
            for ended in self._held.unsettled()[-1:] if execution is None else [execution]:
                self._services.completer.wait_for(ended)
            return execution is not None

    def status(self) -> dict[str, Any]:
        """Return what the worker is doing, for JSON: running jobs, counts of events, the state of the database, the
        number of jobs that have ended and are not settled, and of threads that hang past the timeout of their job."""
        return {
            "name": self.name,
            "pid": os.getpid(),
            "seconds": round(time.monotonic() - self._began, 3),
            "queues": [queue.name for queue in self.queues],
            "threads": self.threads,
            "abandoned": len(self._threads.abandoned),
            "running": [execution.describe() for execution in self._held.running()],
            "unsettled": len(self._held.unsettled()),
            "counts": dict(self.events.counts),
            "stopping": self._stop.wanted,
            "database": self._services.backoff.state,
        }

    def on(self, event: str, function: Callable[[Event], Any]) -> None:
        """Have a function called with an `Event`, after it was committed, in a thread of the worker. What it raises is
        logged; ``sys.exit()`` has the worker stop, and `run` raise that.

        :param event: ``'start'``, ``'done'``, ``'retry'``, ``'dead'``, ``'lost'`` or ``'cancelled'``.
        :raises TypeError: the function is asynchronous, or a generator function.
        :raises ValueError: there is no such event.
        """
        self.events.on(event, function)

    def __str__(self) -> str:
        return ", ".join(repr(queue.name) for queue in self.queues)

    # -- fetch, run, settle: in the worker's threads

    def _perform_next(self, thread: WorkerThread) -> bool:
        """Fetch a job, or wait for one, and perform it; return whether this thread is to go on."""
        driver = self._table.database.source.driver
        try:
            execution = self._fetcher.next(thread)
        except (PQError, TimeoutError, driver.Error, driver.PoolError) as error:
            return self._back_off(error)
        if execution is None:
            return False
        self._perform(execution, thread)
        return True

    def _perform(self, execution: Execution, thread: WorkerThread | ThisThread) -> None:
        execution.begin()
        check_alone(execution, self._table)
        if execution.options.timeout or execution.own_lease:
            self._services.heartbeat.watch(execution)
        thread.show(execution.job.id)
        self.events.tell("start", execution)
        how, settlement = "done", None
        try:
            settlement = execution.run(self._services.heartbeat.watch)
        except LeaseLost:
            how = "lost"
        except BaseException as error:  # sys.exit() and the like in a handler: the worker goes on
            settlement = execution.failed(error)
        execution.ended = time.monotonic()
        thread.show(None)
        self._fetcher.learn(execution.ended - execution.started)
        if settlement is None:  # done in its own transaction, or lost
            if self._held.drop(execution):
                self.events.tell(how, execution)
        elif not self._held.end(execution, settlement):
            log(logging.WARNING, "the handler that hung has ended", execution)
        elif self._batch == 1:
            self._services.completer.settle_now(execution)

    def _back_off(self, error: Exception) -> bool:
        """Rest after an error of the database; return False once the worker is stopping."""
        if self._table.closed:
            return False
        if isinstance(error, ConnectionLost) and not self._table.database.source.replaceable:
            raise error
        refused = isinstance(error, TableMissing) or self._table.database.source.driver.is_refused(error)
        if refused and not self._services.backoff.served:
            raise error  # the database is there: this worker was not set up
        self._stop.rest(self._services.backoff.pause(error))
        return not self._stop.wanted

    # -- a handler that hangs: in the heartbeat's thread

    def _give_up(self, execution: Execution) -> None:
        """The timeout of a job is over, so its handler hangs.

        The job is settled as a failed attempt: retried, or dead. The connections that pq gave to its thread are cut, so
        that their transactions end, and with these the locks. Python can't kill the thread: it is abandoned, ends when
        the handler does, and its late end changes nothing. Another thread takes its place. When too many hang, the
        worker ends with an error, since only another process helps.
        """
        if not self._held.end(execution, execution.time_out()):
            return  # it has just ended
        thread = execution.thread
        self._services.cut(execution)
        if not isinstance(thread, WorkerThread):
            return  # of run_once(), which returns when the handler does
        if self._threads.abandon(thread) >= MAX_ABANDONED:
            self._stop.fail(PQError(f"{MAX_ABANDONED} handlers hang past the timeouts of their tasks"))
        elif not self._stop.wanted:
            self._threads.start()
        self._stop.wake()

    # -- the thread that called `run`

    def _wait_for_threads(self) -> None:
        """Return when all threads have ended, or are to be waited for no longer."""
        stop = self._stop
        deadline = float("inf")
        while self._threads.running and not stop.hurried and time.monotonic() < deadline:
            if stop.wanted and deadline == float("inf"):
                deadline = time.monotonic() + self._grace
                stop.end_rests()
                self._fetcher.close()
            if not self._held and time.monotonic() - self._held.busy_at >= self._max_idle:
                stop.ask()
            stop.wait(min(TICK, max(0.05, self._max_idle), deadline - time.monotonic()))
            if stop.take_status_request():
                report(self.status)
            if self._table.closed and not stop.hurried:
                logger.warning("%s: its PQ was closed", self.name)
                stop.hurry()

    def _end(self) -> None:
        """Give back what is running, settle what has ended, and end the services.

        All of this has `END_TIMEOUT` seconds together, less after a second signal. A server that does not answer is not
        waited for any longer: what is not settled then comes back when its lease has expired.
        """
        left = partial(self._stop.left, time.monotonic() + END_TIMEOUT)
        self._stop.ask()
        self._stop.end_rests()
        self._fetcher.close()
        self._held.wait(lambda: not self._fetcher.fetching, left)  # what is being fetched is given back, too
        for execution in list(self._held.open):
            if self._held.end(execution, Settlement(execution.job, "released")) and left() > 1:
                self._services.cut(execution)
        self._services.completer.close()
        self._held.wait(lambda: self._services.completer.finished, left)
        self._services.stop(left)
        self._services.completer.abandon()
        logger.info("%s: stopped working on %s", self.name, self)
