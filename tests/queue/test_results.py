"""Results: what became of a job, and waiting for that."""

from __future__ import annotations

import math
import os
import pickle
import threading
import time
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from typing import Any

import pytest
from support import PATIENCE, Background, wait_until
from support.driver import driver
from support.kinds import WITH_PSYCOPG3, make_pq

import pq as this_library
from pq import PQ, JobCancelled, JobFailed, JobNotFound, JobPending, LeasedJob, Queue, Worker
from pq._wait import results as room_module

Sql = Callable[..., list[tuple[Any, ...]]]


def take(queue: Queue) -> LeasedJob:
    job = queue.get(timeout=0, lease="1h")
    assert isinstance(job, LeasedJob)
    return job


def done(queue: Queue, result: Any = None) -> int:
    id = queue.put("data")
    take(queue).done(result)
    return id


def dead(queue: Queue) -> int:
    id = queue.put(1)
    for _ in range(2):
        job = take(queue)
        job.retry("0s") if job.attempts == 1 else job.fail(ZeroDivisionError("why"))
    return id


def cancelled(queue: Queue) -> int:
    id = queue.put(1)
    queue.cancel(id)
    return id


def cancelled_when_it_ran(queue: Queue) -> int:
    id = queue.put(1)
    take(queue).progress("half")
    queue.cancel(id)
    return id


def running(queue: Queue) -> int:
    id = queue.put(1)
    take(queue).progress("half")
    return id


def tried_again(queue: Queue) -> int:
    id = queue.put(1)
    take(queue).retry("1h")
    return id


def got(queue: Queue) -> int:
    id = queue.put(1)
    queue.get(timeout=0)
    return id


def moved(queue: Queue) -> int:
    id = queue.put(1)
    queue.move(id, "another")
    return id


def asleep(pq: PQ, count: int = 1) -> None:
    """Wait until so many threads wait for results, all of which have been looked for."""
    room = pq._table._results
    wait_until(lambda: len(room._sleepers) == count and room._leader is not None)


@pytest.fixture
def looks(pq: PQ, monkeypatch: pytest.MonkeyPatch) -> list[set[int]]:
    """What was looked for, look by look."""
    room = pq._table._results
    made: list[set[int]] = []
    look = room._look

    def counted(ids: Any, timeout: float) -> Any:
        made.append(set(ids))
        return look(ids, timeout)

    monkeypatch.setattr(room, "_look", counted)
    return made


# -- the ends


@pytest.mark.parametrize("timeout", [0, 0.0, "0s", timedelta(), math.inf, "1h"], ids=str)
def test_ends_are_told_apart(pq: PQ, timeout: Any) -> None:
    queue = pq["a"]
    assert queue.result(done(queue, {"n": 1}), timeout=timeout) == {"n": 1}
    assert queue.result(str(done(queue, 2)), timeout=timeout) == 2  # type: ignore[arg-type]
    assert queue.result(done(queue), timeout=timeout) is None
    assert queue.result(got(queue), timeout=timeout) is None
    id = dead(queue)
    with pytest.raises(JobFailed, match=rf"Job {id} in queue 'a' is dead after attempt 2: ZeroDivisionError: why"):
        queue.result(id, timeout=timeout)
    for end in cancelled, cancelled_when_it_ran:
        with pytest.raises(JobCancelled, match="was cancelled"):
            queue.result(end(queue), timeout=timeout)
    for id in (moved(queue), 0, -1, 10**30):
        with pytest.raises(JobNotFound, match=f"no job {id} in queue 'a'"):
            queue.result(id, timeout=timeout)


@pytest.mark.parametrize(
    ("begin", "state"),
    [
        (lambda queue: queue.put(1), "ready"),
        (lambda queue: queue.put(1, schedule_at="1h"), "scheduled"),
        (tried_again, "scheduled"),
        (running, "running"),
    ],
    ids=["ready", "scheduled", "tried again", "running"],
)
@pytest.mark.parametrize("timeout", [0, 0.05, "50ms"])
def test_a_job_that_has_not_ended_is_pending(pq: PQ, begin: Any, state: str, timeout: Any) -> None:
    id = begin(pq["a"])
    began = time.monotonic()
    with pytest.raises(TimeoutError, match=f"Job {id} in queue 'a' has not ended in time: it is {state}") as caught:
        pq["a"].result(id, timeout=timeout)
    assert isinstance(caught.value, JobPending)
    assert caught.value.state == state
    assert time.monotonic() - began >= (0 if timeout == 0 else 0.05)


def test_the_error_of_a_dead_job_has_what_the_job_left(pq: PQ) -> None:
    id = dead(pq["a"])
    with pytest.raises(JobFailed) as caught:
        pq["a"].result(id, timeout=0)
    error = caught.value
    assert (error.job_id, error.queue, error.attempts) == (id, "a", 2)
    assert (error.error.type, error.error.message) == ("ZeroDivisionError", "why")
    copied = pickle.loads(pickle.dumps(error))
    assert (str(copied), copied.error) == (str(error), error.error)


def test_without_a_timeout_nothing_is_told_apart(pq: PQ) -> None:
    """As before: the result, or the progress, or None."""
    queue = pq["a"]
    for end in dead, cancelled, tried_again, got:
        assert queue.result(end(queue)) is None
        assert queue.result(end(queue), timeout=None) is None
    assert queue.result(running(queue)) == "half"


@pytest.mark.parametrize("timeout", [-1, math.nan, "soon", "-1s", timedelta(-1)], ids=str)
def test_a_bad_timeout_is_a_value_error(pq: PQ, timeout: Any) -> None:
    for call in (lambda: pq["a"].result(1, timeout=timeout), lambda: pq.results([1], timeout=timeout)):
        with pytest.raises(ValueError, match="timeout"):
            call()


@pytest.mark.parametrize("timeout", [True, [], object], ids=repr)
def test_a_timeout_of_another_type_is_a_type_error(pq: PQ, timeout: Any) -> None:
    for call in (lambda: pq["a"].result(1, timeout=timeout), lambda: pq.results([1], timeout=timeout)):
        with pytest.raises(TypeError, match="timeout"):
            call()
    with pytest.raises(TypeError, match="timeout"):
        pq.results([1], timeout=None)  # type: ignore[arg-type]


# -- waiting


@pytest.mark.parametrize("kind", [*WITH_PSYCOPG3, "autocommit pool"])
def test_who_waits_gets_the_result(dsn: str, pq: PQ, kind: str) -> None:
    id = pq["a"].put(1)
    with make_pq(kind, dsn) as other:
        waiter = Background(other["a"].result, id, timeout=PATIENCE)
        asleep(other)
        take(pq["a"]).done("kept")
        assert waiter.result() == "kept"


@pytest.mark.parametrize("end", ["fail", "cancel", "delete", "move"])
def test_who_waits_is_told_of_each_end(pq: PQ, sql: Sql, end: str) -> None:
    queue = pq["a"]
    id = queue.put(1)
    waiter = Background(queue.result, id, timeout=PATIENCE)
    asleep(pq)
    error: type[Exception] = JobNotFound
    if end == "fail":
        take(queue).fail("why")
        error = JobFailed
    elif end == "cancel":
        queue.cancel(id)
        error = JobCancelled
    elif end == "move":
        queue.move(id, "b")
    else:
        sql("delete from queue")
    with pytest.raises(error):
        waiter.result()


def test_where_finished_jobs_are_not_kept_a_job_that_is_done_is_gone(pq: PQ) -> None:
    pq.create(retain=0)
    id = pq["a"].put(1)
    waiter = Background(pq["a"].result, id, timeout=PATIENCE)
    asleep(pq)
    take(pq["a"]).done("lost")
    with pytest.raises(JobNotFound):
        waiter.result()


def test_a_task_is_waited_for(pq: PQ) -> None:
    @pq["a"].task(name="double", result=True)
    def double(job_id: int, n: int) -> int:
        return 2 * n

    worker = Worker(pq["a"])
    thread = Background(worker.run)
    try:
        assert pq["a"].result(double(21), timeout=PATIENCE) == 42
    finally:
        worker.stop()
        thread.result()


def test_a_wait_ends_soon_after_its_job_and_looks_ever_more_rarely(pq: PQ, looks: list[set[int]]) -> None:
    id = pq["a"].put(1)
    began = time.monotonic()
    with pytest.raises(JobPending):
        pq["a"].result(id, timeout=0.8)
    assert time.monotonic() - began >= 0.8
    assert 3 <= len(looks) <= 9  # at 0, 10, 20, 40, 80, 160, 320, 640 ms, and at the end


def test_all_threads_share_one_look_in_each_poll_interval(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with PQ(dsn, poll_interval=0.5) as pq:
        room = pq._table._results
        looks: list[float] = []
        look = room._look

        def counted(ids: Any, timeout: float) -> Any:
            looks.append(time.monotonic())
            return look(ids, timeout)

        monkeypatch.setattr(room, "_look", counted)
        ids = pq["a"].put_many(range(40))
        waiters = [Background(pq.results, ids[n : n + 4], timeout=PATIENCE) for n in range(0, 40, 4)]
        asleep(pq, 10)
        time.sleep(1.2)  # after which each of them wants a look in each poll interval
        begun = time.monotonic()
        time.sleep(2.2)
        elapsed = time.monotonic() - begun
        assert 1 <= sum(begun <= at <= begun + elapsed for at in looks) <= elapsed / 0.5 + 1
        for job in pq["a"].get_many(40, lease="1h"):
            job.done(job.data)
        assert [list(waiter.result().values()) for waiter in waiters] == [
            list(range(n, n + 4)) for n in range(0, 40, 4)
        ]
        assert not room._sleepers
        assert room._leader is None


def test_new_waits_do_not_hold_up_the_others(pq: PQ) -> None:
    """Each new one looks at once, by itself; that must not put off the look for all."""
    id = pq["a"].put(1)
    other = pq["a"].put(1)
    waiter = Background(pq["a"].result, id, timeout=math.inf)
    asleep(pq)
    pq["a"].cancel(id)
    until = time.monotonic() + PATIENCE
    while waiter.is_alive():
        assert time.monotonic() < until, "nobody has looked"
        with pytest.raises(JobPending):
            pq["a"].result(other, timeout=0)
    with pytest.raises(JobCancelled):
        waiter.result()


def test_the_leader_hands_over(pq: PQ) -> None:
    first, second = pq["a"].put_many([1, 2])
    leader = Background(pq["a"].result, first, timeout=PATIENCE)
    asleep(pq)
    other = Background(pq["a"].result, second, timeout=PATIENCE)
    asleep(pq, 2)
    for waiter in leader, other:
        take(pq["a"]).done("kept")
        assert waiter.result() == "kept"


def test_an_error_of_the_leader_is_not_that_of_the_others(pq: PQ, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = pq["a"].put_many([1, 2])
    room = pq._table._results
    leader = Background(pq["a"].result, first, timeout=PATIENCE)
    asleep(pq)
    other = Background(pq["a"].result, second, timeout=PATIENCE)
    asleep(pq, 2)
    look = room._look

    def fail_once(ids: Any, timeout: float) -> Any:
        monkeypatch.setattr(room, "_look", look)
        raise KeyboardInterrupt

    monkeypatch.setattr(room, "_look", fail_once)
    with pytest.raises(KeyboardInterrupt):
        leader.result()
    for _ in range(2):
        take(pq["a"]).done("kept")
    assert other.result() == "kept"
    assert not room._sleepers


def test_a_leader_whose_connection_hangs_holds_up_nobody_for_long(pq: PQ, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room_module, "GIVE_UP_AFTER", 0.1)
    first, second = pq["a"].put_many([1, 2])
    room = pq._table._results
    leader = Background(pq["a"].result, first, timeout=PATIENCE)
    asleep(pq)
    look, hanging, go_on = room._look, threading.Event(), threading.Event()

    def hang(ids: Any, timeout: float) -> Any:
        if second not in ids or len(ids) > 1:  # the leader's
            hanging.set()
            go_on.wait(PATIENCE)
        return look(ids, timeout)

    monkeypatch.setattr(room, "_look", hang)
    assert hanging.wait(PATIENCE)
    try:
        with pytest.raises(JobPending):
            pq["a"].result(second, timeout=0.2)
    finally:
        go_on.set()
    take(pq["a"]).done("kept")
    assert leader.result() == "kept"


def test_who_hears_nothing_of_the_server_does_not_take_the_job_for_gone(
    pq: PQ, monkeypatch: pytest.MonkeyPatch
) -> None:
    def give_up(ids: Any, timeout: float) -> Any:
        raise TimeoutError

    monkeypatch.setattr(pq._table._results, "_look", give_up)
    id = pq["a"].put(1)
    for timeout in (0, 0.05):
        with pytest.raises(JobPending, match="server") as caught:
            pq["a"].result(id, timeout=timeout)
        assert caught.value.state is None


def test_close_wakes_who_waits(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room_module, "FIRST_PAUSE", 1000.0)
    with PQ(dsn, poll_interval=1000) as pq:
        ids = pq["a"].put_many([1, 2])
        waiters = [Background(pq["a"].result, id, timeout=math.inf) for id in ids]
        asleep(pq, 2)
    for waiter in waiters:
        with pytest.raises(this_library.ConnectionLost, match="closed"):
            waiter.result()


def test_who_comes_later_need_not_wait_as_long_as_the_others(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with PQ(dsn, poll_interval=1000) as pq:
        ids = pq["a"].put_many([1, 2])
        monkeypatch.setattr(room_module, "FIRST_PAUSE", 1000.0)
        waiters = [Background(pq["a"].result, ids[0], timeout=PATIENCE)]
        asleep(pq)
        monkeypatch.undo()
        waiters.append(Background(pq["a"].result, ids[1], timeout=math.inf))
        asleep(pq, 2)
        for n, job in enumerate(pq["a"].get_many(2, lease="1h")):
            job.done(n)
        assert [waiter.result(PATIENCE / 2) for waiter in waiters] == [0, 1]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_child_waits_by_itself(pq: PQ) -> None:
    first, second = pq["a"].put_many([1, 2])
    waiter = Background(pq["a"].result, first, timeout=PATIENCE)
    asleep(pq)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = 0 if pq["a"].result(second, timeout=PATIENCE) == "kept" else 1
        finally:
            os._exit(code)
    for _ in range(2):
        take(pq["a"]).done("kept")
    assert waiter.result() == "kept"
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


# -- transactions


@pytest.mark.parametrize("how", ["block", "using", "bind"])
def test_a_wait_in_a_transaction(pq: PQ, connect: Any, how: str) -> None:
    id = pq["a"].put(1)

    def wait() -> Any:
        if how == "block":
            with pq["b"]:
                pq["b"].put("in the same transaction")
                return pq["a"].result(id, timeout=PATIENCE)
        conn = connect()
        if how == "bind":
            return pq.bind(conn)["a"].result(id, timeout=PATIENCE)
        with pq.using(conn):
            return pq["a"].result(id, timeout=PATIENCE)

    waiter = Background(wait)
    take_when_asked = take(pq["a"])
    assert waiter.is_alive()
    take_when_asked.done("kept")
    assert waiter.result() == "kept"
    assert not pq._table._results._sleepers


def test_in_a_transaction_a_wait_sees_what_that_has_done(pq: PQ) -> None:
    with pq["a"]:
        id = pq["a"].put(1)
        with pytest.raises(JobPending):
            pq["a"].result(id, timeout=0.01)
        take(pq["a"]).done("kept")
        assert pq["a"].result(id, timeout=0) == "kept"


def test_a_wait_commits_nothing_on_the_connection_of_the_application(dsn: str, pq: PQ, sql: Sql) -> None:
    id = pq["a"].put(1)
    sql("create table eaten (what text)")
    with closing(driver.connect(dsn)) as conn, PQ(conn) as single:
        waiter = Background(single["a"].result, id, timeout=PATIENCE)
        asleep(single)
        with conn.cursor() as cursor:
            cursor.execute("insert into eaten values ('Cox')")
        time.sleep(0.3)  # some looks
        assert sql("select * from eaten") == []
        take(pq["a"]).done("kept")
        assert waiter.result() == "kept"
        conn.rollback()
        assert sql("select * from eaten") == []


# -- several


def test_results_of_several_queues_in_the_order_of_the_ids(pq: PQ) -> None:
    a, b = pq["a"], pq["b"]
    ids = [done(b, "b"), 10**30, done(a, {"n": 1}), dead(a), cancelled(b), a.put(1, schedule_at="1h"), 0, done(a)]
    found = pq.results(iter(ids))
    assert list(found) == ids
    assert [found[ids[0]], found[ids[2]], found[ids[-1]]] == ["b", {"n": 1}, None]
    kinds = {1: JobNotFound, 3: JobFailed, 4: JobCancelled, 5: JobPending, 6: JobNotFound}
    assert {n: type(found[ids[n]]) for n in kinds} == kinds
    assert (found[0].queue, str(found[0])) == (None, "There is no job 0.")
    assert [found[ids[n]].queue for n in (3, 4, 5)] == ["a", "b", "a"]


def test_results_are_waited_for_until_all_have_ended_or_time_is_up(pq: PQ) -> None:
    ids = pq["a"].put_many([1, 2])
    waiter = Background(pq.results, ids, timeout=PATIENCE)
    asleep(pq)
    take(pq["a"]).done("first")
    late = pq.results(ids, timeout=0.05)
    assert late[ids[0]] == "first"
    assert isinstance(late[ids[1]], TimeoutError)
    assert waiter.is_alive()
    take(pq["a"]).done("second")
    assert waiter.result() == {ids[0]: "first", ids[1]: "second"}


def test_results_takes_one_id_or_none_or_one_twice(pq: PQ) -> None:
    id = done(pq["a"], 1)
    assert pq.results(id) == pq.results([id, id]) == {id: 1}
    assert pq.results([], timeout=math.inf) == {}
    for wrong in ("1", 1.0, True, None):
        with pytest.raises(TypeError, match="id"):
            pq.results([wrong])  # type: ignore[list-item]


class Trap:
    def __reduce__(self) -> Any:
        return os._exit, (3,)


def test_pickles_are_not_loaded_unasked(pq: PQ, sql: Sql) -> None:
    """The name of the queue stands in the table, where it might be anybody's."""
    texts, pickles = pq["a/text"], pq["b/pickle"]
    ids = [done(texts, "text"), done(pickles, {1, 2})]
    assert pickles.result(ids[1], timeout=0) == {1, 2}
    found = pq.results(ids)
    assert found[ids[0]] == "text"
    assert isinstance(found[ids[1]], str)
    trap = done(pickles)
    sql("update queue set q_name = 'b/pickle', result = to_json(%s::text) where id = %s", (
        pickles.dumps(Trap()), trap,
    ))
    assert isinstance(pq.results(trap)[trap], str)


def test_a_result_that_cannot_be_decoded_spoils_no_other(dsn: str) -> None:
    class Careful(Queue):
        @staticmethod
        def decode(text: str) -> Any:
            return {"1": 1, '"data"': None}[text]

    with PQ(dsn, queue_class=Careful) as pq:
        ids = [done(pq["a"], 2), done(pq["a"], 1)]
        found = pq.results(ids)
        assert isinstance(found[ids[0]], this_library.DecodeError)
        assert found[ids[1]] == 1


# -- progress


def test_progress_of_a_running_job(pq: PQ) -> None:
    queue = pq["a"]
    assert queue.progress(running(queue)) == "half"
    for end in done, dead, cancelled, cancelled_when_it_ran, tried_again, got:
        assert queue.progress(end(queue)) is None
    for id in (moved(queue), 0, 10**30):
        with pytest.raises(JobNotFound):
            queue.progress(id)
