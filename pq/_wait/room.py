"""The threads of this process that wait, and which of them leads. The docstring of the package has the protocol."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Collection, Iterable
from functools import partial
from threading import get_ident
from typing import Any
from weakref import WeakSet

from .._db import Aside
from .._db.inherited import leave_to_the_parent
from .._db.sockets import Waker, wait_readable
from .._db.sources.base import Source
from .debounce import Debounce
from .leader import LINGER, Leader
from .waited import Reason, WaitedQueue
from .waiter import Waiter

#: Seconds between looks whether the second connection of a `PQ` on a single one is to be closed.
REST_CHECK = 0.5

#: Returns those of the given queues that have a ready job.
Peek = Callable[[Collection[str]], Collection[str]]


class WaitingRoom:
    """All threads of this process that wait for queues of one table.

    One of them, the leader, sleeps on the socket of the listening session. Each other one sleeps on its own condition.

    :param table: the quoted name of the table.
    :param poll_interval: seconds.
    :param listen_dsn: a DSN for the listening session; default: the parameters of the source's other connections.
    :param aside: the second connection for a source that has a single one.
    """

    def __init__(
        self,
        source: Source,
        table: str,
        poll_interval: float,
        listen_dsn: str | None,
        aside: Aside | None = None,
    ) -> None:
        self._driver = source.driver
        self._poll_interval = poll_interval
        self._make_leader: Callable[[], Leader] = partial(Leader, source, aside, table, poll_interval, listen_dsn)
        self._aside = aside
        self.reset()
        _rooms.add(self)
        source.add_room(self)

    def reset(self) -> None:
        """Begin anew. A child process does so: the parent's locks, threads and connections mean nothing there."""
        self.leader = self._make_leader()
        self.lock = self.leader.lock
        self.queues = self.leader.queues
        self._led_by: int | None = None  # the ident of a thread
        self._waker: Waker | None = None
        self._tidying = Debounce(self._tidy, 2 * LINGER)
        self._resting = Debounce(self._rest, REST_CHECK)

    def forked(self) -> None:
        leave_to_the_parent(self.leader.session)
        if self._aside is not None:
            self._aside.reset()
        self.reset()

    # -- what waiting threads call

    def enter(self, queues: Iterable[str], peek: Peek, unseen: Collection[str] = ()) -> Waiter:
        """Return a `Waiter` for these queues."""
        return Waiter(self, queues, peek, unseen)

    def step_aside(self) -> None:
        """Have this thread use the second connection, where there is to be one."""
        if self._aside is not None:
            self._aside.enter()

    def step_back(self) -> None:
        """The opposite of `step_aside`. A second call does no harm."""
        if self._aside is not None:
            self._aside.leave()
            if not self.leader.closed:
                self._resting.ask()

    def admit(self, waiter: Waiter) -> None:
        self.step_aside()
        with self.lock:
            for name in waiter.queues:
                queue = self.queues.get(name) or WaitedQueue(name, self._poll_interval, name in waiter.unseen)
                self.queues[name] = queue
                queue.admit(waiter)
            waiter.last = False
            self._wake()

    def wait(self, waiter: Waiter, deadline: float) -> bool:
        try:
            while True:
                with self.lock:
                    if self.leader.closed:
                        self._driver.raise_lost(None, "this PQ is closed")
                    if waiter.cancelled:
                        return False
                    if waiter.called:
                        return True
                    now = time.monotonic()
                    if now >= deadline:
                        if waiter.last or self.leader.busy or all(self.queues[name].sure for name in waiter.queues):
                            return False
                        waiter.last = True  # nobody would have told it
                        waiter.called = dict.fromkeys(waiter.queues, Reason.TIME)
                        return True
                    if self._led_by is None:
                        self._led_by = get_ident()
                    if self._led_by != get_ident():
                        until = min(deadline, self._claim_at(waiter, now))
                        if until > now:
                            waiter.condition.wait(min(until - now, threading.TIMEOUT_MAX))
                        continue
                self._lead(waiter, deadline)
        finally:
            self._resign(waiter)

    def found_empty(self, waiter: Waiter, queues: Iterable[str]) -> None:
        """Note that a waiter's claims found nothing in these queues: the leader may have to look there again."""
        with self.lock:
            for name in queues:
                reason = waiter.called.pop(name, Reason.TIME)
                if (queue := self.queues.get(name)) is not None:
                    queue.claimed_in_vain(reason)
            self._wake()

    def told(self, waiter: Waiter, name: str, since: float, due_in: float | None) -> None:
        with self.lock:
            waiter.called.pop(name, None)
            if (queue := self.queues.get(name)) is not None:
                queue.told(since, due_in)

    def is_seen_empty(self, name: str) -> bool:
        if (queue := self.queues.get(name)) is None or not queue.is_seen_empty:
            return False
        # of what is put on the very connection that listens, nothing is heard
        return self._aside is None or self._aside.database is not None

    def leave(self, waiter: Waiter) -> None:
        lingers = False
        self.step_back()
        with self.lock:
            if self._led_by == get_ident():  # interrupted in the middle of wait()
                self._led_by = None
            for name in waiter.queues:
                queue = self.queues.get(name)
                if queue is not None and waiter in queue.waiters:
                    queue.waiters.remove(waiter)
                    if name in waiter.called:  # if it has found a job there may be more; and maybe it has not claimed
                        queue.stale = queue.missed = True
                if queue is not None and not queue.waiters:
                    lingers |= self.leader.vacate(queue)
        if lingers:
            self._tidying.ask()
        if lingers and self._led_by is None:  # what this thread has no more need of is not to be given up yet
            self._resign()
        else:
            self._tidy()

    def _claim_at(self, waiter: Waiter, now: float) -> float:
        """Return when this waiter must claim although the leader has called nobody: its session may not answer."""
        if self.leader.shares:
            return math.inf
        late = min(self.queues[name].late_at(waiter, now) for name in waiter.queues)
        return now if waiter.called else late

    # -- what others call

    def cancel(self, waiter: Waiter) -> None:
        with self.lock:
            waiter.cancelled = True
            waiter.condition.notify()
            self._wake()

    def look_again(self, if_shared: bool = False) -> None:
        """Have the session (`if_shared`: on the only connection) look at all queues, for what no notification tells."""
        with self.lock:
            if self.leader.shares or not if_shared:
                for queue in self.queues.values():
                    queue.stale = True
                self._wake()

    def check_again(self, conn: Any) -> None:
        """A block on this connection of the application's ends, and may have changed what it sees."""
        if self._aside is not None:
            self._aside.check_again(conn)

    def hear(self) -> None:
        """Note that the single connection is free, and that another thread may have read notifications from it."""
        session = self.leader.session
        if session is None and not self.queues:
            return  # nobody has waited, as in a program that only puts
        if self._led_by is None:
            self._tidy()
        elif self._led_by != get_ident() and (self.leader.busy or (session is not None and session.pending())):
            self._wake()

    def close(self) -> None:
        """Wake all waiters, whose `wait` raises an error, and close the session."""
        with self.lock:
            self.leader.closed = True
            for queue in self.queues.values():
                for waiter in queue.waiters:
                    waiter.condition.notify()
            self._wake()
        self._tidying.stop()
        self._resting.stop()
        self._tidy()
        if self._aside is not None:
            self._aside.close()

    # -- who leads

    def _lead(self, waiter: Waiter, deadline: float) -> None:
        """See to the session, then sleep until something happens."""
        self._waker = self._waker or Waker()
        was_busy = self.leader.busy
        fds = self.leader.serve()
        if self.leader.busy and not was_busy:
            return  # who frees the connection wakes us from now on: try once more, it may have been in between
        others = () if self._aside is None else self._aside.watched
        with self.lock:
            until = min(self.leader.serve_at(), deadline)
            if waiter.called or waiter.cancelled or self.leader.closed:
                return
        found = wait_readable((self._waker.fileno(), *fds), until - time.monotonic(), others)
        if self._waker.fileno() in found:
            self._waker.clear()
        if not found.isdisjoint(fds):
            self.leader.hear()

    def _resign(self, waiter: Waiter | None = None) -> None:
        """Have another waiter lead, if nobody does."""
        with self.lock:
            if self._led_by == get_ident():
                self._led_by = None
            if self._led_by is None:
                for queue in self.queues.values():
                    for other in queue.waiters:
                        if other is not waiter and not other.called:
                            other.condition.notify()
                            return

    def _wake(self) -> None:
        """Wake the leader: there is something to do."""
        if self._led_by is not None and self._waker is not None:
            self._waker.wake()

    def _tidy(self) -> None:
        """Give up what nobody needs: the leader does so or, if there is none, this thread."""
        while self._led_by is None:
            try:
                with self.lock:
                    if self._led_by is not None or not self.leader.has_surplus():
                        return
                    self._led_by = get_ident()
                self.leader.serve()
            finally:
                self._resign()
            if not self.leader.closed:  # else it may have been closed just now, by a thread that left the rest to us
                return
        self._wake()

    def _rest(self) -> None:
        """Close the second connection, and the session on it, if they are not needed."""
        assert self._aside is not None
        with self.lock:
            if self._led_by is not None or not self._aside.may_rest:
                self._resting.ask()
                return
            self._led_by = get_ident()
        try:
            if self.leader.rest():
                self._aside.rest()
        finally:
            self._resign()


_rooms: WeakSet[WaitingRoom] = WeakSet()


def _after_fork_in_child() -> None:
    for room in list(_rooms):
        room.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
