"""The services of a worker: heartbeat, completer and duties, with a connection that no handler can take."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from .._logs import worker_log as logger
from .._table import Table
from .backoff import Backoff
from .completer import Completer
from .duties import Clock, Duties
from .events import Events
from .execution import Execution
from .heartbeat import Heartbeat
from .held import Held
from .housekeeping import Housekeeping
from .intake import IntakeLoop
from .queues import TaskQueue


class Services:
    """The threads that serve the threads of a worker, and what they share with these.

    :param give_up: called with a job whose timeout is over.
    :param on_error: called with an error that a service did not expect.
    """

    def __init__(
        self,
        queues: Sequence[TaskQueue],
        batch: int,
        events: Events,
        give_up: Callable[[Execution], object],
        on_error: Callable[[BaseException], object],
    ) -> None:
        self.held: Held = Held(batch)
        self.backoff: Backoff = Backoff()
        self.completer: Completer = Completer(self.held, events, self.backoff, batch, on_error)
        self.heartbeat: Heartbeat = Heartbeat(self.held, events, self.backoff, give_up, on_error)
        self._duties = Duties(queues, on_error)
        self._clock = Clock(queues, on_error)
        self._housekeeping = Housekeeping(queues[0]._table, self.held, events, on_error)
        self._intakes = [IntakeLoop(queue._intake, on_error) for queue in queues if queue._intake is not None]
        self._table = queues[0]._table
        self._reserve: Table | None = None
        self._lock = threading.Lock()
        self._users = 0  # of those that `briefly` started

    def start(self) -> None:
        """Start all, on a connection of their own if there can be one.

        :raises RuntimeError: no thread can be started.
        :raises ValueError: a subscription of `Stream.on` was made with `types`, `partitions` or `shared`.
        """
        self._reserve = self._housekeeping.reserve = self._table.reserve()
        self._start(self._reserve or self._table)
        for service in (self._duties, self._clock, self._housekeeping):
            service.loop.start()
        for intake in self._intakes:
            intake.begin()

    def stop(self, left: Callable[[], float]) -> None:
        """End all.

        :param left: tells for how many seconds they are still to be waited for.
        """
        for intake in self._intakes:
            intake.stop(max(0.1, left()))
        for service in (self.completer, self.heartbeat, self._duties, self._clock, self._housekeeping):
            service.loop.stop(max(0.1, left()))
        if self._reserve is not None:
            self._reserve.database.source.close()

    def cut(self, execution: Execution) -> None:
        """End the transactions of the thread that runs a job, and that is not waited for any longer."""
        try:
            if execution.thread is not None:
                self._table.database.source.cut(execution.thread.ident)
        except Exception as error:  # all else must go on
            logger.error("the transaction of job %s can't be cut", execution.job.id, exc_info=error)

    @contextmanager
    def briefly(self) -> Iterator[None]:
        """Have heartbeat and completer run inside, for as long as any thread is inside."""
        with self._lock:
            self._users += 1
            if self._users == 1:
                self._start(self._table)
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                if self._users == 0:
                    self.heartbeat.loop.stop()
                    self.completer.loop.stop()

    def _start(self, table: Table) -> None:
        self.heartbeat.table = self.completer.table = table
        self.heartbeat.loop.start()
        self.completer.loop.start()
