"""What was taken and has ended is freed at once: no cycle of references keeps it, and its connection, until the garbage
collector comes by. And what pq has for a connection ends with that."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from typing import Any

import psycopg2
import pytest

from pq import PQ, Worker
from pq._db.known import known
from pq.tasks import PQ as PQWithTasks
from pq.tasks import current

#: How often each is done: more than the objects of what earlier tests have left, which may end meanwhile.
TIMES = 500

Do = Callable[[PQ], object]


@contextmanager
def failing() -> Iterator[None]:
    with suppress(ZeroDivisionError):
        yield
        raise ZeroDivisionError


def lease(pq: PQ) -> None:
    pq["a"].put(1)
    job: Any = pq["a"].get(timeout=0, lease="10s")
    job.done()


def failed(pq: PQ) -> None:
    pq["a"].put(1)
    job: Any = pq["a"].get(timeout=0, lease="10s")
    with failing(), job:
        raise ZeroDivisionError
    pq["a"].clear()


def jobs(pq: PQ) -> None:
    pq["a"].put_many([1, 2])
    for job in pq["a"].jobs(timeout=0):
        if job is None:
            return
        job.done()


def block(pq: PQ) -> None:
    pq["a"].put_many([1, 2])
    with pq["a"]:
        pq["a"].get(timeout=0)
        pq["a"].get(timeout=0)


def item(pq: PQ) -> None:
    pq["a"].put(1)
    with pq["a"].item(timeout=0) as job:
        assert job is not None


def failed_item(pq: PQ) -> None:
    pq["a"].put(1)
    with failing(), pq["a"].item(timeout=0):
        raise ZeroDivisionError
    pq["a"].clear()


def batch(pq: PQ) -> None:
    pq.streams["s"].publish_many([1, 2, 3])
    with pq.streams["s"].subscription("x").batch(timeout=0) as events:
        events[0].retry("1h")


def failed_batch(pq: PQ) -> None:
    pq.streams["s"].publish(1)
    with failing(), pq.streams["s"].subscription("x").batch(timeout=0):
        raise ZeroDivisionError
    pq.streams["s"].subscription("x").seek("new")


def batches(pq: PQ) -> None:
    pq.streams["s"].publish_many([1, 2, 3])
    next(pq.streams["s"].subscription("x").batches(lease="10s", timeout=0)).done()


def events(pq: PQ) -> None:
    pq.streams["s"].publish_many([1, 2])
    for event in pq.streams["s"].subscription("x").events(timeout=0):
        if event is None:
            return


def wait(pq: PQ) -> None:
    assert pq["a"].get(timeout=0.01) is None


def followers(pq: PQ) -> None:
    pq["a"].put(2, after=[pq["a"].put(1)])
    with pq["a"].group(then=(pq["a"], 1)) as group:
        group.put(1)
    pq["a"].clear()


def unique(pq: PQ) -> None:
    pq["a"].put(1, unique="t")


def looks(pq: PQ) -> None:
    pq.overview()
    pq["a"].list()
    pq.streams["s"].info()


WAYS = (
    lease, failed, jobs, block, item, failed_item, batch, failed_batch, batches, events, wait, followers, unique, looks,
)  # fmt: skip


def garbage(do: Callable[[], object]) -> list[Any]:
    """What was left to the collector."""
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        do()
        gc.collect()
        return list(gc.garbage)
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


@pytest.mark.parametrize("do", WAYS, ids=lambda do: do.__name__)
def test_nothing_is_left_to_the_garbage_collector(pq: PQ, do: Do) -> None:
    pq.streams["s"].create()
    pq.streams["s"].subscribe("x", retry_in="0s")
    do(pq)
    found = garbage(lambda: [do(pq) for _ in range(TIMES)] and None)
    assert len(found) < TIMES, found


def test_nor_are_events_taken_on_a_connection_of_the_application(pq: PQ, dsn: str) -> None:
    pq.streams["s"].create()
    reader = pq.streams["s"].subscribe("x")
    with closing(psycopg2.connect(dsn)) as conn:

        def take() -> None:
            pq.streams["s"].publish(1)
            with conn:
                assert len(reader.take(conn=conn)) == 1

        take()
        found = garbage(lambda: [take() for _ in range(TIMES)] and None)
    assert len(found) < TIMES, found


@pytest.mark.parametrize("name", ["plain", "transactional", "fails"])
def test_nor_are_the_jobs_of_a_worker(dsn: str, name: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL + 1, "pq.tasks")  # else records keep what they tell of
    with PQWithTasks(dsn) as pq:
        tasks = pq["tasks"]

        @tasks.task(name="plain")
        def plain(job_id: int) -> None:
            pass

        @tasks.task(name="transactional", transactional=True)
        def transactional(job_id: int) -> None:
            current().cursor.execute("select 1")

        @tasks.task(name="fails")
        def fails(job_id: int) -> None:
            raise ZeroDivisionError

        task: Any = {"plain": plain, "transactional": transactional, "fails": fails}[name]

        def work(n: int) -> Callable[[], None]:
            task.put_many([()] * n)
            return Worker(pq, [tasks], max_jobs=n).run

        work(2)()
        few, many = len(garbage(work(2))), garbage(work(2 + TIMES))
    assert len(many) - few < TIMES, many


def test_a_connection_that_pq_closes_is_closed_though_a_cursor_is_kept(dsn: str) -> None:
    """pq has a second descriptor for it, and the server would see the session only half closed."""
    with PQ(dsn) as pq:
        with pq["a"] as cursor:
            again = known(cursor.connection).socket(cursor.connection)
        assert again.fileno() >= 0
        pq._db.source.distrust()
        assert cursor.connection.closed
        assert again.fileno() == -1
