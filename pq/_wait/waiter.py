"""Threads that wait, and the queues that they wait for."""

from __future__ import annotations

import enum
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable
from typing import Any, Protocol, TypeVar

#: Seconds of the first of several pauses; each further one is twice as long, up to the poll interval.
FIRST_PAUSE = 0.005

#: Up to this number of queues, a claim from each costs less than it would to find out which of them have jobs.
FEW_QUEUES = 8

#: Seconds for which the answer of a look at many queues is used, at least.
PEEK_FRESH = 0.05

#: A look at many queues may take one part in so many of the time.
PEEK_SHARE = 20

Found = TypeVar("Found")


class Reason(enum.Enum):
    """Why a waiter is to claim from a queue."""

    TIME = "the poll interval is over"
    EVENT = "a notification came"
    SEEN = "the listening session has seen a job"
    PEEKED = "the waiter's own session has seen a job"


class WaitedQueue:
    """A queue that threads of this process wait for. The room's lock guards it.

    :ivar waiters: the one that came first at the left.
    :ivar stale: something may have happened since the listening session looked, so it must look again.
    :ivar sure: any put that the listening session did not see will notify.
    :ivar missed: a notification came that no waiter was told of.
    :ivar look_at: when the listening session looks although nothing has happened. All times are monotonic seconds.
    :ivar claim_at: when one of the waiters claims although nothing has happened.
    :ivar heard_at: when the last notification was read.
    :ivar until: when the queue is forgotten, since nobody waits for it.
    :ivar unsure_pause: seconds until the next look while it is not sure.
    :param unseen: a look of the listening session does not show what is waited for, and each waiter gets all of it: so
        waiters claim in its place, and all of them at once.
    """

    def __init__(self, name: str, poll_interval: float, unseen: bool = False) -> None:
        self.name = name
        self.unseen = unseen
        self.waiters: deque[Waiter] = deque()
        self.stale = True
        self.sure = False
        self.missed = False
        self.look_at = math.inf
        self.claim_at = 0.0
        self.heard_at = 0.0
        self.until = math.inf
        self.unsure_pause = FIRST_PAUSE
        self._retry_pause = FIRST_PAUSE
        self._poll_interval = poll_interval

    @property
    def needs_look(self) -> bool:
        """Whether the listening session must look now: not while a waiter is claiming."""
        return self.stale and bool(self.waiters) and not any(self.name in waiter.called for waiter in self.waiters)

    def admit(self, waiter: Waiter) -> None:
        if self.name not in waiter.called:  # it has just claimed in vain
            self.claim_at = time.monotonic() + self._poll_interval
        self.waiters.append(waiter)
        self.until = math.inf

    def happened(self) -> None:
        """Have a waiter claim, and the session look after that: a put may have brought several jobs."""
        self.stale = True
        self.missed = not self.waiters
        self.heard_at = time.monotonic()
        self.call(Reason.EVENT)

    def call(self, reason: Reason) -> None:
        """Have one waiter claim, preferably one that is asleep; all of them if each gets something of its own."""
        others = [waiter for waiter in self.waiters if self.name not in waiter.called]
        if not self.unseen:
            asleep = (waiter for waiter in others if not waiter.called)
            others = [next(asleep, others[0])] if others else []
        for waiter in others:
            waiter.called[self.name] = reason
            waiter.condition.notify()

    def claimed_in_vain(self, reason: Reason) -> None:
        """Note that a waiter's claim has found nothing.

        A job that was seen, and then could not be had, is locked. It may be so for a moment, by another claim that has
        it or makes it ready, or for long, by a transaction. So the pauses until the next try become longer.
        """
        now = time.monotonic()
        self.claim_at = now + self._poll_interval
        if reason in (Reason.SEEN, Reason.PEEKED):
            again = now + self._retry_pause
            self._retry_pause = min(2 * self._retry_pause, self._poll_interval)
            if reason is Reason.SEEN:
                self.look_at = min(self.look_at, again)
            else:
                self.claim_at = min(self.claim_at, again)

    def seen_empty(self) -> None:
        """Note that a look has seen no job."""
        self._retry_pause = FIRST_PAUSE

    def seen_full(self, since: float) -> None:
        """Note that a claim took all that a limit allows: until a notification comes, there is nothing to see.

        A look would take its time, in which the leader does not hear that a place has become free.
        """
        if self.sure and self.heard_at < since:
            self.stale = False


class Room(Protocol):
    """What a waiter needs of its `WaitingRoom`."""

    lock: Any

    def admit(self, waiter: Waiter) -> None: ...
    def wait(self, waiter: Waiter, deadline: float) -> bool: ...
    def found_empty(self, waiter: Waiter, queues: Iterable[str]) -> None: ...
    def found_full(self, waiter: Waiter, queue: str, since: float) -> None: ...
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

    def full(self, queue: str, since: float) -> None:
        """Say that a claim has found jobs, and that a limit allows no more of them: whoever ends one notifies.

        :param since: a moment before that claim, in monotonic seconds.
        """
        self._room.found_full(self, queue, since)

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
    def __enter__(self) -> Any: ...
    def __exit__(self, *exc: object) -> None: ...


def wait_for(waiter: AnyWaiter, deadline: float, claim: Callable[[str], Found]) -> Found | None:
    """Wait until a claim finds something, and return that; None if nothing was found until the deadline.

    :param deadline: in monotonic seconds.
    :param claim: called with the name of a queue; returns what it has found there, or something false.
    """
    with waiter:
        while waiter.wait(deadline):
            for queue in waiter.ready():
                if found := claim(queue):
                    return found
                waiter.empty(queue)
    return None
