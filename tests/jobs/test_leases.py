"""Leases: who sees a running job, the ways in which a delivery ends, and that a lost one can change nothing."""

from __future__ import annotations

import datetime as dt
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from itertools import combinations
from typing import Any

import pytest
from support import PATIENCE, Background, execute, wait_until
from support.kinds import WITH_PSYCOPG3, make_pq

from pq import PQ, DecodeError, Discard, Job, JobNotFound, LeasedJob, LeaseLost, Queue, Retry
from pq._jobs.settlement import applies

Sql = Callable[..., list[tuple[Any, ...]]]
MINUTE = dt.timedelta(minutes=1)
SOON = dt.timedelta(milliseconds=300)
HOUR = 3600.0

KINDS = ["dsn", "pool", "connection"]

#: What a holder can do to a running job, those that end it first.
ENDS: dict[str, Callable[[LeasedJob], None]] = {
    "done": lambda job: job.done({"some": "result"}),
    "retry": lambda job: job.retry("1h", ValueError("why")),
    "fail": lambda job: job.fail("why"),
    "release": lambda job: job.release(),
}
ACTS = ENDS | {
    "extend": lambda job: job.extend("1h"),
    "progress": lambda job: job.progress("half"),
}

#: The whole row, and whether it was written at all.
ROWS = "select xmin::text, ctid::text, * from queue order by id"

STATE = """
    select dequeued_at is not null, due_at is not null, attempts, error is not null, failed_at is not null from queue
"""


def take(queue: Queue, lease: Any = "1m") -> LeasedJob:
    job = queue.get(timeout=PATIENCE, lease=lease)
    assert isinstance(job, LeasedJob)
    return job


def put_and_take(queue: Queue, data: Any = 1) -> LeasedJob:
    queue.put(data)
    return take(queue)


def expire(sql: Sql) -> None:
    """As if the time of all leases were up."""
    sql("update queue set due_at = now() - interval '1 s' where dequeued_at is not null and due_at is not null")


def sleeping(pq: PQ, get: Callable[..., Any]) -> Background:
    """A thread that waits for a job of queue a, and has gone to sleep."""
    thread = Background(get)

    def asleep() -> bool:
        room = pq._table._room
        with room.lock:
            channel = room.queues.get("a")
            gate = channel and room.leader.session and room.leader.session.gates.get("a")
            return bool(
                channel
                and channel.waiters
                and channel.sure
                and not channel.stale
                and not any(waiter.called for waiter in channel.waiters)
                and gate
                and gate.next is not None
            )

    wait_until(asleep, "the waiter's sleep")
    return thread


# -- taking


def test_a_leased_job_tells_what_it_is(pq: PQ, sql: Sql) -> None:
    id = pq["a"].put({"kind": "Cox"}, schedule_at=-MINUTE, expected_at=-MINUTE)
    job = pq["a"].get(lease="90s")
    assert isinstance(job, LeasedJob)
    assert isinstance(job, Job)
    assert (job.id, job.data, job.attempts, job.lease) == (id, {"kind": "Cox"}, 1, 1.5 * MINUTE)
    assert job.queue is pq["a"]
    whole = "date_trunc('second', due_at - dequeued_at)"  # both by the clock, one a little after the other
    assert sql(f"select dequeued_at, {whole}, attempts from queue") == [(job.dequeued_at, job.lease, 1)]
    assert not hasattr(job, "__dict__")  # no attribute can be misspelt


def test_without_a_lease_get_returns_what_it_did(pq: PQ, sql: Sql) -> None:
    pq["a"].put(1)
    assert type(pq["a"].get()) is Job
    assert sql(STATE) == [(True, False, 0, False, False)]


@pytest.mark.parametrize("kwargs", [{"block": False}, {"block": False, "timeout": 30}, {"timeout": 0}], ids=str)
def test_a_get_that_does_not_wait(pq: PQ, kwargs: dict[str, Any]) -> None:
    queue = pq["a"]
    queue.timeout = HOUR  # this test would not end
    assert queue.get(lease="1m", **kwargs) is None
    queue.put(1)
    assert isinstance(queue.get(lease="1m", **kwargs), LeasedJob)


def test_a_get_that_waits_in_vain_returns_none(pq: PQ) -> None:
    assert pq["a"].get(timeout=0.05, lease="1m") is None


def test_a_get_that_waits_is_woken_by_a_put(dsn: str, sql: Sql) -> None:
    with PQ(dsn, poll_interval=HOUR) as pq:
        getting = sleeping(pq, lambda: take(pq["a"]))
        sql("insert into queue (q_name, data) values ('a', '5')")
        assert getting.result().data == 5


def test_a_running_job_is_invisible(pq: PQ, sql: Sql) -> None:
    queue = pq["a"]
    put_and_take(queue)
    assert len(queue) == 0
    assert len(queue.dead) == 0
    assert queue.get(block=False) is None
    assert queue.get(block=False, lease="1s") is None
    with queue:
        assert queue.get(block=False) is None
    # how pq 1.9.1 looks for jobs
    assert sql("select id from queue where dequeued_at is null") == []


@pytest.mark.parametrize(("kind", "lease"), [("dsn", "1s"), *((kind, SOON) for kind in WITH_PSYCOPG3)], ids=str)
def test_an_expired_job_comes_back_by_itself_and_wakes_who_waits(dsn: str, kind: str, lease: Any) -> None:
    with make_pq(kind, dsn, poll_interval=HOUR) as pq:
        queue = pq["a"]
        queue.put("again")
        first = take(queue, lease)
        second = take(queue)
        assert (second.id, second.data, second.attempts) == (first.id, "again", 2)
        assert second.dequeued_at >= first.dequeued_at + first.lease
        assert execute(dsn, "select attempts from queue") == [(2,)]


def test_an_expired_job_is_counted_and_can_be_got_for_good(pq: PQ, sql: Sql) -> None:
    put_and_take(pq["a"])
    expire(sql)
    assert len(pq["a"]) == 1
    assert type(pq["a"].get(block=False)) is Job
    assert sql(STATE) == [(True, False, 1, False, False)]


def test_an_expired_job_competes_by_its_expected_time(pq: PQ, sql: Sql) -> None:
    queue = pq["a"]
    queue.put("first", expected_at="1h")
    take(queue)
    queue.put("second", expected_at="2h")
    queue.put("last")
    expire(sql)
    assert [take(queue).data for _ in range(3)] == ["first", "second", "last"]


BAD_LEASES = [
    (True, TypeError, "lease must be a number of seconds, a str or timedelta, not bool: True"),
    (-1.5, ValueError, "lease must not be negative"),
    (["1s"], TypeError, "not list"),
    ("", ValueError, "lease must be of the form"),
    ("5", ValueError, "lease must be of the form"),
    ("-5s", ValueError, "lease must be of the form"),
    ("0s", ValueError, "lease must be positive"),
    (dt.timedelta(), ValueError, "lease must be positive"),
    (-MINUTE, ValueError, "lease must not be negative"),
    (dt.timedelta.max, ValueError, "lease is out of range"),
    ("9" * 5000 + "d", ValueError, "lease is out of range"),
]


def test_a_bad_lease_is_refused_before_anything_is_done(pq: PQ, sql: Sql) -> None:
    queue = pq["a"]
    queue.put(1)
    with queue as cursor:
        for lease, error, message in BAD_LEASES:
            with pytest.raises(error, match=message) as caught:
                queue.get(lease=lease)
            assert len(str(caught.value)) < 200
            with pytest.raises(error, match=message):
                next(queue.jobs(lease=lease))
        cursor.execute("select 1")  # the transaction goes on
    assert sql(STATE) == [(False, False, 0, False, False)]


def test_jobs_iterates_leased_jobs_and_none(pq: PQ) -> None:
    queue = pq["a"]
    for data in "ab":
        queue.put(data)
    jobs = queue.jobs(lease="5m", timeout=0.01)
    found = [next(jobs) for _ in range(3)]
    assert [job and (job.data, job.lease) for job in found] == [("a", 5 * MINUTE), ("b", 5 * MINUTE), None]
    queue.put("c")
    third = next(jobs)
    assert third is not None
    assert third.data == "c"


def test_jobs_waits_as_long_as_the_queue_does_and_leases_for_30_seconds(pq: PQ) -> None:
    queue = pq["a"]
    queue.timeout = 0.01
    jobs = queue.jobs()
    assert next(jobs) is None
    queue.put(1)
    job = next(jobs)
    assert job is not None
    assert job.lease == MINUTE / 2


# -- ending


AFTER = {  # taken, due, attempts, error, failed_at
    "done": (True, False, 1, False, False),
    "retry": (False, True, 1, True, True),
    "fail": (True, False, 1, True, True),
    "release": (False, False, 0, False, False),
}


@pytest.mark.parametrize("act", ENDS)
def test_each_end_leaves_the_row_in_its_state(pq: PQ, sql: Sql, act: str) -> None:
    job = put_and_take(pq["a"])
    ENDS[act](job)
    assert sql(STATE) == [AFTER[act]]
    assert len(pq["a"]) == (act == "release")
    assert len(pq["a"].dead) == (act == "fail")
    again = pq["a"].get(block=False, lease="1m")
    assert (again is not None) == (act == "release")
    if again is not None:
        assert (again.id, again.attempts) == (job.id, 1)


def test_a_retry_has_its_time_for_pq_1_9_1_too(pq: PQ, sql: Sql) -> None:
    job = put_and_take(pq["a"])
    before = dt.datetime.now(dt.timezone.utc)
    job.retry("1h")
    ((due, scheduled),) = sql("select due_at, schedule_at from queue")
    assert due == scheduled
    assert abs(due - before - 60 * MINUTE) < MINUTE


@pytest.mark.parametrize("in_", [None, "0s", dt.timedelta()], ids=str)
def test_a_retry_without_a_pause_is_ready_at_once(dsn: str, in_: Any) -> None:
    with PQ(dsn, retry_in=None) as pq:
        job = put_and_take(pq["a"])
        job.retry(in_)
        assert len(pq["a"]) == 1
        assert take(pq["a"]).attempts == 2


def test_a_retry_waits_for_the_first_pause_of_the_policy(dsn: str, sql: Sql) -> None:
    with PQ(dsn, retry_in=["1h", "2h"]) as pq:
        put_and_take(pq["a"]).retry()
    ((due,),) = sql("select due_at - now() from queue")
    assert 59 * MINUTE < due <= 60 * MINUTE


def test_the_error_of_a_retry_stays_until_the_job_is_done(pq: PQ, sql: Sql) -> None:
    job = put_and_take(pq["a"])
    job.retry("0s", ValueError("first"))
    ((first,),) = sql("select failed_at from queue")
    job = take(pq["a"])
    job.retry("0s", "second")
    ((error, failed_at),) = sql("select error::json->>'message', failed_at from queue")
    assert (error, failed_at) == ("second", first)
    job = take(pq["a"])
    job.release()
    job = take(pq["a"])
    job.retry("0s")
    assert sql("select error::json->>'message', failed_at from queue") == [("second", first)]
    take(pq["a"]).done()
    assert sql("select error, failed_at from queue") == [(None, None)]


@pytest.mark.parametrize(("in_", "error"), [(True, TypeError), ("5", ValueError), (-MINUTE, ValueError)], ids=str)
def test_a_bad_time_is_refused_and_the_job_goes_on(pq: PQ, sql: Sql, in_: Any, error: type[Exception]) -> None:
    job = put_and_take(pq["a"])
    before = sql(ROWS)
    with pytest.raises(error, match="in_ must"):
        job.retry(in_)
    with pytest.raises(error, match="by must"):
        job.extend(in_)
    assert sql(ROWS) == before
    job.done()


@pytest.mark.parametrize(("data", "error"), [({1}, TypeError), (float("nan"), ValueError)], ids=str)
def test_a_bad_result_is_refused_and_the_job_goes_on(pq: PQ, sql: Sql, data: Any, error: type[Exception]) -> None:
    job = put_and_take(pq["a"])
    before = sql(ROWS)
    for keep in (job.done, job.progress):
        with pytest.raises(error):
            keep(data)
    assert sql(ROWS) == before
    job.done()


def test_extend_counts_from_now(pq: PQ, sql: Sql) -> None:
    job = put_and_take(pq["a"])
    for by, least, most in [("1h", 59 * MINUTE, 60 * MINUTE), (None, 0 * MINUTE, MINUTE)]:
        job.extend(by)
        ((left,),) = sql("select due_at - clock_timestamp() from queue")
        assert least < left <= most
    job.done()


def test_an_extended_lease_lasts(dsn: str) -> None:
    """The one who waits is woken when the lease would have expired, and sleeps on."""
    with PQ(dsn, poll_interval=HOUR) as pq:
        queue = pq["a"]
        queue.put(1)
        job = take(queue, "1s")
        waiting = sleeping(pq, lambda: take(queue))
        job.extend("2s")
        ((until,),) = execute(dsn, "select due_at from queue")
        assert until >= job.dequeued_at + 2 * dt.timedelta(seconds=1)
        assert waiting.result().dequeued_at >= until


# -- results


@pytest.mark.parametrize("name", ["a", "a/pickle"])
def test_result_and_progress_can_be_read(pq: PQ, name: str) -> None:
    queue = pq[name]
    id = queue.put(1)
    assert queue.result(id) is None
    job = take(queue)
    for data in ("half", ["\0", {"z": 1, "a": None}]):
        job.progress(data)
        assert queue.result(id) == data
    job.done("all")
    assert queue.result(id) == "all"


def test_done_without_a_result_leaves_none(pq: PQ) -> None:
    job = put_and_take(pq["a"])
    job.progress("half")
    job.done()
    assert pq["a"].result(job.id) is None


def test_there_is_no_result_of_a_job_that_is_not_there(pq: PQ) -> None:
    id = pq["a"].put(1)
    for queue, wrong in [(pq["a"], id + 1), (pq["b"], id)]:
        with pytest.raises(JobNotFound) as caught:
            queue.result(wrong)
        assert (caught.value.job_id, caught.value.queue) == (wrong, queue.name)


# -- the fence


@pytest.mark.parametrize("act", ACTS)
def test_an_expired_lease_is_still_held_until_the_next_delivery(pq: PQ, sql: Sql, act: str) -> None:
    job = put_and_take(pq["a"])
    expire(sql)
    before = sql(ROWS)
    ACTS[act](job)
    assert sql(ROWS) != before


class Lost:
    """Each method makes the delivery one that is not held any more."""

    def __init__(self, queue: Queue, sql: Sql, job: LeasedJob) -> None:
        self._queue = queue
        self._sql = sql
        self._job = job

    def done(self) -> None:
        self._job.done("the first")

    def failed(self) -> None:
        self._job.fail("the first")

    def retried_later(self) -> None:
        self._job.retry("1h", "the first")

    def retried_at_once(self) -> None:
        self._job.retry("0s", "the first")

    def released(self) -> None:
        self._job.release()

    def delivered_again(self) -> None:
        expire(self._sql)
        assert take(self._queue).attempts == 2

    def delivered_again_and_done(self) -> None:
        expire(self._sql)
        take(self._queue).done("the second")

    def delivered_again_and_expired(self) -> None:
        self.delivered_again()
        expire(self._sql)

    def got_for_good(self) -> None:
        expire(self._sql)
        self._queue.get(block=False)

    def released_and_delivered_with_the_same_number(self) -> None:
        self._job.release()
        assert take(self._queue).attempts == self._job.attempts

    def revived_and_delivered_with_the_same_number(self) -> None:
        self._job.fail("the first")
        self._queue.dead.retry(self._job.id)
        assert take(self._queue).attempts == self._job.attempts

    def made_ready_by_a_claim_that_took_another(self) -> None:
        self._queue.put("urgent", schedule_at=-MINUTE, expected_at=-MINUTE)
        expire(self._sql)
        assert take(self._queue).data == "urgent"

    def deleted(self) -> None:
        self._queue.clear()


LOST = [name for name in vars(Lost) if not name.startswith("_")]


@pytest.mark.parametrize("how", LOST)
def test_a_lost_delivery_can_change_nothing(pq: PQ, sql: Sql, how: str) -> None:
    queue = pq["a"]
    job = put_and_take(queue)
    getattr(Lost(queue, sql, job), how)()
    before = sql(ROWS)
    for act in ACTS.values():
        with pytest.raises(LeaseLost) as caught:
            act(job)
        assert (caught.value.job_id, caught.value.queue, caught.value.attempt) == (job.id, "a", 1)
        assert f"Job {job.id} in queue 'a'" in str(caught.value)
    assert sql(ROWS) == before


@pytest.mark.parametrize(("first", "second"), list(combinations(ENDS, 2)))
def test_of_two_settlements_at_once_one_is_refused(pq: PQ, sql: Sql, first: str, second: str) -> None:
    job = put_and_take(pq["a"])
    together = threading.Barrier(2)

    def settle(act: str) -> bool:
        together.wait()
        with suppress(LeaseLost):
            ENDS[act](job)
            return True
        return False

    threads = [Background(settle, act) for act in (first, second)]
    assert sorted(thread.result() for thread in threads) == [False, True]
    assert sql(STATE)[0] in (AFTER[first], AFTER[second])


STOPPED = """
import sys
from datetime import timedelta
from pq import PQ, LeaseLost

with PQ(sys.argv[1]) as pq:
    job = pq["a"].get(lease=timedelta(milliseconds=300))
    print("got", job.attempts, flush=True)
    sys.stdin.readline()
    for end in (job.done, job.release, lambda: job.fail("late"), job.retry, job.extend):
        try:
            end()
            print("settled", flush=True)
        except LeaseLost:
            print("lost", flush=True)
"""


def test_a_process_that_was_stopped_for_longer_than_its_lease_can_change_nothing(pq: PQ, dsn: str, sql: Sql) -> None:
    pq["a"].put(1)
    command = [sys.executable, "-c", STOPPED, dsn]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "got 1\n"
            os.kill(process.pid, signal.SIGSTOP)
            job = take(pq["a"])
            assert job.attempts == 2
            before = sql(ROWS)
            process.stdin.write("go\n")
            process.stdin.flush()
        finally:
            os.kill(process.pid, signal.SIGCONT)
        assert process.communicate(timeout=PATIENCE)[0] == "lost\n" * 5
    assert sql(ROWS) == before
    job.done()


# -- with job


class Mishap(Exception):
    pass


def test_a_block_that_succeeds_is_done(pq: PQ, sql: Sql) -> None:
    with put_and_take(pq["a"]) as job:
        assert job.data == 1
    assert sql(STATE) == [AFTER["done"]]


def test_a_block_that_raises_is_retried_by_the_policy_then_dead(dsn: str, sql: Sql) -> None:
    with PQ(dsn, max_retries=2, retry_in=["1h", "2h"]) as pq:
        queue = pq["a"]
        queue.put(1)
        for hours in (1, 2):
            job = take(queue)
            with pytest.raises(Mishap, match="oh"), job:
                raise Mishap("oh")
            assert sql(STATE) == [(False, True, hours, True, True)]
            ((left,),) = sql("select due_at - clock_timestamp() from queue")
            assert (60 * hours - 1) * MINUTE < left <= 60 * hours * MINUTE
            sql("update queue set due_at = now()")
        job = take(queue)
        with pytest.raises(Mishap, match="oh"), job:
            raise Mishap("oh")
        (dead,) = queue.dead
        assert (dead.attempts, dead.error.type, dead.error.message) == (3, f"{__name__}.Mishap", "oh")


def test_a_block_that_asks_for_a_retry_gets_it_however_often_it_was_tried(dsn: str, sql: Sql) -> None:
    with PQ(dsn, max_retries=0) as pq, put_and_take(pq["a"]):
        raise Retry(in_="1h") from ValueError("the cause")
    assert sql(STATE) == [AFTER["retry"]]
    ((left, message),) = sql("select due_at - clock_timestamp(), error::json->>'message' from queue")
    assert 59 * MINUTE < left <= 60 * MINUTE
    assert message == "the cause"


def test_a_retry_that_cannot_be_is_a_failure(dsn: str) -> None:
    with PQ(dsn, max_retries=0) as pq:
        with put_and_take(pq["a"]):
            raise Retry(in_="soon")
        (dead,) = pq["a"].dead
    assert dead.error.type == "ValueError"
    assert "'soon'" in dead.error.message


def test_a_block_that_discards_makes_the_job_dead_with_that_reason(pq: PQ) -> None:
    with put_and_take(pq["a"]):
        raise Discard("no such customer")
    (dead,) = pq["a"].dead
    assert (dead.attempts, dead.error.message, dead.error.traceback) == (1, "no such customer", None)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_a_block_that_is_interrupted_releases_the_job(pq: PQ, sql: Sql, error: type[BaseException]) -> None:
    job = put_and_take(pq["a"])
    with pytest.raises(error), job:
        raise error
    assert sql(STATE) == [AFTER["release"]]


@pytest.mark.parametrize("raises", [False, True])
@pytest.mark.parametrize("act", ENDS)
def test_a_job_that_was_settled_in_the_block_stays_as_it_is(pq: PQ, sql: Sql, act: str, raises: bool) -> None:
    with suppress(Mishap), put_and_take(pq["a"]) as job:
        ENDS[act](job)
        before = sql(ROWS)
        if raises:
            raise Mishap
    assert sql(ROWS) == before


def test_a_block_whose_lease_was_lost_says_so_at_its_end(pq: PQ, sql: Sql) -> None:
    job = put_and_take(pq["a"])
    with pytest.raises(LeaseLost), job:
        expire(sql)
        take(pq["a"])
        before = sql(ROWS)
    assert sql(ROWS) == before


def test_a_block_whose_lease_was_lost_lets_its_own_error_go_on(
    pq: PQ, sql: Sql, caplog: pytest.LogCaptureFixture
) -> None:
    job = put_and_take(pq["a"])
    with pytest.raises(Mishap), job:
        expire(sql)
        take(pq["a"])
        before = sql(ROWS)
        raise Mishap
    assert sql(ROWS) == before
    assert f"could not settle job {job.id} in queue 'a'" in caplog.text


# -- transactions


@pytest.mark.parametrize("kind", WITH_PSYCOPG3)
@pytest.mark.parametrize("commit", [False, True])
def test_a_settlement_in_a_transaction_is_committed_with_it(dsn: str, kind: str, commit: bool) -> None:
    execute(dsn, "create table eaten (what text)")
    with make_pq(kind, dsn) as pq:
        job = put_and_take(pq["a"])
        with suppress(Mishap), pq["a"] as cursor:
            cursor.execute("insert into eaten values ('Cox')")
            job.done()
            if not commit:
                raise Mishap
        state = execute(dsn, "select due_at is null, (select count(*) from eaten) from queue")
        assert state == [(commit, int(commit))]
        if commit:
            with pytest.raises(LeaseLost):
                job.done()
        else:
            job.done()  # it is still ours


@pytest.mark.parametrize("outcome", ["committed", "rolled back"])
def test_done_by_a_transaction_inside_a_block(pq: PQ, sql: Sql, outcome: str) -> None:
    sql("create table eaten (what text)")
    with suppress(Mishap), put_and_take(pq["a"]) as job, pq["a"] as cursor:
        cursor.execute("insert into eaten values ('Cox')")
        job.done("result")
        if outcome == "rolled back":
            raise Mishap
    eaten = sql("select what from eaten")
    if outcome == "committed":
        assert (sql(STATE), pq["a"].result(job.id), eaten) == ([AFTER["done"]], "result", [("Cox",)])
    else:
        assert (sql(STATE), eaten) == ([AFTER["retry"]], [])


def test_a_block_inside_a_transaction_is_part_of_it(pq: PQ, sql: Sql) -> None:
    queue = pq["a"]
    job = put_and_take(queue)
    before = sql(ROWS)
    with queue, job:
        job.progress("half")
    assert sql(STATE) == [AFTER["done"]]
    assert sql(ROWS) != before


@pytest.mark.parametrize("commit", [False, True])
def test_a_lease_taken_in_a_transaction_begins_when_that_commits(pq: PQ, sql: Sql, commit: bool) -> None:
    queue = pq["a"]
    queue.put(1)
    before = sql(ROWS)
    with suppress(Mishap), queue:
        job = take(queue)
        if not commit:
            raise Mishap
    if commit:
        assert sql(STATE) == [(True, True, 1, False, False)]
        job.done()
        assert sql(STATE) == [AFTER["done"]]
    else:
        assert sql(ROWS) == before
        for act in ACTS.values():
            with pytest.raises(LeaseLost):
                act(job)
        assert take(queue).attempts == 1


@pytest.mark.parametrize("commit", [False, True])
def test_a_job_taken_and_released_in_one_transaction_is_as_before(pq: PQ, sql: Sql, commit: bool) -> None:
    pq["a"].put(1)
    with suppress(Mishap), pq["a"]:
        take(pq["a"]).release()
        if not commit:
            raise Mishap
    assert sql(STATE) == [AFTER["release"]]


# -- waking up


WAKERS: dict[str, Callable[[LeasedJob], Any]] = {
    "release": lambda job: job.release(),
    "retry": lambda job: job.retry("0s"),
    "retry soon": lambda job: job.retry(SOON),
    "retry of the dead": lambda job: (job.fail("why"), job.queue.dead.retry(job.id)),
    "retry of the dead soon": lambda job: (job.fail("why"), job.queue.dead.retry(all=True, in_=SOON)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_who_waits_is_woken_by_what_makes_a_job_ready(dsn: str, kind: str) -> None:
    """By this PQ, and by another."""
    with make_pq(kind, dsn, poll_interval=HOUR) as pq, PQ(dsn) as other:
        for owner in (pq, other):
            for waker, wake in WAKERS.items():
                job = put_and_take(owner["a"])
                job.extend("1d")
                waiting = sleeping(pq, lambda: pq["a"].get(timeout=HOUR, lease="1m"))
                wake(job)
                woken = waiting.result()
                assert woken.id == job.id, waker
                woken.done()


@pytest.mark.parametrize("waker", ["release", "retry", "retry soon"])
def test_who_waits_is_woken_when_the_transaction_commits(dsn: str, waker: str) -> None:
    with PQ(dsn, poll_interval=HOUR) as pq:
        job = put_and_take(pq["a"])
        job.extend("1d")
        waiting = sleeping(pq, lambda: pq["a"].get(timeout=HOUR, lease="1m"))
        with pq["a"]:
            WAKERS[waker](job)
            assert waiting.is_alive()
        assert waiting.result().id == job.id


# -- rows that cannot be decoded


def test_an_undecodable_row_is_retried_then_dead(dsn: str, sql: Sql) -> None:
    with PQ(dsn, max_retries=1, retry_in="1h") as pq:
        queue = pq["a/pickle"]
        sql("insert into queue (q_name, data) values ('a', '\"no pickle\"')")
        queue.put("next")
        with pytest.raises(DecodeError, match="it will be tried again") as caught:
            queue.get(lease="1m")
        job_id = caught.value.job_id
        assert sql(STATE + " where id = %s", (job_id,)) == [AFTER["retry"]]
        assert take(queue).data == "next"
        sql("update queue set due_at = now() where id = %s", (job_id,))
        with pytest.raises(DecodeError, match="it is dead"):
            queue.get(lease="1m")
        assert queue.get(block=False) is None
        (dead,) = queue.dead
        assert (dead.id, dead.attempts, dead.error.type) == (job_id, 2, "pq.errors.DecodeError")


def test_an_interrupted_decoding_releases_the_job(pq: PQ, sql: Sql) -> None:
    queue = pq["a"]
    queue.put(1)

    def interrupted(text: str) -> Any:
        raise KeyboardInterrupt

    queue.decode = interrupted  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        queue.get(lease="1m")
    assert sql(STATE) == [AFTER["release"]]


def test_jobs_goes_on_after_one_that_cannot_be_decoded(dsn: str) -> None:
    with PQ(dsn, max_retries=0, timeout=0) as pq:
        pickles = pq["a/pickle"]
        pq["a"].put(5)
        id = pickles.put({1})
        jobs = pickles.jobs("1h")
        with pytest.raises(DecodeError):
            next(jobs)
        job = next(jobs)
        assert job is not None and (job.id, job.data) == (id, {1})
        assert next(jobs) is None


def test_jobs_checks_the_lease_at_once(pq: PQ) -> None:
    with pytest.raises(ValueError, match="lease must be positive"):
        pq["a"].jobs("0s")


# -- writes by the holder


def lose(queue: Queue, job: LeasedJob, how: str) -> None:
    """Have the lease of a job end while its holder goes on."""
    if how == "cancelled":
        queue.cancel(job.id)
        return
    applies("extend", job, queue._table, lease=-1)
    if how == "delivered again":
        assert take(queue, lease="1h").id == job.id
    elif how == "taken for good":
        assert queue.get(block=False).id == job.id  # type: ignore[union-attr]
    elif how == "settled by another":
        take(queue, lease="1h").done()
    elif how == "died with another":
        take(queue, lease="1h").fail("no good")


@pytest.mark.parametrize(
    "how", ["delivered again", "taken for good", "settled by another", "died with another", "cancelled"]
)
def test_data_is_not_written_by_a_holder_that_has_lost_its_lease(pq: PQ, sql: Sql, how: str) -> None:
    queue = pq["a"]
    queue.put("as it was")
    job = take(queue, lease="1h")
    lose(queue, job, how)
    before = sql("select xmin::text, * from queue")
    with pytest.raises(LeaseLost):
        job.data = "changed"
    assert (job.data, job.size, job.cancelled) == ("as it was", len('"as it was"'), how == "cancelled")
    assert sql("select xmin::text, * from queue") == before


@pytest.mark.parametrize("end", ["none", "done", "fail"])
def test_data_is_written_by_its_holder_while_nobody_else_has_the_job(pq: PQ, sql: Sql, end: str) -> None:
    queue = pq["a"]
    queue.put("as it was")
    job = take(queue, lease="1h")
    if end != "none":
        getattr(job, end)(*(["no good"] if end == "fail" else []))
    job.data = "changed"
    assert (job.data, job.size) == ("changed", len('"changed"'))
    assert sql("select data from queue") == [("changed",)]


@pytest.mark.parametrize("end", ["retry", "release"])
def test_data_is_not_written_once_the_job_was_given_back(pq: PQ, sql: Sql, end: str) -> None:
    queue = pq["a"]
    queue.put("as it was")
    job = take(queue, lease="1h")
    getattr(job, end)(**({"in_": "0s"} if end == "retry" else {}))
    for again in (False, True):
        if again:
            take(queue, lease="1h")
        with pytest.raises(LeaseLost):
            job.data = "changed"
    assert sql("select data from queue") == [("as it was",)]
