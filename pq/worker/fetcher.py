"""Which jobs are fetched next, how many, and which thread gets them."""

from __future__ import annotations

import time
from collections.abc import Container, Iterable, Sequence
from datetime import timedelta

from .._args import integer
from .._jobs.settlement import Settlement
from .._times import wait_of
from .._wait import Waiter
from .events import Events
from .execution import BEATS, Execution, Runner
from .heartbeat import MAX_HOLD
from .queues import TaskQueue
from .services import Services

#: Seconds of work that are fetched in advance, by how long the last handlers took.
AHEAD = 0.1

#: How much the last handler counts for how long the next one is expected to take.
WEIGHT = 1 / 8

#: Seconds for which a burst worker that has nothing to do looks for the end of its other threads' jobs.
BURST_WAIT = 0.05

_NEVER = float("inf")


class Fetcher:
    """Fetches jobs from several queues for all threads of a worker. Parameters that are not named here are `Worker`'s.

    One thread at a time claims jobs, or waits for some. It puts what it has got into the stock of `Held`, from which
    all threads take.

    :ivar fetching: a thread is claiming, or waiting for jobs.
    """

    def __init__(
        self,
        services: Services,
        queues: Sequence[TaskQueue],
        events: Events,
        *,
        threads: int,
        lease: timedelta,
        strict: bool,
        burst: bool,
        max_jobs: int | None,
        batch: int,
    ) -> None:
        self._queues = list(queues)
        self._held = services.held
        self._events = events
        self._backoff = services.backoff
        self._heartbeat = services.heartbeat
        self._completer = services.completer
        self._threads = threads
        self._lease = lease
        self._strict = strict
        self._burst = burst
        self._batch = batch
        self._tickets = _NEVER if max_jobs is None else integer("max_jobs", max_jobs, 1)
        self._closed = False
        self.fetching: bool = False
        self._idle = 0  # threads that wait for stock
        self._by_name = {queue.name: queue for queue in reversed(queues)}
        self._waiter: Waiter | None = None  # made late, since a fork may come before
        self._turn = 0
        self._last = 0  # how many were fetched the last time
        self._pace: float | None = None  # seconds that a handler takes
        self._alone: Execution | None = None  # the last job whose lease had expired twice in a row

    # -- for the worker's threads

    def next(self, thread: Runner) -> Execution | None:
        """Return the next job for this thread, waiting for it; None: there is no more to do."""
        held = self._held
        while True:
            with held.lock:
                if self._closed or not self._tickets:
                    return None
                if held.full or (self.fetching and not held.stock):
                    self._wait_for_change()
                    continue
                execution = held.stock.popleft() if held.stock else None
                if execution is None:
                    self.fetching = True
                elif execution in held.open:
                    execution.thread = thread
                    self._tickets -= 1
                else:
                    continue
            if execution is not None:
                now = time.monotonic()
                if now < execution.renew_at and now < execution.taken + MAX_HOLD and not execution.job.expiries:
                    return execution
                if self._is_fit(execution):
                    return execution
                with held.changed:
                    self._tickets += 1
                continue
            try:
                if not self._fetch():
                    return None
            finally:
                with held.changed:
                    self.fetching = False
                    held.changed.notify_all()

    def one(self, thread: Runner) -> Execution | None:
        """Claim one job for this thread, without waiting; None: there is none."""
        waiter = self._new_waiter()
        while not self._closed and (executions := self._claim(waiter, 1)) is not None:
            for execution in executions:
                execution.thread = thread
                if self._is_fit(execution):
                    return execution
        return None

    def learn(self, seconds: float) -> None:
        """Note how long a handler took. Threads may overwrite each other's notes: it is an estimate."""
        pace = self._pace
        self._pace = seconds if pace is None else pace + (seconds - pace) * WEIGHT

    def close(self) -> None:
        """Fetch no more, and give back what nobody has begun. A fetch that is under way is given back, too."""
        with self._held.changed:
            self._closed = True
            if self._waiter is not None:
                self._waiter.cancel()
            self._give_back(list(self._held.stock))
            self._held.changed.notify_all()

    def _wait_for_change(self) -> None:
        self._idle += 1
        try:
            self._held.changed.wait()
        finally:
            self._idle -= 1

    def _is_fit(self, execution: Execution) -> bool:
        """Return whether a job that this thread has taken may begin; if not, it is given back.

        A process that stood still may hold jobs that were delivered elsewhere meanwhile. And a job whose lease expired
        before may be the one that kills its workers: it must not take others along.
        """
        now = time.monotonic()
        if now - execution.taken >= MAX_HOLD or now >= execution.renew_at + execution.job.lease.total_seconds() / BEATS:
            self._give_back([execution])
            return False
        return not execution.job.expiries or self._isolate(execution)

    def _isolate(self, execution: Execution) -> bool:
        """Settle what has ended, since that would run again. And of jobs whose lease expired twice in a row, let only
        one run in this process: others could not be told from the one that kills it."""
        held = self._held
        for ended in list(held.ended)[-1:]:
            self._completer.settle_now(ended)
        if execution.job.expiries > 1 and not self._burst and self._alone in held.open:
            self._give_back([execution], timedelta(seconds=MAX_HOLD))  # what comes behind it must not wait, too
        elif execution.job.expiries > 1:
            until = time.monotonic() + MAX_HOLD
            with held.changed:
                while self._alone in held.open and not self._closed and time.monotonic() < until:
                    held.changed.wait(MAX_HOLD)
                if self._alone in held.open:
                    self._give_back([execution])
                else:
                    self._alone = execution
        return execution in held.open

    # -- fetching

    def _fetch(self) -> bool:
        """Fetch some jobs, or wait for some; return False if no more are to be expected."""
        with self._held.changed:
            if self._closed:
                return False
            waiter = self._waiter = self._waiter or self._new_waiter()
        if self._claim(waiter, None, passing=list(filter(waiter.is_seen_empty, waiter.queues))) is not None:
            return True
        self._completer.loop.wake()  # what is settled now may be ready again
        with waiter:
            while not self._closed:
                if not waiter.wait(self._patience()) and self._is_over():
                    return self._claim(waiter, None) is not None  # the queues were seen empty
                if self._claim(waiter, None, has_waited=True) is not None:
                    return True
        return False

    def _new_waiter(self) -> Waiter:
        return self._queues[0]._table.waiter_for_all(queue.name for queue in self._queues)

    def _patience(self) -> float:
        """Return until when to wait for a job, in monotonic seconds."""
        timeout = wait_of(self._queues[0].timeout) if self._burst else _NEVER
        return time.monotonic() + max(timeout, BURST_WAIT) if self._held else self._held.busy_at + timeout

    def _is_over(self) -> bool:
        """Return whether a burst has ended: no job of this worker may become ready again, nor has lately."""
        return self._closed or (not self._held and time.monotonic() >= self._patience())

    def _claim(
        self, waiter: Waiter, wanted: int | None, passing: Container[str] = (), has_waited: bool = False
    ) -> list[Execution] | None:
        """Claim jobs of the queues in turn, or of the first that has jobs; None if there are none.

        :param wanted: how many at most; None: as many as may be done soon, which go to the stock.
        :param passing: the names of queues that are to be left out.
        :param has_waited: the waiter is told what is left.
        """
        asked = time.monotonic()
        limit = self._wanted() if wanted is None else wanted
        names = waiter.ready()
        first = 0 if self._strict or not names else self._turn % len(names)
        for name in names[first:] + names[:first]:
            if name in passing:
                continue
            queue = self._by_name[name]
            # what waits in the stock would take places that other workers need
            most = min(limit, 1 + self._idle) if queue._claims.limited.known else limit
            jobs, refused = queue._claims.fetch(queue, most, 0, self._lease, waiter if has_waited else None)
            if jobs or refused:
                if queue._claims.limited.full:
                    waiter.told(name, asked)
                break
            waiter.empty(name)
        else:
            self._backoff.over()
            return None
        self._backoff.over()
        self._turn += 1
        for refusal in refused:  # settled as failed attempts, if they could be
            if refusal.outcome != "stuck":
                self._events.tell(refusal.outcome, Execution(refusal.job, asked), refusal.error)
        executions = [Execution(job, asked) for job in jobs]
        for execution in executions if queue._claims.limited.known else ():
            execution.has_place = True
        return self._received(executions, wanted is None)

    def _received(self, executions: list[Execution], stock: bool) -> list[Execution]:
        """These jobs are held from now on. What the lease does not allow to begin is dropped, or given back."""
        held = self._held
        held.add(executions)
        for execution in executions[:1]:  # the others are to be seen to at the same time
            self._heartbeat.watch(execution)
        late = executions and time.monotonic() > min(executions[0].renew_at, executions[0].taken + MAX_HOLD)
        if late:
            executions = self._verified(executions)
        suspect = next((n for n, each in enumerate(executions) if each.job.expiries), len(executions))
        kept = executions[: max(1, suspect)]  # a job whose lease expired before is taken alone
        self._last = len(kept) if suspect == len(executions) else 0
        with held.changed:
            self._give_back(executions if self._closed else executions[len(kept) :])
            if stock and not self._closed:
                held.stock.extend(kept)
                held.changed.notify_all()
        return [] if self._closed else kept

    def _verified(self, executions: list[Execution]) -> list[Execution]:
        """The answer to a claim came late: return the jobs that are still held, with their leases extended."""
        self._heartbeat.extend(executions)
        for execution in executions:
            execution.taken = time.monotonic()
        return [execution for execution in executions if not execution.lost]

    def _give_back(self, executions: Iterable[Execution], delay: timedelta | None = None) -> None:
        """These are to be ready again for others, now or after a delay, as if they had not been delivered."""
        for execution in executions:
            self._held.end(execution, Settlement(execution.job, "released", delay))

    def _wanted(self) -> int:
        """Return how many to claim: for each idle thread one, and what they will have done soon; twice as many as the
        last time at most."""
        idle = 1 + self._idle
        ahead = 0.0 if self._pace is None else AHEAD * self._threads / max(self._pace, 1e-6)
        return int(min(max(idle, min(idle + ahead, 2 * self._last)), self._batch, self._tickets))
