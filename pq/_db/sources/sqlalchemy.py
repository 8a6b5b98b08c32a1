"""An Engine of SQLAlchemy. The package is not imported before there is one."""

from __future__ import annotations

import math
import os
import weakref
from importlib import import_module
from typing import Any

from .pools import Pool


class EnginePool(Pool):
    """The pool of an Engine.

    :raises TypeError: its pool lends one connection to several who ask, so to the application's sessions and to pq.
    """

    def __init__(self, engine: Any) -> None:
        super().__init__(engine)
        kind = type(engine.pool).__name__
        if kind in ("StaticPool", "SingletonThreadPool"):
            raise TypeError(f"the engine must have a pool that lends a connection to one at a time, not a {kind}")
        self._timeout = import_module("sqlalchemy.exc").TimeoutError
        self._inherited: Any = None  # the pool that this process found when it was forked; a weak reference

    def _reset(self) -> None:
        super()._reset()
        self._out: dict[int, Any] = {}

    def check_process(self) -> None:
        if self._pid != os.getpid() and self._inherited() is not self.pool.pool:
            self._pid = os.getpid()  # dispose(close=False), as SQLAlchemy advises, has made one of this process
        super().check_process()

    @property
    def capacity(self) -> float:
        pool = self.pool.pool
        if type(pool).__name__ == "AssertionPool":
            return 1
        overflow = getattr(pool, "_max_overflow", -1)
        return math.inf if overflow < 0 else float(pool.size() + overflow)

    @property
    def patience(self) -> float:
        return 0.0  # the engine has its own

    def _get(self, deadline: float, loan: Any) -> Any:
        try:
            # not engine.raw_connection(), which in some versions wraps the driver's errors
            pooled = self.pool.pool.connect()
        except self._timeout as error:
            raise self.driver.PoolError(str(error)) from error
        conn = getattr(pooled, "driver_connection", None) or pooled.connection
        loan.conn = conn
        self._out[id(conn)] = pooled  # behind that: interrupted in between, `pooled` gives it back by its end
        return conn

    def _put(self, conn: Any, lost: bool) -> None:
        pooled = self._out.pop(id(conn), None)
        if pooled is None:
            return
        if lost:
            pooled.invalidate()
        pooled.close()

    def forked(self) -> None:
        if self.pool is not None:
            self._inherited = weakref.ref(self.pool.pool)
        _parents.extend(self._out.values())  # kept, lest the collector roll back on the parent's sockets
        super().forked()

    def close(self) -> None:
        self.watchdog.close()
        if self._pid == os.getpid():
            self.pool.dispose()


_parents: list[Any] = []
