"""One connection of the application's."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from threading import Lock
from typing import Any, Protocol
from weakref import ref

from ...errors import BlockError
from ..drivers.detect import driver_of
from .base import Given
from .turns import FairLock


# each is asked of each statement, and reads all of it, which takes microseconds; there are some dozens of statements
@lru_cache(maxsize=256)
def makes_ready(sql: str) -> bool:
    """Return whether a statement of pq can make jobs ready: it puts some, or notifies of others as a put does."""
    return "insert into" in sql or "pg_notify" in sql


@lru_cache(maxsize=256)
def ends_jobs(sql: str) -> bool:
    """Return whether a statement of pq ends jobs, so that a trigger may make others ready: those that follow them, or
    have their key, or get their place under a limit. Not a claim that deletes what it takes: a claim is made after each
    look, and the two would follow each other for ever."""
    return "finished_at = " in sql or (sql.startswith("delete from") and "skip locked" not in sql)


class Room(Protocol):
    """What a single connection tells the threads that wait on it."""

    def hear(self) -> None: ...
    def look_again(self, if_shared: bool = False) -> None: ...
    def check_again(self, conn: Any) -> None: ...


class SingleConnection(Given):
    """One connection, shared by the application's threads: a transaction of one makes the others wait, in the order in
    which they came."""

    replaceable = False
    single = True
    hears_in_transactions = False

    def __init__(self, conn: Any) -> None:
        self.driver = driver_of(conn)
        super().__init__(conn)
        self._lock = FairLock()
        self._rooms: tuple[ref[Room], ...] = ()
        self._rooms_lock = Lock()

    @property
    def capacity(self) -> float:
        return 1

    @property
    def conn(self) -> Any:
        return self._given()

    def acquire(self, timeout: float | None = None, into: Any = None) -> Any:
        self.check_process()
        turn, depth = self._lock.turn, self._lock.depth
        try:
            self._lock.acquire(timeout)
            if self._lock.depth > 1 and any(not transaction.over for transaction in self.open_transactions()):
                raise BlockError(
                    "a block of pq is open on the only connection of this PQ, in a context that this code does not"
                    " see: give PQ a DSN or a pool, or pass the connection itself with pq.bind(conn) or conn="
                )
            if not self.driver.alive(self.conn):
                self.driver.raise_lost(None, "the connection given to PQ is closed")
            return self.conn
        except BaseException:
            self._lock.undo(turn, depth)  # interrupted, it may have been acquired or not
            raise

    def release(self, conn: Any, lost: bool = False) -> None:
        self._lock.release()
        for each in self._rooms:  # what they sleep for may just have been read from the socket
            if (room := each()) is not None:
                room.hear()

    def open_listening_connection(self) -> Any:
        return None

    @property
    def rests(self) -> bool:
        turn, conn = self._lock.turn, self.conn
        return not (turn is not None and turn.held) and not conn.closed and self.driver.idle(conn)

    def exclusive(self, conn: Any) -> AbstractContextManager[Any]:
        return self._lock if conn is self.conn else nullcontext()

    def puts_off(self, conn: Any, hot: bool) -> bool:
        return not conn.autocommit and self.driver.idle(conn)  # as the driver does

    def executed(self, sql: str) -> None:
        if makes_ready(sql):
            self._look_again()
        elif ends_jobs(sql):
            self._look_again(if_shared=True)

    def committed(self, conn: Any) -> None:
        for each in self._rooms:
            if (room := each()) is not None:
                room.check_again(conn)  # now: later it could meet the next transaction of the application
        self._look_again()

    def _look_again(self, if_shared: bool = False) -> None:
        # The gate and the put belong to one server session, to which its own lock is no obstacle: the trigger can't
        # know that somebody waits.
        for each in self._rooms:
            if (room := each()) is not None:
                room.look_again(if_shared)

    def add_room(self, room: Room) -> None:
        with self._rooms_lock:
            self._rooms = (*(each for each in self._rooms if each() is not None), ref(room))

    def forked(self) -> None:
        super().forked()
        self._rooms_lock = Lock()  # the parent's may be held by a thread that is not here

    def close(self) -> None:
        if self._pid == os.getpid():
            self.conn.close()
