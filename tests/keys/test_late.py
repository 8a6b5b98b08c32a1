"""Jobs that come late into the line of their key, in front of others that are there, are not passed over for long."""

from __future__ import annotations

import time
from typing import Any

import pytest
from support import wait_until

from pq import PQ, Queue

#: Ids that pass meanwhile: far more than those near the head, which are looked at first.
FAR = 5000


@pytest.fixture
def queue(pq: PQ) -> Queue:
    queue = pq["a"]
    queue.timeout = 0
    return queue


def skip_ids(queue: Queue) -> None:
    """As if so many other jobs were put."""
    queue._run(f"select setval('queue_id_seq', nextval('queue_id_seq') + {FAR})")


def by_lease(queue: Queue) -> Any:
    job = queue.get(lease="30s")
    if job is not None:
        job.done()
    return job and job.data


def in_block(queue: Queue) -> Any:
    with queue:
        job = queue.get()
    return job and job.data


def until(queue: Queue, wanted: Any, take: Any = by_lease, most: float = 5.0) -> list[Any]:
    """Take jobs of a line in which there are always some, until the wanted one has come."""
    found: list[Any] = []
    end = time.monotonic() + most
    while wanted not in found:
        assert time.monotonic() < end, f"{wanted} did not come; {len(found)} others did"
        queue.put("another", key="k")
        found.append(take(queue))
    return [data for data in found if data is not None]


@pytest.mark.parametrize("take", [by_lease, in_block])
def test_a_held_job_whose_commit_comes_late_is_not_passed_over_for_ever(queue: Queue, connect: Any, take: Any) -> None:
    queue.put("x", key="k")
    conn = connect()
    queue.put("late", key="k", conn=conn)
    skip_ids(queue)
    for number in range(3):
        queue.put(number, key="k")
    for _ in range(2):
        take(queue)
    conn.commit()
    until(queue, "late", take)


@pytest.mark.parametrize("take", [by_lease, in_block])
def test_a_ready_job_whose_commit_comes_late_is_not_passed_over_for_ever(queue: Queue, connect: Any, take: Any) -> None:
    conn = connect()
    queue.put("late", key="k", conn=conn)  # nobody is there
    skip_ids(queue)
    for number in range(3):
        queue.put(number, key="k")
    running = queue.get(lease="30s")
    conn.commit()
    running.done()
    until(queue, "late", take)


def test_all_that_come_late_keep_their_order(queue: Queue, connect: Any) -> None:
    queue.put("x", key="k")
    conn = connect()
    for number in range(5):
        queue.put(f"late {number}", key="k", conn=conn)
    skip_ids(queue)
    queue.put("y", key="k")
    queue.put("z", key="k")
    take = [by_lease(queue), by_lease(queue)]
    conn.commit()
    found = [*take, *until(queue, "late 4")]
    assert [data for data in found if str(data).startswith("late")] == [f"late {number}" for number in range(5)]
    assert queue.list("held")[0].expected_at is None


def test_a_scheduled_job_of_a_key_that_is_always_busy_comes_after_its_time(queue: Queue) -> None:
    queue.put("late", "300ms", key="k")
    skip_ids(queue)
    for number in range(3):
        queue.put(number, key="k")
    until(queue, "late")


def test_a_dead_job_of_a_key_that_is_always_busy_is_tried_again(queue: Queue) -> None:
    queue.put("late", key="k")
    dead = queue.get(lease="30s")
    dead.fail("no")
    skip_ids(queue)
    for number in range(3):
        queue.put(number, key="k")
    by_lease(queue)
    queue.dead.retry(dead.id)
    until(queue, "late")


def test_a_moved_job_of_a_key_that_is_always_busy_comes(pq: PQ, queue: Queue) -> None:
    number = pq["b"].put("late", key="k")
    skip_ids(queue)
    for data in range(3):
        queue.put(data, key="k")
    assert pq["b"].move(number, "a")
    until(queue, "late")


def test_after_an_urgent_job_the_order_goes_on_where_it_was(queue: Queue) -> None:
    queue.put(0, key="k")
    queue.put(1, key="k")
    queue.put(2, key="k")
    skip_ids(queue)
    queue.put("last", key="k")
    queue.put("urgent", None, "0s", key="k")
    assert [by_lease(queue) for _ in range(5)] == [0, "urgent", 1, 2, "last"]


def test_after_a_job_that_was_scheduled_the_order_goes_on_where_it_was(queue: Queue, connect: Any) -> None:
    """It is taken while the others are held, since nobody is in line for a moment."""
    queue.put("x", key="k")
    running = queue.get(lease="30s")
    for number in range(3):
        queue.put(number, key="k")
    skip_ids(queue)
    scheduled = queue.put("scheduled", "50ms", key="k")
    queue.put("last", key="k")
    conn = connect()
    conn.cursor().execute("select from queue where due_at = 'infinity' for update")
    running.done()  # nobody can be made ready
    wait_until(lambda: queue.count("scheduled") == 0, "its time")
    job = queue.get(lease="30s")
    assert job.id == scheduled
    conn.commit()
    job.done()
    assert [by_lease(queue) for _ in range(4)] == [0, 1, 2, "last"]


def test_a_key_is_checked_where_blocks_always_find_other_jobs(queue: Queue, connect: Any) -> None:
    queue.put("x", key="k")
    running = queue.get(lease="30s")
    conn = connect()
    queue.put("late", key="k", conn=conn)
    running.done()
    conn.commit()  # it is held, and nobody is in line
    found: list[Any] = []
    end = time.monotonic() + 5
    while "late" not in found:
        assert time.monotonic() < end
        for _ in range(2):
            queue.put("another")
        found.append(in_block(queue))
