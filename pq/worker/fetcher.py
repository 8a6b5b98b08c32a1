"""Which jobs are taken next, how many, and who gets them."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from .._args import integer
from .._db import Database
from .._times import Delay, positive_delay
from .run import Run

if TYPE_CHECKING:
    from ..tasks import Queue

#: Seconds of work that are taken in advance; by how long the last handlers took.
AHEAD = 0.1

#: Seconds after which a job that nobody has begun is given back: a handler takes longer than those before it.
HOLD = 1.0

#: How much the last handler counts for what the next is expected to take.
WEIGHT = 1 / 8


class Intake:
    """Takes jobs from several queues, for all consumers of a worker. The parameters are those of `Worker`.

    One consumer takes jobs, or waits for some; the others get theirs from the stock that it leaves.

    :ivar busy_at: when something was taken, or ended, for the last time; monotonic seconds.
    """

    def __init__(
        self,
        queues: list[Queue],
        threads: int,
        lease: Delay,
        strict: bool,
        burst: bool,
        max_jobs: int | None,
        batch: int,
    ) -> None:
        self.queues = queues
        self.batch = integer("batch", batch, 1)
        self._threads = threads
        self._lease = positive_delay("lease", lease)
        self._strict = strict
        self._burst = burst
        self._tickets = float("inf") if max_jobs is None else integer("max_jobs", max_jobs, 1)
        self._changed = threading.Condition()
        self._stock: deque[Run] = deque()
        self._closed = False
        self._taking = False
        self._idle = 0  # consumers that wait for stock
        self._by_name = {queue.name: queue for queue in reversed(queues)}
        self._place = queues[0]._table.waiter_for_all(queue.name for queue in queues)
        self._turn = 0
        self._last = 0  # how many were taken the last time
        self._pace: float | None = None  # seconds that a handler takes
        self.busy_at = time.monotonic()

    @property
    def database(self) -> Database:
        return self.queues[0]._db

    # -- what consumers call

    def next(self, block: bool, worker: Any) -> Run | None:
        """A job; None if there is none (in time), or no more are to be taken.

        :param block: wait for it; then others may be taken along, which somebody must call for soon.
        """
        worker.give_back(self.withdraw(time.monotonic()))  # the process may have stood still for longer than the lease
        with self._changed:
            while not self._stock:
                if self._closed or not self._tickets or (self._taking and not block):
                    return None
                if not self._taking:
                    self._taking = True
                    break
                self._idle += 1
                try:
                    self._changed.wait()
                finally:
                    self._idle -= 1
            else:
                return self._stock.popleft()
        run = None
        try:
            run = self._take(block, worker)
        finally:
            with self._changed:
                self._taking = False
                self._changed.notify_all()
        return run

    def ended(self, seconds: float) -> None:
        """A handler took so long. Threads may overwrite each other's: it is an estimate."""
        pace = seconds if self._pace is None else self._pace
        self._pace = pace + (seconds - pace) * WEIGHT
        self.busy_at = time.monotonic()

    # -- what the worker calls

    def close(self) -> list[Run]:
        """No more are to be taken; returns those that nobody has begun."""
        with self._changed:
            self._closed = True
            runs = list(self._stock)
            self._stock.clear()
            self._place.cancel()
            self._changed.notify_all()
        return runs

    def withdraw(self, now: float) -> list[Run]:
        """Those that nobody has begun in time, which are to be given back."""
        with self._changed:
            runs = []
            while self._stock and now - self._stock[0].taken >= HOLD:
                runs.append(self._stock.popleft())
            if runs:
                self._pace = HOLD
                self._tickets += len(runs)
        return runs

    # -- taking

    def _take(self, block: bool, worker: Any) -> Run | None:
        run = self._claim(worker, block)
        if run is None and worker.settler.run_once():
            run = self._claim(worker, block)  # it may have been put back by that
        if run is not None or not block:
            return run
        with self._place as waiter:
            while run is None and not self._closed and waiter.wait(self._patience()):
                run = self._claim(worker, True)
        return run

    def _claim(self, worker: Any, several: bool) -> Run | None:
        """Of the queues in turn, or of the first that has jobs; the first of them is returned, the others are stock."""
        wanted = self._wanted() if several else 1
        jobs: list[Any] = []
        refused: list[Any] = []
        names = self._place.ready()
        first = 0 if self._strict or not names else self._turn % len(names)
        for name in names[first:] + names[:first]:
            queue = self._by_name[name]
            jobs, refused = queue._claims.fetch(queue, wanted, 0, self._lease)
            if jobs or refused:
                break
            self._place.empty(name)
        worker.outage.over()
        if jobs or refused:
            self._turn += 1
            self.busy_at = time.monotonic()
        for refusal in refused:  # settled as failed attempts
            worker.events.tell(refusal.outcome, Run(refusal.job, self.busy_at), refusal.error)
        runs = [Run(job, self.busy_at) for job in jobs]
        worker.heartbeat.add(runs)
        with self._changed:
            self._tickets -= len(runs)
            self._last = len(runs)
            if not self._closed:
                self._stock.extend(runs[1:])
                if len(runs) > 1:
                    self._changed.notify_all()
                return runs[0] if runs else None
        worker.give_back(runs)  # they came at the last moment
        return None

    def _wanted(self) -> int:
        """One for each consumer that has none, and what they will have done before long; soon, not at once."""
        with self._changed:
            idle = 1 + self._idle
            ahead = 0.0 if self._pace is None else AHEAD * self._threads / max(self._pace, 1e-6)
            return int(min(max(idle, min(idle + ahead, 2 * self._last)), self.batch, self._tickets))

    def _patience(self) -> float:
        """Until when a consumer waits for a job, in monotonic seconds."""
        timeout = self.queues[0].timeout if self._burst else None
        return float("inf") if timeout is None else self.busy_at + timeout


def choose(pq: Any, given: Iterable[str | Queue] | None) -> list[Queue]:
    """The queues that are meant.

    :param pq: a PQ, or a queue.
    :param given: queues or names of queues of that PQ; None: those that have tasks.
    """
    if isinstance(given, str):
        raise TypeError(f"queues must be a list of queues or names, not a str: {given!r}")
    if hasattr(pq, "perform"):
        if given is not None:
            raise TypeError(f"queues can't be chosen where {pq!r} alone is given")
        chosen = [pq]
    elif given is not None:
        chosen = [pq[item] if isinstance(item, str) else item for item in given]
    else:
        chosen = pq.with_tasks() if hasattr(pq, "with_tasks") else []
    for queue in chosen:
        if not hasattr(queue, "perform"):
            raise TypeError(f"{queue!r} has no tasks: use the PQ of pq.tasks")
    if not chosen:
        raise ValueError("there is no queue to work on: none has tasks here, and none was named")
    return chosen
