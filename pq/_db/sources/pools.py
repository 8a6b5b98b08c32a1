"""The application's pools."""

from __future__ import annotations

import os
import threading
import time
import weakref
from abc import abstractmethod
from importlib import import_module
from typing import Any

from ..drivers.detect import driver_of_pool, is_engine
from .base import Given, wait

#: Seconds that a thread waits for a pool that other threads of pq have emptied, where the pool itself does not wait.
PATIENCE = 30.0


class Pool(Given):
    """A pool of the application's. Get its source by `source_of`."""

    def __init__(self, pool: Any) -> None:
        self.driver = driver_of_pool(pool)
        super().__init__(pool)

    @property
    def pool(self) -> Any:
        return self._given()

    @property
    @abstractmethod
    def patience(self) -> float:
        """Seconds to wait for a connection, if the caller does not say."""

    @abstractmethod
    def _get(self, deadline: float) -> Any:
        """A connection, or the pool's error."""

    def acquire(self, timeout: float | None = None) -> Any:
        self.check_process()
        deadline = time.monotonic() + (self.patience if timeout is None else timeout)
        while True:
            conn = self._get(deadline)
            alive = False
            try:
                alive = self.driver.alive(conn)
            finally:
                if not alive:
                    self.release(conn, lost=True)
            if alive:
                return conn

    def open_line(self) -> Any:
        if self.transaction is not None and self.transaction.owned:
            return self.driver.clone(self.transaction.conn)  # the pool may have no other
        conn = self.acquire()
        try:
            return self.driver.clone(conn)
        finally:
            self.release(conn)


class PlainPool(Pool):
    """psycopg2's: an empty one raises an error. It need not be thread-safe."""

    patience = PATIENCE

    def __init__(self, pool: Any) -> None:
        super().__init__(pool)
        self._lock = threading.RLock()
        self._returned = threading.Condition(self._lock)
        self._out = 0

    def _get(self, deadline: float) -> Any:
        with self._lock:
            while True:
                try:
                    conn = self.pool.getconn()
                except self.driver.PoolError:
                    # ours come back; were all of them the application's, this thread's among them, we'd wait in vain
                    remaining = deadline - time.monotonic()
                    if self._out == 0 or self.pool.closed or remaining <= 0:
                        raise
                    wait(self._returned, remaining)
                else:
                    self._out += 1
                    return conn

    def release(self, conn: Any, lost: bool = False) -> None:
        with self._lock:
            self._out -= 1
            self._returned.notify()
            try:
                self.pool.putconn(conn, close=lost)
            except self.driver.PoolError:
                conn.close()  # the pool was closed meanwhile

    def close(self) -> None:
        if self._pid == os.getpid() and not self.pool.closed:
            self.pool.closeall()


class WaitingPool(Pool):
    """psycopg_pool's: it waits itself, and has threads that replace lost connections."""

    @property
    def patience(self) -> float:
        return float(self.pool.timeout)

    def _get(self, deadline: float) -> Any:
        return self.pool.getconn(timeout=deadline - time.monotonic())

    def release(self, conn: Any, lost: bool = False) -> None:
        if lost:
            conn.close()
        self.pool.putconn(conn)

    def close(self) -> None:
        if self._pid == os.getpid():
            self.pool.close()


class EnginePool(Pool):
    """An Engine of SQLAlchemy.

    :raises TypeError: its pool has the same connection for several who ask, so for the application's sessions and pq.
    """

    def __init__(self, engine: Any) -> None:
        super().__init__(engine)
        kind = type(engine.pool).__name__
        if kind in ("StaticPool", "SingletonThreadPool"):
            raise TypeError(f"the engine must have a pool that lends a connection to one at a time, not a {kind}")
        self._timeout = import_module("sqlalchemy.exc").TimeoutError
        self._out: dict[int, Any] = {}
        self._inherited: Any = None  # the pool that this process found when it was forked; a weak reference

    def check_process(self) -> None:
        if self._pid != os.getpid() and self._inherited() is not self.pool.pool:
            self._pid = os.getpid()  # dispose(close=False), as SQLAlchemy advises, has made one of this process
        super().check_process()

    @property
    def patience(self) -> float:
        return 0.0  # the engine has its own

    def _get(self, deadline: float) -> Any:
        try:
            # not engine.raw_connection(), which in some versions wraps the driver's errors
            pooled = self.pool.pool.connect()
        except self._timeout as error:
            raise self.driver.PoolError(str(error)) from error
        conn = getattr(pooled, "driver_connection", None) or pooled.connection
        self._out[id(conn)] = pooled
        return conn

    def release(self, conn: Any, lost: bool = False) -> None:
        pooled = self._out.pop(id(conn))
        if lost:
            pooled.invalidate()
        pooled.close()

    def forked(self) -> None:
        super().forked()
        if self.pool is not None:
            self._inherited = weakref.ref(self.pool.pool)
        _parents.extend(self._out.values())  # kept, lest the collector roll back on the parent's sockets
        self._out = {}

    def close(self) -> None:
        if self._pid == os.getpid():
            self.pool.dispose()


_parents: list[Any] = []


def source_of(pool: Any) -> Pool:
    """
    :raises TypeError: it is no pool.
    """
    if is_engine(pool):
        return EnginePool.of(pool)
    return (WaitingPool if driver_of_pool(pool).pools_wait else PlainPool).of(pool)
