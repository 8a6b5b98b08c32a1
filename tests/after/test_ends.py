"""Jobs that end at the same time, and those that fail: whoever follows them is ready in the end, and nobody waits."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import pytest
from support import PATIENCE, take, wait_until
from support.driver import driver

from pq import PQ, After, Queue

Sql = Callable[..., list[tuple[Any, ...]]]

#: Seconds within which whatever is held comes back, after the commit that lets it.
LATEST = 2.0


@pytest.fixture
def sessions(connect: Callable[..., Any]) -> list[Any]:
    """Connections on which no statement waits for a lock."""
    made = [connect() for _ in range(3)]
    for conn in made:
        conn.cursor().execute("set lock_timeout = '1ms'")
        conn.commit()
    return made


def comes(pq: PQ, then: Queue, since: float) -> None:
    """The follower is got by whoever consumes, in time; any queue will do."""
    while then.get(block=False, lease="1h") is None:
        assert time.monotonic() < since + LATEST, "it did not come"
        pq["another"].get(timeout=0.05)


def stays(pq: PQ, then: Queue) -> None:
    """The follower is held, also after all checks."""
    for _ in range(3):
        pq._table.execute("update queue_checks set check_at = '-infinity' where true")
        pq._table._memory.healed_at = -1e9
        pq["another"].get(block=False)
        assert then.get(block=False) is None


def interleavings(counts: list[int]) -> Iterator[list[int]]:
    """All orders of so many steps of each actor."""
    if not any(counts):
        yield []
    for actor, count in enumerate(counts):
        if count:
            for rest in interleavings([left - (which == actor) for which, left in enumerate(counts)]):
                yield [actor, *rest]


ORDERS = sorted(interleavings([2, 2]))
ORDERS_OF_THREE = sorted(interleavings([2, 2, 2]))[::6]


@pytest.mark.parametrize("order", ORDERS, ids=lambda order: "".join("AB"[actor] for actor in order))
@pytest.mark.parametrize("commits", list(product([True, False], repeat=2)), ids=str)
def test_two_that_end_at_once(
    pq: PQ, parts: Queue, then: Queue, sessions: list[Any], order: list[int], commits: tuple[bool, bool]
) -> None:
    then.put("all", after=parts.put_many([0, 1]))
    jobs = [take(parts), take(parts)]
    seen = [0, 0]
    for actor in order:
        conn = sessions[actor]
        if seen[actor] == 0:
            jobs[actor].done(conn=conn)
        elif commits[actor]:
            conn.commit()
        else:
            conn.rollback()
        seen[actor] += 1
        if sum(seen) < 4:
            assert then.get(block=False) is None
    since = time.monotonic()
    if all(commits):
        comes(pq, then, since)
    else:
        stays(pq, then)
        for actor in (0, 1):
            if not commits[actor]:
                jobs[actor].done()
        comes(pq, then, time.monotonic())


@pytest.mark.parametrize("order", ORDERS_OF_THREE, ids=lambda order: "".join("ABC"[actor] for actor in order))
def test_three_that_end_at_once(pq: PQ, parts: Queue, then: Queue, sessions: list[Any], order: list[int]) -> None:
    then.put("all", after=parts.put_many([0, 1, 2]))
    jobs = [take(parts) for _ in range(3)]
    ended: set[int] = set()
    for actor in order:
        if actor in ended:
            sessions[actor].commit()
        else:
            jobs[actor].done(conn=sessions[actor])
        ended.add(actor)
    comes(pq, then, time.monotonic())


@pytest.mark.parametrize("how", ["commit", "rollback"])
def test_a_follower_that_is_locked_comes_when_it_is_free(
    pq: PQ, parts: Queue, then: Queue, sessions: list[Any], how: str
) -> None:
    id = then.put("all", after=parts.put(1))
    then.update(id, "changed", conn=sessions[0])
    take(parts).done()  # does not wait
    stays(pq, then)
    getattr(sessions[0], how)()
    comes(pq, then, time.monotonic())


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
def test_an_end_in_an_older_snapshot(pq: PQ, parts: Queue, then: Queue, connect: Any, level: str) -> None:
    then.put("all", after=parts.put_many([1, 2]))
    jobs = [take(parts), take(parts)]
    conn = connect()
    conn.cursor().execute(f"set session characteristics as transaction isolation level {level}")
    conn.commit()
    conn.cursor().execute("select count(*) from queue")  # its snapshot
    jobs[0].done()
    jobs[1].done(conn=conn)
    stays(pq, then)
    conn.commit()
    comes(pq, then, time.monotonic())


def test_an_end_with_triggers_of_ones_own_that_drop_it(pq: PQ, parts: Queue, then: Queue, sql: Sql) -> None:
    id = then.put("all", after=parts.put(1))
    sql("create function drop_it() returns trigger language plpgsql as 'begin return null; end'")
    sql(
        "create trigger zz_drop_it before update or delete on queue for each row"
        " when (old.follower is not null) execute function drop_it()"
    )
    sql("delete from queue where follower is not null")
    sql("update queue set dequeued_at = now() where follower is not null")
    assert (then[id].state, then[id].stopped) == ("held", False)
    sql("drop trigger zz_drop_it on queue")
    take(parts).done()
    assert then[id].state == "ready"


def test_a_process_that_is_killed_has_ended_nothing(pq: PQ, parts: Queue, then: Queue, dsn: str) -> None:
    then.put("all", after=parts.put(1))
    child = os.fork()
    if child == 0:
        try:
            conn = driver.connect(dsn)
            with PQ(dsn) as other:
                take(other["parts"]).done(conn=conn)
                os.kill(os.getpid(), signal.SIGKILL)
        finally:
            os._exit(1)
    os.waitpid(child, 0)
    wait_until(lambda: pq._table.execute("update queue set due_at = now() where due_at < 'infinity' returning id"))
    stays(pq, then)
    take(parts).done()
    comes(pq, then, time.monotonic())


# -- failures


def fail(pq: PQ, queue: Queue, id: int, how: str, sql: Sql) -> None:
    """Have the job fail, which is the next one."""
    if how == "dead":
        take(queue).fail("no")
    elif how == "cancelled":
        queue.cancel(id)
    elif how == "cancelled while it runs":
        take(queue)
        queue.cancel(id)
    elif how == "discarded":
        take(queue).fail("no")
        queue.dead.discard(id)
    elif how == "cleared":
        queue.clear()
    elif how == "deleted by plain SQL":
        sql("delete from queue where id = %s", (id,))
    elif how == "pruned":
        take(queue).fail("no")
        sql("update queue set dequeued_at = now() - interval '1 year' where id = %s", (id,))
        while pq.prune():
            pass


FAILURES = [
    "dead", "cancelled", "cancelled while it runs", "discarded", "cleared", "deleted by plain SQL", "pruned"
]  # fmt: skip


@pytest.mark.parametrize("retain", ["7d", 0])
@pytest.mark.parametrize("how", FAILURES)
@pytest.mark.parametrize("key", [None, "k"])
def test_by_default_it_is_held(
    pq: PQ, parts: Queue, then: Queue, sql: Sql, how: str, retain: Any, key: str | None
) -> None:
    pq.create(retain=retain)
    bad, good = parts.put("bad", key=key), pq["good"].put("good")
    id = then.put("all", after=[bad, good], key=key)
    fail(pq, parts, bad, how, sql)
    stays(pq, then)
    take(pq["good"]).done()
    stays(pq, then)
    assert (then[id].state, then[id].stopped) == ("held", how != "dead")
    assert then[id].waits_for == (1 if how == "dead" else 0)
    if how == "dead":
        parts.dead.retry(bad)
        take(parts).done()
    else:
        then.reschedule(id, None)
    assert take(then).id == id


@pytest.mark.parametrize("retain", ["7d", 0])
@pytest.mark.parametrize("how", FAILURES)
def test_it_runs_all_the_same_if_it_is_to(pq: PQ, parts: Queue, then: Queue, sql: Sql, how: str, retain: Any) -> None:
    pq.create(retain=retain)
    bad, good = parts.put("bad"), pq["good"].put("good")
    id = then.put("all", after=After([bad, good], on_failed="run"))
    fail(pq, parts, bad, how, sql)
    stays(pq, then)
    take(pq["good"]).done()
    assert take(then).id == id


@pytest.mark.parametrize("retain", ["7d", 0])
@pytest.mark.parametrize("how", FAILURES)
def test_it_is_cancelled_if_it_is_to(pq: PQ, parts: Queue, then: Queue, sql: Sql, how: str, retain: Any) -> None:
    pq.create(retain=retain)
    bad, good = parts.put("bad"), pq["good"].put("good")
    id = then.put("all", after=After([bad, good], on_failed="cancel"))
    next = then.put("next", after=After(id, on_failed="cancel"))
    last = then.put("last", after=After(next, on_failed="run"))
    fail(pq, parts, bad, how, sql)
    assert [(then[each].state, then[each].cancelled) for each in (id, next)] == [("finished", True)] * 2
    take(pq["good"]).done()
    assert take(then).id == last
    assert then.get(block=False) is None


def test_a_long_chain_is_cancelled(pq: PQ, then: Queue, sql: Sql) -> None:
    """In steps: a trigger that fires itself for each member would need a stack without end."""
    first = id = then.put(0)
    for number in range(60):
        id = then.put(number, after=After(id, on_failed="cancel"))
    sql("set max_stack_depth = '200kB'")
    sql("update queue set dequeued_at = now(), failed_at = now() where id = %s", (first,))
    stays(pq, then)  # the checks that the first one leaves are made together with it
    assert then[id].cancelled
    assert then.count() == 0


def test_one_that_is_dead_and_retried_does_not_let_it_go(pq: PQ, parts: Queue, then: Queue) -> None:
    id = then.put("all", after=parts.put(1))
    take(parts).fail("no")
    parts.dead.retry(all=True)
    stays(pq, then)
    take(parts).done()
    assert take(then).id == id


def test_finished_ones_that_are_pruned_change_nothing(pq: PQ, parts: Queue, then: Queue, sql: Sql) -> None:
    first, second = parts.put_many([1, 2])
    id = then.put("all", after=[first, second])
    take(parts).done()
    sql("update queue set dequeued_at = now() - interval '1 year' where id = %s", (first,))
    while pq.prune():
        pass
    assert parts.find(first) is None
    stays(pq, then)
    assert not then[id].stopped
    take(parts).done()
    assert take(then).id == id


def test_whichever_of_many_is_the_last(pq: PQ, parts: Queue, then: Queue) -> None:
    """Not all of them are looked at first."""
    for last in range(0, 40, 3):
        id = then.put("all", after=parts.put_many(range(40)))
        jobs = parts.get_many(40, lease="1h", timeout=PATIENCE)
        parts.done(jobs[:last])
        parts.done(jobs[last + 1 :])
        assert (then[id].state, then[id].waits_for) == ("held", 1)
        jobs[last].done()
        assert take(then).id == id


def test_no_check_is_left_behind(pq: PQ, parts: Queue, then: Queue, sql: Sql) -> None:
    """An end whose transaction sees that others have not ended, and that none is about to, writes nothing."""
    then.put("all", after=parts.put_many(range(5)))
    for _ in range(5):
        take(parts).done()
    assert sql("select count(*) from queue_checks") == [(0,)]


def test_the_table_of_locks_is_not_filled(pq: PQ, parts: Queue, then: Queue, sql: Sql, connect: Any) -> None:
    """One statement that ends 1,000 jobs of 1,000 followers."""
    for id in parts.put_many(range(400)):
        then.put(id, after=[id, parts.put("another", expected_at=None)])
    jobs = parts.get_many(400, lease="1h", timeout=PATIENCE)
    conn = connect()
    parts.done(jobs, conn=conn)
    ((count,),) = sql("select count(*) from pg_locks where locktype = 'advisory'")
    assert 0 < count <= 128
    conn.commit()
    rest = parts.get_many(1000, lease="1h", timeout=PATIENCE)
    parts.done(rest)
    since = time.monotonic()
    found = 0
    while found < 400:
        found += len(then.get_many(1000, block=False, lease="1h"))
        assert time.monotonic() < since + PATIENCE
        pq["another"].get(timeout=0.05)
