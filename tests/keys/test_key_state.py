"""What the jobs of a key hand on, from one to the next."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import support
from support.kinds import ALL, make_pq

from pq import PQ, Discard, LeasedJob, LeaseLost, LeasesLost, Queue, Retry, Worker
from pq.tasks import current

Sql = Callable[..., list[tuple[Any, ...]]]


def take(queue: Queue, key: str | None = "k") -> LeasedJob:
    if key is not None:
        queue.put(1, key=key)
    return support.take(queue)


@pytest.fixture(params=[None, 0])
def queue(pq: PQ, request: pytest.FixtureRequest) -> Queue:
    """With finished jobs kept, and not."""
    if request.param == 0:
        pq.create(retain=0)
    return pq["a"]


# -- handed on


def test_the_next_job_of_the_key_has_what_the_last_one_left(queue: Queue) -> None:
    for expected in ({}, {"seen": [0]}, {"seen": [0, 1]}):
        job = take(queue)
        assert job.key_state == expected
        job.key_state.setdefault("seen", []).append(len(expected.get("seen", [])))
        job.done()
    assert take(queue, "other").key_state == {}


def test_it_belongs_to_a_queue_and_a_key(pq: PQ) -> None:
    job = take(pq["a"])
    job.key_state["n"] = 1
    job.done()
    assert (pq.key_state("a", "k"), pq.key_state("b", "k"), pq.key_state("a", "other")) == ({"n": 1}, {}, {})
    assert take(pq["b"]).key_state == {}


def test_another_dict_can_be_assigned(queue: Queue) -> None:
    job = take(queue)
    job.key_state = {"n": 1}
    job.key_state["m"] = 2
    job.done()
    job = take(queue)
    assert job.key_state == {"n": 1, "m": 2}
    job.key_state = {}
    job.done()
    assert take(queue).key_state == {}


@pytest.mark.parametrize("how", ["done", "with", "settle", "queue.done", "conn", "block", "item"])
def test_whatever_says_that_the_job_is_done_saves_it(pq: PQ, queue: Queue, connect: Any, how: str) -> None:
    if how == "item":
        queue.put(1, key="k")
        with queue.item() as item:
            assert item is not None
            item.key_state["n"] = 1
    else:
        job = take(queue)
        job.key_state["n"] = 1
        if how == "done":
            job.done("result")
        elif how == "with":
            with job:
                pass
        elif how == "settle":
            queue.settle([(job, None)])
        elif how == "queue.done":
            pq.done([job])
        elif how == "conn":
            conn = connect()
            job.done(conn=conn)
            assert pq.key_state("a", "k") == {}
            conn.commit()
        else:
            with queue:
                job.done()
    assert pq.key_state("a", "k") == {"n": 1}


@pytest.mark.parametrize("result", [True, False])
@pytest.mark.parametrize("transactional", [True, False])
def test_in_a_task(
    pq: PQ, queue: Any, transactional: bool, result: bool, request: pytest.FixtureRequest
) -> None:
    @queue.task(name=request.node.name, transactional=transactional, result=result, key="k")  # type: ignore[untyped-decorator]
    def count(job_id: int) -> int:
        state = current().key_state
        state["n"] = state.get("n", 0) + 1
        return int(state["n"])

    for _ in range(3):
        count()
    queue.timeout = 0.1
    Worker(queue, burst=True, capture_signals=False).run()
    assert pq.key_state(queue, "k") == {"n": 3}


def test_many_keys_are_settled_by_one_statement(pq: PQ, queue: Queue, statements: list[str]) -> None:
    jobs = [take(queue, str(number)) for number in range(20)]
    for job in jobs[::2]:
        job.key_state["id"] = job.id
    jobs[1].key_state  # noqa: B018  # looked at, not changed
    del statements[:]
    queue.done(jobs)
    assert len([sql for sql in statements if "pq_changed" in sql]) == 1
    for job in jobs:
        assert pq.key_state("a", job.key or "") == ({"id": job.id} if job in jobs[::2] else {})


@pytest.mark.parametrize("kind", ALL)
def test_with_any_connection(dsn: str, kind: str) -> None:
    with make_pq(kind, dsn) as pq:
        for n in range(2):
            job = take(pq["a"])
            assert job.key_state.get("n", 0) == n
            job.key_state["n"] = n + 1
            job.done()
        assert pq.key_state("a", "k") == {"n": 2}


# -- not saved


@pytest.mark.parametrize("how", ["retry", "fail", "release", "error", "Retry", "Discard"])
def test_another_end_saves_nothing(pq: PQ, queue: Queue, how: str) -> None:
    job = take(queue)
    job.key_state["n"] = 1
    if how == "retry":
        job.retry("0s")
    elif how == "fail":
        job.fail("no")
    elif how == "release":
        job.release()
    else:
        error = {"error": OSError("no"), "Retry": Retry("0s"), "Discard": Discard("no")}[how]
        queue.settle([(job, error)])
    assert pq.key_state("a", "k") == {}


@pytest.mark.parametrize("how", ["settle", "with", "item", "task", "transactional task"])
@pytest.mark.parametrize("error, state", [(Retry("0s", save_state=True), "ready"), (Discard(save_state=True), "dead")])
def test_retry_and_discard_save_it_if_they_say_so(
    pq: PQ, queue: Any, error: Exception, state: str, how: str, request: pytest.FixtureRequest
) -> None:
    def work(job: LeasedJob) -> None:
        job.key_state["n"] = 1
        raise error

    if "task" in how:

        @queue.task(name=request.node.name, key="k", transactional="transactional" in how)  # type: ignore[untyped-decorator]
        def task(job_id: int) -> None:
            work(current())

        task()
        Worker(queue, capture_signals=False).run_once()
    elif how == "item":
        queue.put(1, key="k")
        with queue.item() as job:
            work(job)
    else:
        job = take(queue)
        if how == "with":
            with job:
                work(job)
        else:
            job.key_state["n"] = 1
            queue.settle([(job, error)])
    assert pq.key_state("a", "k") == {"n": 1}
    assert queue.counts()[state] == 1


def test_a_delivery_that_has_lost_its_lease_saves_nothing(pq: PQ, queue: Queue, sql: Sql) -> None:
    first = take(queue)
    first.key_state["by"] = "first"
    sql("update queue set due_at = now() where id = %s", (first.id,))
    second = take(queue, None)
    assert (second.id, second.key_state) == (first.id, {})
    second.key_state["by"] = "second"
    other = take(queue, "other")
    other.key_state["by"] = "other"
    with pytest.raises(LeasesLost) as caught:  # together with one that is held
        queue.done([first, other])
    assert caught.value.job_ids == [first.id]
    assert (pq.key_state("a", "k"), pq.key_state("a", "other")) == ({}, {"by": "other"})
    second.done()
    with pytest.raises(LeaseLost):
        first.done()
    assert pq.key_state("a", "k") == {"by": "second"}


def test_a_delivery_that_is_lost_does_not_read_it(queue: Queue, sql: Sql) -> None:
    job = take(queue)
    queue.cancel(job.id)
    with pytest.raises(LeaseLost):
        job.key_state  # noqa: B018
    assert job.cancelled


def test_a_rollback_takes_it_back(pq: PQ, queue: Queue) -> None:
    job = take(queue)
    job.key_state["n"] = 1
    with pytest.raises(OSError, match="undo it"), queue:
        job.done()
        raise OSError("undo it")
    assert pq.key_state("a", "k") == {}
    job.done()
    assert pq.key_state("a", "k") == {"n": 1}


def test_what_has_not_changed_is_not_written(pq: PQ, queue: Queue, sql: Sql, statements: list[str]) -> None:
    pq.key_state("a", "k", {"b": [1.5, None], "ü": "\ud800"})
    ((before,),) = sql("select xmin::text from queue_states")
    del statements[:]
    for touch in (False, True):
        job = take(queue)
        if touch:
            assert job.key_state == {"b": [1.5, None], "ü": "\ud800"}
        job.done()
    assert sql("select xmin::text from queue_states") == [(before,)]
    assert len([sql for sql in statements if "queue_states" in sql]) == 1  # it was read


# -- not there


def test_a_job_without_a_key_has_none(pq: PQ) -> None:
    pq["a"].put(1)
    job = take(pq["a"], None)
    with pytest.raises(TypeError, match=r"job \d+ has no key, and so no key_state"):
        job.key_state  # noqa: B018
    with pytest.raises(TypeError, match="has no key"):
        job.key_state = {}
    job.done()


def test_where_several_jobs_of_a_key_run_at_once_there_is_none(pq: PQ, sql: Sql) -> None:
    sql("insert into queue_limits (name, per_key) values ('a', 2)")
    job = take(pq["a"])
    with pytest.raises(TypeError, match=f"job {job.id} has no key_state: .* lets several jobs of a key run at once"):
        job.key_state  # noqa: B018
    sql("update queue_limits set per_key = 1")
    assert job.key_state == {}


@pytest.mark.parametrize("how", ["done", "with", "settle"])
@pytest.mark.parametrize("value, error", [(object(), TypeError), ({1, 2}, TypeError), (float("nan"), ValueError)])
def test_what_json_does_not_have_is_refused_and_nothing_is_settled(
    pq: PQ, sql: Sql, how: str, value: Any, error: type[Exception]
) -> None:
    queue = pq["a"]
    job = take(queue)
    job.key_state["n"] = value
    before = sql("select queue::text from queue")
    with pytest.raises(error, match=f"the key_state of job {job.id} can't be stored"):
        if how == "done":
            job.done()
        elif how == "with":
            with job:
                pass
        else:
            queue.settle([(job, None)])
    assert sql("select queue::text from queue") == before
    job.key_state["n"] = 1
    job.done()
    assert pq.key_state("a", "k") == {"n": 1}


@pytest.mark.parametrize("how", ["item", "task", "Retry"])
def test_where_that_would_come_again_and_again_the_attempt_counts(
    pq: PQ, queue: Any, sql: Sql, how: str, request: pytest.FixtureRequest
) -> None:
    if how == "item":
        queue.put(1, key="k")
        with pytest.raises(TypeError, match="the key_state of job"), queue.item() as job:
            job.key_state["n"] = object()
    else:

        @queue.task(name=request.node.name, key="k", max_retries=1)  # type: ignore[untyped-decorator]
        def task(job_id: int) -> None:
            current().key_state["n"] = object()
            if how == "Retry":
                raise Retry(save_state=True)

        task()
        Worker(queue, capture_signals=False).run_once()
    ((attempts, error),) = sql("select attempts, error from queue where dequeued_at is null")
    assert attempts == 1
    assert "not JSON serializable" in error
    assert pq.key_state("a", "k") == {}


@pytest.mark.parametrize("state", [7, None, [1], "text"])
def test_a_state_is_a_dict(pq: PQ, state: Any) -> None:
    job = take(pq["a"])
    with pytest.raises(TypeError, match="the state of a key must be a dict"):
        job.key_state = state
    job.done()
    if state is not None:
        with pytest.raises(TypeError, match="the state of a key must be a dict"):
            pq.key_state("a", "k", state)
    assert pq.key_state("a", "k") == {}


# -- from outside


@pytest.mark.parametrize("queue", [7, None, b"a"])
def test_a_queue_is_a_queue_or_its_name(pq: PQ, queue: Any) -> None:
    with pytest.raises(TypeError, match="queue must be a queue or the name of one"):
        pq.key_state(queue, "k")


def test_reading_setting_and_deleting(pq: PQ, sql: Sql, connect: Any) -> None:
    assert pq.key_state("a", "k") == {}
    assert pq.key_state("a", "k", {"n": 1}) == {"n": 1} == pq.key_state(pq["a"], "k")
    job = take(pq["a/text"], None) if pq["a/text"].put("x", key="k") else None
    assert job is not None
    assert job.key_state == {"n": 1} == pq.key_state("a/text", "k")
    conn = connect()
    assert pq.key_state("a", "k", None, conn=conn) == {} == pq.key_state("a", "k", conn=conn)
    assert pq.key_state("a", "k") == {"n": 1}
    conn.commit()
    assert pq.key_state("a", "k") == {}
    assert sql("select count(*) from queue_states") == [(0,)]
    assert pq.key_state("a", "k", None) == {}


@pytest.mark.parametrize(
    "key, error, text",
    [(7, TypeError, "must be a str"), ("", ValueError, "must not be empty"), ("x" * 501, ValueError, "500 bytes")],
)
def test_bad_keys(pq: PQ, key: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        pq.key_state("a", key)


def test_it_outlives_its_jobs_until_the_reset(pq: PQ) -> None:
    job = take(pq["a"])
    job.key_state["n"] = 1
    job.done()
    pq["a"].clear()
    assert pq.key_state("a", "k") == {"n": 1}
    pq.reset()
    assert pq.key_state("a", "k") == {}
