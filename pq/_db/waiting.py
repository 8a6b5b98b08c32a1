"""Waiting for a queue: no polling in the normal case, and no put missed.

NOTIFY takes an instance-wide lock at commit, so a put notifies only if somebody waits. Waiters say so by an advisory
lock, the queue's *gate*, which all of them hold shared.

    put (trigger, after the insert)             waiter
    P1  insert                                W1  take the gate, shared
    P2  is the gate free?                     W2  LISTEN
        (take it exclusively, give it back)   W3  note the transactions now writing (a snapshot's xip)
    P3  if not: NOTIFY                        W4  look for a job
    P4  commit: row and NOTIFY at once        W5  sleep until notified, a row is due, or time to look again: soon
                                                  (5 ms, doubling) while noted transactions still run

Why no put is missed. Take a put that W4 did not see: it commits after W4 looked, hence after W2. If it found the gate
taken at P2, it notifies at P4, after W2: W5 wakes. If it found the gate free, P2 was before W1, and its transaction was
writing (P1 is before P2) from before W1 until after W4: so W3 noted it, and W5 looks again until it has ended, with a
snapshot that shows its row. Whatever starts after W3 finds the gate taken.

A noted transaction may have nothing to do with queues, and may last. It costs looks, at most one in each poll interval,
which is the bound on all that no notification tells: rows that come back by another consumer's rollback, or updated
by hand.

One session per PQ and process listens for all waiting threads. One of these, the *leader*, sits on it; the others sleep
on a condition each. An event calls one waiter of the queue, not all; when that one has found a job, or has gone away, the
leader looks whether there are more and calls the next. There is no thread of its own, so there is none to leak.

Behind a transaction pooler a session's locks and LISTEN would land on somebody else's server session. There the leader
only looks, once in each poll interval.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .. import _sql
from .line import Line, open_line
from .psycopg2_driver import wait_readable

if TYPE_CHECKING:
    from .database import Database
    from .sources import Source

logger = logging.getLogger("pq")

#: Seconds of the first pause while a put may be under way that will not notify; each further one is twice as long.
FIRST_PAUSE = 0.005

#: Seconds until a lost listening connection is replaced.
RETRY = 0.1


class Channel:
    """A queue that threads of this process wait for."""

    def __init__(self, queue: str) -> None:
        self.queue = queue
        self.waiters: deque[Waiter] = deque()
        self.key: int | None = None  # of the gate that we hold
        self.writing: frozenset[int] = frozenset()  # noted transactions that may be running still
        self.open = False  # W1 to W3 are done
        self.look_at = 0.0  # monotonic seconds
        self.pause = FIRST_PAUSE
        self.stale = False  # something happened since the leader looked
        self.called = 0  # waiters that are out to look

    def call(self) -> None:
        """Send one waiter to look."""
        for waiter in self.waiters:
            if not waiter.called and not waiter.looking:
                waiter.called = True
                waiter.condition.notify()
                self.called += 1
                return


class Waiter:
    """A thread's place among those that wait for a queue. A context manager: leaving it gives the place up."""

    def __init__(self, room: WaitingRoom, channel: Channel) -> None:
        self._room = room
        self.channel = channel
        self.condition = threading.Condition(room.lock)
        self.called = False
        self.looking = False

    def wait(self, deadline: float) -> bool:
        """True when it is time to look for a job, False when the deadline (monotonic seconds) has passed."""
        return self._room.wait(self, deadline)

    def __enter__(self) -> Waiter:
        return self

    def __exit__(self, *exc: object) -> None:
        self._room.leave(self)


class WaitingRoom:
    """All threads of this process that wait for queues of one table."""

    def __init__(self, source: Source, table: str, poll_interval: float, listen_dsn: str | None) -> None:
        self._source = source
        self._table = table
        self._poll_interval = poll_interval
        self._listen_dsn = listen_dsn
        self._reset()
        if hasattr(source, "add_room"):
            source.add_room(self)

    def _reset(self) -> None:
        self._pid = os.getpid()
        self.lock = threading.RLock()
        self._channels: dict[str, Channel] = {}
        self._leader: Waiter | None = None
        self._line: Line | None = None
        self._line_retry_at = 0.0
        self._bell: Bell | None = None

    # -- what waiting threads call

    def enter(self, queue: str) -> Waiter:
        if self._pid != os.getpid():
            self._reset()  # locks and threads of the parent mean nothing here
        with self.lock:
            channel = self._channels.setdefault(queue, Channel(queue))
            waiter = Waiter(self, channel)
            channel.waiters.append(waiter)
            if len(channel.waiters) == 1:
                self._ring()
            return waiter

    def wait(self, waiter: Waiter, deadline: float) -> bool:
        with self.lock:
            self._looked(waiter, found=False)
            try:
                while not waiter.called:
                    remaining = deadline - time.monotonic()
                    if remaining <= 0:
                        return False
                    if self._leader is None:
                        self._lead(waiter, deadline)
                    else:
                        waiter.condition.wait(min(remaining, threading.TIMEOUT_MAX))
                waiter.called = False
                waiter.looking = True
                return True
            finally:
                self._appoint(waiter)

    def leave(self, waiter: Waiter) -> None:
        if self._pid != os.getpid():
            return
        with self.lock:
            if waiter.called:  # it never looked
                waiter.called, waiter.looking = False, True
            self._looked(waiter, found=True)
            waiter.channel.waiters.remove(waiter)
            if self._leader is not None:
                self._ring()
            elif not waiter.channel.waiters:
                self._leader = waiter
                try:
                    self._unlocked(self._close_empty)
                finally:
                    self._leader = None
            self._appoint(waiter)

    def look_again(self) -> None:
        """Something may have changed that no notification tells."""
        with self.lock:
            for channel in self._channels.values():
                channel.stale = True
            self._ring()

    def hear(self) -> None:
        """A notification may have been read from the line by somebody else."""
        line, bell = self._line, self._bell
        if self._leader is not None and line is not None and bell is not None and line.pending():
            bell.ring()

    def close(self) -> None:
        with self.lock:
            for channel in self._channels.values():
                for _ in channel.waiters:
                    channel.call()
            self._ring()
            if self._line is not None and self._pid == os.getpid():
                self._line.close()
            self._line = None

    # -- who leads

    def _looked(self, waiter: Waiter, found: bool) -> None:
        """A called waiter has looked. If it found a job there may be more; if it leaves, another has to look."""
        if waiter.looking:
            waiter.looking = False
            waiter.channel.called -= 1
            if found:
                waiter.channel.stale = True
            self._ring()

    def _appoint(self, leaving: Waiter) -> None:
        """Have another waiter lead, if nobody does."""
        if self._leader is None:
            for channel in self._channels.values():
                for waiter in channel.waiters:
                    if waiter is not leaving and not waiter.called and not waiter.looking:
                        waiter.condition.notify()
                        return

    def _ring(self) -> None:
        """Wake the leader: there is something to do."""
        if self._leader is not None and self._bell is not None:
            self._bell.ring()

    def _unlocked(self, action: Callable[..., Any], *args: Any) -> Any:
        """Do something that takes time; meanwhile nobody else leads."""
        self.lock.release()
        try:
            return action(*args)
        finally:
            self.lock.acquire()

    # -- what the leader does

    def _lead(self, waiter: Waiter, deadline: float) -> None:
        self._leader = waiter
        if self._bell is None:
            self._bell = Bell()
        try:
            while not waiter.called:
                now = time.monotonic()
                if now >= deadline:
                    return
                self._unlocked(self._tend, now)
                if waiter.called:
                    return
                until = min([deadline, *(c.look_at for c in self._channels.values())])
                if any(c.stale and not c.called for c in self._channels.values()):
                    continue
                self._unlocked(self._sleep, until)
                for channel in self._heard():
                    channel.stale = True
                    channel.call()
        finally:
            self._leader = None

    def _sleep(self, until: float) -> None:
        fds = [self._bell.fileno()] if self._bell is not None else []
        if self._line is not None:
            if self._line.pending():
                return
            fds.append(self._line.fileno())
        wait_readable(tuple(fds), until - time.monotonic())
        if self._bell is not None:
            self._bell.silence()

    def _heard(self) -> list[Channel]:
        """The channels that were notified since."""
        if self._line is None:
            return []
        try:
            keys = self._line.notified()
        except Exception as error:
            self._lose(error)
            return []
        return [channel for channel in self._channels.values() if channel.key in keys]

    def _tend(self, now: float) -> None:
        """Open, look at and close channels, as need be."""
        self._close_empty()
        with self.lock:
            due = [c for c in self._channels.values() if c.look_at <= now or (c.stale and not c.called)]
        for channel in due:
            line = None
            try:
                line = self._connected(now)
                if line is None:
                    self._look_blindly(channel, now)
                elif channel.open:
                    self._look(line, channel, now)
                else:
                    self._open(line, channel, now)
            except TimeoutError:  # the single connection is busy with another thread's transaction
                with self.lock:
                    channel.look_at = now + self._lengthen(channel)
            except self._source.driver.Error as error:
                if line is None or line.is_lost(error):
                    self._lose(error)
                self._look_blindly(channel, now)
            except BaseException:  # nobody knows what the session holds now
                self._lose(None)
                raise

    def _open(self, line: Line, channel: Channel, now: float) -> None:
        """W1 to W3, and W4 by a waiter."""
        if line.hears:
            channel.key = line.take_gate(channel.queue)
        if line.hears and channel.key is None:  # a put is just at P2, or the table is not there
            self._look_blindly(channel, now)
            with self.lock:
                channel.look_at = now + self._lengthen(channel)
            return
        writing, due_in, _ = line.listen_and_look(channel.queue, channel.key)
        with self.lock:
            channel.open = True
            channel.writing = frozenset(writing) if line.hears else frozenset()
            channel.stale = False
            self._plan(channel, due_in)
            channel.call()

    def _look(self, line: Line, channel: Channel, now: float) -> None:
        with self.lock:
            channel.stale = False
        writing, due_in, ready = line.look(channel.queue)
        with self.lock:
            channel.writing &= frozenset(writing)
            self._plan(channel, due_in)
            if ready or (due_in is not None and due_in <= 0):
                channel.call()

    def _plan(self, channel: Channel, due_in: float | None) -> None:
        """When to look next."""
        pause = self._poll_interval
        if channel.writing:
            pause = self._lengthen(channel)
        if due_in is not None and due_in > 0:
            pause = min(pause, due_in)
        channel.look_at = time.monotonic() + pause

    def _lengthen(self, channel: Channel) -> float:
        pause = min(channel.pause, self._poll_interval)
        channel.pause = pause * 2
        return pause

    def _look_blindly(self, channel: Channel, now: float) -> None:
        """Without a line: have a waiter look, which sees for itself what is wrong."""
        with self.lock:
            channel.stale = False
            channel.look_at = now + self._poll_interval
            if self._line is None:
                channel.look_at = min(channel.look_at, self._line_retry_at)
            channel.call()

    def _close_empty(self) -> None:
        with self.lock:
            empty = [c for c in self._channels.values() if not c.waiters]
            for channel in empty:
                del self._channels[channel.queue]
        for channel in empty:
            if self._line is not None and channel.key is not None:
                try:
                    self._line.leave_gate(channel.key)
                except TimeoutError:
                    pass
                except self._source.driver.Error as error:
                    self._lose(error)

    # -- the line

    def _connected(self, now: float) -> Line | None:
        if self._line is None and now >= self._line_retry_at:
            self._line = open_line(self._source, self._table, self._listen_dsn)
            if self._line is None:
                self._line_retry_at = now + self._poll_interval
            elif not self._line.hears:
                logger.warning("LISTEN does not work on this connection (a transaction pooler?): pq polls")
        return self._line

    def _lose(self, error: Exception | None) -> None:
        """The line broke, and with it all gates and LISTENs."""
        if error is not None:
            logger.warning("the listening connection was lost: %s", type(error).__name__)
        with self.lock:
            line, self._line = self._line, None
            self._line_retry_at = time.monotonic() + RETRY
            for channel in self._channels.values():
                channel.open, channel.key, channel.look_at = False, None, 0.0
        if line is not None:
            line.close()


class Bell:
    """Wakes a thread that sleeps on file descriptors."""

    def __init__(self) -> None:
        self._out, self._in = os.pipe()
        os.set_blocking(self._out, False)
        os.set_blocking(self._in, False)
        weakref.finalize(self, _close_all, self._out, self._in)

    def fileno(self) -> int:
        return self._out

    def ring(self) -> None:
        try:
            os.write(self._in, b"\0")
        except BlockingIOError:
            pass  # it is ringing

    def silence(self) -> None:
        try:
            while os.read(self._out, 4096):
                pass
        except BlockingIOError:
            pass


def _close_all(*fds: int) -> None:
    for fd in fds:
        os.close(fd)


class Polling:
    """Waiting on a connection that can't listen, since the waiting thread's own transaction is open on it."""

    def __init__(self, database: Database, poll_interval: float, queue: str) -> None:
        self._database = database
        self._poll_interval = poll_interval
        self._queue = queue
        self._pause = FIRST_PAUSE
        self._sql = _sql.bound("waiting.sql", database.table)["look"]

    def wait(self, deadline: float) -> bool:
        """As `Waiter.wait`."""
        ((_, due_in, _),) = self._database.execute(self._sql, {"queue": self._queue})
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            return False
        pause = min(self._pause, self._poll_interval, remaining)
        if due_in is not None and due_in > 0:
            pause = min(pause, due_in)
        time.sleep(pause)
        self._pause *= 2
        return True

    def __enter__(self) -> Polling:
        return self

    def __exit__(self, *exc: object) -> None:
        pass
