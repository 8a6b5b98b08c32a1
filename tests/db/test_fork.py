"""A child process leaves its parent's connections alone."""

from __future__ import annotations

import gc
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import pytest
from support import PATIENCE, Background
from support.driver import driver
from support.kinds import ALL, make_pq

from pq import PQ, ForkedConnection, Queue
from pq._db.sources.base import Given

Sql = Callable[..., list[tuple[Any, ...]]]

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork"),
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded, use of fork"),
]

GIVEN = [kind for kind in ALL if kind != "dsn"]


def in_child(function: Callable[[], Any]) -> Any:
    """What `function` returns, or raises, in a child process, which then lets go of all that it can."""
    out, inlet = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(out)
            try:
                answer = True, function()
            except BaseException as error:
                answer = False, "".join(traceback.format_exception(error))
            gc.collect()
            with open(inlet, "wb") as pipe:
                pickle.dump(answer, pipe)
        finally:
            os._exit(0)
    os.close(inlet)
    try:
        with open(out, "rb") as pipe:
            killer = threading.Timer(PATIENCE, os.kill, (child, signal.SIGKILL))
            killer.start()
            answer = pickle.load(pipe)
    except EOFError:
        pytest.fail("the child did not answer")
    finally:
        killer.cancel()
        killer.join()
        os.waitpid(child, 0)
    well, value = answer
    assert well, value
    return value


def session(pq: PQ) -> int:
    """The server's process that a new transaction meets."""
    with pq["a"] as cursor:
        cursor.execute("select pg_backend_pid()")
        return int(cursor.fetchone()[0])


def jobs(sql: Sql) -> list[Any]:
    return [data for (data,) in sql("select data from queue where dequeued_at is null order by id")]


def test_with_a_dsn_the_child_has_connections_of_its_own(dsn: str, sql: Sql) -> None:
    with make_pq("dsn", dsn) as pq:
        queue = pq["a"]
        queue.put(1)
        mine = session(pq)

        def child() -> Any:
            queue.put(2)
            with queue:
                first = queue.get().data
            waited = queue.get(timeout=0.1).data, queue.get(timeout=0.01)
            theirs = session(pq)
            pq.close()
            return first, waited, theirs

        first, waited, theirs = in_child(child)
        assert (first, waited) == (1, (2, None))
        assert theirs != mine == session(pq)
        queue.put(3)
        assert jobs(sql) == [3]


@pytest.mark.parametrize("kind", GIVEN)
def test_what_was_given_to_the_parent_is_refused_to_the_child(dsn: str, sql: Sql, kind: str) -> None:
    with make_pq(kind, dsn) as pq:
        queue = pq["a"]
        queue.put(1)
        mine = session(pq)

        def child() -> None:
            for call in (lambda: queue.put(2), queue.get, lambda: len(queue), queue.__enter__, lambda: list(pq)):
                with pytest.raises(ForkedConnection) as caught:
                    call()
                assert isinstance(caught.value, driver.InterfaceError)
            again = PQ(pq._db.conn, pq._db.pool)
            with pytest.raises(ForkedConnection):
                again["a"].put(3)
            pq.close()

        in_child(child)
        assert session(pq) == mine
        queue.put(4)
        assert jobs(sql) == [1, 4]


@pytest.mark.parametrize("kind", ALL)
def test_a_child_that_goes_on_does_not_end_the_parents_transaction(dsn: str, sql: Sql, kind: str) -> None:
    """What the parent's transaction leaves in the child is collected there some time."""
    with make_pq(kind, dsn) as pq:
        out, inlet = os.pipe()
        child = -1
        try:
            with pq["a"]:
                pq["a"].put("before")
                child = os.fork()
                if child == 0:
                    raise ZeroDivisionError
                os.close(inlet)
                assert os.read(out, 100) == b"gone on"
                os.waitpid(child, 0)
                pq["a"].put("after")
        except ZeroDivisionError:
            for _ in range(3):
                with suppress(ForkedConnection):
                    pq["b"].get(timeout=0)
                gc.collect()
            os.write(inlet, b"gone on")
        finally:
            if child == 0:
                os._exit(0)
            os.close(out)
        assert jobs(sql) == ["before", "after"]


@pytest.mark.parametrize("kind", ALL)
def test_a_transaction_stays_with_the_parent(dsn: str, sql: Sql, kind: str) -> None:
    with make_pq(kind, dsn) as pq:
        for nested in (False, True):
            for fails in (False, True):
                assert what_a_child_meets(pq["a"], nested, fails) == (
                    "ZeroDivisionError" if fails else "ForkedConnection"
                )
                pq["a"].put("later")
        assert jobs(sql) == ["parent's", "later"] * 4


def what_a_child_meets(queue: Queue, nested: bool, fails: bool) -> str:
    """The error by which a child leaves the block in which it was forked, before the parent leaves it."""
    out, inlet = os.pipe()
    child = -1
    try:
        with queue, queue if nested else nullcontext():
            queue.put("parent's")
            child = os.fork()
            if child:
                os.close(inlet)
                met = os.read(out, 100).decode()
                os.waitpid(child, 0)
            elif fails:
                raise ZeroDivisionError
    except BaseException as error:
        if child:
            raise
        os.write(inlet, type(error).__name__.encode())
    finally:
        if child == 0:
            os._exit(0)
        os.close(out)
    return met


def test_a_child_forked_inside_works_on_its_own(dsn: str, sql: Sql) -> None:
    with make_pq("dsn", dsn) as pq:
        with pytest.raises(ZeroDivisionError), pq["a"]:
            pq["a"].put("parent's")
            in_child(lambda: pq["a"].put("child's"))
            assert jobs(sql) == ["child's"]
            raise ZeroDivisionError
        assert jobs(sql) == ["child's"]


def test_forks_while_other_threads_are_at_work(dsn: str, sql: Sql) -> None:
    over = threading.Event()

    def work(name: str) -> int:
        n = 0
        while not over.is_set():
            pq[name].put(n)
            with pq[name]:
                assert pq[name].get(timeout=30).data == n
            n += 1
        return n

    def wait() -> Any:
        return pq["never"].get(timeout=60).data

    def child() -> Any:
        pq["child"].put(1)
        return pq["child"].get(timeout=30).data, pq["child"].get(timeout=0.01)

    with make_pq("dsn", dsn) as pq:
        threads = [Background(work, name) for name in ("a", "b")]
        waiting = Background(wait)
        for _ in range(10):
            assert in_child(child) == (1, None)
        over.set()
        pq["never"].put("at last")
        assert waiting.result() == "at last"
        assert all(thread.result() for thread in threads)
        assert jobs(sql) == []


@pytest.mark.parametrize("kind", ALL)
def test_a_lock_that_another_thread_held_is_free_in_the_child(dsn: str, connect: Any, kind: str) -> None:
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        source = pq._db.source
        lock = getattr(source, "_returned", None) or getattr(source, "_lock", None) or nullcontext()
        with Given._known_lock, pq._queues._lock, lock:
            held.set()
            done.wait(PATIENCE)

    def child() -> None:
        assert pq["a new name"].name == "a new name"
        if kind == "dsn":
            pq["a"].put(1)
            assert pq["a"].get(timeout=1).data == 1
        else:
            with pytest.raises(ForkedConnection):
                pq["a"].put(1)
        own = PQ(driver.connect(dsn))
        own["a"].put(2)
        pq.close()
        own.close()

    with make_pq(kind, dsn) as pq:
        pq["a"].clear()
        thread = Background(hold)
        held.wait(PATIENCE)
        try:
            in_child(child)
        finally:
            done.set()
            thread.result()
        assert pq["a"].get(timeout=1).data == 2


@pytest.mark.parametrize("inside", [False, True])
def test_multiprocessing_with_fork(dsn: str, sql: Sql, inside: bool) -> None:
    def work(n: int) -> None:
        with pq["a"]:
            pq["b"].put(pq["a"].get(timeout=30).data * 10)

    with make_pq("dsn", dsn) as pq:
        mine = session(pq)
        for n in range(3):
            pq["a"].put(n)
        with pq["c"] if inside else nullcontext():
            pq["c"].put("parent's")
            processes = [multiprocessing.get_context("fork").Process(target=work, args=[n]) for n in range(3)]
            for process in processes:
                process.start()
            for process in processes:
                process.join(PATIENCE)
                assert process.exitcode == 0
        assert session(pq) == mine
        assert sorted(str(data) for data in jobs(sql)) == ["0", "10", "20", "parent's"]


PROGRAM = """
import os, sys
from support.driver import driver
from pq import PQ
dsn = sys.argv[1]
pqs = [PQ(dsn), PQ(driver.connect(dsn)), PQ(pool=driver.pool(1, 1, dsn))]
def sessions():
    for pq in pqs:
        pq["a"].get(timeout=0.01)  # also opens what listens
        with pq["a"] as cursor:
            cursor.execute("select pg_backend_pid()")
            yield cursor.fetchone()
before = list(sessions())
child = os.fork()
if child == 0:
    sys.exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), list(sessions()) == before)
for pq in pqs:
    pq.close()
"""


def test_a_child_that_simply_ends_does_the_parent_no_harm(dsn: str) -> None:
    command = [sys.executable, "-W", "ignore", "-c", PROGRAM, dsn]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True, env=env)
    assert (done.stdout, done.stderr) == ("7 True\n", "")
