"""One transaction around one job: `Queue.item` and `Queue.items`."""

from __future__ import annotations

import gc
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, nullcontext, suppress
from typing import Any

import pytest
from support import Background, execute, wait_until
from support.driver import driver
from support.kinds import make_pq

from pq import PQ, ConnectionLost, Discard, LeasedJob, LeaseLost, LoopLeft, Queue, Retry

Sql = Callable[..., list[tuple[Any, ...]]]


@pytest.fixture(params=["dsn", "autocommit connection"])
def pq(request: pytest.FixtureRequest, dsn: str) -> Iterator[PQ]:
    """On connections of its own, and on one that commits by itself; jobs are tried again at once, and twice."""
    execute(dsn, "create table effects (text text)")
    with make_pq(request.param, dsn, max_retries=2, retry_in=None) as made:
        yield made


@pytest.fixture
def effects(dsn: str) -> Callable[[], list[str]]:
    return lambda: [text for (text,) in execute(dsn, "select text from effects order by 1")]


def write(job: LeasedJob | None) -> None:
    """An effect in the transaction of the job."""
    assert job is not None
    job.cursor.execute("insert into effects values (%s)", (str(job.data),))


def the_job(queue: Queue) -> tuple[str, int, str | None]:
    """Of the only one: its state, its attempts, and the type of its error."""
    (job,) = queue.list() or queue.list("finished")
    return job.state, job.attempts, None if job.error is None else job.error.type.rpartition(".")[2]


def test_the_job_is_done_with_the_effects(pq: PQ, effects: Callable[[], list[str]]) -> None:
    queue = pq["a"]
    queue.put("x")
    with queue.item() as job:
        write(job)
        assert effects() == []
        assert pq["b"].put("follows") > 0
        assert job is not None
        assert job.attempts == 1
    assert effects() == ["x"]
    assert the_job(queue) == ("finished", 1, None)
    assert len(pq["b"]) == 1
    assert job.settled


def test_none_if_there_is_none_in_time(pq: PQ) -> None:
    for timeout in (0, 0.05):
        with pq["a"].item(timeout=timeout) as job:
            assert job is None
            assert not pq["a"]._db.in_transaction


def test_it_waits_for_a_job_and_holds_no_transaction_open_meanwhile(dsn: str, sql: Sql) -> None:
    def take() -> Any:
        with PQ(f"{dsn} application_name=waits") as own, own["a"].item(timeout=60) as job:
            return job and job.data

    def waits() -> bool:
        locks = sql("select 1 from pg_locks where locktype = 'advisory' and mode = 'ShareLock'")
        states = {state for (state,) in sql("select state from pg_stat_activity where application_name = 'waits'")}
        return bool(locks) and states == {"idle"}

    waiting = Background(take)
    wait_until(waits, "somebody waiting outside of a transaction")
    with PQ(dsn) as pq:
        pq["a"].put(5)
    assert waiting.result() == 5


@pytest.mark.parametrize("how", ["item", "with job"])
def test_after_an_exception_the_count_is_committed_and_nothing_else(
    pq: PQ, effects: Callable[[], list[str]], how: str
) -> None:
    queue = pq["a"]
    queue.put("x")
    for attempt in (1, 2, 3):
        with pytest.raises(ZeroDivisionError):
            fail(queue, how, pq["b"])
        assert effects() == []
        assert len(pq["b"]) == 0
        assert the_job(queue) == ("ready" if attempt < 3 else "dead", attempt, "ZeroDivisionError")
    assert queue.get(timeout=0) is None


def test_attempts_instead_of_retries(dsn: str) -> None:
    with PQ(dsn, max_attempts=1) as pq:
        pq["a"].put("x")
        with pytest.raises(ZeroDivisionError), pq["a"].item():
            raise ZeroDivisionError
        assert the_job(pq["a"]) == ("dead", 1, "ZeroDivisionError")


def fail(queue: Queue, how: str, other: Queue) -> None:
    if how == "item":
        with queue.item() as job:
            write(job)
            other.put(1)
            raise ZeroDivisionError
    for job in queue.items():
        assert job is not None
        with job:
            write(job)
            other.put(1)
            raise ZeroDivisionError


def test_it_waits_behind_the_others_for_the_pause_of_the_policy(dsn: str) -> None:
    with PQ(dsn, retry_in="1h") as pq:
        first, second = pq["a"].put_many([1, 2])
        with pytest.raises(ZeroDivisionError), pq["a"].item():
            raise ZeroDivisionError
        assert [(job.id, job.state) for job in pq["a"].list()] == [(second, "ready"), (first, "scheduled")]


def test_an_error_of_the_database_is_an_exception_as_any(pq: PQ) -> None:
    queue = pq["a"]
    queue.put("x")
    with pytest.raises(Exception, match="division by zero") as caught, queue.item() as job:
        assert job is not None
        job.cursor.execute("select 1 / 0")
    assert the_job(queue) == ("ready", 1, caught.type.__name__)


CAUGHT = "select 1 / 0"
DEFERRED = "insert into leaves values (5)"


@pytest.mark.parametrize("ended", [False, True], ids=["open", "ended by the block"])
@pytest.mark.parametrize("how", ["item", "items"])
@pytest.mark.parametrize("statement", [CAUGHT, DEFERRED], ids=["caught", "deferred"])
def test_an_error_that_only_the_end_shows_counts(
    pq: PQ, sql: Sql, effects: Callable[[], list[str]], statement: str, how: str, ended: bool
) -> None:
    """Else the job would be the next one again and again."""
    sql("create table trees (id int primary key)")
    sql("create table leaves (tree int references trees deferrable initially deferred)")
    queue = pq["a"]
    queue.put("x")
    with pytest.raises(driver.Error) as caught:
        for job in queue.items() if how == "items" else [None]:
            with queue.item() if job is None else nullcontext(job) as it:
                write(it)
                assert it is not None
                if ended:
                    it.done()
                with suppress(driver.Error):
                    it.cursor.execute(statement)
    assert effects() == []
    assert the_job(queue) == ("ready", 1, caught.type.__name__)
    with queue.item(timeout=0) as it:
        assert it is not None
        assert it.attempts == 2


def test_constraints_of_a_transaction_around_it_stay_deferred(pq: PQ, sql: Sql) -> None:
    sql("create table trees (id int primary key)")
    sql("create table leaves (tree int references trees deferrable initially deferred)")
    queue = pq["a"]
    queue.put("x")
    with queue as cursor:
        with queue.item() as job:
            assert job is not None
            job.cursor.execute(DEFERRED)
        cursor.execute("insert into trees values (5)")
    assert the_job(queue) == ("finished", 1, None)


@pytest.mark.parametrize("how", ["item", "with job"])
def test_ctrl_c_leaves_it_as_it_was(pq: PQ, effects: Callable[[], list[str]], how: str) -> None:
    queue = pq["a"]
    queue.put("x")
    with pytest.raises(KeyboardInterrupt):
        interrupt(queue, how)
    assert effects() == []
    assert the_job(queue) == ("ready", 0, None)


def interrupt(queue: Queue, how: str) -> None:
    if how == "item":
        with queue.item() as job:
            write(job)
            raise KeyboardInterrupt
    for job in queue.items():
        assert job is not None
        with job:
            write(job)
            raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("error", "state"), [(Retry("1h"), "scheduled"), (Retry(), "ready"), (Discard("no use"), "dead")], ids=repr
)
def test_retry_and_discard_are_understood(
    pq: PQ, effects: Callable[[], list[str]], error: Exception, state: str
) -> None:
    queue = pq["a"]
    queue.put("x")
    with queue.item() as job:
        write(job)
        raise error
    assert effects() == []
    assert the_job(queue)[:2] == (state, 1)


def test_the_block_can_end_the_job_itself(pq: PQ, effects: Callable[[], list[str]]) -> None:
    queue = pq["a"]
    id = queue.put("done")
    with queue.item() as job:
        write(job)
        assert job is not None
        job.done({"n": 1})
    assert queue.result(id) == {"n": 1}
    queue.put("again")
    with queue.item() as job:
        write(job)
        assert job is not None
        job.retry("1h")
    assert effects() == ["again", "done"]
    assert [job.state for job in queue.list()] == ["scheduled"]


def test_after_it_has_ended_the_job_itself_a_block_can_still_fail(pq: PQ, effects: Callable[[], list[str]]) -> None:
    queue = pq["a"]
    queue.put("x")
    with pytest.raises(ZeroDivisionError), queue.item() as job:
        write(job)
        assert job is not None
        job.done()
        raise ZeroDivisionError
    assert effects() == []
    assert the_job(queue) == ("ready", 1, "ZeroDivisionError")


def test_a_block_that_has_cancelled_its_own_job_is_undone(pq: PQ, effects: Callable[[], list[str]]) -> None:
    queue = pq["a"]
    queue.put("x")
    with pytest.raises(LeaseLost), queue.item() as job:
        write(job)
        assert job is not None
        assert queue.cancel(job.id) == 1
    assert effects() == []
    assert the_job(queue) == ("ready", 0, None)


def test_a_lost_lease_is_no_failure_of_the_job(pq: PQ, effects: Callable[[], list[str]]) -> None:
    """As of any leased job; the claim, whose lease would last, is undone, too."""
    queue = pq["a"]
    queue.put("x")
    with pytest.raises(LeaseLost), queue.item() as job:
        write(job)
        raise LeaseLost(job_id=0, queue="b", attempt=1)
    assert effects() == []
    assert the_job(queue) == ("ready", 0, None)


def test_nobody_else_sees_it_meanwhile(dsn: str) -> None:
    with PQ(dsn) as pq, PQ(dsn) as other:
        pq["a"].put_many([1, 2])
        with pq["a"].item() as job, other["a"].item() as another:
            assert job is not None
            assert another is not None
            assert (job.data, another.data) == (1, 2)
            assert other["b"].get(timeout=0) is None
        assert len(pq["a"]) == 0


def test_of_one_thread_a_block_in_a_block_is_part_of_the_first(pq: PQ, effects: Callable[[], list[str]]) -> None:
    queue = pq["a"]
    first, second = queue.put_many([1, 2])
    with queue.item() as outer:
        write(outer)
        with pytest.raises(ZeroDivisionError), queue.item() as inner:
            write(inner)
            raise ZeroDivisionError
        assert effects() == []
    assert effects() == ["1"]
    assert queue[first].state == "finished"
    assert (queue[second].state, queue[second].attempts) == ("ready", 1)


def test_in_a_transaction_that_is_rolled_back_nothing_has_happened(pq: PQ) -> None:
    queue = pq["a"]
    queue.put(1)
    with pytest.raises(ZeroDivisionError), queue, queue.item():
        raise ZeroDivisionError
    assert the_job(queue) == ("ready", 0, None)


def test_what_can_not_be_decoded_has_failed_and_the_next_is_taken(
    pq: PQ, caplog: pytest.LogCaptureFixture
) -> None:
    bad, good = pq["a"].put_many([5, "x"])
    with caplog.at_level(logging.CRITICAL, "pq"), pq["a/text"].item() as job:
        assert job is not None
        assert job.id == good
    assert (pq["a"][bad].attempts, pq["a"][bad].state) == (3, "dead")


def test_where_finished_jobs_are_not_kept_it_goes(dsn: str) -> None:
    with PQ(dsn) as pq:
        pq.create(retain="0s")
        pq["a"].put(1)
        with pq["a"].item() as job:
            assert job is not None
        assert pq["a"].count("finished") == 0


def test_a_broken_connection_leaves_it_as_it_was(
    dsn: str, sql: Sql, effects: Callable[[], list[str]], caplog: pytest.LogCaptureFixture
) -> None:
    sql("create table effects (text text)")
    with PQ(dsn, max_retries=2, retry_in=None) as pq:
        queue = pq["a"]
        queue.put("x")
        with caplog.at_level(logging.CRITICAL, "pq"), pytest.raises(ConnectionLost), queue.item() as job:
            write(job)
            assert job is not None
            sql("select pg_terminate_backend(%s)", (driver.pid(job.cursor.connection),))
            queue.put("follows")
        assert effects() == []
        assert the_job(queue) == ("ready", 0, None)
        with queue.item() as job:
            write(job)
        assert effects() == ["x"]


KILLED = """
import os, signal, sys
from pq import PQ
with PQ(sys.argv[1], max_retries=2, retry_in=None)["a"].item() as job:
    job.cursor.execute("insert into effects values ('x')")
    {end}
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("end", ["pass", "job.done()", "job.fail('no good')"])
def test_whoever_is_killed_leaves_it_as_it_was(
    dsn: str, sql: Sql, effects: Callable[[], list[str]], end: str
) -> None:
    sql("create table effects (text text)")
    with PQ(dsn) as pq:
        pq["a"].put("x")
        done = subprocess.run([sys.executable, "-c", KILLED.format(end=end), dsn], timeout=60, check=False)
        assert done.returncode == -9
        with pq["a"].item(timeout=60) as job:  # the server may take a moment to see that it is gone
            assert job is not None
            assert job.attempts == 1
    assert effects() == []


# -- loops


def test_a_loop_ends_a_job_when_it_goes_on(pq: PQ, effects: Callable[[], list[str]]) -> None:
    queue = pq["a"]
    queue.put_many([1, 2])
    seen: list[Any] = []
    for job in queue.items(timeout=0.01):
        assert effects() == [str(data) for data in seen]
        if job is None:
            break
        write(job)
        seen.append(job.data)
    assert seen == [1, 2]
    assert queue.count() == 0
    assert not queue._db.in_transaction


def test_a_loop_yields_none_again_and_again(pq: PQ) -> None:
    with closing(pq["a"].items(timeout=0)) as jobs:  # type: ignore[type-var]
        assert [next(jobs) for _ in range(3)] == [None] * 3


@pytest.mark.parametrize("how", ["break", "exception", "return"])
def test_a_loop_that_is_left_has_failed(pq: PQ, effects: Callable[[], list[str]], how: str) -> None:
    queue = pq["a"]
    queue.put("x")

    def loop() -> None:
        for job in queue.items():
            write(job)
            if how == "exception":
                raise ZeroDivisionError
            if how == "return":
                return
            break

    try:
        loop()
    except ZeroDivisionError:
        assert how == "exception"
    gc.collect()  # where that does not happen at once
    assert effects() == []
    assert the_job(queue) == ("ready", 1, LoopLeft.__name__)
    assert not queue._db.in_transaction


@pytest.mark.parametrize("how", ["with job", "done"])
def test_a_loop_can_be_left_after_the_job_is_done(pq: PQ, effects: Callable[[], list[str]], how: str) -> None:
    queue = pq["a"]
    queue.put("x")
    with closing(queue.items()) as jobs:  # type: ignore[type-var]
        for job in jobs:
            write(job)
            assert job is not None
            if how == "done":
                job.done()
                break
            with job:
                break
    assert effects() == ["x"]
    assert the_job(queue) == ("finished", 1, None)


def test_a_loop_goes_on_after_a_job_that_failed(pq: PQ, effects: Callable[[], list[str]]) -> None:
    queue = pq["a"]
    queue.put_many([0, 1])
    seen: list[Any] = []
    for job in queue.items(timeout=0.01):
        if job is None:
            break
        seen.append((job.data, job.attempts))
        try:
            with job:
                write(job)
                1 / job.data
        except ZeroDivisionError:
            pass
    assert seen == [(0, 1), (0, 2), (0, 3), (1, 1)]
    assert effects() == ["1"]
    assert len(queue.dead) == 1
