"""What the leader of a waiting room does: keep the line, and look at the queues that threads wait for."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Iterable

from .._db.sources.base import Source
from .session import Busy, Line, Look, open_line
from .waiter import Waiter

logger = logging.getLogger("pq")

#: Seconds for which a queue's gate is kept when the last waiter has gone. Most come again soon, to wait for the next
#: job, and need not leave it and take it. The longer, the more puts notify nobody.
LINGER = 0.1

#: Seconds of a first pause; each further one is twice as long, up to the poll interval.
FIRST_PAUSE = 0.005


class WaitedQueue:
    """A queue that threads of this process wait for. Guarded by the room's lock."""

    def __init__(self, queue: str, look_at: float) -> None:
        self.queue = queue
        self.waiters: deque[Waiter] = deque()
        self.stale = True  # the leader has to look: something may have happened since it did
        self.sure = False  # a put from now on will notify
        self.look_at = look_at  # monotonic seconds; when to look although nothing has happened
        self.pause = FIRST_PAUSE
        self.until = math.inf  # monotonic seconds; nobody waits, and then it is forgotten

    @property
    def needs_look(self) -> bool:
        """Not while a waiter is out to look."""
        return self.stale and bool(self.waiters) and not any(waiter.called for waiter in self.waiters)

    def happened(self) -> None:
        """Something that may have brought a job: a waiter looks at once, and the leader when that one is back."""
        self.stale = True
        self.call()

    def call(self) -> None:
        """Send one waiter to look."""
        for waiter in self.waiters:
            if not waiter.called:
                waiter.called = True
                waiter.condition.notify()
                return


class Listener:
    """Keeps the line. Only the leader uses it, but for `line` and `busy`, which others may read.

    :ivar lock: guards the channels.
    :ivar channels: by queue; the room adds and removes them.
    """

    def __init__(self, source: Source, table: str, poll_interval: float, listen_dsn: str | None) -> None:
        self.lock = threading.RLock()
        self.channels: dict[str, WaitedQueue] = {}
        self.line: Line | None = None
        self.busy = False  # the single connection could not be had
        self.closed = False
        self._source = source
        self._table = table
        self._poll_interval = poll_interval
        self._listen_dsn = listen_dsn
        self._line_at = 0.0  # monotonic seconds; when to open a line, not before
        self._pause = FIRST_PAUSE

    def serve(self) -> list[int]:
        """See to the line and the channels; returns the file descriptors to listen on."""
        try:
            fds = self._tend()
            self.busy = False
            return fds
        except Busy:
            self.busy = True
        except self._source.driver.Error as error:
            if self._pause == FIRST_PAUSE:
                logger.warning("waiting without a listening connection for now (%s)", type(error).__name__)
            self._lose()
        except BaseException:  # nobody knows what the session holds now
            self._lose()
            raise
        return []

    def look_at(self) -> float:
        """When to serve again at the latest, in monotonic seconds."""
        now = time.monotonic()
        if self.busy:
            return now + self._lengthen()
        times = (now if c.needs_look else c.look_at if c.waiters else c.until for c in self.channels.values())
        return min(times, default=now)

    def vacate(self, channel: WaitedQueue) -> bool:
        """Its last waiter has gone. Whether it is kept for a while."""
        if self.line is None or not self.line.lingers or self.closed:
            del self.channels[channel.queue]
            return False
        channel.until = time.monotonic() + LINGER
        return True

    def superfluous(self) -> bool:
        """Whether there is something to give up."""
        self._forget(time.monotonic())
        return self.line is not None and (self.closed or not self.line.gates.keys() <= self.channels.keys())

    def _forget(self, now: float) -> None:
        """Forget channels that nobody has come back to in time."""
        for channel in list(self.channels.values()):
            if not channel.waiters and channel.until <= now:
                del self.channels[channel.queue]

    def _tend(self) -> list[int]:
        now = time.monotonic()
        if self.closed:
            self._hang_up()
            return []
        if self.line is not None:
            self._hear(self.line)
        self._source.tidy()
        with self.lock:
            self._forget(now)
            # if one of them is to be looked at, others go along: one statement in each interval, not one for each
            waited_for = [channel for channel in self.channels.values() if channel.waiters]
            is_time = any(channel.look_at <= now for channel in waited_for)
            soon = now + self._poll_interval / 2 if is_time else now
            for channel in waited_for:
                if channel.look_at <= (soon if channel.sure else now):
                    channel.look_at = now + self._poll_interval
                    if channel.sure:
                        channel.stale = True
                    else:  # the row may be one that the waiter's own transaction has put
                        channel.happened()
            queues = set(self.channels)
            stale = [channel for channel in self.channels.values() if channel.needs_look]
        if self.line is None and stale and now >= self._line_at:
            self.line = open_line(self._source, self._table, self._listen_dsn)
            if not self.line.hears:
                logger.warning("LISTEN does not work on this connection (a transaction pooler?): polling")
        if self.line is None:
            self._look_blindly(stale)
            return []
        self.line.keep(queues)
        if stale:
            self._look(self.line, stale)
        self._hear(self.line)
        return [self.line.fileno()] if self.line.hears else []

    def _hear(self, line: Line) -> None:
        queues = line.notified()
        with self.lock:
            for queue in queues:
                if queue in self.channels:
                    self.channels[queue].happened()

    def _look(self, line: Line, channels: list[WaitedQueue]) -> None:
        for channel in channels:
            channel.stale = False
        try:
            looks = line.look([channel.queue for channel in channels])
        except BaseException:
            for channel in channels:
                channel.stale = True
            raise
        with self.lock:
            self._pause = FIRST_PAUSE
            for channel in channels:
                self._saw(line, channel, looks[channel.queue])

    def _saw(self, line: Line, channel: WaitedQueue, look: Look) -> None:
        channel.sure = look.sure
        pause = self._poll_interval
        if line.hears and not look.sure:
            pause = min(pause, channel.pause)
            channel.pause *= 2
        if look.due_in is not None:
            pause = min(pause, look.due_in)
        channel.look_at = time.monotonic() + pause
        if look.ready:
            channel.call()

    def _look_blindly(self, channels: Iterable[WaitedQueue]) -> None:
        """Without a line: have waiters look, which see for themselves what is wrong."""
        with self.lock:
            for channel in channels:
                channel.stale = channel.sure = False
                channel.look_at = min(channel.look_at, self._line_at)
                channel.call()

    def _lose(self) -> None:
        """Be without a line, and thus without gates and LISTENs, until it is time to open another."""
        self.busy = False
        self._line_at = time.monotonic() + self._lengthen()
        with self.lock:
            self._forget(math.inf)
            self._look_blindly(self.channels.values())
        self._hang_up()

    def _hang_up(self) -> None:
        line, self.line = self.line, None
        if line is not None:
            line.close()

    def _lengthen(self) -> float:
        pause = min(self._pause, self._poll_interval)
        self._pause = pause * 2
        return pause
