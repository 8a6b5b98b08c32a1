"""The leases of the jobs that a worker holds are extended, and the jobs whose handlers hang are noticed."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from .._jobs.settlement import Settlement, extend, note_cancelled, serves
from .._logs import worker_log as logger
from .._loop import Loop
from .._times import Delay, positive_delay
from .backoff import Backoff
from .events import Events
from .execution import BEATS, Execution
from .held import Held

#: Seconds after which a job that no thread has begun is given back: a handler takes longer than those before it.
MAX_HOLD = 1.0

#: Seconds that a look at the database waits for a lock of the table.
LOCK_TIMEOUT = 0.1

#: The shortest lease of a worker. One that lasts no longer than a few statements expires before its job can begin.
MIN_LEASE = timedelta(milliseconds=100)

_NEVER = float("inf")


def lease_of(lease: Delay) -> timedelta:
    """Read a lease that a worker is to extend.

    :raises TypeError: it is neither a str nor a timedelta.
    :raises ValueError: it is shorter than `MIN_LEASE`, or the text has another form.
    """
    delay = positive_delay("lease", lease)
    if delay < MIN_LEASE:
        raise ValueError(f"lease must be at least 100ms for a worker, which extends it by statements, not {lease!r}")
    return delay


class Heartbeat:
    """One thread, and one statement for the leases of all jobs: those in the stock, running, and not settled yet.

    :param give_up: called with a job whose timeout is over.
    :param on_error: called with an error that the thread did not expect.
    :ivar table: with the connection that the worker keeps for this.
    """

    def __init__(
        self,
        held: Held,
        events: Events,
        backoff: Backoff,
        give_up: Callable[[Execution], object],
        on_error: Callable[[BaseException], object],
    ) -> None:
        self.loop: Loop = Loop(self.run_once, "pq heartbeat", on_error=on_error)
        self.table: Any = None  # a `Table`, from the start on
        self._held = held
        self._events = events
        self._backoff = backoff
        self._give_up = give_up

    def watch(self, execution: Execution) -> None:
        """See to an open job in time; call it when it was fetched, and when it has begun and has a timeout."""
        self.loop.wake(_next(execution))

    def run_once(self) -> float | None:
        """Do what is due; return the seconds until something else is."""
        held = self._held
        now = time.monotonic()
        for execution in list(held.open):
            if execution.times_out_at <= now:
                self._give_up(execution)
        self._give_back_old_stock(now)
        leased = [execution for execution in held.all() if not execution.lost]
        if any(execution.renew_at <= now for execution in leased):
            self.extend(leased)
        moments = [*map(_next, list(held.open)), *(execution.renew_at for execution in held.unsettled())]
        pause = min(moments, default=_NEVER) - time.monotonic()
        return None if pause == _NEVER else max(0.0, pause)

    def _give_back_old_stock(self, now: float) -> None:
        with self._held.changed:
            for execution in list(self._held.stock):
                if now - execution.taken >= MAX_HOLD:
                    self._held.end(execution, Settlement(execution.job, "released"))

    def extend(self, executions: list[Execution]) -> None:
        """Extend the leases of these jobs. Those that are lost are told, and not begun."""
        now = time.monotonic()
        for execution in executions:
            execution.renew_at = now + execution.job.lease.total_seconds() / BEATS
        kept = self._extend(executions, now)
        lost = [each for each in executions if each.job.id not in kept and each in self._held.open]
        note_cancelled([execution.job for execution in lost], self.table)
        for execution in lost:
            ends_itself = execution.thread is not None and execution.options.transactional
            if ends_itself and not execution.job.cancelled and not execution.missed:
                execution.missed = True  # it may have committed its end, of which the thread has not heard yet
                continue
            with self._held.changed:
                if execution.thread is None:
                    self._held.drop(execution)
                execution.lost = True
            self._events.tell("lost", execution)

    def _extend(self, executions: list[Execution], now: float) -> set[int]:
        """Return the ids of those that are held. If the statement fails: of all, and try again soon."""
        try:
            kept = extend(self.table, [each.job for each in executions], [each.own_lease for each in executions])
        except Exception as error:
            if len(executions) > 1 and self._serves():  # one of the rows can't be written
                middle = len(executions) // 2
                return self._extend(executions[:middle], now) | self._extend(executions[middle:], now)
            if len(executions) == 1 and self._serves():
                logger.error("the lease of job %s can't be extended", executions[0].job.id, exc_info=error)
            else:
                pause = self._backoff.pause(error)
                for execution in executions:
                    execution.renew_at = min(execution.renew_at, now + pause)
            return {execution.job.id for execution in executions}
        self._backoff.over()
        for execution in executions:
            execution.own_lease = False
        return kept

    def _serves(self) -> bool:
        try:
            serves(self.table, LOCK_TIMEOUT)
            return True
        except Exception:
            return False


def _next(execution: Execution) -> float:
    """Return when something is to be done about an open job."""
    if execution.thread is None:
        return min(execution.renew_at, execution.taken + MAX_HOLD)
    return execution.times_out_at if execution.lost else min(execution.renew_at, execution.times_out_at)
