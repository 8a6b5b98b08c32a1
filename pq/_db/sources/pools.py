"""Pools of psycopg2, of psycopg_pool, and of the application's own making."""

from __future__ import annotations

import math
import os
import threading
import time
from abc import abstractmethod
from typing import Any
from weakref import WeakSet

from ..._logs import queue_log as logger
from ..drivers.detect import driver_of_pool
from ..known import count
from ..loan import Loan
from .base import Given
from .reserved import Reserved
from .turns import Turns

#: Seconds that a thread waits for a pool that other threads of pq have emptied, where the pool itself does not wait.
POOL_TIMEOUT = 30.0

#: Seconds after which it asks such a pool again: the application does not tell when it has put a connection back.
ASK_AFTER = 1.0


class _Nobody:
    """Stands for a thread, or in place of a loan."""

    conn: Any = None


class Pool(Given):
    """A pool of the application's. Get its source by `source_of`."""

    def __init__(self, pool: Any) -> None:
        self.driver = driver_of_pool(pool)
        super().__init__(pool)
        self._reset()

    def _reset(self) -> None:
        self._lent: WeakSet[Any] = WeakSet()
        # those that can write, once one of the pool's was found that can't any more; else None
        self._writable: WeakSet[Any] | None = None

    @property
    def pool(self) -> Any:
        return self._given()

    @property
    @abstractmethod
    def patience(self) -> float:
        """How many seconds to wait for a connection if the caller does not say."""

    @abstractmethod
    def _get(self, deadline: float, loan: Any) -> Any:
        """A connection, which is set as the loan's `conn` in the same line.

        :raises PoolError: the driver's: the pool has none, and none of pq's threads is about to give one back.
        """

    @abstractmethod
    def _put(self, conn: Any, lost: bool) -> None:
        """Put a connection back into the pool, or have the pool throw a lost one away."""

    def reserve(self) -> Reserved | None:
        return Reserved(self) if self.capacity > 1 else None

    def acquire(self, timeout: float | None = None, into: Any = None) -> Any:
        self.check_process()
        loan = _Nobody() if into is None else into
        deadline = time.monotonic() + (self.patience if timeout is None else min(timeout, self.patience))
        discards = count() + 1
        dead: list[Any] = []
        while True:
            try:
                conn = self._get(deadline, loan)
            except self.driver.PoolError as error:
                if timeout is not None and self._lent and time.monotonic() >= deadline:
                    raise TimeoutError from error  # the pool is well: pq's other threads have its connections
                raise
            alive = False
            try:
                self._lent.add(conn)
                alive = self.driver.alive(conn) and (discards <= 0 or self._can_write(conn))
            finally:
                if not alive and conn in self._lent:  # else it was interrupted, and the end of the loan gives it back
                    self.release(conn, lost=True)
                    loan.conn = None
            if alive:
                return conn
            if conn.closed:
                if any(conn is before for before in dead):
                    self.driver.raise_lost(None, "the pool hands out a closed connection again and again")
                dead.append(conn)
            discards -= 1

    def note(self, conn: Any, error: BaseException) -> bool:
        read_only = super().note(conn, error)
        if read_only:
            self._writable = WeakSet()
        return read_only

    def _can_write(self, conn: Any) -> bool:
        """After a connection has become read-only: whether this one can write; asked once."""
        if self._writable is None or conn in self._writable or not self.driver.idle(conn):
            return True
        try:
            found = self.driver.committed(conn, self.driver.run, "show transaction_read_only")
        except self.driver.Error:
            return False
        if found == [("on",)]:
            return False
        self._writable.add(conn)
        return True

    def release(self, conn: Any, lost: bool = False) -> None:
        if conn in self._lent:
            if not (lost or conn.closed or self.driver.idle(conn)):
                # interrupted; psycopg2's pool does not end what was begun by SQL, and would lend it again
                self.driver.rollback(conn)
                lost = not (conn.closed or self.driver.idle(conn))
            self._lent.discard(conn)
            self._put(conn, lost or self._is_suspect(conn))

    def restore(self, conn: Any, lost: bool = False) -> None:
        self._lent.add(conn)
        try:
            self.release(conn, lost)
        except (ValueError, self.driver.PoolError):
            pass  # the interrupt came just after it had gone back

    def open_listening_connection(self) -> Any:
        if self.transaction is not None and self.transaction.owned:
            return self.driver.clone(self.transaction.conn)  # the pool may have no other
        loan = Loan(self)
        try:
            return self.driver.clone(loan.acquire())
        finally:
            loan.release()

    def forked(self) -> None:
        super().forked()
        self._reset()


class PlainPool(Pool):
    """A pool with `getconn` and `putconn`, as psycopg2's, which raises an error when it is empty, or as one of the
    application's that waits. It need not be thread-safe.

    One thread at a time asks the pool, and the others stand in line, so none of them is overtaken. That thread may be
    in `getconn` for long: the pool waits, or it connects, perhaps with the pool's own lock held. Who gives a connection
    back meanwhile must neither wait for that, nor keep the connection that it may be waiting for, and so leaves the
    call of `putconn` to a thread.
    """

    patience = POOL_TIMEOUT

    @property
    def capacity(self) -> float:
        return float(getattr(self.pool, "maxconn", math.inf))

    def _reset(self) -> None:
        super()._reset()
        self._door = Turns(1)
        self._changed = threading.Condition(threading.RLock())
        # who is at it; one that was interrupted is gone from here by itself
        self._asking: WeakSet[_Nobody] = WeakSet()
        self._putting: WeakSet[_Nobody] = WeakSet()
        self._puts = 0  # so far

    def _get(self, deadline: float, loan: Any) -> Any:
        try:
            turn = self._door.acquire(deadline - time.monotonic())
        except TimeoutError as error:
            raise self.driver.PoolError("connection pool exhausted") from error
        try:
            conn = self._inside(deadline, loan)
            self._door.release(turn)
            return conn
        except BaseException:
            self._door.release(turn)  # perhaps interrupted in the first call
            raise

    def _inside(self, deadline: float, loan: Any) -> Any:
        while True:
            puts = self._puts
            try:
                return self._ask(loan)
            except self.driver.PoolError:
                if not self._is_worthwhile(puts, deadline):
                    raise

    def _ask(self, loan: Any) -> Any:
        me = _Nobody()
        try:
            with self._changed:
                while self._putting:  # a moment
                    self._changed.wait(ASK_AFTER)
                self._asking.add(me)
            loan.conn = self.pool.getconn()
            return loan.conn
        finally:
            del me  # no call, which may be interrupted

    def _is_worthwhile(self, puts: int, deadline: float) -> bool:
        """Whether to ask the empty pool once more, after a wait for what pq's threads have.

        If all connections were the application's, and this thread's among them, the wait would be in vain.
        """
        remaining = deadline - time.monotonic()
        with self._changed:
            if self._puts != puts:
                return True
            if not self._lent or self.pool.closed or remaining <= 0:
                return False
            self._changed.wait(min(remaining, ASK_AFTER))
            return True

    def _put(self, conn: Any, lost: bool) -> None:
        me = _Nobody()
        try:
            with self._changed:
                asking = bool(self._asking)
                if not asking:
                    self._putting.add(me)
            if asking:
                try:
                    threading.Thread(target=self._put_now, args=(conn, lost), name="pq putconn", daemon=True).start()
                    return
                except RuntimeError:  # the interpreter is about to end
                    pass
            self._put_now(conn, lost)
        finally:
            del me
            with self._changed:
                self._changed.notify_all()

    def _put_now(self, conn: Any, lost: bool) -> None:
        try:
            self.pool.putconn(conn, close=lost)
        except self.driver.PoolError:
            if not getattr(self.pool, "closed", True):
                raise  # the pool has it already, and may have lent it to somebody else
            conn.close()  # the pool was closed meanwhile
        except Exception:
            logger.exception("the pool does not take a connection back")
            raise
        finally:
            with self._changed:
                self._puts += 1
                self._changed.notify_all()

    def close(self) -> None:
        self.watchdog.close()
        if self._pid == os.getpid() and not self.pool.closed:
            self.pool.closeall()


class WaitingPool(Pool):
    """A pool of psycopg_pool, which waits itself, serves those that wait in their order, and has threads that replace
    lost connections."""

    @property
    def capacity(self) -> float:
        return float(self.pool.max_size) or math.inf

    @property
    def patience(self) -> float:
        return float(self.pool.timeout)

    def _get(self, deadline: float, loan: Any) -> Any:
        loan.conn = self.pool.getconn(timeout=max(0.0, deadline - time.monotonic()))
        return loan.conn

    def _put(self, conn: Any, lost: bool) -> None:
        if lost:
            conn.close()
        self.pool.putconn(conn)

    def close(self) -> None:
        self.watchdog.close()
        if self._pid == os.getpid():
            self.pool.close()


def source_of(pool: Any) -> Pool:
    """The source of a pool; an Engine has its own, `sqlalchemy.EnginePool`.

    :raises TypeError: it is no pool.
    """
    return (WaitingPool if driver_of_pool(pool).pools_wait else PlainPool).of(pool)
