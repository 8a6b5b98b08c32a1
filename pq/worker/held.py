"""The jobs that a worker holds, from the moment they are fetched until they are settled."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable

from .._jobs.settlement import Settlement
from .execution import Execution, Runner

#: Nothing more is begun while so many characters of results and errors wait to be settled.
MOST_CHARACTERS = 16_000_000


class Held:
    """What the parts of a worker share.

    A job is *open* from its fetch until it ends: first in the stock, then running. Whoever ends it (its handler, its
    timeout, a stop) takes it out of `open`, in one step, so that only one can. From then on it is *unsettled*; its
    lease goes on being extended until the completer has settled it.

    :param batch: how many are settled together, at most.
    :ivar changed: notified when there is something new for threads that wait: for stock, for room, for an end.
    :ivar stock: jobs that no thread has begun. `changed` must be held to look at it, and to take one out: then its
        `thread` is set. One that is not open any more is to be passed over.
    :ivar ended: how each unsettled job is to be settled, in the order in which they ended.
    :ivar aside: unsettled jobs that can't be settled now: their rows are locked, or the statement fails for them.
    :ivar on_end: called after a job has ended; set by the completer.
    :ivar busy_at: when a job was taken or settled for the last time; monotonic seconds.
    """

    def __init__(self, batch: int) -> None:
        self.changed: threading.Condition = threading.Condition()
        self.stock: deque[Execution] = deque()
        self.open: dict[Execution, None] = {}
        self.ended: dict[Execution, Settlement] = {}
        self.aside: dict[Execution, Settlement] = {}
        self.on_end: Callable[[Execution], object] = id
        self.busy_at: float = time.monotonic()
        self._most = max(1000, 2 * batch)
        self._characters = 0

    def add(self, executions: Iterable[Execution]) -> None:
        """These were fetched."""
        self.open.update(dict.fromkeys(executions))
        self.busy_at = time.monotonic()

    def end(self, execution: Execution, settlement: Settlement) -> bool:
        """End a job; return whether it was still open. If not, somebody else has ended it."""
        if self.open.pop(execution, self) is self:
            return False
        if settlement.result is not None or settlement.error is not None:
            with self.changed:
                self._characters += size(settlement)
        self.ended[execution] = settlement
        self.on_end(execution)
        return True

    def drop(self, execution: Execution) -> bool:
        """Hold an open job no longer, with nothing to be settled; return whether it was open."""
        return self.open.pop(execution, self) is None

    def take(self, thread: Runner) -> Execution | None:
        """Take the next job out of the stock, to be run in this thread."""
        while self.stock:
            execution = self.stock.popleft()
            if execution in self.open:
                execution.thread = thread
                return execution
        return None

    def replace(self, execution: Execution, settlement: Settlement) -> None:
        """Settle an ended job in another way."""
        with self.changed:
            self._characters += size(settlement) - size(self.ended[execution])
            self.ended[execution] = settlement

    def settled(self, executions: Iterable[Execution]) -> None:
        """These ended jobs were settled, or can't be."""
        with self.changed:
            for execution in executions:
                settlement = self.ended.pop(execution, None) or self.aside.pop(execution)
                self._characters -= size(settlement)
            self.busy_at = time.monotonic()
            self.changed.notify_all()

    @property
    def full(self) -> bool:
        """Whether so much is unsettled that nothing more may be begun."""
        return self._characters >= MOST_CHARACTERS or len(self.ended) + len(self.aside) >= self._most

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


def size(settlement: Settlement) -> int:
    """Return how many characters of a job's own a settlement has."""
    return len(settlement.result or "") + len(settlement.error or "")
