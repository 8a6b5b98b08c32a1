"""The recipes of ``howto/unique.rst`` where others do the same at the same time, and with keys; and bad input."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any

import pytest
from support import Background, wait_until

from pq import PQ, Duplicate, NewJob, Unique

Sql = Callable[..., list[tuple[Any, ...]]]


@pytest.mark.parametrize("commits", [True, False])
@pytest.mark.parametrize("on_duplicate", ["keep", "replace", "merge"])
def test_a_held_job_that_was_joined_comes_back(pq: PQ, connect: Any, on_duplicate: Any, commits: bool) -> None:
    """A runs, H is held behind it, T joins H and stays open, A ends: H is passed over; then T ends."""
    queue = pq["q"]
    unique = Unique("t", on_duplicate=on_duplicate)
    queue.put(["A"], key="k", unique=unique)
    running = queue.get(timeout=0, lease="1m")
    assert running is not None
    held = queue.put(["H"], key="k", unique=unique)
    assert queue[held].state == "held"
    conn = connect()
    conn.autocommit = False
    assert queue.put(["T"], key="k", unique=unique, conn=conn) == held
    running.done()
    assert queue.get(timeout=0) is None
    (conn.commit if commits else conn.rollback)()
    job = queue.get(timeout=2.5)
    assert job is not None
    expected = {"keep": ["H"], "replace": ["T"], "merge": ["H", "T"]}[on_duplicate] if commits else ["H"]
    assert (job.id, job.data) == (held, expected)


def test_collapse(pq: PQ) -> None:
    queue = pq["q"]
    unique = Unique("k", on_duplicate="merge")
    ids = [queue.put([0], key="k", unique=unique)]
    running = queue.get(timeout=0, lease="1m")
    assert running is not None
    ids += [queue.put([number], key="k", unique=unique) for number in (1, 2, 3)]
    assert len(set(ids)) == 2
    assert queue.counts() | {"held": 1, "running": 1} == queue.counts()
    assert queue.put([4], "1h", key="k", unique=Unique("k", on_duplicate="merge", time="new")) == ids[1]
    assert queue[ids[1]].state == "scheduled"
    assert queue.put([5], key="k", unique=Unique("k", on_duplicate="merge", time="new")) == ids[1]
    assert queue[ids[1]].state == "held"
    running.done()
    job = queue.get(timeout=2.5)
    assert job is not None
    assert job.data == [1, 2, 3, 4, 5]


def test_a_job_that_is_rescheduled_by_a_put_wakes_who_waits(dsn: str, pq: PQ, sql: Sql) -> None:
    queue = pq["q"]
    id = queue.put([1], "1h", unique="t")
    with PQ(dsn, poll_interval=30) as other:
        waiting = Background(other["q"].get, timeout=20)
        wait_until(lambda: sql("select from pg_locks where locktype = 'advisory'"))  # the gate of the queue
        queue.put([2], unique=Unique("t", on_duplicate="merge"))
        job = waiting.result(10)
    assert (job.id, job.data) == (id, [1, 2])


def test_resolvers_at_once_lose_nothing(dsn: str, pq: PQ) -> None:
    queue = pq["q"]

    def resolve(old: list[int], new: list[int]) -> list[int]:
        return sorted({*old, *new})

    def put_resolved(own: PQ, data: Any) -> int:
        while True:
            with own["q"] as cursor:
                try:
                    return own["q"].put(data, unique=Unique("t", on_duplicate="error"))
                except Duplicate as duplicate:
                    cursor.execute(
                        "select data from %s where id = %s and unique_key = %s for no key update",
                        (own["q"].table, duplicate.job_id, "t"),
                    )
                    if found := cursor.fetchone():
                        own["q"].update(duplicate.job_id, resolve(found[0], data))
                        return duplicate.job_id

    def produce(seed: int) -> None:
        with PQ(dsn) as own:
            for number in range(30):
                put_resolved(own, [seed * 100 + number])

    producers = [Background(produce, seed) for seed in range(4)]
    taken: list[int] = []
    while any(producer.is_alive() for producer in producers) or len(queue):
        job = queue.get(timeout=0.05)
        taken += job.data if job else []
    for producer in producers:
        producer.result()
    assert sorted(taken) == sorted(seed * 100 + number for seed in range(4) for number in range(30))


BAD: list[tuple[Any, type[Exception], str]] = [
    ("", ValueError, "must not be empty"),
    ("a\0", ValueError, "NUL character"),
    ("\ud800", ValueError, "lone surrogate"),
    ("ü" * 251, ValueError, "must have at most 500 bytes, not 502: 'ü"),
    (b"t", TypeError, "not bytes: b't'"),
    (5, TypeError, "not int: 5"),
    (False, TypeError, "not bool: False"),
    (["t"], TypeError, "not list"),
]


@pytest.mark.parametrize("name", ["key", "unique"])
@pytest.mark.parametrize(("value", "kind", "message"), BAD)
def test_bad_keys_and_tokens(pq: PQ, sql: Sql, name: str, value: Any, kind: type[Exception], message: str) -> None:
    queue = pq["q"]

    @queue.task(name=f"bad {name} {message}")
    def task(job_id: int) -> None: ...

    attempts: list[Callable[[], Any]] = [
        lambda: queue.put(1, **{name: value}),
        lambda: queue.put_many([1, NewJob(2, **{name: value})]),
        lambda: queue.load([1, NewJob(2, **{name: value})]),
        lambda: queue.task(**{name: value}),
        lambda: task(**{f"_{name}": value}),
    ]
    if name == "unique":
        attempts.append(lambda: Unique(value))
    for attempt in attempts:
        with pytest.raises(kind, match=name) as caught:
            attempt()
        assert message in str(caught.value)
    assert sql("select count(*) from queue") == [(0,)]
    assert queue.put(1, **{name: "ü" * 250})


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"until": "ended"}, ValueError, "until must be one of 'started', 'done', not 'ended'"),
        ({"until": "1h"}, ValueError, "until must be one of"),
        ({"until": 5}, TypeError, "until must be a str, not int: 5"),
        ({"until": "done", "window": "1h"}, TypeError, "until or window, not both"),
        ({"window": "0s"}, ValueError, "window must be positive, not '0s'"),
        ({"window": dt.timedelta(-1)}, ValueError, "window must not be negative"),
        ({"window": "3661d"}, ValueError, "window must be at most 3660 days, not '3661d'"),
        ({"window": "soon"}, ValueError, "window must be of the form"),
        ({"window": True}, TypeError, "window must be a number of seconds, a str or timedelta, not bool: True"),
        ({"on_duplicate": "drop"}, ValueError, "on_duplicate must be one of 'keep', 'replace', 'merge', 'error'"),
        ({"on_duplicate": None}, TypeError, "on_duplicate must be a str, not NoneType"),
        ({"time": "soon", "on_duplicate": "merge"}, ValueError, "time must be one of 'keep', 'new', 'earlier'"),
        ({"time": "new"}, ValueError, "time='new' needs on_duplicate='replace' or 'merge'"),
    ],
)
def test_bad_options(options: dict[str, Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind) as caught:
        Unique("t", **options)
    assert message in str(caught.value)


def test_a_function_of_a_task_that_returns_something_else(pq: PQ, sql: Sql) -> None:
    queue = pq["q"]

    @queue.task(name="something else", key=lambda customer: customer, unique=lambda customer: customer)
    def task(job_id: int, customer: Any) -> None: ...

    with pytest.raises(TypeError, match="key of task something else must be a str, not int: 5"):
        task(5)
    with pytest.raises(ValueError, match="key of task something else must not be empty"):
        task("")
    task(None)
    assert sql("select key, unique_key from queue") == [(None, None)]
