"""What is in the queues: counted up to a cap, or exactly; the table; one look at a time."""

from __future__ import annotations

import copy
import datetime as dt
import os
import pickle
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest
from support import Background, wait_until

from pq import PQ, ConnectionFailed, Count, Limit, Overview, QueueOverview, TableMissing
from pq._looks import looks, overview

Sql = Callable[..., list[tuple[Any, ...]]]
STATES = ("ready", "scheduled", "held", "running", "dead")


def counts(found: QueueOverview) -> list[str]:
    return [str(getattr(found, state)) for state in STATES]


def only(pq: PQ, **options: Any) -> QueueOverview:
    (found,) = pq.overview(**options).queues
    return found


@pytest.mark.parametrize("exact", [False, True])
def test_each_state_is_counted(pq: PQ, sql: Sql, exact: bool) -> None:
    assert pq.overview(exact=exact).queues == ()
    queue = pq["a"]
    queue.put_many([0] * 6)
    for job in queue.get_many(2, lease="1h"):
        job.fail("why")
    queue.get_many(1, lease="1h")
    queue.get_many(1)
    queue.put_many([1] * 2, schedule_at="1d")
    queue.put(1, dt.timedelta(seconds=-1))
    for _ in range(3):
        queue.put(3, key="k")
    queue.pause()
    found = only(pq, exact=exact)
    assert counts(found) == ["4", "2", "2", "1", "2"]
    assert [queue.count(state) for state in STATES] == [4, 2, 2, 1, 2]
    assert (found.name, found.paused, found.limited, found.waiting) == ("a", True, False, 0)
    ((due, now),) = sql("select min(due_at) filter (where due_at > now() and dequeued_at is null), now() from queue")
    assert found.next_due == due
    assert found.ready_since is not None
    assert found.next_age is not None
    assert abs((now - found.ready_since).total_seconds() - found.next_age) < 30
    pq.limits["a"] = Limit(running=1)
    assert only(pq, exact=exact).limited


def test_what_is_cut_says_so(pq: PQ, sql: Sql) -> None:
    sql(
        """
        insert into queue (q_name, data) select 'a', '1' from generate_series(1, 5);
        insert into queue (q_name, data, due_at) select 'a', '1', now() + interval '1 h' from generate_series(1, 5);
        insert into queue (q_name, data, due_at) select 'a', '1', 'infinity' from generate_series(1, 5);
        insert into queue (q_name, data, dequeued_at, error) select 'a', '1', now(), 'x' from generate_series(1, 5);
        insert into queue (q_name, data, dequeued_at, due_at)
        select 'a', '1', now(), now() + interval '1 d' from generate_series(1, 5)
        """
    )
    assert counts(only(pq, cap=5)) == counts(only(pq, exact=True)) == ["5"] * 5
    assert counts(only(pq, cap=4)) == ["4+"] * 5
    assert counts(only(pq, cap=1)) == ["1+"] * 5
    # those that run are not taken for scheduled ones, however many there are of both
    sql("delete from queue where due_at between now() and now() + interval '2 h' and dequeued_at is null")
    assert counts(only(pq, cap=5))[1] == "0"
    assert counts(only(pq, cap=4))[1] == "0+"
    # nor are jobs whose lease has ended, which are ready
    sql("update queue set due_at = now() - interval '1 s' where dequeued_at is not null and due_at is not null")
    assert counts(only(pq, cap=10)) == ["10", "0", "5", "0", "5"]


def test_the_next_jobs_are_those_with_a_priority_without_one_and_due(pq: PQ, sql: Sql) -> None:
    queue = pq["a"]
    queue.put(1, None, "1h")
    assert (age(pq) or 0) < 30
    sql("update queue set enqueued_at = now() - interval '1 min'")
    assert 60 <= (age(pq) or 0) < 90
    queue.put(1)
    sql("update queue set enqueued_at = now() - interval '2 min' where expected_at is null")
    assert 120 <= (age(pq) or 0) < 150
    queue.put(1, dt.timedelta(minutes=-3))
    assert 180 <= (age(pq) or 0) < 210
    queue.clear()
    assert age(pq) is None
    queue.put(1, "1h")
    assert age(pq) is None


def age(pq: PQ) -> float | None:
    found = pq.overview().queues
    return found[0].next_age if found else None


@pytest.mark.parametrize("time", ["0100-01-01 BC", "-infinity", "20000-01-01", "infinity"])
@pytest.mark.parametrize("column", ["enqueued_at", "schedule_at"])
def test_times_that_python_cannot_hold(pq: PQ, sql: Sql, column: str, time: str) -> None:
    sql(f"insert into queue (q_name, data, {column}) values ('a', '1', %s)", (time,))
    assert only(pq).name == only(pq, exact=True).name == "a"


def test_who_waits_is_counted(pq: PQ, dsn: str) -> None:
    pq["b"].put(1, "1h")
    pq["a"].put(1, "1h")
    with PQ(dsn) as other:
        waits = [Background(each.get, timeout=60) for each in (pq["a"], pq["a"], other["a"])]
        wait_until(lambda: [each.waiting for each in pq.overview().queues] == [2, 0], "two sessions")
        assert [worker.waits_for for worker in pq.workers()] == [("a",)] * 2
        pq["a"].put_many(range(3))
        for each in waits:
            assert each.result() is not None
    wait_until(lambda: only_of(pq, "a").waiting == 0, "nobody")


def only_of(pq: PQ, name: str) -> QueueOverview:
    return {each.name: each for each in pq.overview().queues}[name]


def test_the_table(pq: PQ, connect: Callable[..., Any]) -> None:
    found = pq.overview().table
    assert found.bytes > 8192
    assert found.dead_rows >= 0
    assert found.server_version.split(".")[0].isdigit()
    conn = connect()
    conn.cursor().execute("select 1")
    assert (pq.overview().table.oldest_transaction or -1) >= 0
    assert pq.overview().at.tzinfo is dt.timezone.utc
    conn.rollback()


def test_in_a_transaction_it_sees_that_and_leaves_it_as_it_was(pq: PQ, connect: Callable[..., Any]) -> None:
    queue = pq["a"]
    with queue as cursor:
        queue.put(1)
        cursor.execute("set local statement_timeout = '17s'")
        assert counts(only(pq))[0] == "1"
        cursor.execute("show statement_timeout")
        assert cursor.fetchone()[0] == "17s"
        queue.put(2)
    assert counts(only(pq))[0] == "2"
    conn = connect()
    view = pq.bind(conn)
    view["a"].put(3)
    assert counts(only(view))[0] == "3"
    view["a"].put(4)
    conn.rollback()
    assert counts(only(pq))[0] == "2"


def test_a_transaction_that_was_begun_by_sql_goes_on(connect: Callable[..., Any], sql: Sql) -> None:
    conn = connect()
    conn.autocommit = True
    conn.cursor().execute("begin")
    pq = PQ(conn)
    assert pq.overview().queues == ()
    pq["a"].put(1)
    conn.cursor().execute("rollback")
    assert sql("select from queue") == []


def test_it_changes_nothing(pq: PQ, statements: list[str]) -> None:
    pq.overview()
    assert "set_config('transaction_read_only', 'on', true)" in statements[-1]
    assert "set_config('statement_timeout', coalesce('1000'" in statements[-1]


def test_without_a_table_it_says_so(empty_dsn: str) -> None:
    with PQ(empty_dsn) as pq, pytest.raises(TableMissing):
        pq.overview()


@pytest.mark.parametrize(("cap", "error"), [(0, ValueError), (-1, ValueError), (10**6, ValueError), ("1", TypeError)])
def test_caps_that_there_are_not(pq: PQ, cap: Any, error: type[Exception]) -> None:
    for look in (pq.overview, pq.dead_groups, pq.history):
        with pytest.raises(error, match="cap"):
            look(cap=cap)  # type: ignore[operator]


# -- one look at a time


def test_it_looks_once_a_second(pq: PQ, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looks, "FRESH", 1.0)
    times: list[float] = []
    clock = [100.0]
    monkeypatch.setattr(looks.time, "monotonic", lambda: clock[0])
    read = overview.read
    monkeypatch.setattr(overview, "read", lambda *args: times.append(clock[0]) or read(*args))
    first = pq.overview()
    assert pq.overview() is first
    clock[0] += 0.9
    assert pq.overview() is first
    clock[0] += 0.2
    assert pq.overview() is not first
    assert pq.overview(cap=10) is not pq.overview(exact=True)
    assert len(times) == 4
    with pq["a"]:
        pq.overview()
    assert len(times) == 5


def test_askers_with_two_caps_do_not_make_each_other_look_again(pq: PQ, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looks, "FRESH", 1.0)
    monkeypatch.setattr(looks.time, "monotonic", lambda: 100.0)
    few, many = pq.overview(cap=10), pq.overview(cap=1000)
    assert pq.overview(cap=10) is few
    assert pq.overview(cap=1000) is many


def test_who_comes_meanwhile_waits_for_the_answer(pq: PQ, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looks, "FRESH", 1.0)
    begun, go = threading.Event(), threading.Event()
    read = overview.read

    def slow(*args: Any) -> Overview:
        begun.set()
        assert go.wait(30)
        return read(*args)

    monkeypatch.setattr(overview, "read", slow)
    first = Background(pq.overview)
    assert begun.wait(30)
    begun.clear()
    second = Background(pq.overview)
    go.set()
    assert first.result() is second.result()
    assert not begun.is_set()


def test_who_comes_meanwhile_gets_the_error_too(pq: PQ, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the database is away, a look takes long to fail: the last one of many would wait for all others."""
    begun, go = threading.Event(), threading.Event()
    looked: list[int] = []

    def away(*args: Any) -> Overview:
        looked.append(1)
        begun.set()
        assert go.wait(30)
        raise ConnectionFailed("away")

    def waits(thread: threading.Thread) -> bool:
        frame = sys._current_frames().get(thread.ident or 0)
        return frame is not None and frame.f_code.co_name == "get" and "came" in frame.f_locals

    monkeypatch.setattr(overview, "read", away)
    threads = [Background(pq.overview)]
    assert begun.wait(30)
    threads += [Background(pq.overview) for _ in range(3)]
    wait_until(lambda: all(map(waits, threads[1:])), "that they wait")
    go.set()
    for thread in threads:
        with pytest.raises(ConnectionFailed):
            thread.result()
    assert len(looked) == 1
    with pytest.raises(ConnectionFailed):
        pq.overview()
    assert len(looked) == 2


def test_a_child_of_fork_does_not_wait_for_a_thread_of_its_parent(pq: PQ, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looks, "FRESH", 1.0)
    go, begun = threading.Event(), threading.Event()

    def slow(*args: Any) -> None:
        begun.set()
        assert go.wait(30)

    monkeypatch.setattr(overview, "read", slow)
    looking = Background(pq.overview)
    assert begun.wait(30)
    pid = os.fork()
    if pid == 0:
        overview.read = lambda *args: None  # type: ignore[assignment,return-value]
        pq.overview()
        os._exit(17)
    ended: list[int] = []
    try:
        wait_until(lambda: _has_ended(pid, ended), "the end of the child")
    finally:
        if not ended:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        go.set()
        looking.result()
    assert ended == [17]


def _has_ended(pid: int, ended: list[int]) -> bool:
    found, status = os.waitpid(pid, os.WNOHANG)
    if found:
        ended.append(os.waitstatus_to_exitcode(status))
    return bool(found)


# -- numbers


def test_a_count_is_a_number() -> None:
    cut, whole = Count(1000, True), Count(1234)
    assert (str(cut), str(whole), f"{cut}", cut + 1, cut == 1000) == ("1,000+", "1,234", "1,000+", 1001, True)
    assert [each.is_cut for each in (cut, whole, copy.copy(cut), pickle.loads(pickle.dumps(cut)))] == [
        True, False, True, True,
    ]  # fmt: skip
