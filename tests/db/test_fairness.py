"""Whoever has waited longest for a connection gets the next one, whatever the connections come from."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import closing
from typing import Any

import psycopg2
import pytest
from psycopg2.pool import ThreadedConnectionPool
from support import Background, wait_until
from support.driver import driver, only_psycopg2
from support.kinds import make_pq

from pq import PQ, ConnectionLost
from pq._db.sources.turns import Turns

#: As many threads as make an unfair hand-over show: base 210d2f2 starves some of them for 20 s.
THREADS = 12


def few(kind: str, dsn: str) -> Any:
    """A PQ of which few connections can be had."""
    if kind == "dsn":
        return PQ(dsn, max_connections=2)
    if kind == "connection":
        return PQ(driver.connect(dsn))
    if kind == "waiting pool of the application's":
        return PQ(pool=Semaphored(1, 2, dsn))
    return PQ(pool=driver.pool(2, 2, dsn))


def waiting(pq: Any) -> int:
    """How many threads wait for a connection."""
    source = pq._db.source
    if hasattr(source, "_door"):  # one asks the pool, the others are in line
        return len(source._door._line) + (source._door._free < 1)
    if hasattr(source, "_turns"):
        return len(source._turns._line)
    if hasattr(source, "_lock") and hasattr(source._lock, "_turns"):
        return len(source._lock._turns._line)
    return int(source.pool.get_stats()["requests_waiting"])


class Semaphored(ThreadedConnectionPool):
    """As many applications have it: `getconn` waits."""

    def __init__(self, least: int, most: int, *args: Any, **kwargs: Any) -> None:
        self._semaphore = threading.Semaphore(most)
        super().__init__(least, most, *args, **kwargs)

    def getconn(self, *args: Any, **kwargs: Any) -> Any:
        self._semaphore.acquire()
        try:
            return super().getconn(*args, **kwargs)
        except BaseException:
            self._semaphore.release()
            raise

    def putconn(self, *args: Any, **kwargs: Any) -> None:
        try:
            super().putconn(*args, **kwargs)
        finally:
            self._semaphore.release()


KINDS = ["dsn", "pool", "connection", "waiting pool of the application's"]


@pytest.mark.parametrize("kind", KINDS)
def test_no_thread_starves(dsn: str, kind: str) -> None:
    """Each puts without a pause: whoever gives a connection back asks for one at once."""
    counts = [0] * THREADS

    def work(number: int) -> None:
        while not over.is_set():
            pq["a"].put(number)
            counts[number] += 1

    with few(kind, dsn) as pq:
        over = threading.Event()
        threads = [Background(work, number) for number in range(THREADS)]
        try:
            wait_until(lambda: sum(counts) > 100 * THREADS, "the work", patience=60)
        finally:
            over.set()
        for thread in threads:
            thread.result()
    # in turn, all would have done the same number; threads start and end at different times
    assert min(counts) > max(counts) / 4


@pytest.mark.parametrize("kind", KINDS)
def test_who_came_first_is_served_first(dsn: str, kind: str) -> None:
    order: list[int] = []

    def hold(until: threading.Event) -> None:
        with pq["a"]:
            entered.release()
            until.wait(60)

    def work(number: int) -> None:
        with pq["a"]:
            order.append(number)

    with few(kind, dsn) as pq:
        entered, over, end = threading.Semaphore(0), threading.Event(), threading.Event()
        # one connection is left for those in line
        holders = [Background(hold, each) for each in ([over] if kind == "connection" else [over, end])]
        for _ in holders:
            assert entered.acquire(timeout=30)
        threads = []
        for number in range(5):
            threads.append(Background(work, number))
            wait_until(lambda least=number: waiting(pq) > least, "the thread is in line")
        over.set()
        for thread in threads:
            thread.result()
        end.set()
        for thread in holders:
            thread.result()
    assert order == [0, 1, 2, 3, 4]


@only_psycopg2
def test_a_pool_whose_getconn_waits_blocks_no_release(dsn: str) -> None:
    with PQ(pool=Semaphored(1, 1, dsn)) as pq:
        entered = threading.Event()

        def block() -> None:
            with pq["a"] as cursor:
                entered.set()
                wait_until(lambda: waiting.is_alive() and pq._db.source._asking, "the other is in getconn")
                cursor.execute("select 1")

        waiting = threading.Thread(target=lambda: entered.wait(30) and pq["a"].put(1))
        waiting.start()
        Background(block).result(20)
        waiting.join(20)
        assert not waiting.is_alive()
        assert len(pq["a"]) == 1


@only_psycopg2
@pytest.mark.parametrize("where", ["getconn", "connect"])
def test_a_pool_that_connects_slowly_blocks_no_release(dsn: str, where: str) -> None:
    connecting, go_on = threading.Event(), threading.Event()

    class Slow(ThreadedConnectionPool):
        slow = False

        def getconn(self, *args: Any, **kwargs: Any) -> Any:
            if self.slow and where == "getconn":
                self.pause()
            return super().getconn(*args, **kwargs)

        def _connect(self, *args: Any, **kwargs: Any) -> Any:  # psycopg2 holds the pool's lock here
            if self.slow and where == "connect":
                self.pause()
            return super()._connect(*args, **kwargs)

        def pause(self) -> None:
            connecting.set()
            assert go_on.wait(60)

    pool = Slow(1, 2, dsn)
    with PQ(pool=pool) as pq:
        with pq["a"]:
            pool.slow = True
            second = Background(pq["a"].put, 1)
            assert connecting.wait(30)
            began = time.monotonic()
        assert time.monotonic() - began < 10
        assert second.is_alive()
        go_on.set()
        second.result()
        assert len(pq["a"]) == 1
        wait_until(lambda: driver.lent(pool) == 0, "all are back")


def test_a_turn_that_is_dropped_comes_back() -> None:
    turns = Turns(1)
    turn = turns.acquire()
    with pytest.raises(TimeoutError):
        turns.acquire(0.05)
    waiting = Background(turns.acquire, 30)
    del turn  # by a thread that was interrupted, say
    assert waiting.result().held


def test_the_task_that_used_the_only_connection_last_is_not_kept_alive(dsn: str) -> None:
    with make_pq("connection", dsn) as pq:

        async def put() -> None:
            pq["a"].put(1)

        async def main() -> weakref.ref[Any]:
            task = asyncio.create_task(put())
            await task
            return weakref.ref(task)

        task = asyncio.run(main())
        gc.collect()
        assert task() is None


def test_a_turn_is_given_back_once() -> None:
    turns = Turns(1)
    turn = turns.acquire()
    turns.release(turn)
    turns.release(turn)
    other = turns.acquire(0)
    with pytest.raises(TimeoutError):
        turns.acquire(0)
    assert other.held


@pytest.mark.parametrize("kind", ["dsn", "pool"])
def test_an_abandoned_pq_leaves_nothing_open(dsn: str, sql: Callable[..., Any], kind: str) -> None:
    """At once, and not when the garbage collector comes by."""

    def use() -> None:
        with closing(driver.connect(dsn)) as other:
            pq = PQ(dsn + " application_name=abandoned") if kind == "dsn" else PQ(pool=driver.pool(1, 2, dsn))
            with pq["a"]:
                pq["a"].put(1)
            pq["a"].get(timeout=0)
            with pq.using(other):
                pq["a"].put(2)
            pq.bind(other)["a"].put(3)
            if kind == "pool":
                pq.close()

    gc.collect()
    gc.disable()
    try:
        use()
        count = "select count(*) from pg_stat_activity where application_name = 'abandoned'"
        wait_until(lambda: sql(count) == [(0,)], "the end of its connections", patience=10)
    finally:
        gc.enable()


def test_threads_that_begin_and_end_do_not_disturb_who_waits(dsn: str) -> None:
    def work() -> None:
        for _ in range(300):
            with pq["a"]:
                pass

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with PQ(dsn, max_connections=6) as pq:
            for thread in [Background(work) for _ in range(2 * THREADS)]:
                thread.result()
    finally:
        sys.setswitchinterval(interval)


def test_a_pool_that_hands_out_a_dead_connection_again_is_told_so(dsn: str) -> None:
    class Deaf:
        def __init__(self) -> None:
            self.free = [psycopg2.connect(dsn)]  # of which a pool without a known driver is taken to be

        def getconn(self) -> Any:
            return self.free.pop()

        def putconn(self, conn: Any, close: bool = False) -> None:
            self.free.append(conn)

    pool = Deaf()
    pq = PQ(pool=pool)
    pq["a"].put(1)
    pool.free[0].close()
    with pytest.raises(ConnectionLost, match="again"):
        Background(pq["a"].put, 2).result()
    pool.free[:] = [psycopg2.connect(dsn)]
    assert pq["a"].get(timeout=0).data == 1
    pool.free[0].close()
