"""A paused queue is as if it was empty for who takes jobs, now or waiting, and for nobody else."""

from __future__ import annotations

import datetime as dt
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from typing import Any

import pytest
from support import PATIENCE, Background, wait_until
from support.driver import driver
from support.versions import Library

from pq import PQ, Queue
from pq import tasks as pq_tasks
from pq._queue.browse import STATES
from pq.tasks import Worker

Sql = Callable[..., list[tuple[Any, ...]]]

TAKES: dict[str, Callable[[Queue], Any]] = {
    "get": lambda queue: queue.get(block=False),
    "lease": lambda queue: queue.get(block=False, lease="1m"),
    "many": lambda queue: queue.get_many(3, block=False),
    "many under a lease": lambda queue: queue.get_many(3, block=False, lease="1m"),
    "iteration": lambda queue: next(iter(queue)),
}


@pytest.mark.parametrize("inside", [False, True], ids=["", "in a transaction"])
@pytest.mark.parametrize("take", list(TAKES))
@pytest.mark.parametrize("retain", ["7d", 0])
def test_a_get_on_a_paused_queue_finds_nothing(dsn: str, take: str, inside: bool, retain: Any) -> None:
    with PQ(dsn, timeout=0) as pq, PQ(dsn) as other:
        pq.create(retain=retain)
        queue = pq["a"]
        queue.put_many([1, 2])
        queue.put(3, dt.timedelta(seconds=-1))
        queue.put(4, dt.timedelta(seconds=-1), "0s")
        pq["b"].put(5)
        assert not queue.paused
        other["a"].pause()
        assert queue.paused
        with queue if inside else nullcontext():
            assert not TAKES[take](queue)
            assert TAKES[take](pq["b"])
        other["a"].resume()
        assert not queue.paused
        with queue if inside else nullcontext():
            assert TAKES[take](queue)


def test_pausing_and_resuming_twice_is_as_once(pq: PQ) -> None:
    queue = pq["a"]
    queue.resume()
    queue.put(1)
    for _ in range(2):
        queue.pause()
    for thread in [Background(queue.pause) for _ in range(8)]:
        thread.result()
    assert queue.get(block=False) is None
    queue.resume()
    assert not queue.paused
    assert queue.get(block=False) is not None


def test_a_pause_shows_as_nothing_but_itself(pq: PQ, sql: Sql) -> None:
    queue = pq["a"]
    queue.pause()
    ((marker,),) = sql("select id from queue")
    assert (queue.list(), queue.count(), len(queue), len(queue.dead), queue.find(marker)) == ([], 0, 0, 0, None)
    assert queue.counts() == dict.fromkeys(STATES, 0)
    for state in STATES:
        assert (queue.list(state), queue.count(state)) == ([], 0)
    assert queue.cancel(marker) == queue.dead.discard(marker) == queue.dead.retry(all=True) == 0
    assert not queue.reschedule(marker, "1h")
    assert not queue.move(marker, "b")
    assert pq.prune() == 0
    assert not [finding for finding in pq.doctor() if finding.data.get("queue") == "a"]
    queue.put(1)
    assert [job.data for job in queue.list()] == [1]
    peeked = queue.peek()
    assert peeked is not None
    assert queue.paused


def test_a_paused_queue_that_is_cleared_stays_paused(pq: PQ) -> None:
    queue = pq["a"]
    queue.put(1)
    queue.pause()
    queue.clear()
    assert queue.paused
    assert queue.count() == 0


def test_a_pause_is_part_of_a_transaction(pq: PQ) -> None:
    queue = pq["a"]
    queue.put(1)
    with suppress(ZeroDivisionError), queue:
        queue.pause()
        assert queue.paused
        assert queue.get(block=False) is None
        assert not Background(lambda: queue.paused).result()
        1 / 0  # noqa: B018
    assert not queue.paused


def test_jobs_that_were_taken_are_settled_during_a_pause(pq: PQ) -> None:
    queue = pq["a"]
    queue.put_many([1, 2])
    first, second = queue.get_many(2, lease="1m")
    queue.pause()
    first.extend()
    first.done()
    second.release()
    assert queue.counts()["ready"] == queue.counts()["finished"] == 1
    assert queue.get(block=False) is None


def test_pq_1_9_1_goes_on(pq: PQ, old: Library, dsn: str) -> None:
    queue = pq["a"]
    queue.pause()
    code = """
        queue = pq["a"]
        first = queue.get(block=False)
        queue.put("old")
        print(json.dumps([first, len(queue), queue.get(block=False).data]))
    """
    assert old.run(dsn, code) == [None, 1, "old"]
    assert queue.paused


# -- who waits


@pytest.fixture
def waiting(dsn: str) -> Iterator[PQ]:
    """Another process's, so to say; by itself it looks once in an hour."""
    with PQ(dsn, poll_interval=3600) as made:
        yield made


def settled(queue: Queue, sql: Sql, paused: bool) -> None:
    """Wait until who waits for the queue sleeps: without the gate if it is paused."""

    def sleeps() -> bool:
        line = queue._table._room.leader.session
        gate = line.gates.get(queue.name) if line is not None else None
        channel = queue._table._room.queues.get(queue.name)
        return gate is not None and channel is not None and channel.sure and gate.left is paused

    wait_until(sleeps, "the sleep of the waiter")
    assert len(sql("select from pg_locks where locktype = 'advisory'")) == (0 if paused else 1)


def test_a_blocked_get_wakes_when_the_pause_ends(pq: PQ, waiting: PQ, sql: Sql) -> None:
    queue = waiting["a"]
    pq["a"].pause()
    pq["a"].put(1)
    get = Background(queue.get, timeout=PATIENCE)
    settled(queue, sql, paused=True)
    assert get.is_alive()
    pq["a"].resume()
    assert get.result().data == 1


def test_a_blocked_get_sees_a_pause_that_begins(pq: PQ, waiting: PQ, sql: Sql) -> None:
    queue = waiting["a"]
    get = Background(queue.get, timeout=PATIENCE)
    settled(queue, sql, paused=False)
    pq["a"].pause()
    pq["a"].put(1)
    settled(queue, sql, paused=True)
    assert get.is_alive()
    assert len(pq["a"]) == 1
    pq["a"].resume()
    assert get.result().data == 1


def test_puts_to_a_paused_queue_notify_nobody(pq: PQ, waiting: PQ, sql: Sql, connect: Callable[..., Any]) -> None:
    pq["a"].pause()
    get = Background(waiting["a"].get, timeout=PATIENCE)
    settled(waiting["a"], sql, paused=True)
    conn = connect()
    conn.autocommit = True
    line: Any = waiting["a"]._table._room.leader.session
    conn.cursor().execute(f'listen "{line.gates["a"].channel}"')
    pq["a"].put_many(range(10))
    pq["a"].put(10, dt.timedelta(seconds=-1))
    conn.cursor().execute("select 1")
    assert driver.kept(conn) == []
    pq["a"].resume()
    assert get.result().data == 0
    conn.cursor().execute("select 1")
    assert len(driver.kept(conn)) == 1


def test_a_job_that_becomes_due_during_a_pause_wakes_nobody(
    pq: PQ, waiting: PQ, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = waiting["a"]
    pq["a"].pause()
    id = pq["a"].put(1, dt.timedelta(milliseconds=300))
    takes = []
    claims = queue._claims.take
    monkeypatch.setattr(queue._claims, "take", lambda *args: takes.append(args) or claims(*args))
    get = Background(queue.get, timeout=PATIENCE)
    settled(queue, sql, paused=True)
    wait_until(lambda: pq["a"][id].state == "ready", "the time of the job")
    before = len(takes)
    time.sleep(0.2)  # what is not to happen has no condition to wait for
    assert len(takes) == before <= 2
    pq["a"].resume()
    assert get.result().data == 1


@pytest.mark.parametrize("single", [False, True], ids=["own connections", "single connection"])
def test_within_one_pq_a_blocked_get_wakes_when_the_pause_ends(
    dsn: str, connect: Callable[..., Any], single: bool
) -> None:
    with PQ(connect() if single else dsn) as pq:
        pq["a"].pause()
        pq["a"].put(1)
        get = Background(pq["a"].get, timeout=PATIENCE)
        get.join(0.2)
        assert get.is_alive()
        pq["a"].resume()
        assert get.result().data == 1


def test_a_get_in_a_transaction_on_a_single_connection_waits_for_the_end(
    pq: PQ, connect: Callable[..., Any]
) -> None:
    single = PQ(connect(), poll_interval=0.05)
    pq["a"].pause()
    pq["a"].put(1)

    def get() -> Any:
        with single["a"]:
            return single["a"].get(timeout=PATIENCE)

    thread = Background(get)
    thread.join(0.2)
    assert thread.is_alive()
    pq["a"].resume()
    assert thread.result().data == 1


def test_no_put_is_missed_between_pauses(pq: PQ, waiting: PQ) -> None:
    """Producers that put one job in each transaction, some of them long; a waiter that does not look by itself."""
    queue = pq["a"]
    over = threading.Event()

    def produce(number: int) -> None:
        for n in range(40):
            with queue:
                queue.put((number, n))
                if n % 8 == number:
                    time.sleep(0.02)

    def toggle() -> None:
        while not over.is_set():
            queue.pause()
            time.sleep(0.005)
            queue.resume()
            time.sleep(0.005)

    def consume() -> list[Any]:
        return [waiting["a"].get(timeout=PATIENCE) for _ in range(80)]

    consumer, toggler = Background(consume), Background(toggle)
    try:
        for producer in [Background(produce, number) for number in range(2)]:
            producer.result()
    finally:
        over.set()
        toggler.result()
    jobs = consumer.result(patience=2 * PATIENCE)
    assert None not in jobs
    assert len({job.id for job in jobs}) == 80


# -- workers


def test_a_running_worker_takes_no_more_and_goes_on_at_the_end(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pq_tasks.Queue, "handler_registry", {})
    done: list[int] = []
    with pq_tasks.PQ(dsn) as pq:
        queue = pq["a"]

        @queue.task()
        def work(job_id: int) -> None:
            done.append(job_id)

        @pq["b"].task()
        def other(job_id: int) -> None:
            done.append(job_id)

        ids = [work()]
        worker = Worker(pq)
        running = Background(worker.run)
        try:
            wait_until(lambda: done == ids, "the first one")
            queue.pause()
            ids += [work(), work()]
            also = other()
            wait_until(lambda: also in done, "that of the other queue")
            wait_until(lambda: queue.count("running") == 0, "the end of what was taken")
            assert done == [ids[0], also]
            queue.resume()
            wait_until(lambda: done == [ids[0], also, *ids[1:]], "the others")
        finally:
            worker.stop()
            running.result()
