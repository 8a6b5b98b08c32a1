"""Threads that wait until jobs have ended.

Nobody is told when a job ends: to find out whether somebody waits would make each end dearer. So the threads of a
process look, by one statement for all of them. One thread, the leader, executes it.

A thread wants the next look after as long a time as it has waited already, between `FIRST_PAUSE` and the poll interval:
a wait lasts at most twice as long as its job, and at most a poll interval longer. Once all have waited that long, there
is one look in each poll interval, however many threads and jobs there are. In between a thread sleeps, and holds no
connection.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any
from weakref import WeakMethod, WeakSet

from .._db.drivers.base import Driver

#: Seconds before the second look.
FIRST_PAUSE = 0.01

#: Looks take one part in so many of the time at most, while the pauses are shorter than the poll interval.
SHARE = 10

#: Seconds after its deadline when a thread gives up that the leader, whose connection may hang, has not told anything.
GIVE_UP_AFTER = 5.0

#: The first columns of a row: the job, whether it has yet to end, and its queue.
ID, PENDING, QUEUE = range(3)
Row = tuple[Any, ...]

#: Returns a row for each of the given jobs that is there. The second argument is the seconds that the caller has.
Look = Callable[[Collection[int], float], Iterable[Row]]


class Wait:
    """A wait for some jobs.

    :param timeout: seconds.
    :param queue: the queue of all of them; jobs of others are not there. None: they may be in any queue.
    :ivar rows: the rows of those that were there at the last look.
    :ivar pending: those that have yet to end.
    :ivar over: all have ended, or the timeout is over.
    """

    def __init__(self, ids: Iterable[int], timeout: float, queue: str | None) -> None:
        self.pending: set[int] = set(ids)
        self.rows: dict[int, Row] = {}
        self.over: bool = False
        self._began = time.monotonic()
        self.look_at: float = self._began
        self.deadline: float = self._began + timeout
        self._queue = queue

    def saw(self, rows: Mapping[int, Row] | None, poll_interval: float) -> None:
        """Note what a look has found; None: it has failed, since the server was held up."""
        if rows is not None:
            there = {id: rows[id] for id in self.pending & rows.keys() if self._queue in (None, rows[id][QUEUE])}
            self.rows = {id: row for id, row in self.rows.items() if id not in self.pending} | there
            self.pending = {id for id, row in there.items() if row[PENDING]}
        now = time.monotonic()
        self.over = not self.pending or now >= self.deadline
        self.look_at = min(now + min(max(now - self._began, FIRST_PAUSE), poll_interval), self.deadline)


def wait_alone(look: Look, wait: Wait, poll_interval: float, may_sleep: Callable[[], None]) -> None:
    """Wait without the other threads, as in a transaction, which may see other rows than they do.

    :param may_sleep: called before the thread sleeps; it may raise an error.
    """
    while True:
        left = max(0.0, wait.deadline - time.monotonic())
        wait.saw({row[ID]: row for row in look(wait.pending, left)}, poll_interval)
        if wait.over:
            return
        may_sleep()
        time.sleep(max(0.0, wait.look_at - time.monotonic()))


class ResultRoom:
    """The threads of this process that wait, outside of transactions, for jobs of one table.

    :param look: a method, which executes the statement; any of the threads calls it. Its object may go away.
    :param poll_interval: seconds.
    """

    def __init__(self, look: Look, driver: Driver, poll_interval: float) -> None:
        self._method = WeakMethod(look)
        self._driver = driver
        self._poll_interval = poll_interval
        self._reset()
        _rooms.add(self)

    def _reset(self) -> None:
        self._lock = threading.RLock()
        self._sleepers: dict[Wait, threading.Condition] = {}
        self._leader: Wait | None = None
        self._not_before = 0.0  # monotonic seconds
        self._closed = False

    def wait(self, wait: Wait) -> None:
        """Return when a wait is over.

        :raises ConnectionLost: the PQ was closed. The other errors are those of the statement.
        """
        self._look_for([wait])
        if wait.over:
            return
        try:
            with self._lock:
                self._sleepers[wait] = threading.Condition(self._lock)
                self._call_leader()  # it may be asleep for longer
            while self._sleep(wait):
                self._lead()
        finally:
            with self._lock:
                self._sleepers.pop(wait, None)
                if self._leader is wait:
                    self._leader = next(iter(self._sleepers), None)
                    self._call_leader()

    def close(self) -> None:
        """Wake all threads, whose `wait` raises an error."""
        with self._lock:
            self._closed = True
            for condition in self._sleepers.values():
                condition.notify()

    def _call_leader(self) -> None:
        if self._leader is not None:
            self._sleepers[self._leader].notify()

    def _unfinished(self) -> list[Wait]:
        return [wait for wait in self._sleepers if not wait.over]

    def _sleep(self, wait: Wait) -> bool:
        """Sleep until it is time for this thread to look; False: its wait is over."""
        with self._lock:
            while not wait.over:
                if self._closed:
                    self._driver.raise_lost(None, "this PQ is closed")
                if self._leader is None:
                    self._leader = wait
                now = time.monotonic()
                if self._leader is wait:
                    waits = self._unfinished()
                    wanted = max(min(each.look_at for each in waits), self._not_before)
                    pause = min(wanted, min(each.deadline for each in waits)) - now
                    if pause <= 0:
                        return True
                else:
                    pause = wait.deadline + GIVE_UP_AFTER - now
                    wait.over = pause <= 0
                self._sleepers[wait].wait(min(pause, threading.TIMEOUT_MAX))
            return False

    def _lead(self) -> None:
        began = time.monotonic()
        with self._lock:
            waits = self._unfinished()
        self._look_for(waits)
        now = time.monotonic()
        self._not_before = now + min(max(SHARE * (now - began), FIRST_PAUSE), self._poll_interval)

    def _look(self, ids: Collection[int], timeout: float) -> Iterable[Row]:
        look = self._method()
        assert look is not None  # who waits has its object
        return look(ids, timeout)

    def _look_for(self, waits: list[Wait]) -> None:
        """Look for all of these, by one statement."""
        timeout = max(0.0, min(wait.deadline for wait in waits) - time.monotonic())
        rows: dict[int, Row] | None = None
        try:
            rows = {row[ID]: row for row in self._look(set().union(*(wait.pending for wait in waits)), timeout)}
        except TimeoutError:
            pass  # they know what the look before has found
        with self._lock:
            for wait in waits:
                wait.saw(rows, self._poll_interval)
                if wait.over and wait in self._sleepers:
                    self._sleepers[wait].notify()


_rooms: WeakSet[ResultRoom] = WeakSet()


def _after_fork_in_child() -> None:
    for room in list(_rooms):
        room._reset()  # the threads stayed with the parent


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
