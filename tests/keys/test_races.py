"""What transactions that overlap do to jobs of one key, step by step. The torture has found these."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from psycopg2.extensions import make_dsn
from support import Background, execute, taken, wait_until
from support.driver import driver

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


def test_one_in_line_that_cannot_be_taken_for_a_moment_lets_no_later_one_pass(
    dsn: str, queue: Queue, connect: Any
) -> None:
    """Two are in line, since the put of the second has not seen the first. A block has locked the key, but not got the
    first one, which another transaction had locked. A claim finds it just then; the next one comes when the block is
    over."""
    conn = connect()
    first = queue.put("first", key="k", conn=conn)
    queue.put("second", key="k")
    conn.commit()
    with PQ(dsn, timeout=0) as another, another["a"]:
        conn.cursor().execute("select from queue where id = %s for update", (first,))
        assert another["a"].get() is None
        conn.rollback()
        claim = f"update queue set dequeued_at = clock_timestamp(), schedule_at = 'infinity' where id = {first}"
        assert queue._run(f"{claim} returning dequeued_at") == [(None,)]
    found: list[Any] = []
    wait_until(lambda: found.append(taken(queue)) or len([data for data in found if data]) == 2, "both")
    assert [data for data in found if data] == ["first", "second"]


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


#: So the functions of triggers wait, in the session with that setting, when they have read so many rows.
PAUSE = """
    create function pause() returns boolean language plpgsql as $$
    declare
      step integer := coalesce(nullif(current_setting('test.step', true), ''), '0')::integer + 1;
    begin
      if pg_trigger_depth() > 0 and current_setting('test.pauses_at', true) <> '' then
        perform set_config('test.step', step::text, false);
        if step = current_setting('test.pauses_at')::integer then
          perform pg_advisory_lock_shared(1), pg_advisory_unlock_shared(1);
        end if;
      end if;
      return true;
    end
    $$;
    create policy pauses on queue using (pause());
    alter table queue enable row level security, force row level security;
"""

PAUSED = "select from pg_locks where locktype = 'advisory' and not granted"

TAKE = """
    update queue set dequeued_at = now(), due_at = now() + interval '1 h', attempts = 1
    where data::text = '"x"' returning id
"""


@pytest.fixture
def owned(empty_dsn: str) -> Iterator[str]:
    """The DSN of the table's owner, to whom its policies apply."""
    owner = f"pq_owner_{uuid.uuid4().hex[:8]}"
    execute(empty_dsn, f"create role {owner} login")
    execute(empty_dsn, f"grant all on schema public to {owner}")
    dsn = make_dsn(empty_dsn, user=owner)
    with PQ(dsn) as pq:
        pq.create()
    yield dsn
    execute(empty_dsn, f"drop owned by {owner} cascade; drop role {owner}")


def test_who_begins_between_the_first_look_and_the_lock_is_seen(owned: str) -> None:
    """The guard looks at the key of x, and sees y alone, which comes later. Before it has locked the key, another
    transaction takes the one before x, whose time has come."""
    conn = driver.connect(owned)
    with PQ(owned, timeout=0) as pq, PQ(f"{owned} options='-c test.pauses_at=1'") as other, closing(conn):
        queue = pq["a"]
        scheduled(queue, "first")
        queue.put("x", key="k", conn=conn)  # nobody sees it: y is ready, too
        queue.put("y", key="k")
        conn.commit()
        execute(owned, PAUSE)
        conn.cursor().execute("select pg_advisory_lock(1)")
        take = Background(other["a"]._run, TAKE)
        wait_until(lambda: queue._run(PAUSED), "the look")
        assert queue.get(lease="1h").data == "first"
        conn.cursor().execute("select pg_advisory_unlock(1)")
        assert take.result() == []
        assert queue.count("running") == 1


@pytest.mark.parametrize("step", range(1, 9))
def test_who_is_held_back_while_another_ends_keeps_its_place(owned: str, step: int) -> None:
    """Of the two that are in line the later one runs, since it is urgent. At each step of its end, a claim finds the
    other one, and holds it back."""
    conn = driver.connect(owned)
    with PQ(owned, timeout=0) as pq, PQ(f"{owned} options='-c test.pauses_at={step}'") as other, closing(conn):
        queue = pq["a"]
        conn.cursor().execute("select 1")
        queue.put("first", key="k", conn=conn)  # nobody sees it
        queue.put("urgent", None, "0s", key="k")
        conn.commit()
        running = queue.get(lease="1h")
        assert running.data == "urgent"
        queue.put("second", key="k")
        execute(owned, PAUSE)
        conn.cursor().execute("select pg_advisory_lock(1)")
        end = Background(other["a"]._run, "update queue set due_at = null where id = %(id)s", id=running.id)
        wait_until(lambda: queue._run(PAUSED) or not end.is_alive(), "the step")
        found = [taken(queue)]
        conn.cursor().execute("select pg_advisory_unlock(1)")
        end.result()
        wait_until(lambda: found.append(taken(queue)) or len([data for data in found if data]) == 2, "both")
        assert [data for data in found if data] == ["first", "second"]
