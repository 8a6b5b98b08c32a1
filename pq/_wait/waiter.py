"""A thread that waits."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Collection, Iterable
from datetime import timedelta
from typing import Any, Protocol, TypeVar

from .waited import Reason

#: Up to this number of queues, a claim from each costs less than it would to find out which of them have jobs.
FEW_QUEUES = 8

#: Seconds for which the answer of a look at many queues is used, at least.
PEEK_FRESH = 0.05

#: A look at many queues may take one part in so many of the time.
PEEK_SHARE = 20

Found = TypeVar("Found")


class Room(Protocol):
    """What a waiter needs of its `WaitingRoom`."""

    lock: Any

    def admit(self, waiter: Waiter) -> None: ...
    def wait(self, waiter: Waiter, deadline: float) -> bool: ...
    def found_empty(self, waiter: Waiter, queues: Iterable[str]) -> None: ...
    def told(self, waiter: Waiter, queue: str, since: float, due_in: float | None) -> None: ...
    def is_seen_empty(self, queue: str) -> bool: ...
    def cancel(self, waiter: Waiter) -> None: ...
    def leave(self, waiter: Waiter) -> None: ...


class Waiter:
    """Waits for jobs in one or more queues: a context manager, for one thread at a time.

    Claim first, and enter the ``with`` block only when that found nothing. Inside, puts to these queues notify this
    process, which costs them time: leave the block while you don't want jobs. It can be entered again. For a moment
    after it was left the gates are kept, so that entering it again costs nothing.

        waiter = table.waiter_for_all(names)
        while True:
            for name in waiter.ready():        # of many queues, those that a look has shown to have jobs
                if jobs := claim(name):
                    return jobs
                waiter.empty(name)
            with waiter:
                waiter.wait(deadline)

    :param peek: returns those of the given queues that have a ready job, as the connection of a claim sees them.
    :param unseen: the queues of which a look does not show what is waited for; see `WaitedQueue`.
    :ivar called: the queues that this thread is to claim from, and why.
    :ivar last: it was told to claim once more, at its deadline.
    """

    def __init__(
        self,
        room: Room,
        queues: Iterable[str],
        peek: Callable[[Collection[str]], Collection[str]],
        unseen: Collection[str] = (),
    ) -> None:
        self.queues: tuple[str, ...] = tuple(dict.fromkeys(queues))
        self.condition: threading.Condition = threading.Condition(room.lock)
        self.called: dict[str, Reason] = {}
        self.last = False
        self.cancelled = False
        self._room = room
        self._peek = peek
        self.unseen = unseen
        self._woken = False
        self._peek_at = 0.0

    def wait(self, deadline: float) -> bool:
        """Sleep until there may be a job; `ready` then says in which queues.

        :param deadline: in monotonic seconds.
        :returns: False if the deadline has passed, or `cancel` was called.
        :raises ConnectionLost: the PQ was closed.
        """
        self._woken = self._room.wait(self, deadline)
        return self._woken

    def ready(self) -> list[str]:
        """Return the queues that are worth a claim, in the order in which they were given.

        Just after `wait` these are the queues that something was heard of. Otherwise (before the first `wait`, or after
        claims that found jobs) these are all queues if they are few. If they are many, they are those that had jobs
        when this was last looked up: by one statement, a moment ago, or now. A queue is returned again until `empty`
        is called for it.

        :raises Error: the look failed; the errors are those of a claim.
        """
        if self._woken:
            self._woken = False
            if len(called := list(self.called)) == 1:
                return called
        elif len(self.queues) <= FEW_QUEUES:
            return list(self.queues)
        elif time.monotonic() >= self._peek_at:
            with self._room.lock:
                self.called = {**dict.fromkeys(self.queues, Reason.TIME), **self.called}
        self._look_myself()
        with self._room.lock:
            return list(self.called) if len(self.called) <= 1 else [name for name in self.queues if name in self.called]

    def empty(self, queue: str) -> None:
        """Say that a claim has found nothing in a queue. It is not `ready` until something happens."""
        self._room.found_empty(self, [queue])

    def told(self, queue: str, since: float, due_in: float | None = None, lease: timedelta | None = None) -> None:
        """Say that a claim has found jobs, and that there were no others, or a limit allows no more: whoever ends a job
        of such a queue notifies.

        :param since: a moment before that claim, in monotonic seconds.
        :param due_in: seconds until a row becomes due that the claim has not taken; None: there is no such row.
        :param lease: of the jobs.
        """
        if lease is not None:
            due_in = min(lease.total_seconds(), math.inf if due_in is None else due_in)
        self._room.told(self, queue, since, due_in)

    def is_seen_empty(self, queue: str) -> bool:
        """Return whether a queue had no job, or none that a limit allows, and what changes that will be heard of: so no
        claim is needed before `wait`."""
        return self._room.is_seen_empty(queue)

    def is_notified(self, queue: str) -> bool:
        """Return whether a notification has called this thread to a queue: there is a job that somebody waits for."""
        return self.called.get(queue) is Reason.EVENT

    def cancel(self) -> None:
        """End `wait`, now and in the future. Any thread may call this."""
        self._room.cancel(self)

    def _look_myself(self) -> None:
        """Find out by one statement which of several queues have jobs, instead of a claim from each."""
        with self._room.lock:
            asked = [name for name, reason in self.called.items() if reason is Reason.TIME]
        if len(asked) < 2:
            return
        began = time.monotonic()
        seen = frozenset(self._peek(asked))
        ended = time.monotonic()
        self._peek_at = ended + max(PEEK_FRESH, PEEK_SHARE * (ended - began))
        with self._room.lock:
            still = [name for name in asked if self.called.get(name) is Reason.TIME]
            self.called |= dict.fromkeys(seen.intersection(still), Reason.PEEKED)
            self._room.found_empty(self, [name for name in still if name not in seen])

    def __enter__(self) -> Waiter:
        try:
            self._room.admit(self)
            return self
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *exc: object) -> None:
        try:
            self._room.leave(self)
        except BaseException:  # interrupted: nobody else would do it
            self._room.leave(self)
            raise


class AnyWaiter(Protocol):
    """A `Waiter`, or a `Polling`."""

    def wait(self, deadline: float) -> bool: ...
    def ready(self) -> list[str]: ...
    def empty(self, queue: str) -> None: ...
    def is_seen_empty(self, queue: str) -> bool: ...
    def __enter__(self) -> Any: ...
    def __exit__(self, *exc: object) -> None: ...


def wait_for(
    waiter: AnyWaiter, deadline: float, claim: Callable[[str], Found], seen_empty: str | None = None
) -> Found | None:
    """Wait until a claim finds something, and return that; None if nothing was found until the deadline.

    :param deadline: in monotonic seconds.
    :param claim: called with the name of a queue; returns what it has found there, or something false.
    :param seen_empty: the name of a queue from which nobody has claimed, since it was seen empty. If that does not hold
        any more, once this thread waits, there is a claim at once: the application's single connection may see other
        rows by now than those on which threads wait.
    """
    with waiter:
        if seen_empty is not None and not waiter.is_seen_empty(seen_empty) and (found := claim(seen_empty)):
            return found
        while waiter.wait(deadline):
            for queue in waiter.ready():
                if found := claim(queue):
                    return found
                waiter.empty(queue)
    return None
