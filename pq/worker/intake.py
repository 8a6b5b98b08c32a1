"""Events of streams become jobs of the worker: so they are performed, retried and told of as all jobs are."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from .._logs import worker_log as logger
from .._loop import Loop
from .._streams import Event, Stream
from .._streams.schema import gate_of
from .._streams.upkeep import Upkeep
from .._table.bulk import NewJob
from .._text import describe
from .._unique import MOST_BYTES

#: Events that one transaction makes jobs of, at most; and how many jobs of the queue may be ready before that.
EVENTS = 500
READY = 1000

#: Seconds for which a thread waits for events before it looks again, and until it does so while there are many jobs, or
#: after an error.
WAIT = 1.0
FULL_PAUSE = 0.2
ERROR_PAUSE = 2.0


@dataclass(frozen=True)
class Intake:
    """A subscription whose events become jobs of a queue.

    :ivar start: where the subscription begins, if there is none yet.
    :ivar tasks: by the types of the events; the one with the type ``''`` is for all others.
    """

    stream: Stream
    subscription: str
    queue: Any
    start: Any
    tasks: dict[str, Any] = field(default_factory=dict)

    def jobs_of(self, events: Iterable[Event]) -> Iterator[NewJob]:
        """Make the jobs of events, for those that somebody wants."""
        for event in events:
            task = self.tasks.get(event.type) or self.tasks.get("")
            if task is not None:
                yield task.new_job(event.as_dict())._replace(key=_key(event.key))

    def take(self) -> int | None:
        """Make jobs of the next events that the subscription reads, in one transaction.

        :returns: the number of events; None if there are too many jobs.
        """
        table = self.queue._table
        has_room = table.statements("queue.sql")["has_room"]
        if not table.execute(has_room, {"queue": self.queue.name, "room": READY})[0][0]:
            return None
        with table.database.transaction():
            events = self.stream.subscription(self.subscription).take(EVENTS)
            self.queue._put_events(self.jobs_of(events))
        return len(events)

    def subscribe(self) -> None:
        """Make the subscription, unless there is one."""
        self.stream.subscribe(self.subscription, self.start)


def _key(key: str | None) -> str | None:
    """Return the key of an event as one of a job, which has a limit."""
    if key is None or len(key.encode()) <= MOST_BYTES:
        return key
    return hashlib.sha256(key.encode()).hexdigest()


class IntakeLoop:
    """One thread, which makes jobs of the events of a subscription.

    Reading and putting are one transaction, so each event becomes one job, whichever process does it.

    :param on_error: called with an error that the thread did not expect.
    """

    def __init__(self, intake: Intake, on_error: Callable[[BaseException], object]) -> None:
        self.loop: Loop = Loop(self.run_once, f"pq {intake.queue.name}", on_error=on_error)
        self._intake = intake
        gate = gate_of(intake.stream.name)
        self._table = intake.queue._table
        self._waiter = self._table.waiter_for_log(gate, gate)
        self._upkeep = Upkeep()
        self._is_subscribed = False
        self._told = False

    def begin(self) -> None:
        """Make the subscription if that can be done now, and start the thread.

        :raises ValueError: there is one that was made with other options.
        """
        try:
            self._subscribe()
        except ValueError:
            raise
        except Exception as error:  # no connection, say: the thread goes on trying
            self._tell(error)
        self.loop.start()

    def _subscribe(self) -> None:
        if not self._is_subscribed:
            self._intake.subscribe()
            self._is_subscribed = True

    def _tell(self, error: Exception) -> None:
        if not self._told and not self._table.closed:
            logger.warning("events for queue %r can't be read: %s", self._intake.queue.name, describe(error))
        self._told = True

    def run_once(self) -> float:
        """Do the next step; return the seconds until this is to be called again."""
        try:
            self._subscribe()
            taken = self._intake.take()
            self._upkeep.run_if_due(self._intake.stream)
            self._told = False
            if taken == 0:
                with self._waiter:
                    self._waiter.wait(time.monotonic() + WAIT)
                    for name in list(self._waiter.called):
                        self._waiter.empty(name)
        except Exception as error:  # no connection, of which others tell; no stream, or no right
            self._tell(error)
            return ERROR_PAUSE
        return FULL_PAUSE if taken is None else 0.0

    def stop(self, timeout: float) -> None:
        """End the thread."""
        self._waiter.cancel()
        self.loop.stop(timeout)
