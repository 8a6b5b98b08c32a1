"""Interrupted at any line of pq's Python, as by a signal handler that raises: nothing stays taken or open."""

from __future__ import annotations

import gc
import linecache
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import FrameType
from typing import Any

import psycopg2
import pytest
from support import Background, wait_until
from support.driver import driver
from support.kinds import make_pq

import pq as package
from pq import PQ
from pq._db import execute, known
from pq._db.loan import Loan
from pq._db.sources.single import SingleConnection
from pq._db.sources.turns import FairLock
from pq._db.watchdog import Guard
from pq._table import lines

FOLDER = str(Path(package.__file__).parent)

KINDS = ["dsn", "connection", "pool", "autocommit pool"]

#: Lines of code from one that is interrupted to the next. Each kind begins with another one, and so does each deed: all
#: kinds together try each line, and so do all deeds together, where lines belong to one kind.
STEP = len(KINDS)

Sql = Callable[..., list[tuple[Any, ...]]]


class Interrupt(KeyboardInterrupt):
    pass


def put(pq: PQ, conn: Any) -> None:
    pq["a"].put(1)


def put_many(pq: PQ, conn: Any) -> None:
    pq["a"].put_many(range(3))  # two statements: see the test


def get(pq: PQ, conn: Any) -> None:
    pq["a"].get(timeout=0)


def block(pq: PQ, conn: Any) -> None:
    with pq["a"] as cursor:
        cursor.execute("select 1")
        pq["a"].put(1)


def inner_block(pq: PQ, conn: Any) -> None:
    with pq["a"], pq["b"]:
        pq["a"].put(1)


def item(pq: PQ, conn: Any) -> None:
    with pq["a"].item(timeout=0):
        pq["b"].put(1)


def items(pq: PQ, conn: Any) -> None:
    with closing(pq["a"].items(timeout=0)) as jobs:  # type: ignore[type-var]
        for job in jobs:
            if job is None:
                break
            with job:
                pq["b"].put(1)


def using(pq: PQ, conn: Any) -> None:
    try:
        with pq.using(conn, savepoint=True):
            pq["a"].put(1)
        conn.commit()
    finally:
        conn.rollback()


def bind(pq: PQ, conn: Any) -> None:
    try:
        with pq.bind(conn)["a"]:
            pq["a"].put(1, conn=conn)
        conn.commit()
    finally:
        conn.rollback()


def lease(pq: PQ, conn: Any) -> None:
    job: Any = pq["a"].get(timeout=0, lease="50ms")
    if job is not None:
        with job:
            job.extend()


DEEDS = [put, put_many, get, block, inner_block, item, items, using, bind, lease]


def interrupted(
    act: Callable[[], object],
    nth: int,
    then: Callable[[str], object] = lambda where: None,
    step: int = 1,
    first: int = 0,
) -> str | None:
    """Call it, and interrupt it at the nth line of pq: where that was; None: it has not so many.

    :param then: called with the place while the interrupt is handled: all that its traceback refers to is alive.
    :param step: only each so many lines of a file count, from the `first` on.
    """
    count = 0
    where: str | None = None

    def trace(frame: FrameType, event: str, arg: object) -> Any:
        nonlocal count, where
        if not frame.f_code.co_filename.startswith(FOLDER) or frame.f_code.co_name == "__del__":
            return None  # what is raised in a finalizer goes nowhere
        if event == "line" and where is None and frame.f_lineno % step == first:
            line = linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip()
            # signals are not served between the end of a "with" block and the release of its lock, nor before these
            if line.startswith(("with ", "del ")) or line == "try:":
                return trace
            count += 1
            if count == nth:
                where = f"{frame.f_code.co_filename[len(FOLDER) + 1 :]}:{frame.f_lineno} {frame.f_code.co_name}"
                raise Interrupt(where)
        return trace

    sys.settrace(trace)
    try:
        act()
    except (Interrupt, Exception):  # or what came of it: LeaseLost, say
        if where is None:
            raise
        sys.settrace(None)
        then(where)
    finally:
        sys.settrace(None)
    return where


def check(pq: PQ, kind: str) -> None:
    """In the thread that was interrupted."""
    gc.collect()
    source: Any = pq._db.source
    assert source.transaction is None, "a transaction is remembered"
    assert not any(guard() for guard in source.watchdog.guards), "a connection is going to be cut"
    number = pq["check"].put("x")
    assert kind != "connection" or not source.conn.autocommit, "autocommit stays on"
    assert Background(lambda: pq["check"].find(number)).result(), "another thread does not see it"
    for queue in pq["a"], pq["b"], pq["check"]:
        queue.clear()  # else each call would have more to do than the last one
    wait_until(lambda: not taken(pq, kind), "the return of the connection", patience=5)


def taken(pq: PQ, kind: str) -> int:
    """How many connections are not where they belong."""
    source: Any = pq._db.source
    if kind == "dsn":
        idle = [conn for conn, _ in source._idle]
        lost = sum(not conn.closed and conn not in idle for conn in list(known._known))
        return int(source._limit - source._turns._free) + lost
    if kind.endswith("pool"):
        return int(driver.lent(source.pool))
    return int(source._lock._turns._free == 0)


@pytest.mark.skipif(
    sys.version_info >= (3, 12), reason="there, line events also come where no signal is served, with a lock held"
)
@pytest.mark.parametrize("deed", DEEDS, ids=lambda deed: deed.__name__)
@pytest.mark.parametrize("kind", KINDS)
def test_interrupted_anywhere(
    dsn: str, sql: Sql, monkeypatch: pytest.MonkeyPatch, kind: str, deed: Callable[[PQ, Any], None]
) -> None:
    monkeypatch.setattr(lines, "ROWS", 2)
    first = (KINDS.index(kind) + DEEDS.index(deed)) % STEP
    last = ""

    def act(pq: PQ, conn: Any) -> int:
        deed(pq, conn)  # warm: statements are read, the retention is known
        pq["a"].clear()

        def then(where: str) -> None:
            nonlocal last
            last = where
            pq["check"].put("x")

        nth = 1
        pq["a"].put("to be taken")
        while interrupted(lambda: deed(pq, conn), nth, then, STEP, first) is not None:
            check(pq, kind)
            pq["a"].put("to be taken")
            nth += 1
        return nth

    # one that the traceback may keep, and the next
    options: dict[str, Any] = {"max_connections": 2} if kind == "dsn" else {}
    with make_pq(kind, dsn, **options) as pq, closing(psycopg2.connect(dsn)) as conn:
        try:
            assert Background(act, pq, conn).result(240) > 10  # hundreds of them, on a busy machine, too
        except BaseException as error:
            pytest.fail(f"interrupted at {last}: {error!r}")
        idle = "select count(*) from pg_stat_activity where datname = current_database() and state like 'idle in%'"
        wait_until(lambda: sql(idle) == [(0,)], "no transaction is open")


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="as above")
@pytest.mark.parametrize("kind", ["pool", "autocommit pool"])
def test_no_transaction_stays_open_that_was_begun_by_sql(
    dsn: str, sql: Sql, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """On a connection that has not answered for a while, a put sends BEGIN and COMMIT."""
    monkeypatch.setattr(execute, "HOT", -1.0)
    nth = 0
    where: str | None = ""
    with make_pq(kind, dsn) as pq:
        while where is not None:
            nth += 1
            where = interrupted(lambda: pq["a"].put(1), nth)
            gc.collect()
            idle = "select state from pg_stat_activity where datname = current_database() and state like 'idle in%'"
            assert sql(idle) == [], where
            number = pq["a"].put(2)
            assert sql("select 1 from queue where id = %s", (number,)) == [(1,)], where
    assert nth > 30


@pytest.mark.parametrize("kind", ["pool", "autocommit pool"])
def test_a_pool_gets_no_connection_back_in_a_transaction(
    dsn: str, sql: Sql, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Not even if a second interrupt comes in the rollback."""
    with make_pq(kind, dsn) as pq:
        source: Any = pq._db.source
        conn = source.acquire()
        conn.autocommit = True
        source.driver.run(conn, "begin")
        monkeypatch.setattr(source.driver, "rollback", lambda conn: None)
        source.release(conn)
        assert conn.closed
        monkeypatch.undo()
        conn = source.acquire()
        conn.autocommit = True
        source.driver.run(conn, "begin")
        source.release(conn)
        assert not conn.closed and source.driver.idle(conn)


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="as above")
@pytest.mark.parametrize("kind", KINDS)
def test_an_interrupt_while_a_connection_is_taken_back(dsn: str, kind: str) -> None:
    """A second interrupt, in the call that takes back what the first one has left."""
    nth = 0
    where: str | None = ""
    while where is not None:
        nth += 1
        with make_pq(kind, dsn) as pq:
            source: Any = pq._db.source
            loan: Any = Loan(source)
            loan.acquire()
            del loan
            where = interrupted(source.reclaim, nth)
            gc.collect()
            assert Background(pq["a"].put, 1).result() > 0, where
            assert taken(pq, kind) == 0, where
    assert nth > 3


def test_what_the_application_begins_after_an_interrupt_is_its_own(dsn: str, sql: Sql) -> None:
    """The next call of pq takes back what the interrupt has left, and has no reason for a rollback."""
    with make_pq("connection", dsn) as pq:
        source: Any = pq._db.source
        loan: Any = Loan(source)
        loan.acquire()
        del loan  # as a statement that was interrupted just before it gives the connection back
        source.conn.cursor().execute("create table mine ()")
        pq["a"].put(1)
        source.conn.commit()
    assert sql("select count(*) from mine") == [(0,)]


def test_a_connection_that_was_taken_back_and_is_used_again_stays_open(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a thread that waits for it, and gets it while it is taken back."""
    with make_pq("dsn", dsn, max_connections=1) as pq:
        source: Any = pq._db.source
        loan: Any = Loan(source)
        loan.acquire()
        del loan
        release, others = source._turns.release, []

        def release_and_acquire(turn: Any) -> None:
            release(turn)
            monkeypatch.undo()
            others.append(Loan(source))
            others[0].acquire()

        monkeypatch.setattr(source._turns, "release", release_and_acquire)
        source.reclaim()
        assert not others[0].conn.closed
        others[0].release()


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="as above")
def test_no_guard_stays(dsn: str) -> None:
    """It would cut the connection some seconds later, from under another statement."""
    nth = 0
    where: str | None = ""
    with make_pq("dsn", dsn) as pq:
        while where is not None:
            nth += 1
            pq["a"].get(timeout=0)  # so that its guard is there already, whatever the interrupt before has cost
            where = interrupted(lambda: pq["a"].get(timeout=0), nth)
            gc.collect()
            assert not any(guard() for guard in pq._db.source.watchdog.guards), where
    assert nth > 100


def test_no_guard_stays_that_a_traceback_refers_to(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The application may keep the exception for long, as an interactive Python does."""

    def leave(guard: Guard, *exc: object) -> None:
        monkeypatch.undo()
        raise Interrupt

    with make_pq("dsn", dsn) as pq:
        pq["a"].get(timeout=0)
        monkeypatch.setattr(Guard, "__exit__", leave)
        with pytest.raises(Interrupt) as raised:
            pq["a"].get(timeout=0)
        assert raised.tb is not None
        assert not any(guard() for guard in pq._db.source.watchdog.guards)


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="as above")
def test_an_engine_lacks_no_connection(dsn: str) -> None:
    engine = pytest.importorskip("sqlalchemy").create_engine(
        "postgresql+psycopg2://", creator=lambda: psycopg2.connect(dsn), pool_size=2, max_overflow=0, pool_timeout=5
    )
    pq = PQ(engine)
    nth = 0
    where: str | None = ""
    while where is not None:
        nth += 1
        where = interrupted(lambda: pq["a"].put(1), nth)
        gc.collect()
        assert Background(pq["a"].put, 2).result() > 0, where
        assert engine.pool.checkedout() == 0, where
    pq.close()
    assert nth > 30


@pytest.mark.parametrize("taken", [False, True])
def test_an_interrupt_while_the_only_connection_is_taken(dsn: str, taken: bool) -> None:
    """At the end of a call, too: there signals are served between the call and the next line.

    :param taken: this thread has taken it already.
    """
    codes = [SingleConnection.acquire.__code__, FairLock.acquire.__code__]
    count = nth = 0

    def trace(frame: FrameType, event: str, arg: object) -> Any:
        nonlocal count
        if frame.f_code not in codes:
            return None
        if event == "line" or (event == "return" and frame.f_code is codes[1]):
            count += 1
            if count == nth:
                raise Interrupt
        return trace

    with make_pq("connection", dsn) as pq:
        source: Any = pq._db.source
        was_interrupted = True
        while was_interrupted:
            count, nth = 0, nth + 1
            if taken:
                source.acquire()
            before = sys.gettrace()
            sys.settrace(trace)
            try:
                source.acquire()
            except Interrupt:
                pass
            else:
                was_interrupted = False
                source.release(source.conn)
            finally:
                sys.settrace(before)
            if taken:
                source.release(source.conn)
            assert not source._lock._turns.exhausted, nth
        Background(pq["a"].put, 1).result()
    assert nth > 8
