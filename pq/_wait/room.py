"""Waiting for a queue: no polling in the normal case, and no put missed.

NOTIFY takes an instance-wide lock at commit, so a put notifies only if somebody waits. Waiters say so by an advisory
lock, the queue's *gate*, which all of them hold shared.

    put (trigger, after the insert)             waiter
    P1  insert                                W1  take the gate, shared
    P2  is the gate free?                     W2  LISTEN
        (take it exclusively, give it back)   W3  note which transactions are writing
    P3  if not: NOTIFY                        W4  look for a job, in the same snapshot
    P4  commit: row and NOTIFY at once        W5  sleep until notified, a row is due, or time to look again: soon
                                                  (5 ms, doubling) while noted transactions still run

Why no put is missed. Take a put that W4 did not see: it commits after W4, hence after W2. If it found the gate taken at
P2, it notifies at P4, after W2: W5 wakes. If it found the gate free, P2 was before W1, and its transaction was writing
(P1 is before P2) from before W1 until after W4: so W3 noted it, and W5 looks again until it has ended. Whatever begins
to write after W3 finds the gate taken.

W3 notes one number, the transaction id that is to be given out next: all that are writing have lower ones. They have
ended when the oldest running one in a snapshot is not lower any more, and then that snapshot shows their rows. Such a
transaction may have nothing to do with queues, and may last. It costs looks, at most one in each poll interval.

Who finds at W4 that the queue is paused leaves the gate, so that puts need not notify, but goes on listening: the end
of the pause is notified whether the gate is taken or not, and commits after W4, hence after W2. W1 is the next step.

In each poll interval a waiter looks in any case. That is the bound on all that no notification tells: rows that come
back by another consumer's rollback, or are updated by hand. Behind a transaction pooler, where gates and LISTEN would
land on somebody else's server session, there is nothing but that.

One session per PQ and process, the *line*, serves all waiting threads. One of these, the *leader*, sits on it; the
others sleep on a condition each. An event calls one waiter of the queue, not all; when that one has found a job, or has
gone away, the leader looks whether there are more and calls the next.

Who got a job mostly comes back for the next. So a gate is kept for a moment when the last waiter has gone, except on a
session of the application's. If nobody waits who could then leave it, a thread does that, and ends.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable
from functools import partial
from threading import get_ident
from typing import Any
from weakref import WeakSet

from .._db.sockets import Waker, wait_readable
from .._db.sources.base import Source
from .._db.sources.single import SingleConnection
from .debounce import Later
from .leader import LINGER, Listener, WaitedQueue
from .waiter import Waiter


class WaitingRoom:
    """All threads of this process that wait for queues of one table."""

    def __init__(self, source: Source, table: str, poll_interval: float, listen_dsn: str | None) -> None:
        self._driver = source.driver
        self._poll_interval = poll_interval
        self._make_listener: Callable[[], Listener] = partial(Listener, source, table, poll_interval, listen_dsn)
        self.reset()
        _rooms.add(self)
        if isinstance(source, SingleConnection):
            source.add_room(self)

    def reset(self) -> None:
        """As it is at first, and in a child: the parent's locks, threads and connections mean nothing there."""
        self._listener = self._make_listener()
        self.lock = self._listener.lock
        self._channels = self._listener.channels
        self._leader: int | None = None  # the ident of a thread
        self._bell: Waker | None = None
        self._tidying = Later(self._tidy, 2 * LINGER)

    def forked(self) -> None:
        _inherited.append(self._listener.line)  # never closed here: that would say goodbye on the parent's socket
        self.reset()

    # -- what waiting threads call

    def enter(self, *queues: str) -> Waiter:
        return Waiter(self, queues)

    def admit(self, waiter: Waiter) -> None:
        with self.lock:
            for queue in waiter.queues:
                channel = self._channels.get(queue)
                if channel is None:
                    channel = self._channels[queue] = WaitedQueue(queue, time.monotonic() + self._poll_interval)
                if not channel.waiters:
                    self._ring()
                channel.waiters.append(waiter)
                channel.until = math.inf

    def wait(self, waiter: Waiter, deadline: float) -> bool:
        try:
            with self.lock:
                if waiter.looking:  # it found nothing
                    waiter.called = waiter.looking = False
                    self._ring()
            while True:
                with self.lock:
                    if self._listener.closed:
                        self._driver.raise_lost(None, "this PQ is closed")
                    if waiter.cancelled:
                        return False
                    now = time.monotonic()
                    if now >= deadline and not waiter.called:
                        if waiter.last or self._is_sure(waiter) or self._listener.busy:
                            return False
                        waiter.called = waiter.last = True  # nobody would have told it
                    if waiter.called:
                        waiter.looking = True
                        return True
                    if self._leader is None:
                        self._leader = get_ident()
                    if self._leader != get_ident():
                        waiter.condition.wait(min(deadline - now, threading.TIMEOUT_MAX))
                        continue
                self._lead(waiter, deadline)
        finally:
            self._resign(waiter)

    def leave(self, waiter: Waiter) -> None:
        lingers = False
        with self.lock:
            if self._leader == get_ident():  # interrupted in the middle of wait()
                self._leader = None
            for queue in waiter.queues:
                channel = self._channels.get(queue)
                if channel is not None and waiter in channel.waiters:
                    channel.waiters.remove(waiter)
                    if waiter.called:  # if it has found a job there may be more; and maybe it has not looked
                        channel.stale = True
                if channel is not None and not channel.waiters:
                    lingers |= self._listener.vacate(channel)
        if lingers:
            self._tidying.ask()
        self._tidy()

    def _is_sure(self, waiter: Waiter) -> bool:
        return all(self._channels[queue].sure for queue in waiter.queues)

    # -- what others call

    def cancel(self, waiter: Waiter) -> None:
        with self.lock:
            waiter.cancelled = True
            waiter.condition.notify()
            self._ring()

    def look_again(self) -> None:
        """Something may have changed that no notification tells."""
        with self.lock:
            for channel in self._channels.values():
                channel.stale = True
            self._ring()

    def hear(self) -> None:
        """The single connection is free, and another thread may have read notifications from it."""
        line = self._listener.line
        if self._leader is None:
            self._tidy()
        elif self._leader != get_ident() and (self._listener.busy or (line is not None and line.pending())):
            self._ring()

    def close(self) -> None:
        """Wake all waiters, who are told so, and close the line."""
        with self.lock:
            self._listener.closed = True
            for channel in self._channels.values():
                for _ in channel.waiters:
                    channel.call()
        self._tidying.stop()
        self._tidy()

    # -- who leads

    def _lead(self, waiter: Waiter, deadline: float) -> None:
        """See to the line, then sleep until something happens."""
        if self._bell is None:
            self._bell = Waker()
        was_busy = self._listener.busy
        fds = self._listener.serve()
        if self._listener.busy and not was_busy:
            return  # who frees the connection rings from now on: try once more, it may have been in between
        with self.lock:
            until = min(self._listener.look_at(), deadline)
            if waiter.called or waiter.cancelled:
                return
        wait_readable((self._bell.fileno(), *fds), until - time.monotonic())
        self._bell.silence()

    def _resign(self, waiter: Waiter | None = None) -> None:
        """Have another waiter lead, if nobody does."""
        with self.lock:
            if self._leader == get_ident():
                self._leader = None
            if self._leader is None:
                for channel in self._channels.values():
                    for other in channel.waiters:
                        if other is not waiter and not other.called:
                            other.condition.notify()
                            return

    def _ring(self) -> None:
        """Wake the leader: there is something to do."""
        if self._leader is not None and self._bell is not None:
            self._bell.ring()

    def _tidy(self) -> None:
        """Give up what nobody needs: the leader does it or, if there is none, this thread."""
        if self._leader is not None:
            self._ring()
            return
        try:
            with self.lock:
                if self._leader is not None or not self._listener.superfluous():
                    return
                self._leader = get_ident()
            self._listener.serve()
        finally:
            self._resign()


_rooms: WeakSet[WaitingRoom] = WeakSet()
_inherited: list[Any] = []


def _after_fork_in_child() -> None:
    for room in list(_rooms):
        room.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
