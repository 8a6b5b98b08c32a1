"""What takes places and tokens, what gives them back, and who is woken."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import pytest
from psycopg2.extensions import make_dsn
from support import PATIENCE, Background, wait_until
from support.kinds import ALL, make_pq

from pq import PQ, Limit, Queue, Worker
from pq._queue import limited
from pq._wait.session import ListeningSession

Sql = Callable[..., list[tuple[Any, ...]]]


def take(queue: Queue, n: int = 100, lease: str | None = "1h", **options: Any) -> list[Any]:
    return queue.get_many(n, timeout=0, lease=lease, **options)


@pytest.fixture
def queue(pq: PQ) -> Queue:
    """With 20 jobs, of which two may run at a time."""
    pq["a"].put_many(range(20))
    pq.limits["a"] = Limit(running=2)
    return pq["a"]


ENDS: dict[str, Callable[[PQ, Any, Sql], Any]] = {
    "done": lambda pq, job, sql: job.done(),
    "settled together": lambda pq, job, sql: pq.done([job]),
    "retried": lambda pq, job, sql: job.retry("0s"),
    "retried later": lambda pq, job, sql: job.retry("1h"),
    "released": lambda pq, job, sql: job.release(),
    "dead": lambda pq, job, sql: job.fail("no"),
    "cancelled": lambda pq, job, sql: job.queue.cancel(job.id),
    "the lease expires": lambda pq, job, sql: sql("update queue set due_at = now() where id = %s", [job.id]),
    "deleted": lambda pq, job, sql: sql("delete from queue where id = %s", [job.id]),
    "by plain SQL": lambda pq, job, sql: sql("update queue set due_at = null where id = %s", [job.id]),
    "made ready by plain SQL": lambda pq, job, sql: sql(
        "update queue set dequeued_at = null, due_at = null where id = %s", [job.id]
    ),
}


@pytest.mark.parametrize("retain", ["7d", "0s"])
@pytest.mark.parametrize("end", ENDS)
def test_each_end_gives_the_place_back(pq: PQ, queue: Queue, sql: Sql, end: str, retain: str) -> None:
    pq.create(retain=retain)
    for _ in range(3):
        first, second = take(queue)
        assert take(queue) == []
        ENDS[end](pq, first, sql)
        (third,) = take(queue)
        assert take(queue) == []
        second.done()
        third.done()


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("end", [*list(ENDS)[:9], "a block is committed", "a block is rolled back"])
def test_a_place_that_is_free_wakes_who_waits_for_another_queue(dsn: str, sql: Sql, kind: str, end: str) -> None:
    """Within less than a poll interval, where a notification comes."""
    with PQ(dsn) as pq, make_pq(kind, dsn, poll_interval=PATIENCE) as other:
        pq.limits["both"] = Limit(running=1, queues=["a", "b"])
        pq["a"].put(1)
        other["b"].put(2)
        if end.startswith("a block"):
            with pytest.raises(ZeroDivisionError) if end.endswith("back") else nullcontext(), pq["a"]:
                assert pq["a"].get(timeout=0) is not None
                waits = waiting(other, sql)
                if end.endswith("back"):
                    1 / 0  # noqa: B018
        else:
            (job,) = take(pq["a"])
            waits = waiting(other, sql)
            ENDS[end](pq, job, sql)
        if end in ("a block is rolled back", "the lease expires"):
            other["b"].put(3)  # nothing tells: as the poll interval would
        assert waits.result() is not None


def waiting(pq: PQ, sql: Sql) -> Background:
    waits = Background(pq["b"].get, timeout=PATIENCE, lease="1h")
    gates = "select 1 from pg_locks where locktype = 'advisory' and mode = 'ShareLock'"
    wait_until(lambda: sql(gates), "the gate")
    return waits


class TestBlocks:
    def test_a_block_has_its_place_until_it_ends(self, queue: Queue) -> None:
        with queue:
            assert queue.get(timeout=0) is not None
            with PQ(queue._db.conn) as other:
                assert len(take(other["a"])) == 1
                assert take(other["a"]) == []
        assert len(take(queue)) == 1

    @pytest.mark.parametrize("lease", [None, "1h"])
    def test_no_more_than_that_in_one_block(self, queue: Queue, lease: str | None) -> None:
        with queue:
            assert len(take(queue, 1, lease)) == 1
            assert len(take(queue, 5, lease)) == 1
            assert take(queue, 5, lease) == []
        assert len(take(queue)) == (2 if lease is None else 0)

    @pytest.mark.parametrize("lease", [None, "1h"])
    def test_a_rollback_gives_it_back(self, queue: Queue, lease: str | None) -> None:
        with pytest.raises(ZeroDivisionError), queue:
            assert len(take(queue, 5, lease)) == 2
            1 / 0  # noqa: B018
        assert len(take(queue)) == 2

    @pytest.mark.parametrize("lease", [None, "1h"])
    def test_so_does_a_savepoint(self, queue: Queue, lease: str | None) -> None:
        with queue:
            assert len(take(queue, 1, lease)) == 1
            with pytest.raises(ZeroDivisionError), queue:
                assert len(take(queue, 5, lease)) == 1
                1 / 0  # noqa: B018
            assert len(take(queue, 5, lease)) == 1
            assert take(queue, 5, lease) == []

    def test_a_block_that_finds_no_job_keeps_no_place(self, pq: PQ) -> None:
        pq.limits["both"] = Limit(running=1, queues=["a", "b"])
        pq["b"].put(1)
        with pq["a"], PQ(pq._db.conn) as other:
            assert pq["a"].get(timeout=0) is None
            assert len(take(other["b"])) == 1

    def test_nor_one_that_has_no_job(self, pq: PQ) -> None:
        pq.limits["both"] = Limit(running=5, queues=["a", "b"])
        pq["a"].put(1)
        pq["b"].put_many(range(9))
        with pq["a"], PQ(pq._db.conn) as other:
            assert len(take(pq["a"], lease=None)) == 1
            assert len(take(other["b"])) == 4

    def test_a_connection_of_the_application(self, queue: Queue, connect: Callable[..., Any]) -> None:
        conn = connect()
        assert len(take(queue, 1, None, conn=conn)) == 1
        assert len(take(queue)) == 1
        assert take(queue) == []
        conn.rollback()
        assert len(take(queue)) == 1

    def test_items(self, queue: Queue) -> None:
        with queue.item(timeout=0) as job:
            assert job is not None
            with PQ(queue._db.conn) as other:
                assert len(take(other["a"])) == 1
                assert take(other["a"]) == []
        assert len(take(queue)) == 1


def test_a_job_that_is_got_without_a_lease_has_left(queue: Queue) -> None:
    assert len(take(queue, 1, None)) == len(take(queue, 1, None)) == len(take(queue, 1, None)) == 1


def test_a_queue_with_several_limits_needs_a_place_in_each(pq: PQ) -> None:
    for name in "abc":
        pq[name].put_many(range(10))
    pq.limits["a"] = Limit(running=4)
    pq.limits["ab"] = Limit(running=6, queues=["a", "b"])
    pq.limits["all"] = Limit(rate="8/h", queues=["a", "b", "c"])
    assert [len(take(pq[name])) for name in "abcab"] == [4, 2, 2, 0, 0]


def test_jobs_come_in_their_order(pq: PQ) -> None:
    queue = pq["a"]
    queue.put_many([1, 2])
    queue.put(0, expected_at="1s")
    queue.put(3, schedule_at="0s")
    pq.limits["a"] = Limit(running=3)
    assert [job.data for job in take(queue, 2)] == [0, 1]
    assert [job.data for job in take(queue, 2)] == [2]


def test_a_worker(pq: PQ) -> None:
    running: list[int] = []
    most: list[int] = []

    @pq["a"].task()
    def work(job_id: int, number: int) -> None:
        running.append(number)
        most.append(len(running))
        time.sleep(0.005)
        running.remove(number)

    for number in range(60):
        work(number)
    pq.limits["a"] = Limit(running=3)
    Worker(pq, [pq["a"]], threads=8, max_jobs=60, capture_signals=False).run()
    assert (len(most), max(most)) == (60, 3)


def test_a_worker_takes_no_places_for_its_stock(pq: PQ) -> None:
    """No more than it has threads that are idle. What is done has its place, too, until that is settled: how many these
    are depends on how fast the server is."""

    @pq["a"].task()
    def work(job_id: int) -> None:
        stock.append(len(worker._held.stock))

    stock: list[int] = []
    for _ in range(200):
        work()
    pq.limits["a"] = Limit(running=50)
    worker = Worker(pq, [pq["a"]], threads=2, max_jobs=200, capture_signals=False)
    worker.run()
    assert (len(stock), max(stock) <= 1) == (200, True)  # besides the job that looks


class TestWorkers:
    """A worker whose queue is full sleeps until it is told of a free place."""

    @pytest.fixture
    def runs(self, dsn: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[PQ, list[threading.Event]]]:
        """A worker with two jobs that run, up to the limit, more that are ready, and a session that will be told."""
        monkeypatch.setattr(Queue, "handler_registry", {})
        running: list[threading.Event] = []

        with PQ(dsn, poll_interval=PATIENCE) as pq:

            @pq["a"].task()
            def work(job_id: int) -> None:
                running.append(end := threading.Event())
                assert end.wait(PATIENCE)

            for _ in range(20):
                work()
            pq.limits["a"] = Limit(running=2)
            worker = Worker(pq, [pq["a"]], threads=6, capture_signals=False)
            thread = Background(worker.run)
            try:
                wait_until(lambda: len(running) == 2)
                wait_until(lambda: (waited := pq._table._room.queues.get("a")) and waited.sure and not waited.stale)
                yield pq, running
            finally:
                worker.stop()
                wait_until(lambda: [end.set() for end in running] and not thread.is_alive())
            thread.result()

    def test_one_claim_for_each_free_place_and_no_look(
        self, runs: tuple[PQ, list[threading.Event]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Else a place that becomes free meanwhile waits for a claim in vain, and for a look."""
        _, running = runs
        claims = count_claims(monkeypatch)
        looks: list[Any] = []
        look = ListeningSession.look
        monkeypatch.setattr(ListeningSession, "look", lambda *args: looks.append(args) or look(*args))
        for number in range(5):
            running[number].set()
            wait_until(lambda number=number: len(running) == number + 3, "the next job")
        assert ([len(rows) for rows in claims], looks) == ([1] * 5, [])

    @pytest.mark.parametrize("how", ["raised", "removed"])
    def test_a_limit_that_is_changed_is_seen_within_a_second(
        self, runs: tuple[PQ, list[threading.Event]], how: str
    ) -> None:
        """It is told: the poll interval is longer than that."""
        pq, running = runs
        began = time.monotonic()
        if how == "raised":
            pq.limits["a"] = Limit(running=4)
            wait_until(lambda: len(running) == 4)
        else:
            del pq.limits["a"]
            wait_until(lambda: len(running) == 6)
        assert time.monotonic() - began < PATIENCE / 2

    def test_a_limit_that_is_lowered(
        self, runs: tuple[PQ, list[threading.Event]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pq, running = runs
        pq.limits["a"] = Limit(running=1)
        claims = count_claims(monkeypatch)
        running[0].set()
        wait_until(lambda: claims, "a claim, which finds none")
        assert len(running) == 2
        running[1].set()
        wait_until(lambda: len(running) == 3, "the next job")
        wait_until(lambda: pq["a"].counts()["running"] == 1)


class TestNoBusyLoop:
    def test_a_full_limit(self, pq: PQ, queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
        claims = count_claims(monkeypatch)
        jobs = take(queue)
        claims.clear()
        assert queue.get(timeout=2, lease="1h") is None
        assert len(claims) <= 8
        jobs[0].done()

    def test_a_rate(self, pq: PQ, monkeypatch: pytest.MonkeyPatch) -> None:
        pq["a"].put_many(range(3))
        pq.limits["a"] = Limit(rate="1/2s")
        claims = count_claims(monkeypatch)
        began = time.monotonic()
        for _ in range(2):
            assert pq["a"].get(timeout=PATIENCE, lease="1h") is not None
        assert 1.9 < time.monotonic() - began < 2.5
        assert len(claims) <= 12


def count_claims(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    claims: list[Any] = []
    told = limited.told

    def counted(rows: Any) -> Any:
        claims.append(rows)
        return told(rows)

    monkeypatch.setattr(limited, "told", counted)
    return claims


class TestRates:
    def test_tokens_are_not_held_by_a_block(self, pq: PQ) -> None:
        """Else five in a second, with blocks of two seconds, would be less than three."""
        pq["a"].put_many(range(20))
        pq.limits["a"] = Limit(rate="2/s")
        with pq["a"]:
            assert len(take(pq["a"], lease=None)) == 2
            with PQ(pq._db.conn) as other:
                assert take(other["a"]) == []
                assert other["a"].get(timeout=PATIENCE, lease="1h") is not None

    def test_nor_in_the_applications_transaction(self, pq: PQ, connect: Callable[..., Any]) -> None:
        pq["a"].put_many(range(20))
        pq.limits["a"] = Limit(rate="2/s")
        assert len(take(pq["a"], lease=None, conn=connect())) == 2
        assert take(pq["a"]) == []
        assert pq["a"].get(timeout=PATIENCE, lease="1h") is not None

    def test_a_rollback_does_not_give_back_what_has_begun(self, pq: PQ) -> None:
        pq["a"].put_many(range(20))
        pq.limits["a"] = Limit(rate="2/h")
        with pytest.raises(ZeroDivisionError), pq["a"]:
            assert len(take(pq["a"], 1, lease=None)) == 1
            1 / 0  # noqa: B018
        assert len(take(pq["a"])) == 1

    def test_a_block_without_a_job_takes_none(self, pq: PQ) -> None:
        pq.limits["both"] = Limit(rate="2/h", queues=["a", "b"])
        pq["b"].put_many(range(3))
        for _ in range(3):
            with pq["a"]:
                assert pq["a"].get(timeout=0) is None
        assert len(take(pq["b"])) == 2

    def test_where_there_is_one_connection_they_are_held(self, dsn: str) -> None:
        with make_pq("connection", dsn) as one, PQ(dsn) as pq:
            pq["a"].put_many(range(20))
            pq.limits["a"] = Limit(rate="2/h")
            with one["a"]:
                assert len(take(one["a"], 1, lease=None)) == 1
                assert len(take(pq["a"])) == 1
            assert take(pq["a"]) == []

    @pytest.mark.parametrize("how", ["lease", "plain", "removed", "block", "item"])
    def test_never_more_in_any_period_by_the_servers_clock(self, pq: PQ, sql: Sql, how: str) -> None:
        if how == "removed":
            pq.create(retain="0s")
            sql("create table log (at timestamptz)")
            sql(
                "create function log() returns trigger language plpgsql as $$ begin"
                " insert into log values (clock_timestamp()); return old; end $$"
            )
            sql("create trigger log before delete on queue for each row execute function log()")
        pq["a"].put_many(range(200))
        pq.limits["a"] = Limit(rate="20/250ms")
        until = time.monotonic() + 2

        def consume() -> None:
            while time.monotonic() < until:
                if how == "lease":
                    pq["a"].get_many(3, timeout=0.1, lease="1h")
                elif how in ("plain", "removed"):
                    pq["a"].get_many(3, timeout=0.1)
                elif how == "block":
                    with pq["a"]:
                        pq["a"].get_many(3, timeout=0.1)
                        time.sleep(0.05)
                else:
                    with pq["a"].item(timeout=0.1):
                        time.sleep(0.05)

        for thread in [Background(consume) for _ in range(6)]:
            thread.result()
        times = (
            "select at from log"
            if how == "removed"
            else "select dequeued_at from queue where dequeued_at is not null and data::text <> '\"limited\"'"
        )
        found = sorted(at for (at,) in sql(times))
        assert len(found) > 60
        assert min((later - at).total_seconds() for at, later in zip(found, found[20:], strict=False)) >= 0.25


def test_plain_queues_execute_what_they_did(dsn: str, sql: Sql, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where other queues are limited."""
    from pq._db import execute

    seen: list[str] = []
    run = execute.Executor.execute

    def spied(self: Any, text: str, *args: Any) -> Any:
        seen.append(text)
        return run(self, text, *args)

    monkeypatch.setattr(execute.Executor, "execute", spied)
    with PQ(make_dsn(dsn)) as pq:

        def use() -> list[str]:
            seen.clear()
            pq["b"].put(1)
            for job in take(pq["b"]):
                job.done()
            assert take(pq["b"]) == []
            return [text for text in seen if "heal" not in text]  # which comes once a second

        use()
        before = use()
        pq.limits["a"] = Limit(running=1)
        assert 4 <= len(use()) <= 6  # put, one or two claims, done, and one or two that find nothing
        assert not any("queue_slots" in text or "queue_limits" in text for text in [*before, *seen])
