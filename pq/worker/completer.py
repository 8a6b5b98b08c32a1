"""Jobs that have ended are settled: several by one statement."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from itertools import islice
from typing import Any

from .._jobs.settlement import MAX_DELIVERIES, Settlement, extend, locked, serves, settle
from .._logs import worker_log as logger
from .._loop import Loop
from ..errors import CommitUnknown, ConnectionFailed, ConnectionLost
from .backoff import Backoff
from .events import Events, log
from .execution import Execution
from .held import Held

#: Characters of results and errors that are settled by one statement, unless a single job has more.
MAX_CHARACTERS = 1_000_000

#: So many of one claim are not settled together with those of the next one: a settlement is a commit.
ONE_CLAIM = 50

#: Seconds that a settlement waits for a row that another transaction has locked. The other jobs wait as long.
LOCK_TIMEOUT = 0.1

#: Seconds until a job whose row is locked is tried again.
LOCKED_PAUSE = 0.25

#: Seconds until a job is tried again that can't be settled although its row is free.
STUCK_PAUSE = 5.0

Batch = list[tuple[Execution, Settlement]]


class Completer:
    """One thread, which settles what has ended while the worker threads go on.

    :param batch: how many are settled together, at most.
    :param on_error: called with an error that the thread does not expect.
    :ivar table: with the connection that the worker keeps for this.
    :ivar finished: after `close`, all that can be settled is settled.
    """

    def __init__(
        self, held: Held, events: Events, backoff: Backoff, batch: int, on_error: Callable[[BaseException], object]
    ) -> None:
        self.loop: Loop = Loop(self.run_once, "pq completer", on_error=on_error)
        self.table: Any = None  # a `Table`, from the start on
        self.finished: bool = False
        self._closing = self._closed = False
        self._held = held
        self._events = events
        self._backoff = backoff
        self._batch = min(batch, MAX_DELIVERIES)
        self._settling = threading.Lock()
        self._on_error = on_error
        self._again: dict[Execution, float] = {}  # when to try those again that were set aside
        self._why: BaseException = ConnectionFailed()  # the database did not serve when it was looked
        held.wake = self.loop.wake

    def run_once(self) -> float | None:
        """Settle what has ended; return the seconds until it is to be called again.

        Never waits for the database to come back: what can't be settled now stays where it is.
        """
        with self._settling:
            self._take_back()
            while (batch := self._next()) and not self._closed:
                if not self._settle(batch):
                    return self._backoff.pause(self._why)
            if self._held.full and not self._held.ended:
                self._held.settled(())  # a thread may have noted that it is full when this was over already
            self.finished = self._closing
            pause = min(self._again.values(), default=None)
        return None if pause is None else max(0.0, pause - time.monotonic())

    def settle_now(self, execution: Execution) -> None:
        """Settle what has ended; return when this job is settled, or set aside."""
        while execution in self._held.ended and not self._closed:
            pause = self.run_once()
            if execution in self._held.ended:  # the database is away
                with self._held.changed:
                    self._held.changed.wait(pause)

    def wait_for(self, execution: Execution) -> None:
        """Settle what has ended; return when this job is settled, or its row was locked for as long as its lease."""
        until = time.monotonic() + execution.job.lease.total_seconds()
        while execution in self._held.unsettled() and not self._closed:
            self.settle_now(execution)
            if execution not in self._held.aside or time.monotonic() >= until:
                break
            with self._held.changed:
                self._held.changed.wait(LOCKED_PAUSE)

    def close(self) -> None:
        """Settle what is left, and try once more what was set aside."""
        self._closing = True
        self.loop.wake()

    def abandon(self) -> None:
        """Tell of what is not settled: this is the end."""
        self._closed = True
        for execution in self._held.settled(self._held.unsettled()):
            log(logging.WARNING, "not settled, its lease will expire,", execution)

    def _next(self) -> Batch:
        """Return what is to be settled next: the jobs that ended first, by number and by length. Those of one claim are
        settled by a shorter statement, if they are many."""
        batch: Batch = []
        characters = 0
        for end in islice(list(self._held.ended.items()), self._batch):
            execution = end[0]
            characters += execution.size
            if batch and characters > MAX_CHARACTERS:
                break
            if len(batch) >= ONE_CLAIM and batch[0][0].taken == batch[-1][0].taken != execution.taken:
                break
            batch.append(end)
        return batch

    # -- one batch

    def _settle(self, batch: Batch, again: bool = False) -> bool:
        """Settle these jobs; return False if the database does not serve now.

        :param again: this was tried before.
        """
        try:
            lost = settle([settlement for _, settlement in batch], LOCK_TIMEOUT, self.table)
        except Exception as error:
            left = [end for end in batch if not end[1].job.settled]
            if len(left) < len(batch):  # by a first statement, before one that failed
                self._note([end for end in batch if end[1].job.settled], set())
            return not left or self._explain(left, error, again)
        self._backoff.over()
        self._note(batch, set(lost))
        return True

    def _note(self, batch: Batch, lost: set[Any]) -> None:
        """These were settled, or are lost: tell of them."""
        settled = self._held.settled([execution for execution, _ in batch])
        done = []
        for execution, settlement in batch:
            if execution not in settled:  # it was abandoned meanwhile
                continue
            if settlement.job in lost and execution.unsure:
                log(logging.WARNING, "settled, it seems: the connection broke at the commit,", execution)
            elif settlement.job in lost:
                self._tell(execution, "lost")
            elif settlement.outcome == "done" and not execution.lost:
                done.append(execution)
            else:
                self._tell(execution, settlement.outcome)
        self._events.done(done)

    def _explain(self, batch: Batch, error: Exception, again: bool) -> bool:
        """Do what is right after a statement that failed; return as `_settle` does.

        The class of the error does not tell whether the database is away or a job can't be settled, so look whether the
        database serves. If it does, halve the batch until the one bad job stands alone.
        """
        cut = isinstance(error, (ConnectionFailed, ConnectionLost, CommitUnknown))
        for execution, _ in batch:
            execution.unsure |= isinstance(error, CommitUnknown)
        if self.table.database.driver.lock_timed_out(error):
            return self._set_locked_aside(batch)
        if not self._serves():
            return False
        if cut and not again:
            return self._settle(batch, again=True)
        if len(batch) > 1:
            return self._settle_halves(batch, cut)
        return self._settle_as_failed(*batch[0], error, again)

    def _settle_halves(self, batch: Batch, again: bool = False) -> bool:
        middle = len(batch) // 2
        return self._settle(batch[:middle], again) and self._settle(batch[middle:], again)

    def _settle_as_failed(
        self, execution: Execution, settlement: Settlement, error: Exception, again: bool
    ) -> bool:
        """A job can't be settled like this, and it is not the database's fault: that is a failed attempt."""
        if execution.refused or settlement.outcome == "released" or not self._is_writable(execution):
            logger.error("job %s can't be settled; it is tried again", execution.job.id, exc_info=error)
            self._set_aside([execution], STUCK_PAUSE)
            return True
        if not again:  # an outage may have ended since
            return self._settle([(execution, settlement)], again=True)
        execution.refused = True
        failed = execution.failed(error)
        self._held.replace(execution, failed)
        return self._settle([(execution, failed)])

    # -- looking

    def _serves(self) -> bool:
        """Return whether the database answers, and lets this role write to the table; note why not."""
        try:
            serves(self.table, LOCK_TIMEOUT)
            return True
        except Exception as error:
            self._why = error
            if isinstance(error, ConnectionLost) and not self.table.database.source.replaceable:
                self._on_error(error)
            return False

    def _is_writable(self, execution: Execution) -> bool:
        """Return whether the row of a job can be written at all: a disk may be full, which no other look tells."""
        try:
            extend(self.table, [execution.job], [False])
            return True
        except Exception:
            return False

    # -- jobs that can't be settled now

    def _set_locked_aside(self, batch: Batch) -> bool:
        """Settle the jobs of a batch whose rows nobody has locked."""
        try:
            ids = locked(self.table, [settlement.job for _, settlement in batch], LOCK_TIMEOUT)
        except Exception as error:  # such as the lock of the whole table
            self._why = error
            return False
        if not ids and len(batch) > 1:
            return self._settle_halves(batch)
        aside = [end for end in batch if end[0].job.id in ids] or batch
        self._set_aside([execution for execution, _ in aside], LOCKED_PAUSE)
        rest = [end for end in batch if end not in aside]
        return not rest or self._settle(rest)

    def _set_aside(self, executions: list[Execution], pause: float) -> None:
        """Try these again after so many seconds; others must not wait for them."""
        with self._held.changed:
            for execution in executions:
                if self._held.move(execution, aside=True):
                    self._again[execution] = time.monotonic() + pause

    def _take_back(self) -> None:
        """Try those again that were set aside, if it is time and their rows are free."""
        now = time.monotonic()
        due = [execution for execution, again in self._again.items() if again <= now or self._closing]
        if not due:
            return
        try:
            ids = locked(self.table, [execution.job for execution in due], LOCK_TIMEOUT)
        except Exception:
            ids = {execution.job.id for execution in due}
        with self._held.changed:
            for execution in due:
                if execution.job.id in ids:
                    self._again[execution] = now + LOCKED_PAUSE
                else:
                    del self._again[execution]
                    self._held.move(execution, aside=False)

    def _tell(self, execution: Execution, outcome: str) -> None:
        """Tell of a job by the outcome of its settlement, or that it was ``'lost'``."""
        if outcome == "released":
            log(logging.DEBUG if execution.thread is None else logging.WARNING, "given back", execution)
        elif not execution.lost:
            self._events.tell("retry" if outcome == "broken" else outcome, execution)
