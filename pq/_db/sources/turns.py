"""First come, first served: the hand-over that all sources share."""

from __future__ import annotations

import math
import threading
import time
from collections import deque

from ...errors import BlockError
from ..scope import Place, here

#: Seconds after which a waiting thread looks for turns that their holders have dropped.
LOOK_AFTER = 1.0


class Turn:
    """The right to one of a limited number of things. One that its holder drops without `Turns.release` comes back by
    itself: an interrupted thread may not get as far as giving it back."""

    __slots__ = ("_turns", "called", "held", "owner")

    def __init__(self, turns: Turns, owner: Place | None) -> None:
        self._turns = turns
        self.owner = owner
        self.held = False
        self.called: threading.Lock | None = None  # a waiting thread sleeps on it

    def __del__(self) -> None:
        if getattr(self, "held", False):  # not if it was interrupted while it was made
            self._turns.dropped.append(None)  # no lock: the garbage collector may be at work anywhere


class Turns:
    """A fixed number of turns. Whoever has waited longest gets the next one.

    A semaphore would not do: the thread that gives a turn back and asks for the next one at once would overtake those
    that sleep, again and again.

    :param count: how many turns there are.
    """

    def __init__(self, count: int) -> None:
        # reentrant, since a signal handler may use this PQ, too
        self._lock = threading.RLock()
        self._free: float = count
        self._line: deque[Turn] = deque()
        self.dropped: deque[None] = deque()  # grows by one with each turn that was dropped
        self._returned = 0  # how many of these count as free

    def acquire(self, timeout: float | None = None, owner: Place | None = None) -> Turn:
        """Return a turn, which the caller must give back.

        :param timeout: seconds; None waits as long as it takes.
        :param owner: noted in the turn.
        :raises TimeoutError: no turn came in time.
        """
        turn = Turn(self, owner)
        try:
            with self._lock:
                if len(self.dropped) != self._returned:
                    self._serve()
                if self._free > 0 and not self._line:
                    self._free, turn.held = self._free - 1, True
                    return turn
                turn.called = threading.Lock()
                turn.called.acquire()
                self._line.append(turn)
            self._wait(turn, math.inf if timeout is None else time.monotonic() + timeout)
            return turn
        except BaseException:  # not later, by the end of `turn`: the traceback refers to it
            self._leave(turn)
            raise

    @property
    def exhausted(self) -> bool:
        """Whether the next one has to wait."""
        return self._free <= 0

    def release(self, turn: Turn) -> None:
        """Give a turn back. A second call does nothing."""
        with self._lock:
            if turn.held:
                self._free, turn.held = self._free + 1, False
            if self._line:
                self._serve()

    def open(self) -> None:
        """From now on there is no limit: wake all who wait."""
        with self._lock:
            self._free = math.inf
            self._serve()

    def _wait(self, turn: Turn, deadline: float) -> None:
        while True:
            remaining = min(deadline - time.monotonic(), LOOK_AFTER)
            assert turn.called is not None
            if turn.called.acquire(timeout=max(0.0, remaining)):
                return
            with self._lock:
                self._serve()
                if turn.held:
                    return
                if time.monotonic() >= deadline:
                    raise TimeoutError

    def _leave(self, turn: Turn) -> None:
        with self._lock:
            if turn in self._line:
                self._line.remove(turn)
            self.release(turn)

    def _serve(self) -> None:
        dropped = len(self.dropped)
        self._free, self._returned = self._free + dropped - self._returned, dropped  # no interrupt comes in between
        while self._line and self._free > 0:
            turn = self._line[0]
            if not turn.held:
                self._free, turn.held = self._free - 1, True
            self._line.popleft()
            assert turn.called is not None
            turn.called.release()


class FairLock:
    """A lock that one thread or, in asynchronous code, one task may take several times, as `threading.RLock`, but with
    a line of those who wait. Any thread may release it.

    :ivar turn: what the one who has taken it holds, or who took it last.
    :ivar depth: how often its owner has taken it.
    """

    def __init__(self) -> None:
        self._turns = Turns(1)
        self.turn: Turn | None = None
        self.depth = 0

    def acquire(self, timeout: float | None = None) -> None:
        """Take the lock.

        :param timeout: seconds; None waits as long as it takes.
        :raises TimeoutError: the lock was not to be had in time.
        :raises BlockError: another task of this thread has it, and could not go on to release it.
        """
        me, turn = here(), self.turn
        owner = None if turn is None or not turn.held else turn.owner
        if owner is not None and owner.thread is me.thread:
            if not owner.reaches(me):
                raise BlockError(
                    "another coroutine of this thread has a block open on the only connection of this PQ, and waiting"
                    " for that would stop the event loop: give PQ a DSN or a pool, or leave the block before an await"
                )
            self.depth += 1
            return
        self.depth, self.turn = 1, self._turns.acquire(timeout, me)

    def release(self) -> None:
        turn = self.turn
        if turn is None or not turn.held:
            return
        if self.depth > 1:
            self.depth -= 1
        else:
            self._turns.release(turn)  # interrupted, this thread still has the lock
            turn.owner = None  # a task, which may be large

    def undo(self, turn: Turn | None, depth: int) -> None:
        """Undo an `acquire` of this thread, however far it got.

        :param turn: what `turn` was before; `depth` likewise.
        """
        now = self.turn
        if now is None or not now.held or now.owner is None or now.owner.thread is not here().thread:
            return
        if now is turn:
            self.depth = depth
        else:
            self.release()

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *exc: object) -> None:
        self.release()
