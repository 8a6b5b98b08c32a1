"""Where connections come from.

A source hands a connection to one thread at a time (`acquire`, `release`), and knows the transaction that a thread has
open on it.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, WeakSet

from .psycopg2_driver import Psycopg2, driver

if TYPE_CHECKING:
    from .database import Transaction
    from .waiting import WaitingRoom

#: Seconds that a thread waits for a pool that other threads of pq have emptied.
POOL_PATIENCE = 30.0


class Source(ABC):
    """Connections for the threads of this process.

    `replaceable`: a lost connection can be replaced by another. `owned`: pq opened the connections.
    """

    driver: Psycopg2
    replaceable = True
    owned = False

    def __init__(self) -> None:
        self._threads = threading.local()
        self._pid = os.getpid()
        _sources.add(self)

    @property
    def transaction(self) -> Transaction | None:
        """What this thread has open here."""
        return getattr(self._threads, "transaction", None)

    @transaction.setter
    def transaction(self, transaction: Transaction | None) -> None:
        self._threads.transaction = transaction

    @abstractmethod
    def acquire(self) -> Any:
        """A connection for this thread alone, believed to be alive. Waits for one if need be."""

    @abstractmethod
    def release(self, conn: Any, lost: bool = False) -> None:
        """Hand it back; a `lost` one is thrown away."""

    @abstractmethod
    def open_line(self) -> Any:
        """A further connection to listen on, outside of those that `acquire` gives; None if there can't be one."""

    @abstractmethod
    def close(self) -> None:
        """Close all connections, the given ones, too."""

    def changed(self) -> None:
        """A put was committed. A line of its own hears of it from the server."""

    def forked(self) -> None:
        """In a child process: forget what belongs to the parent, without touching its sockets."""
        self._threads = threading.local()


_sources: WeakSet[Source] = WeakSet()


def _after_fork_in_child() -> None:
    for source in list(_sources):
        source.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


class SingleConnection(Source):
    """One connection of the application's, shared by its threads: a transaction of one makes the others wait.

    There is one `SingleConnection` for a connection, however many PQ use it: get it by `of`.
    """

    replaceable = False
    _known: WeakKeyDictionary[Any, SingleConnection] = WeakKeyDictionary()
    _known_lock = threading.Lock()

    @classmethod
    def of(cls, conn: Any) -> SingleConnection:
        known = Psycopg2.of(conn)
        with cls._known_lock:
            if conn not in cls._known:
                cls._known[conn] = cls(conn, known)
            return cls._known[conn]

    def __init__(self, conn: Any, driver: Psycopg2) -> None:
        super().__init__()
        self.driver = driver
        # weak: this object is the value to that key, and would keep it alive for ever
        self._conn = weakref.ref(conn)
        self._lock = threading.RLock()
        self._rooms: WeakSet[WaitingRoom] = WeakSet()

    @property
    def conn(self) -> Any:
        return self._conn()

    def acquire(self, timeout: float = -1) -> Any:
        """:raises TimeoutError: another thread's transaction lasted longer than `timeout` seconds."""
        if self._pid != os.getpid():
            self.driver.raise_forked()
        if not self._lock.acquire(timeout=timeout):
            raise TimeoutError
        conn = self.conn
        if not self.driver.alive(conn):
            self._lock.release()
            self.driver.raise_lost(None, "the connection given to PQ is closed")
        return conn

    def release(self, conn: Any, lost: bool = False) -> None:
        self._lock.release()
        for room in list(self._rooms):  # what they sleep for may just have been read from the socket
            room.hear()

    def open_line(self) -> Any:
        return None

    def changed(self) -> None:
        # the waiter's lock and the put belong to one server session, to which its own lock is no obstacle: the
        # trigger can't know that somebody waits
        for room in list(self._rooms):
            room.look_again()

    def add_room(self, room: WaitingRoom) -> None:
        self._rooms.add(room)

    def close(self) -> None:
        if self._pid == os.getpid():
            self.conn.close()


class ConnectionPool(Source):
    """A psycopg2 pool of the application's."""

    def __init__(self, pool: Any) -> None:
        if not callable(getattr(pool, "getconn", None)) or not callable(getattr(pool, "putconn", None)):
            raise TypeError(f"pool must be a psycopg2 pool, not {type(pool).__name__}")
        super().__init__()
        self.pool = pool
        self.driver = driver(_package(pool))
        self._returned = threading.Condition()
        self._out = 0

    def acquire(self) -> Any:
        if self._pid != os.getpid():
            self.driver.raise_forked()
        conn = self._get()
        try:
            while not self.driver.alive(conn):
                self.release(conn, lost=True)
                conn = self._get()
        except BaseException:
            self.release(conn, lost=True)
            raise
        return conn

    def _get(self) -> Any:
        deadline = time.monotonic() + POOL_PATIENCE
        with self._returned:
            while True:
                try:
                    conn = self.pool.getconn()
                except self.driver.PoolError:
                    # ours come back; were all of them the application's, this thread's among them, we'd wait in vain
                    remaining = deadline - time.monotonic()
                    if self._out == 0 or self.pool.closed or not self._returned.wait(remaining):
                        raise
                else:
                    self._out += 1
                    return conn

    def release(self, conn: Any, lost: bool = False) -> None:
        with self._returned:
            self._out -= 1
            try:
                self.pool.putconn(conn, close=lost)
            finally:
                self._returned.notify()

    def open_line(self) -> Any:
        conn = self.acquire()
        try:
            return self.driver.clone(conn)
        finally:
            self.release(conn)

    def close(self) -> None:
        if self._pid == os.getpid():
            self.pool.closeall()

    def forked(self) -> None:
        super().forked()
        self._returned = threading.Condition()


def _package(pool: Any) -> str:
    packages = {cls.__module__.split(".")[0] for cls in type(pool).__mro__}
    return "psycopg2cffi" if "psycopg2cffi" in packages else "psycopg2"


class OwnConnections(Source):
    """Connections that pq opens from a DSN, in autocommit mode: as many as there are threads at work, at most `limit`;
    a further thread waits."""

    owned = True

    def __init__(self, dsn: str, limit: int) -> None:
        super().__init__()
        self.driver = driver()
        self._dsn = dsn
        self._limit = limit
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._condition = threading.Condition()
        self._idle: list[Any] = []
        self._open = 0
        self._closed = False

    def acquire(self) -> Any:
        with self._condition:
            while True:
                if self._closed:
                    self.driver.raise_lost(None, "this PQ is closed")
                while self._idle:
                    conn = self._idle.pop()
                    if self.driver.alive(conn):
                        return conn
                    self._discard(conn)
                if self._open < self._limit:
                    self._open += 1
                    break
                self._condition.wait()
        try:
            return self.driver.connect(self._dsn)
        except BaseException:
            with self._condition:
                self._open -= 1
                self._condition.notify()
            raise

    def release(self, conn: Any, lost: bool = False) -> None:
        with self._condition:
            if lost or self._closed or conn.closed or not self.driver.idle(conn):
                self._discard(conn)
            else:
                self._idle.append(conn)
            self._condition.notify()

    def _discard(self, conn: Any) -> None:
        self._open -= 1
        try:
            conn.close()
        except self.driver.Error:
            pass  # it is gone, which is what we want

    def open_line(self) -> Any:
        return self.driver.connect(self._dsn)

    def close(self) -> None:
        """Idle connections are closed now, those at work when they come back."""
        with self._condition:
            self._closed = True
            while self._idle:
                self._discard(self._idle.pop())
            self._condition.notify_all()

    def forked(self) -> None:
        super().forked()
        # never closed here: that would say goodbye on the parent's sockets. Kept, lest the collector close them.
        _inherited.extend(self._idle)
        closed = self._closed
        self._reset()
        self._closed = closed


_inherited: list[Any] = []
