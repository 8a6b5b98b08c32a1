"""What a put with a token does about the job that has it, in each state of that job."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from pq import PQ, Duplicate, JobId, NewJob, Queue, Unique

Sql = Callable[..., list[tuple[Any, ...]]]


@pytest.fixture
def queue(pq: PQ) -> Queue:
    return pq["a"]


@pytest.fixture(params=["own", "block", "conn"])
def put(request: pytest.FixtureRequest, queue: Queue, connect: Any) -> Callable[..., JobId]:
    """A put in a transaction of its own, in one that stays open for a moment, and in the application's."""

    def in_block(*args: Any, **kwargs: Any) -> Any:
        with queue:
            return queue.put(*args, **kwargs)

    def on_conn(*args: Any, **kwargs: Any) -> Any:
        conn = connect()
        conn.autocommit = False
        id = queue.put(*args, conn=conn, **kwargs)
        conn.commit()
        return id

    return {"own": queue.put, "block": in_block, "conn": on_conn}[request.param]  # type: ignore[return-value]


def test_keep(queue: Queue, put: Any) -> None:
    first = put([1], unique="t")
    second = put([2], "1h", unique="t")
    assert (first.created, second.created, second) == (True, False, first)
    assert [(job.id, job.data, job.state) for job in queue.list()] == [(first, [1], "ready")]


def test_error(queue: Queue, put: Any) -> None:
    first = put([1], unique="t")
    with pytest.raises(Duplicate, match=f"Job {first} in queue 'a' has the token 't' already") as caught:
        put([2], unique=Unique("t", on_duplicate="error"))
    assert (caught.value.job_id, caught.value.queue, caught.value.unique) == (first, "a", "t")
    assert put([2], unique=Unique("other", on_duplicate="error")).created
    assert len(queue) == 2


def test_replace(queue: Queue, put: Any) -> None:
    unique = Unique("t", on_duplicate="replace")
    first = put([1], "1h", unique=unique)
    second = put([2], "2h", unique=unique)
    (job,) = queue.list()
    assert (second, second.created, job.id, job.data) == (first, False, first, [2])
    assert job.schedule_at is not None
    assert (job.schedule_at - job.enqueued_at).total_seconds() == pytest.approx(7200, abs=10)
    assert put({"now": 1}, unique=unique) == first
    assert queue.get(timeout=0).data == {"now": 1}  # type: ignore[union-attr]
    assert put([3], unique=unique).created


TIMES = {  # what the first, and the second put say, in hours; None: no time
    "keep": {(1, 2): 1, (2, 1): 2, (None, 1): None, (1, None): 1},
    "new": {(1, 2): 2, (2, 1): 1, (None, 1): 1, (1, None): None},
    "earlier": {(1, 2): 1, (2, 1): 1, (None, 1): None, (1, None): None},
    "later": {(1, 2): 2, (2, 1): 2, (None, 1): 1, (1, None): 1},
}


@pytest.mark.parametrize("time", list(TIMES))
@pytest.mark.parametrize("on_duplicate", ["replace", "merge"])
def test_times(queue: Queue, time: Any, on_duplicate: Any) -> None:
    for number, ((first, second), expected) in enumerate(TIMES[time].items()):
        unique = Unique(f"t{number}", on_duplicate=on_duplicate, time=time)
        id = queue.put([1], first and f"{first}h", unique=unique)
        assert queue.put([2], second and f"{second}h", unique=unique) == id
        job = queue[id]
        hours = job.schedule_at and round((job.schedule_at - job.enqueued_at).total_seconds() / 3600)
        assert (hours, job.state) == (expected, "ready" if expected is None else "scheduled"), (first, second)


MERGES: list[tuple[Any, Any, Any]] = [
    ([], [], []),
    ([1, {"x": None}], [1, "ü\n😀"], [1, {"x": None}, 1, "ü\n😀"]),
    ({}, {}, {}),
    ({"ids": [1]}, {"ids": [2]}, {"ids": [1, 2]}),
    (
        {"b": 1.0, "a": {"x": 1}, "ids": [1e16], "n": None, "only": "o", "t": [1]},
        {"a": {"y": 2}, "b": None, "ids": [], "n": [0], "new": True, "t": "text"},
        {"b": None, "a": {"y": 2}, "ids": [1e16], "n": [0], "only": "o", "t": "text", "new": True},
    ),
    ({"": ["'%s\\"]}, {"": ["{}"]}, {"": ["'%s\\", "{}"]}),
    ({"function": "f", "args": [1]}, {"args": [2]}, {"function": "f", "args": [1, 2]}),
]


@pytest.mark.parametrize(("old", "new", "merged"), MERGES)
def test_merge(queue: Queue, put: Any, old: Any, new: Any, merged: Any) -> None:
    unique = Unique("t", on_duplicate="merge")
    first = put(old, "2h", unique=unique)
    assert put(new, "1h", unique=unique) == first
    job = queue[first]
    assert repr(job.data) == repr(merged)  # the order of names, and 1.0 is no 1
    assert job.schedule_at is not None
    assert (job.schedule_at - job.enqueued_at).total_seconds() == pytest.approx(3600, abs=10)


@pytest.mark.parametrize("new", [1, "text", None, "[1]", [1, "\0"], {"x": ["\ud800"]}])
def test_what_can_never_be_merged_is_refused_before_any_sql(queue: Queue, sql: Sql, new: Any) -> None:
    with pytest.raises(ValueError, match=r"can.* be merged"):
        queue.put(new, unique=Unique("t", on_duplicate="merge"))
    assert sql("select count(*) from queue") == [(0,)]


@pytest.mark.parametrize(
    ("old", "new"),
    [([1], {"x": 1}), ({"x": 1}, [1]), (1, [1]), ("x", [1]), (["\0"], [1]), ({"x": "\ud800"}, {"y": 1}), (None, {})],
)
def test_what_does_not_fit_is_refused_and_the_transaction_goes_on(queue: Queue, put: Any, old: Any, new: Any) -> None:
    first = put(old, unique="t")
    with queue:
        other = queue.put("other")
        with pytest.raises(ValueError, match=f"the data of job {first} in queue 'a' and the new data can't be merged"):
            queue.put(new, unique=Unique("t", on_duplicate="merge"))
    assert [job.id for job in queue.list()] == [first, other]
    assert queue[first].data == old


def test_pickles_and_texts_can_not_be_merged(pq: PQ) -> None:
    for suffix in ("pickle", "text"):
        with pytest.raises(ValueError, match="only arrays and objects can be merged"):
            pq[f"a/{suffix}"].put("x", unique=Unique("t", on_duplicate="merge"))


@pytest.mark.parametrize("data", ["a secret", {"function": "f", "args": ["a secret"], "kwargs": {}}])
def test_what_can_not_be_merged_is_not_shown(queue: Queue, data: Any) -> None:
    with pytest.raises(ValueError, match="can be merged") as raised:
        queue.put(data, unique=Unique("t", on_duplicate="merge"))
    assert "secret" not in str(raised.value)


def test_of_a_task_the_arguments_are_merged(queue: Queue, sql: Sql) -> None:
    seen = []

    @queue.task(unique=Unique("crm", on_duplicate="merge"))
    def sync(job_id: int, ids: list[int], full: bool = False) -> None:
        seen.append((ids, full))

    first = sync([1])
    assert sync(ids=[2], full=True) == first
    assert sync.put_many([([3],), {"ids": [4]}]) == [first, first]
    queue.work(burst=True)
    assert seen == [([1, 2, 3, 4], True)]


@pytest.mark.parametrize("on_duplicate", ["keep", "replace", "merge"])
def test_until_it_is_taken(queue: Queue, put: Any, on_duplicate: Any) -> None:
    unique = Unique("t", on_duplicate=on_duplicate)
    first = put([1], unique=unique)
    job = queue.get(timeout=0, lease="1m")
    assert job is not None
    second = put([2], unique=unique)
    assert second.created
    job.retry()
    assert put([3], unique=unique) == second
    assert sorted(job.id for job in queue.list()) == [first, second]


@pytest.mark.parametrize("end", ["done", "dead", "cancel"])
def test_until_it_is_done(queue: Queue, put: Any, end: str) -> None:
    unique = Unique("t", until="done")
    first = put([1], unique=unique)
    job = queue.get(timeout=0, lease="1m")
    assert job is not None
    assert put([2], unique=unique) == first
    job.retry("0s")
    assert put([3], unique=unique) == first
    job = queue.get(timeout=0, lease="1m")
    assert job is not None
    if end == "done":
        job.done()
    elif end == "dead":
        job.fail(ValueError())
        while (job := queue.get(timeout=0, lease="1m")) is not None:  # type: ignore[assignment]
            job.policy = job.policy._replace(max_retries=0)
            job.fail(ValueError())
    else:
        queue.cancel(first)
    assert put([4], unique=unique).created


@pytest.mark.parametrize("on_duplicate", ["replace", "merge"])
def test_the_token_of_a_running_job_moves_to_the_new_one(queue: Queue, put: Any, on_duplicate: Any) -> None:
    """Else each further put would make another."""
    unique = Unique("t", until="done", on_duplicate=on_duplicate)
    first = put([1], unique=unique)
    job = queue.get(timeout=0, lease="1m")
    assert job is not None
    second = put([2], unique=unique)
    assert second.created
    assert second != first
    third = put([3], unique=unique)
    assert (third, third.created) == (second, False)
    job.done()
    job = queue.get(timeout=0)
    assert job is not None
    assert (job.id, job.data) == (second, [3] if on_duplicate == "replace" else [2, 3])


def test_a_window(queue: Queue, put: Any, sql: Sql) -> None:
    unique = Unique("t", window="1h")
    first = put([1], unique=unique)
    job = queue.get(timeout=0, lease="1m")
    assert job is not None
    assert put([2], unique=unique) == first
    job.done()
    assert put([2], unique=unique) == first
    sql("update queue set unique_until = now() - interval '1 ms'")
    second = put([3], unique=unique)
    assert second.created
    assert put([4], unique=unique) == second
    assert sql("select id, unique_key from queue order by id") == [(first, None), (second, "t")]


@pytest.mark.parametrize("on_duplicate", ["replace", "merge"])
def test_what_has_ended_is_not_changed_within_its_window(queue: Queue, put: Any, on_duplicate: Any) -> None:
    unique = Unique("t", window="1h", on_duplicate=on_duplicate)
    first = put([1], unique=unique)
    assert queue.get(timeout=0) is not None
    second = put([2], unique=unique)
    assert second.created
    assert put([3], unique=unique) == second
    assert queue[first].data == [1]


def test_a_job_that_moves_leaves_its_token(queue: Queue, pq: PQ) -> None:
    first = queue.put(1, unique="t")
    pq["b"].put(2, unique="t")
    queue.move(first, "b")
    assert queue.put(3, unique="t").created
    assert sorted(job.data for job in pq["b"].list()) == [1, 2]


def test_put_many_returns_the_ids_in_the_order_of_the_items(queue: Queue) -> None:
    there = queue.put(0, unique="m")
    merge = Unique("l", on_duplicate="merge")
    ids = queue.put_many(
        [
            1, NewJob(2, unique="z"), NewJob(3, unique="m"), NewJob(4, unique="a"), NewJob(5, unique="z"), 6,
            NewJob([7], unique=merge), NewJob([8], unique=merge),
        ]
    )  # fmt: skip
    assert ids[2] == there
    assert ids[1] == ids[4]
    assert ids[6] == ids[7]
    assert [id.created for id in ids if isinstance(id, JobId)] == [True, False, True, False, True, False]
    new = [ids[0], ids[1], ids[3], ids[5], ids[6]]
    assert new == sorted(new)
    assert [queue[id].data for id in ids] == [1, 2, 0, 4, 2, 6, [7, 8], [7, 8]]


def test_a_full_queue_lets_puts_join(queue: Queue) -> None:
    from pq import QueueFull

    queue.max_ready = 1
    for on_duplicate in ("keep", "replace"):
        unique = Unique("t", on_duplicate=on_duplicate)  # type: ignore[arg-type]
        first = queue.put([1], unique=unique)
        assert queue.put([1], unique=unique) == first
        with pytest.raises(QueueFull):
            queue.put([2], unique=Unique("u", on_duplicate=on_duplicate))  # type: ignore[arg-type]
    assert len(queue) == 1


def test_load_refuses_tokens(queue: Queue) -> None:
    with pytest.raises(ValueError, match=r"load can't look for duplicates: use put or put_many for pq.Unique\('t'"):
        queue.load([1, NewJob(2, unique="t")])
    assert len(queue) == 0


@pytest.mark.parametrize("end", ["get", "block", "done", "dead", "cancel", "cancel dead"])
def test_a_row_is_kept_as_long_as_its_window_is_open(pq: PQ, put: Any, sql: Sql, end: str) -> None:
    """Even where finished jobs are not kept at all: the token would be gone with it."""
    pq.create(retain=0, retain_dead="1s")
    queue = pq["a"]
    first = put([1], unique=Unique("t", window="1h"))
    plain = put([2], unique=Unique("plain", until="done"))
    for _ in range(2):
        if end == "get":
            queue.get(timeout=0)
        elif end == "block":
            with queue:
                queue.get(timeout=0)
        elif end == "cancel":
            queue.cancel(first)
            queue.cancel(plain)
        else:
            job = queue.get(timeout=0, lease="1m")
            assert job is not None
            if end == "done":
                job.done()
            else:
                job.fail("x")
                if end == "cancel dead":
                    queue.cancel(job.id)
    sql("update queue set dequeued_at = dequeued_at - interval '1 h'")
    pq.prune()
    assert sql("select id, unique_key from queue") == [(first, "t")]
    again = put([3], unique=Unique("t", window="1h"))
    assert (again, again.created) == (first, False)
    sql("update queue set unique_until = now()")
    sql("update queue set dequeued_at = dequeued_at - interval '1 h'")
    pq.prune()
    assert sql("select count(*) from queue") == [(0,)]
    put([4], unique=Unique("t", window="1h"))
    queue.clear()
    assert put([5], unique=Unique("t", window="1h")).created
