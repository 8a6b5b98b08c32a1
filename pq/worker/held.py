"""The jobs that a worker holds, from the moment they are fetched until they are settled."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable

from .._jobs.settlement import Settlement
from .execution import Execution

#: Seconds after which a job that has ended is settled at the latest, if the database allows.
LINGER = 0.01

#: Nothing more is begun while so many characters of results and errors wait to be settled.
MAX_CHARACTERS = 16_000_000


class Held:
    """What the parts of a worker share.

    A job is *open* from its fetch until it ends: first in the stock, then running. Whoever ends it (its handler, its
    timeout, a stop) takes it out of `open`, in one step, so that only one can. From then on it is *unsettled*; its
    lease goes on being extended until the completer has settled it.

    :param batch: how many are settled together, at most.
    :ivar changed: notified when there is something new for threads that wait: for stock, for room, for an end.
    :ivar lock: that of `changed`, which takes a third of the time where nothing is notified.
    :ivar stock: jobs that no thread has begun. `changed` must be held to look at it, and to take one out: then its
        `thread` is set. One that is not open any more is to be passed over.
    :ivar ended: how each unsettled job is to be settled, in the order in which they ended.
    :ivar aside: unsettled jobs that can't be settled now: their rows are locked, or the statement fails for them.
    :ivar full: so much is unsettled that nothing more may be begun.
    :ivar wake: called after a job has ended, with the moment at which it is to be settled at the latest.
    :ivar busy_at: when a job was taken or settled for the last time; monotonic seconds.
    """

    def __init__(self, batch: int) -> None:
        self.lock: threading.RLock = threading.RLock()
        self.changed: threading.Condition = threading.Condition(self.lock)
        self.stock: deque[Execution] = deque()
        self.open: dict[Execution, None] = {}
        self.ended: dict[Execution, Settlement] = {}
        self.aside: dict[Execution, Settlement] = {}
        self.full: bool = False
        self.wake: Callable[[float], object] = id
        self.busy_at: float = time.monotonic()
        self._batch = batch
        self._most = max(1000, 2 * batch)
        self._characters = 0

    def add(self, executions: Iterable[Execution]) -> None:
        """These were fetched."""
        self.open.update(dict.fromkeys(executions))
        self.busy_at = time.monotonic()

    def end(self, execution: Execution, settlement: Settlement) -> bool:
        """End a job; return whether it was still open. If not, somebody else has ended it.

        It is settled at once if the worker holds no other job, a whole batch has ended, or it has a place; else it
        waits `LINGER` for company.
        """
        if self.open.pop(execution, self) is self:
            return False
        self.ended[execution] = settlement
        if size := settlement.size:
            with self.lock:
                execution.size = size
                self._characters += execution.size
        count = len(self.ended)
        if count + len(self.aside) >= self._most or self._characters >= MAX_CHARACTERS:
            self.full = True
        if not self.open or count >= self._batch or self.full or execution.has_place:
            self.wake(0.0)
        else:
            self.wake((execution.ended or time.monotonic()) + LINGER)
        return True

    def drop(self, execution: Execution) -> bool:
        """Hold an open job no longer, with nothing to be settled; return whether it was open."""
        return self.open.pop(execution, self) is None

    def replace(self, execution: Execution, settlement: Settlement) -> None:
        """Settle an ended job in another way."""
        with self.changed:
            self._characters -= execution.size
            execution.size = settlement.size
            self._characters += execution.size
            self.ended[execution] = settlement

    def move(self, execution: Execution, aside: bool) -> bool:
        """Set an unsettled job aside, or take it back; return whether it was there. `changed` must be held."""
        here, there = (self.ended, self.aside) if aside else (self.aside, self.ended)
        settlement = here.pop(execution, None)
        if settlement is not None:
            there[execution] = settlement
        return settlement is not None

    def settled(self, executions: Iterable[Execution]) -> set[Execution]:
        """These were settled, or can't be; return those that were unsettled until now."""
        with self.changed:
            found = {each for each in executions if self.ended.pop(each, None) or self.aside.pop(each, None)}
            self._characters -= sum(each.size for each in found)
            count = len(self.ended) + len(self.aside)
            self.full = count >= self._most or self._characters >= MAX_CHARACTERS
            self.busy_at = time.monotonic()
            self.changed.notify_all()
        return found

    def wait(self, condition: Callable[[], bool], left: Callable[[], float]) -> None:
        """Wait until a condition holds.

        :param left: tells for how many seconds to wait.
        """
        with self.changed:
            while not condition() and (seconds := left()):
                self.changed.wait(min(seconds, 0.02))

    def running(self) -> list[Execution]:
        """Return the jobs that have begun and not ended."""
        return [execution for execution in list(self.open) if execution.thread is not None]

    def unsettled(self) -> list[Execution]:
        """Return the jobs that have ended and are not settled."""
        return [*list(self.ended), *list(self.aside)]

    def all(self) -> list[Execution]:
        """Return the jobs whose leases are to be extended."""
        return [*list(self.open), *self.unsettled()]

    def __bool__(self) -> bool:
        """Whether the worker holds any job, settled ones excepted."""
        return bool(self.open or self.ended or self.aside)
