"""Keys together with all else: what a key promises holds with each option of the put and of the queue, however the jobs
are put and taken, and at the end nothing is stuck. What is refused changes nothing. docs/reference/keys.rst has the
table."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from support import wait_until
from support.driver import driver

from pq import PQ, After, Limit, NewJob, Queue, Unique, Worker
from pq.tasks import current

Taken = list[Any]


# -- ways of taking: each takes what it can get, and ends it


def block(queue: Queue) -> Taken:
    with queue:
        job = queue.get()
        return [] if job is None else [job.data]


def item(queue: Queue) -> Taken:
    with queue.item() as job:
        return [] if job is None else [job.data]


def get(queue: Queue) -> Taken:
    job = queue.get()
    return [] if job is None else [job.data]


def lease(queue: Queue) -> Taken:
    job = queue.get(lease="30s")
    if job is None:
        return []
    job.done()
    return [job.data]


def steps(queue: Queue) -> Taken:
    """The second attempt knows the step of the first one."""
    job = queue.get(lease="30s")
    if job is None:
        return []
    assert job.step("once", lambda: job.data) == job.data
    job.release()
    again = queue.get(lease="30s")
    assert again is not None and again.id == job.id, "another one has passed"
    assert again.step("once", lambda: "called again") == job.data
    again.done()
    return [again.data]


def retry(queue: Queue) -> Taken:
    job = queue.get(lease="30s")
    if job is None:
        return []
    job.retry("30ms")
    again: list[Any] = []
    wait_until(lambda: again.append(queue.get(lease="30s")) or again[-1], "the retry")
    assert again[-1].id == job.id, "another one has passed"
    again[-1].done()
    return [job.data]


def batch(queue: Queue) -> Taken:
    jobs = queue.get_many(10, lease="30s")
    queue.done(jobs)
    return [job.data for job in jobs]


def block_of_several(queue: Queue) -> Taken:
    with queue:
        return [job.data for job in queue.get_many(10)]


WAYS = [block, item, get, lease, steps, retry, batch, block_of_several]


# -- kinds of transactions in which jobs are put, or taken


@contextmanager
def transaction(pq: PQ, connect: Any) -> Iterator[None]:
    conn = connect()
    with pq.using(conn):
        yield
    conn.commit()


@contextmanager
def savepoint(pq: PQ, connect: Any) -> Iterator[None]:
    conn = connect()
    with pq.using(conn, savepoint=True):
        yield
    conn.commit()


@contextmanager
def repeatable_read(pq: PQ, connect: Any) -> Iterator[None]:
    conn = connect()
    conn.cursor().execute("set transaction isolation level repeatable read")
    conn.cursor().execute("select count(*) from queue")
    try:
        with pq.using(conn):
            yield
        conn.commit()
    finally:
        conn.rollback()


# -- what is given beside the key: each puts three jobs


def plain(queue: Queue) -> None:
    for number in (1, 2, 3):
        queue.put(number, key="k")


def put_many(queue: Queue) -> None:
    queue.put_many([NewJob(number, key="k") for number in (1, 2, 3)])


def unique_until_started(queue: Queue) -> None:
    for number in (1, 2, 3):
        queue.put(number, key="k", unique=str(number))
    assert not queue.put(3, key="k", unique="3").created


def unique_until_done(queue: Queue) -> None:
    for number in (1, 2, 3):
        queue.put(number, key="k", unique=Unique(str(number), until="done"))
    assert not queue.put(1, key="k", unique=Unique("1", until="done")).created


def unique_window(queue: Queue) -> None:
    for number in (1, 2, 3):
        queue.put(number, key="k", unique=Unique(str(number), window="1h"))
    assert not queue.put(2, key="k", unique=Unique("2", window="1h")).created


def after(queue: Queue) -> None:
    """Each follows the one before it, and has its key."""
    first = queue.put(1, key="k")
    queue.put(3, key="k", after=After(queue.put(2, key="k", after=After(first))))


GIVEN = [plain, put_many, unique_until_started, unique_until_done, unique_window, after]


def all_taken(queue: Queue, way: Callable[[Queue], Taken]) -> Taken:
    found: Taken = []
    wait_until(lambda: found.extend(way(queue)) or len(found) >= 3, "all three")
    return found + way(queue)


def nothing_is_left(queue: Queue) -> bool:
    counts = queue.counts()
    return not any(counts[state] for state in ("ready", "scheduled", "held", "running", "dead"))


@pytest.mark.parametrize("retain", ["7d", 0])
@pytest.mark.parametrize("limit", [None, Limit(running=1, rate="1000/s")], ids=["unlimited", "limited"])
@pytest.mark.parametrize("given", GIVEN)
def test_with_whatever_they_are_put_each_way_of_taking_has_them_in_order(
    pq: PQ, given: Callable[[Queue], None], limit: Limit | None, retain: Any
) -> None:
    pq.create(retain=retain)
    for way in WAYS:
        queue = pq[way.__name__]
        queue.timeout = 0
        if limit is not None:
            pq.limits[queue.name] = limit
        given(queue)
        assert all_taken(queue, way) == [1, 2, 3], way.__name__
        assert nothing_is_left(queue), way.__name__


@pytest.mark.parametrize("given", [plain, unique_until_done, after])
def test_where_two_of_a_key_may_run_they_begin_in_order(pq: PQ, given: Callable[[Queue], None]) -> None:
    for way in (block, item, get, lease, batch, block_of_several):
        queue = pq[way.__name__]
        queue.timeout = 0
        pq.limits[queue.name] = Limit(per_key=2)
        given(queue)
        assert all_taken(queue, way) == [1, 2, 3], way.__name__
        assert nothing_is_left(queue), way.__name__


@pytest.mark.parametrize("kind", [transaction, savepoint, repeatable_read])
@pytest.mark.parametrize("given", GIVEN)
def test_in_whichever_transaction_they_are_put(
    pq: PQ, connect: Any, given: Callable[[Queue], None], kind: Any
) -> None:
    for way in (block, get, retry, batch):
        queue = pq[way.__name__]
        queue.timeout = 0
        with kind(pq, connect):
            given(queue)
        assert all_taken(queue, way) == [1, 2, 3], way.__name__
        assert nothing_is_left(queue), way.__name__


@pytest.mark.parametrize("kind", [transaction, savepoint])
@pytest.mark.parametrize("way", WAYS)
def test_in_whichever_transaction_they_are_taken(
    pq: PQ, connect: Any, way: Callable[[Queue], Taken], kind: Any
) -> None:
    def take(queue: Queue) -> Taken:
        with kind(pq, connect):
            return way(queue)

    for given in (plain, unique_until_started, after):
        queue = pq[given.__name__]
        queue.timeout = 0
        given(queue)
        assert all_taken(queue, take) == [1, 2, 3], given.__name__
        assert nothing_is_left(queue), given.__name__


@pytest.mark.parametrize("given", [plain, unique_until_started, after])
def test_at_repeatable_read_each_way_of_taking_is_refused_and_changes_nothing(
    pq: PQ, connect: Any, given: Callable[[Queue], None]
) -> None:
    queue = pq["a"]
    queue.timeout = 0
    given(queue)
    for way in WAYS:
        with pytest.raises(driver.Error, match="READ COMMITTED"), repeatable_read(pq, connect):
            way(queue)
    assert all_taken(queue, lease) == [1, 2, 3]
    assert nothing_is_left(queue)


@contextmanager
def has_leased(pq: PQ, queue: Queue) -> Iterator[Any]:
    job = queue.get(lease="30s")
    yield job
    job.done()


@contextmanager
def has_in_batch(pq: PQ, queue: Queue) -> Iterator[Any]:
    jobs = queue.get_many(10, lease="30s")
    yield jobs[0]
    queue.done(jobs)


@contextmanager
def has_in_block(pq: PQ, queue: Queue) -> Iterator[Any]:
    with queue:
        yield queue.get()


@contextmanager
def has_in_item(pq: PQ, queue: Queue) -> Iterator[Any]:
    with queue.item() as job:
        yield job


@pytest.mark.parametrize("retain", ["7d", 0])
@pytest.mark.parametrize("has", [has_leased, has_in_batch, has_in_block, has_in_item])
def test_while_somebody_has_one_no_way_of_taking_gets_another(
    pq: PQ, dsn: str, connect: Any, has: Any, retain: Any
) -> None:
    """Both are ready: neither put has seen the other."""
    pq.create(retain=retain)
    with PQ(dsn, timeout=0) as other:
        for way in WAYS:
            queue = pq[way.__name__]
            queue.timeout = 0
            conn = connect()
            queue.put(1, key="k", conn=conn)
            queue.put(2, key="k")
            conn.commit()
            assert queue.count("ready") == 2
            with has(other, other[queue.name]) as job:
                assert job.data == 1
                assert way(queue) == [], way.__name__
            found: Taken = []
            wait_until(lambda queue=queue, way=way, found=found: found.extend(way(queue)) or found, "the other")
            assert found == [2], way.__name__
            assert nothing_is_left(queue), way.__name__


@pytest.mark.parametrize("transactional", [False, True])
@pytest.mark.parametrize("retain", ["7d", 0])
def test_tasks_of_a_worker_with_several_threads(pq: PQ, retain: Any, transactional: bool) -> None:
    """The first attempt of the first job of each key fails."""
    pq.create(retain=retain)
    found: list[tuple[int, int]] = []
    queue = pq["a"]

    @queue.task(  # type: ignore[untyped-decorator]
        name=f"note {retain} {transactional}",
        key=lambda customer: f"c{customer}",
        transactional=transactional,
        retry_in="10ms",
        max_retries=1,
    )
    def note(job_id: int, customer: int, number: int) -> None:
        if number == 0 and current().attempts == 1:
            raise ValueError
        found.append((customer, number))

    for number in range(3):
        for customer in range(3):
            note(customer, number)
    Worker(pq, [queue], threads=3, max_jobs=12, capture_signals=False).run()
    assert nothing_is_left(queue)
    for customer in range(3):
        assert [number for whose, number in found if whose == customer] == [0, 1, 2]
