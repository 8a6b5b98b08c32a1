"""What transactions that overlap do to jobs of one key, step by step. The torture has found these."""

from __future__ import annotations

from typing import Any

import pytest
from support import taken, wait_until

from pq import PQ, Queue


@pytest.fixture
def queue(pq: PQ) -> Queue:
    queue = pq["a"]
    queue.timeout = 0
    return queue


def scheduled(queue: Queue, data: Any) -> None:
    """Put a job that is due now, but was not in line until then."""
    queue.put(data, "50ms", key="k")
    wait_until(lambda: queue.count("scheduled") == 0, "its time")


def test_what_came_while_a_block_had_a_scheduled_job_keeps_its_order(dsn: str, queue: Queue) -> None:
    """Nobody sees that the block has a job of the key: the one that comes next is ready. The end of the block must not
    make the one after that the first."""
    scheduled(queue, "x")
    with PQ(dsn, timeout=0) as another, another["a"]:
        assert another["a"].get().data == "x"
        queue.put("a", key="k")
        queue.put("b", key="k")
        queue.put("c", key="k")
    found: list[Any] = []
    wait_until(lambda: found.append(taken(queue)) or len([data for data in found if data]) == 3, "all three")
    assert [data for data in found if data] == ["a", "b", "c"]


@pytest.mark.parametrize("priority", [None, "0s"])
def test_what_came_at_last_from_an_open_transaction_keeps_its_place(
    queue: Queue, connect: Any, priority: str | None
) -> None:
    """It is ready, since nobody was there when it was put, and was put before the others; its commit comes while one of
    these runs, whose end makes the next one ready."""
    conn = connect()
    conn.cursor().execute("select 1")
    queue.put("late", None, priority, key="k", conn=conn)
    queue.put("x", key="k")
    running = queue.get(lease="30s")
    assert running.data == "x"
    queue.put("y", key="k")
    conn.commit()
    running.done()
    found: list[Any] = []
    wait_until(lambda: found.append(taken(queue)) or len([data for data in found if data]) == 2, "both")
    assert [data for data in found if data] == ["late", "y"]


def test_a_retry_that_cannot_be_taken_for_a_moment_keeps_its_place(dsn: str, queue: Queue, connect: Any) -> None:
    """A block looks at the job, which another transaction has locked: so it does not get it, but has the lock of the
    key until its end. Whoever finds the job meanwhile may not take it; those that come then must not pass it."""
    number = queue.put("first", key="k")
    queue.get(lease="30s").retry("50ms")
    wait_until(lambda: queue.count("scheduled") == 0, "its time")
    conn = connect()
    with PQ(dsn, timeout=0) as another, another["a"]:
        conn.cursor().execute("select from queue where id = %s for update", (number,))
        assert another["a"].get() is None
        conn.rollback()
        assert taken(queue) is None
        queue.put("urgent", None, "0s", key="k")
    found: list[Any] = []
    wait_until(lambda: found.append(taken(queue)) or len([data for data in found if data]) == 2, "both")
    assert [data for data in found if data] == ["first", "urgent"]


def test_the_end_of_a_job_counts_on_one_in_line_that_is_about_to_leave(queue: Queue, connect: Any) -> None:
    """The one that is in line too is deleted by a transaction that was there before the third was put."""
    conn = connect()
    conn.cursor().execute("select 1")
    late = queue.put("late", key="k", conn=conn)
    queue.put("x", key="k")
    running = queue.get(lease="30s")
    assert running.data == "x"
    conn.commit()
    conn.cursor().execute("delete from queue where id = %s", (late,))
    queue.put("y", key="k")
    checks = "select count(*) from queue_checks"
    wait_until(lambda: taken(queue) is None and queue._run(checks) == [(0,)], "the check of its put")
    running.done()
    conn.commit()
    wait_until(lambda: taken(queue) == "y", "the last one", 2)
