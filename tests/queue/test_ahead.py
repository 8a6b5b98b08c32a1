"""`Queue.jobs` with ``ahead=True``: the end of a job takes the next one."""

from __future__ import annotations

import gc
import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
from support import Background, wait_until
from support.kinds import WITH_PSYCOPG3, make_pq
from support.proxy import Proxy

from pq import PQ
from pq._queue import ahead as _ahead
from pq._queue import claim as _claim
from pq._queue import marks as _marks
from pq.errors import LeaseLost

Sql = Callable[..., list[tuple[Any, ...]]]


@pytest.fixture(autouse=True)
def _no_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name in ((_marks, "FORGET"), (_marks, "SLOW_SECONDS")):
        monkeypatch.setattr(module, name, 1e9)
    monkeypatch.setattr("pq._table.table.HEAL_PAUSE", 1e9)
    monkeypatch.setattr(_claim, "HITS", 0)


@pytest.fixture(params=["7d", 0], ids=["kept", "removed"])
def pq(request: pytest.FixtureRequest, dsn: str) -> Iterator[PQ]:
    with PQ(dsn) as made:
        made.create(retain=request.param)
        yield made


def loop(pq: PQ, **options: Any) -> Any:
    return pq["a"].jobs(timeout=0, ahead=True, **options)


def each(pq: PQ) -> Iterator[Any]:
    """The jobs of such a loop, until there is none."""
    jobs = loop(pq)
    return iter(lambda: next(jobs), None)


def running(sql: Sql) -> int:
    ((count,),) = sql("select count(*) from queue where dequeued_at is not null and due_at is not null")
    return int(count)


def test_each_job_once_and_in_order(pq: PQ, sql: Sql) -> None:
    pq["a"].put_many(range(7))
    seen = []
    for job in each(pq):
        with job:
            seen.append(job.data)
            assert job.attempts == 1
            assert running(sql) == 1
        assert job.settled is True
    assert seen == list(range(7))
    assert sql("select count(*) from queue where dequeued_at is null or due_at is not null") == [(0,)]
    pq["a"].put(7)
    assert pq["a"].get(timeout=0).data == 7  # type: ignore[union-attr]


def test_one_statement_for_both(dsn: str) -> None:
    with Proxy(dsn) as proxy, make_pq("dsn", proxy.dsn) as pq:
        pq["a"].put_many(range(20))
        jobs = loop(pq)
        for _ in range(5):
            with next(jobs):
                pass
        proxy.seen.clear()
        for _ in range(5):
            with next(jobs):
                pass
        assert len(proxy.seen) == 5


def test_without_it_nothing_is_taken_ahead(pq: PQ, sql: Sql) -> None:
    pq["a"].put_many(range(3))
    with next(pq["a"].jobs(timeout=0)):  # type: ignore[union-attr]
        pass
    assert running(sql) == 0


@pytest.mark.parametrize("way", ["dropped", "closed"])
def test_what_was_taken_is_given_back_when_the_loop_is_left(pq: PQ, sql: Sql, way: str) -> None:
    pq["a"].put_many(range(3))
    kept = []
    with closing(loop(pq)) as jobs:
        with next(jobs) as job:
            kept.append(job)  # which must not keep the loop
        assert running(sql) == 1
        if way == "dropped":
            jobs.__del__()
    del jobs
    gc.collect()
    assert running(sql) == 0
    assert [pq["a"].get(timeout=0).data for _ in range(2)] == [1, 2]  # type: ignore[union-attr]
    assert sql("select attempts from queue where attempts > 1") == []


def test_a_job_that_is_done_behind_the_loop_takes_none(pq: PQ, sql: Sql) -> None:
    pq["a"].put_many(range(3))
    job = next(loop(pq))
    gc.collect()
    job.done()
    assert running(sql) == 0
    assert job.settled is True


def test_one_that_is_lost_says_so_and_the_loop_goes_on(pq: PQ, sql: Sql) -> None:
    pq["a"].put_many(range(3))
    jobs = loop(pq)
    first = next(jobs)
    sql("update queue set attempts = attempts + 1 where id = %s", (first.id,))
    with pytest.raises(LeaseLost):
        first.done()
    assert not first.settled
    with next(jobs) as job:
        assert job.data == 1


def test_errors_and_results_end_it_as_ever(pq: PQ, sql: Sql) -> None:
    pq["a"].put_many(range(4))
    jobs = loop(pq)
    with pytest.raises(ZeroDivisionError), next(jobs):
        _ = 1 / 0
    assert running(sql) == 0  # nothing was taken
    job = next(jobs)
    job.done({"x": 1})
    assert running(sql) == 1
    with next(jobs) as job:
        pass
    with pq["a"]:
        next(jobs).done()
    assert sql("select count(*) from queue where dequeued_at is null and attempts = 0") == [(0,)]


def test_those_with_a_key_end_alone(pq: PQ, sql: Sql) -> None:
    for number in range(3):
        pq["a"].put(number, key="k")
    seen = []
    for job in each(pq):
        with job:
            seen.append(job.data)
        assert running(sql) == 0
    assert seen == [0, 1, 2]


def test_one_that_must_stay_is_kept(pq: PQ, sql: Sql) -> None:
    """Its follower needs the row."""
    first = pq["a"].put(0)
    pq["a"].put(1, after=first)
    seen = []
    for job in each(pq):
        with job:
            seen.append(job.data)
        assert job.settled is True
    assert seen == [0, 1]


def test_what_cant_be_decoded_is_no_end_of_the_loop(pq: PQ, sql: Sql, caplog: pytest.LogCaptureFixture) -> None:
    queue = pq["a"]
    queue.put_many([0, "bad", 2])
    decode = queue.decode
    queue.decode = lambda text: 1 / 0 if "bad" in text else decode(text)  # type: ignore[method-assign,assignment]
    jobs = queue.jobs(timeout=0, ahead=True)
    with caplog.at_level(logging.ERROR), next(jobs) as job:  # type: ignore[union-attr]
        assert job.data == 0
    assert "decode" in caplog.text
    with next(jobs) as job:  # type: ignore[union-attr]
        assert job.data == 2
    assert running(sql) == 0


def test_a_lease_that_is_wrong_is_told_at_once(pq: PQ) -> None:
    with pytest.raises(ValueError, match="lease"):
        loop(pq, lease="never")


def test_jobs_that_other_threads_end_while_the_loop_waits_take_none(pq: PQ, sql: Sql) -> None:
    """The loop would not see them before its wait is over, nor more than one of them."""
    pq["a"].put_many(range(5))
    jobs = loop(pq)
    held = [next(jobs) for _ in range(3)]
    for job in held[:2]:
        job.done()
    assert running(sql) == 1  # the third alone
    threads = [threading.Thread(target=job.done) for job in held[2:]]
    for thread in threads:
        thread.start()
        thread.join()
    assert running(sql) == 1
    assert [next(jobs).data, next(jobs).data] == [3, 4]


def test_two_that_were_taken_at_the_same_time_are_both_yielded(pq: PQ) -> None:
    pq["a"].put_many(range(4))
    jobs = loop(pq)
    next(jobs).done()
    jobs.ahead.append((pq["a"].get(timeout=0, lease="30s"), jobs.ahead[0][1]))
    assert [next(jobs).data for _ in range(3)] == [1, 2, 3]


def test_a_job_that_was_taken_long_ago_is_yielded_while_it_is_held(
    pq: PQ, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_ahead, "RENEW_PART", 0.0)
    pq["a"].put_many(range(4))
    jobs = loop(pq)
    next(jobs).done()
    sql("update queue set due_at = now() + interval '1 second' where due_at is not null and dequeued_at is not null")
    job = next(jobs)
    assert sql("select due_at > now() + interval '20 seconds' from queue where id = %s", (job.id,)) == [(True,)]
    assert job.data == 1
    job.done()
    sql("update queue set due_at = now() where due_at is not null and dequeued_at is not null")
    other = pq["a"].get(timeout=0, lease="30s")
    assert other is not None
    assert other.data == 2
    assert next(jobs).data == 3


def test_an_end_that_waits_for_a_lock_holds_up_no_other_job(pq: PQ, connect: Any) -> None:
    """If it had locked the next job, this would be a deadlock, and might end the application's transaction."""
    ids = pq["a"].put_many(range(3))
    jobs = loop(pq)
    job = next(jobs)
    conn = connect()
    with conn.cursor() as cursor:
        cursor.execute("select from queue where id = %s for update", ids[:1])
        ending = Background(job.done)
        wait_until(lambda: pq["a"]._db.execute("select from pg_locks where not granted"), "that the end waits")
        cursor.execute("select from queue where id = %s for update nowait", ids[1:2])
        conn.rollback()
    ending.result()
    assert job.settled is True
    assert next(jobs).data == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_child_does_not_yield_what_its_parent_has_taken(pq: PQ) -> None:
    pq["a"].put_many(range(4))
    jobs = loop(pq)
    next(jobs).done()
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.write(writer, str(next(jobs).data).encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    os.close(writer)
    with open(reader, "rb") as file:
        assert file.read() == b"2"
    assert next(jobs).data == 1


def test_the_garbage_collector_comes_by_in_the_middle_of_a_statement(
    dsn: str, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This thread has the only connection, and waits for its answer."""
    monkeypatch.setattr(_ahead, "LEAVE_TIMEOUT", 0.01)
    with PQ(dsn, max_connections=1) as pq:
        pq.create()
        pq["a"].put_many(range(3))
        jobs = loop(pq)
        next(jobs).done()
        assert running(sql) == 1
        driver = pq["a"]._db.driver
        left = [jobs]
        del jobs
        run = driver._run

        def interrupted(*args: Any) -> Any:
            left.clear()
            return run(*args)

        monkeypatch.setattr(driver, "_run", interrupted)
        pq["a"].put(3)
        for thread in threading.enumerate():
            if thread.name == "pq release":
                thread.join()
        assert running(sql) == 0
        assert pq["a"].get(timeout=0).data == 1  # type: ignore[union-attr]


@pytest.mark.parametrize("kind", [kind for kind in WITH_PSYCOPG3 if kind.endswith("connection")])
def test_to_leave_the_loop_does_not_end_a_transaction_of_the_application(dsn: str, sql: Sql, kind: str) -> None:
    """It may be about to roll it back."""
    with make_pq(kind, dsn) as pq:
        pq["a"].put_many(range(4))
        conn = pq._db.conn
        for begun in (True, False):
            jobs = loop(pq)
            next(jobs).done()
            assert running(sql) == 1
            if begun:
                with conn.cursor() as cursor:
                    cursor.execute("begin" if conn.autocommit else "select 1")
                    cursor.execute("create table mine ()")
            del jobs
            gc.collect()
            with conn.cursor() as cursor:
                cursor.execute("rollback")
            conn.rollback()
            assert sql("select to_regclass('mine')") == [(None,)]
            assert running(sql) == begun  # its lease has to expire
            sql("update queue set due_at = null where due_at is not null")
