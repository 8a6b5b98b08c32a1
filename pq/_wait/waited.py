"""A queue that threads of this process wait for."""

from __future__ import annotations

import enum
import math
import threading
import time
from collections import deque
from typing import Protocol

#: Seconds of the first of several pauses; each further one is twice as long, up to the poll interval.
FIRST_PAUSE = 0.005

#: Seconds after which another thread does what the leader should have done.
LATE_CLAIM = 0.1


class Reason(enum.Enum):
    """Why a waiter is to claim from a queue."""

    TIME = "the poll interval is over"
    EVENT = "a notification came"
    SEEN = "the listening session has seen a job"
    PEEKED = "the waiter's own session has seen a job"


class Sleeper(Protocol):
    """What a queue needs of a `Waiter`."""

    called: dict[str, Reason]
    condition: threading.Condition


class WaitedQueue:
    """A queue that threads of this process wait for. The room's lock guards it.

    :ivar waiters: the one that came first at the left.
    :ivar stale: something may have happened since the listening session looked, so it must look again.
    :ivar sure: any put that the listening session did not see will notify.
    :ivar missed: a notification came that no waiter was told of.
    :ivar look_at: when the listening session looks although nothing has happened. All times are monotonic seconds.
    :ivar claim_at: when one of the waiters claims although nothing has happened.
    :ivar empty: the last look, or the last claim that told of the rest, saw no job.
    :ivar heard_at: when the last notification was read.
    :ivar until: when the queue is forgotten, since nobody waits for it.
    :ivar unsure_pause: seconds until the next look while it is not sure.
    :param unseen: a look of the listening session does not show what is waited for, and each waiter gets all of it: so
        waiters claim in its place, and all of them at once.
    """

    def __init__(self, name: str, poll_interval: float, unseen: bool = False) -> None:
        self.name = name
        self.unseen = unseen
        self.waiters: deque[Sleeper] = deque()
        self.stale = True
        self.sure = False
        self.missed = False
        self.empty = False
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

    def admit(self, waiter: Sleeper) -> None:
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
        if len(others) > 1 and not self.unseen:
            others = [next((waiter for waiter in others if not waiter.called), others[0])]
        for waiter in others:
            waiter.called[self.name] = reason
            waiter.condition.notify()

    def late_at(self, waiter: Sleeper, now: float) -> float:
        """Return when the leader is late. If it is so now, this waiter is called."""
        if self.claim_at + LATE_CLAIM <= now:
            self.claim_at = now + self._poll_interval
            waiter.called[self.name] = Reason.TIME
        return self.claim_at + LATE_CLAIM

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
        self.empty = True

    @property
    def is_seen_empty(self) -> bool:
        """Whether there was no job, and each put since then will be heard of."""
        return self.empty and self.sure and not self.stale and time.monotonic() < self.look_at

    def told(self, since: float, due_in: float | None) -> None:
        """Note that a claim took all that there was, or all that a limit allows: until a notification comes, there is
        nothing to see. A look would take its time, in which the leader does not hear the notification.

        :param since: a moment before that claim.
        :param due_in: seconds until a row becomes due; None: there is no such row.
        """
        self.empty = True
        self.stale = not self.sure or self.heard_at >= since
        if due_in is not None:
            self.look_at = min(self.look_at, time.monotonic() + due_in)
