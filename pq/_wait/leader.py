"""The leader of a waiting room: it keeps the session that listens, and tells waiters when to claim."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import TypeVar

from .._db import Aside
from .._db.known import doubt
from .._db.sources.base import Source
from .._logs import queue_log as logger
from .connections import Busy
from .schedules import NextSchedule
from .session import ListeningSession, Look, open_session
from .waited import FIRST_PAUSE, Reason, WaitedQueue

#: Seconds for which a queue's gate is kept after the last waiter has gone. Most waiters come back soon, to wait for the
#: next job, and then find the gate held. A longer time makes more puts notify nobody.
LINGER = 0.1

#: The listening session looks at least once in so many poll intervals, which shows that it is still alive. Where it
#: does not answer, the leader waits so many times as long as that took before it opens another.
CHECK = 10

Done = TypeVar("Done")


class Leader:
    """Keeps the session that listens. Only the leading thread calls `serve`; others may read `session` and `busy`.

    :ivar lock: guards the queues.
    :ivar queues: the queues that are waited for, by name; the room adds and removes them.
    :ivar session: None while there is no connection to listen on.
    :ivar next_schedule: what looks tell of schedules.
    :ivar busy: the application's single connection is in use, so there was no way to look.
    """

    def __init__(
        self,
        source: Source,
        aside: Aside | None,
        table: str,
        poll_interval: float,
        listen_dsn: str | None,
    ) -> None:
        self.lock = threading.RLock()
        self.queues: dict[str, WaitedQueue] = {}
        self.session: ListeningSession | None = None
        self.next_schedule = NextSchedule()
        self.busy = False
        self.closed = False
        self._source = source
        self._aside = aside
        self._home = source  # of the connection to listen on
        self._table = table
        self._poll_interval = poll_interval
        self._listen_dsn = listen_dsn
        self._open_at = 0.0  # monotonic seconds; when to open a session, not before
        self._pause = FIRST_PAUSE

    @property
    def shares(self) -> bool:
        """Whether the session and those who claim have a single connection: while it is busy all of them wait."""
        return self._listen_dsn is None and self._home.single

    @property
    def _sees_same(self) -> bool:
        """Whether the session certainly sees what those see who claim: they have one connection, or connections of pq's
        from one DSN."""
        return self._listen_dsn is None and (self._home.single or self._home.owned)

    def serve(self) -> list[int]:
        """Do what is to be done now, and return the file descriptors to sleep on."""
        return self._guarded(self._tend) or []

    def hear(self) -> None:
        """Tell waiters what has arrived on the session, and do nothing else: the leader may be one of them, and then
        claims before it does the rest."""
        if self.session is not None:
            self._guarded(partial(self._hear, self.session, not self.shares))

    def _guarded(self, action: Callable[[], Done]) -> Done | None:
        began = time.monotonic()
        try:
            done = action()
            self.busy = False
            return done
        except Busy:
            self.busy = True
        except self._source.driver.Error as error:
            if self._pause == FIRST_PAUSE:
                logger.warning("waiting without a listening connection for now (%s)", type(error).__name__)
            if self.session is not None and self.session.is_lost:
                doubt()  # the server may have ended the others, too, and those who claim now would be the first to know
            self._lose(time.monotonic() - began)
        except BaseException:  # nobody knows what the session holds now
            self._lose()
            raise
        return None

    def serve_at(self) -> float:
        """Return when to serve again at the latest, in monotonic seconds."""
        now = time.monotonic()
        if self.busy:
            return now + self._lengthen()
        if self._home is not self._source and (self._aside is None or self._aside.database is None):
            return now  # the application's connection has just ended, so that it is not watched
        return min((_due(queue, now) for queue in self.queues.values()), default=now)

    def vacate(self, queue: WaitedQueue) -> bool:
        """Forget a queue whose last waiter has gone: now, or in a moment, which makes this return True."""
        if self.session is None or not self.session.lingers or self.closed:
            del self.queues[queue.name]
            return False
        queue.until = time.monotonic() + LINGER
        return True

    def has_surplus(self) -> bool:
        """Return whether the session holds something that nobody needs."""
        self._forget(time.monotonic())
        return self.session is not None and (self.closed or not self.session.gates.keys() <= self.queues.keys())

    def rest(self) -> bool:
        """Close the session if nobody waits; return whether that is so."""
        with self.lock:
            if any(queue.waiters for queue in self.queues.values()):
                return False
            self._forget(math.inf)
        self._close_session()
        return True

    def _forget(self, now: float) -> None:
        """Forget queues that nobody has come back to in time."""
        for queue in [queue for queue in self.queues.values() if queue.until <= now and not queue.waiters]:
            del self.queues[queue.name]

    def _tend(self) -> list[int]:
        if self.closed:
            self._close_session()
            return []
        if self._aside is not None:
            self._choose_home(self._aside)
        if self.session is not None:
            self._hear(self.session)
        self._source.tidy()
        now = time.monotonic()
        with self.lock:
            self._forget(now)
            self._watch_the_clock(now)
            names = set(self.queues)
            stale = [queue for queue in self.queues.values() if queue.needs_look]
        if self.session is None and stale and now >= self._open_at:
            self.session = open_session(self._home, self._table, self._listen_dsn)
            if not self.session.hears:
                logger.warning("LISTEN does not work on this connection (a transaction pooler?): polling")
        if self.session is None:
            self._let_all_claim(stale)
            return []
        self.session.keep(names)
        if stale:
            self._look(self.session, stale)
        self._hear(self.session)
        return [self.session.fileno()] if self.session.hears else []

    def _choose_home(self, aside: Aside) -> None:
        """Listen on a connection of pq's own where that sees the same as the application's single one."""
        if aside.database is None and any(queue.waiters for queue in list(self.queues.values())):
            aside.renew()
        second = aside.database
        home = self._source if second is None else second.source
        if home is not self._home:
            if self.session is not None and not self.session.lingers:
                self.session.keep(())  # else the application's connection would have the gates; if it is busy, later
            self._home = home
            if self._listen_dsn is None:
                self._close_session()
            with self.lock:
                for queue in self.queues.values():
                    queue.stale = True
                    queue.sure = False

    def _watch_the_clock(self, now: float) -> None:
        """Have waiters claim whose poll interval is over, and mark the queues at which the session has to look again.

        A look takes the place of the claim where both certainly see the same. A process that has nothing to do then
        needs no connection but that of the session. Queues whose time comes soon are included, so that one statement in
        each interval serves all of them.
        """
        waited_for = [queue for queue in self.queues.values() if queue.waiters]
        soon = now + self._poll_interval / 2
        if any(queue.claim_at <= now for queue in waited_for):
            for queue in waited_for:
                if queue.claim_at <= soon:
                    queue.claim_at = now + self._poll_interval
                    if self.shares or (self._sees_same and queue.sure and not queue.unseen):
                        queue.stale = True
                    else:
                        queue.call(Reason.TIME)
        if any(queue.look_at <= now for queue in waited_for):
            for queue in waited_for:
                if queue.look_at <= (soon if queue.sure else now):
                    queue.look_at = now + self._poll_interval
                    queue.stale = True
                    if not queue.sure:  # the job may be one that the waiter's own transaction has put
                        queue.call(Reason.TIME)

    def _hear(self, session: ListeningSession, has_arrived: bool = False) -> None:
        names = session.notified(has_arrived)
        with self.lock:
            for name in names:
                if name in self.queues:
                    self.queues[name].happened()

    def _look(self, session: ListeningSession, queues: list[WaitedQueue]) -> None:
        for queue in queues:
            queue.stale = False
        try:
            looks = session.look([queue.name for queue in queues], self.next_schedule if self._sees_same else None)
        except BaseException:
            for queue in queues:
                queue.stale = True
            raise
        with self.lock:
            self._pause = FIRST_PAUSE
            for queue in queues:
                self._saw(queue, looks.get(queue.name), session.hears)

    def _saw(self, queue: WaitedQueue, look: Look | None, hears: bool) -> None:
        if look is None:  # there are more queues than gates: waiters claim from this one by the clock
            queue.sure = False
            queue.look_at = time.monotonic() + CHECK * self._poll_interval
            return
        was_sure, queue.sure = queue.sure, look.sure
        if look.sure:
            pause, queue.unsure_pause = CHECK * self._poll_interval, FIRST_PAUSE
        elif hears:
            pause = min(self._poll_interval, queue.unsure_pause)
            queue.unsure_pause = 2 * pause
        else:
            pause = self._poll_interval
        if look.due_in is not None:
            pause = min(pause, look.due_in)
        queue.look_at = time.monotonic() + pause
        if queue.unseen and look.sure and (queue.missed or not was_sure):
            queue.missed = False
            queue.call(Reason.EVENT)  # for what was committed since the last claim, and nobody has heard
        elif look.ready:
            queue.empty = False
            queue.call(Reason.SEEN)
        else:
            queue.seen_empty()

    def _let_all_claim(self, queues: Iterable[WaitedQueue]) -> None:
        """Have a waiter of each queue claim, since there is no session. Its claim raises whatever is wrong."""
        with self.lock:
            for queue in queues:
                queue.stale = queue.sure = False
                queue.look_at = self._open_at
                queue.call(Reason.TIME)

    def _lose(self, took: float = 0.0) -> None:
        """Give up the session, and with it its gates and LISTENs, until it is time to open another.

        :param took: the seconds until the error came, for which this thread could not claim.
        """
        self.busy = False
        self._open_at = time.monotonic() + max(self._lengthen(), CHECK * took)
        with self.lock:
            self._forget(math.inf)
            self._let_all_claim(self.queues.values())
        self._close_session()

    def _close_session(self) -> None:
        session, self.session = self.session, None
        if session is not None:
            session.close()

    def _lengthen(self) -> float:
        pause = min(self._pause, self._poll_interval)
        self._pause = pause * 2
        return pause


def _due(queue: WaitedQueue, now: float) -> float:
    """Return when there is something to do for a queue."""
    if not queue.waiters:
        return queue.until
    return now if queue.needs_look else min(queue.look_at, queue.claim_at)
