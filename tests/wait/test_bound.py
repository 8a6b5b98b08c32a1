"""The bound on waiting, which holds whatever the listening session sees; and what waiting for many queues costs."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from psycopg2.extensions import make_dsn
from support import PATIENCE, Background, wait_until
from support.kinds import make_pq
from support.proxy import Proxy, swallow

from pq import PQ, Queue
from pq._wait import connections, leader
from pq._wait import session as sessions
from pq._wait.waiter import FEW_QUEUES, Waiter

Sql = Callable[..., list[tuple[Any, ...]]]
Connect = Callable[..., Any]

HOUR = 3600.0

INSERT = "insert into queue (q_name, data) values ('a', '1')"

#: More queues than a claim from each would be worth.
MANY = [f"queue {number}" for number in range(40)]


def settled(pq: PQ, name: str = "a") -> bool:
    queue = pq._table._room.queues.get(name)
    return bool(queue and queue.waiters and queue.sure and not queue.stale)


def gates(sql: Sql) -> int:
    ((count,),) = sql(
        """
        select count(*) from pg_locks
        where locktype = 'advisory' and database = (select oid from pg_database where datname = current_database())
        """
    )
    return int(count)


def messages(proxy: Proxy, text: str) -> int:
    return sum(text in message for message in proxy.seen)


class Counting(Queue):
    """Counts its claims."""

    claims = 0

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        take = self._claims.take

        def counted(*args: Any) -> Any:
            self.claims += 1
            return take(*args)

        self._claims.take = counted  # type: ignore[method-assign]


# -- the bound


@pytest.fixture(params=["another table", "no table"])
def elsewhere(request: pytest.FixtureRequest, dsn: str, sql: Sql) -> Iterator[PQ]:
    """A PQ whose listening session sees another table of that name than its claims, or none."""
    with PQ(dsn, schema="tenant") as pq:
        pq.create()
    if request.param == "no table":
        sql("drop table public.queue")
    with PQ(make_dsn(dsn, options="-c search_path=tenant"), poll_interval=0.3, listen_dsn=dsn) as pq:
        yield pq


def test_who_waits_gets_a_job_that_the_listening_session_does_not_see(elsewhere: PQ, sql: Sql) -> None:
    waiter = Background(elsewhere["a"].get, timeout=HOUR)
    wait_until(lambda: "a" in elsewhere._table._room.queues, "the waiter")
    sql("insert into tenant.queue (q_name, data) values ('a', '1')")
    assert waiter.result().data == 1


def test_who_waits_for_many_queues_gets_it_too(elsewhere: PQ, sql: Sql) -> None:
    place = elsewhere._table.waiter_for_all(MANY)
    waiter = Background(first_job, elsewhere, place)
    wait_until(lambda: MANY[0] in elsewhere._table._room.queues, "the waiter")
    sql("insert into tenant.queue (q_name, data) values (%s, '1')", (MANY[-1],))
    assert waiter.result().data == 1


def first_job(pq: PQ, place: Waiter) -> Any:
    """Wait for a job in many queues, as a worker does."""
    while True:
        for name in place.ready():
            if job := pq[name].get(block=False):
                return job
            place.empty(name)
        with place:
            place.wait(math.inf)


def test_each_queue_has_a_claim_in_each_interval_where_the_session_may_see_something_else(dsn: str) -> None:
    with PQ(dsn, poll_interval=0.1, listen_dsn=dsn, queue_class=Counting) as pq:
        names = ["a", "b", "c"]
        waiters = [Background(pq[name].get, timeout=1.0) for name in names for _ in range(3)]
        queues: list[Any] = [pq[name] for name in names]  # as many as there are, while the threads keep them
        for waiter in waiters:
            waiter.result()
        for queue in queues:
            assert queue.claims >= 3 + 3  # one of each thread at first; on a slow machine few more


def test_a_look_takes_the_place_of_the_claims_where_both_see_the_same(dsn: str, sql: Sql) -> None:
    with Proxy(dsn) as proxy, PQ(proxy.dsn, poll_interval=0.1, queue_class=Counting) as pq:
        queues: list[Any] = [pq[name] for name in ("a", "b", "c")]
        waiters = [Background(queue.get, timeout=HOUR) for queue in queues]
        wait_until(lambda: all(settled(pq, queue.name) for queue in queues), "the sleep of the waiters")
        claims = [queue.claims for queue in queues]
        looks = messages(proxy, "pg_current_snapshot")
        wait_until(lambda: messages(proxy, "pg_current_snapshot") >= looks + 5, "five looks")
        assert [queue.claims for queue in queues] == claims
        sql("alter table queue disable trigger user")  # of what nobody is told
        sql("insert into queue (q_name, data) values ('a', '1'), ('b', '1'), ('c', '1')")
        assert all(waiter.result() for waiter in waiters)


def test_while_the_listening_session_hangs_another_thread_claims(
    dsn: str, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "SILENCE_LIMIT", 2 * PATIENCE)  # it would be cut after that
    with Proxy(dsn) as proxy, PQ(dsn, poll_interval=0.2, listen_dsn=proxy.dsn) as pq:
        proxy.on("pg_current_snapshot", swallow)
        waiters = [Background(pq["a"].get, timeout=HOUR) for _ in range(2)]
        wait_until(lambda: messages(proxy, "pg_current_snapshot"), "the look that gets no answer")
        sql(INSERT)
        wait_until(lambda: not all(waiter.is_alive() for waiter in waiters), "the job")
        proxy.cut()
        sql(INSERT)
        assert all(waiter.result() for waiter in waiters)


def test_a_session_that_hung_is_not_opened_again_at_once(
    dsn: str, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "SILENCE_LIMIT", 0.5)
    with Proxy(dsn) as proxy, PQ(dsn, poll_interval=0.05, listen_dsn=proxy.dsn) as pq:
        proxy.on("pg_current_snapshot", swallow)
        waiter = Background(pq["a"].get, timeout=HOUR)
        wait_until(lambda: pq._table._room.leader._open_at > time.monotonic() + 2, "the loss of the session")
        sql(INSERT)
        assert waiter.result() is not None


class Failing(logging.Handler):
    def handle(self, record: logging.LogRecord) -> bool:  # type: ignore[override]
        raise RuntimeError("the log can't be written")


def test_a_log_that_fails_does_not_end_a_wait(dsn: str, sql: Sql) -> None:
    """That the session can't be opened is logged."""
    logger, handler = logging.getLogger("pq"), Failing()
    logger.addHandler(handler)
    try:
        with PQ(dsn, poll_interval=0.1, listen_dsn="host=127.0.0.1 port=1") as pq:
            waiter = Background(pq["a"].get, timeout=HOUR)
            wait_until(lambda: pq._table._room.leader._open_at > 0, "the failure to open a session")
            sql(INSERT)
            assert waiter.result() is not None
    finally:
        logger.removeHandler(handler)


def test_a_statement_of_the_session_ends_on_the_server_too(
    dsn: str, sql: Sql, connect: Connect, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sessions, "TIME_LIMIT", 0.3)
    monkeypatch.setattr(connections, "SILENCE_LIMIT", HOUR)
    with PQ(dsn, poll_interval=0.1, listen_dsn=make_dsn(dsn, application_name="listens")) as pq:
        place = pq._table.waiter_for_all(["a"])
        locker = connect()
        locker.cursor().execute("lock table queue")

        def wait() -> bool:
            with place:
                return place.wait(math.inf) and not place.cancelled

        waiter = Background(wait)
        wait_until(lambda: "QueryCanceled" in caplog.text, "the end of the look")
        waiting = "select 1 from pg_stat_activity where application_name = 'listens' and wait_event_type = 'Lock'"
        wait_until(lambda: not sql(waiting), "the end of the statement")
        locker.rollback()
        place.cancel()
        waiter.result()


@pytest.mark.parametrize("setting", ["0", "7s"])
def test_the_time_limit_of_a_shared_connection_stays(dsn: str, connect: Connect, setting: str) -> None:
    conn = connect()
    conn.cursor().execute(f"set statement_timeout = '{setting}'")
    conn.commit()
    with PQ(conn) as pq:
        assert pq["a"].get(timeout=0.1) is None
        with pq["a"] as cursor:
            cursor.execute("show statement_timeout")
            assert cursor.fetchone() == (setting,)


# -- jobs that are seen and can't be had


def test_who_saw_a_job_that_was_locked_looks_again_soon(dsn: str, sql: Sql, connect: Connect) -> None:
    """No notification tells of the end of a lock."""
    with PQ(dsn, poll_interval=HOUR, queue_class=Counting) as pq:
        sql(INSERT)
        holder = connect()
        holder.cursor().execute("select from queue for update")
        waiter = Background(pq["a"].get, timeout=HOUR)
        queue: Any = pq["a"]
        wait_until(lambda: queue.claims >= 3, "that it claims again")
        holder.rollback()
        assert waiter.result() is not None


@pytest.mark.parametrize("kind", ["dsn", "connection"])
def test_who_saw_it_in_a_transaction_looks_again_soon(dsn: str, sql: Sql, connect: Connect, kind: str) -> None:
    """After a wait that was long enough for pauses of many seconds."""
    with make_pq(kind, dsn, poll_interval=HOUR) as pq:

        def work() -> Any:
            with pq["a"] as cursor:
                cursor.execute("select 1")
                return pq["a"].get(timeout=HOUR)

        pq["a"].put(1, schedule_at="2s")  # pauses: 5 ms and so on; the last of them is of 1.28 s
        holder = connect()
        waiter = Background(work)
        holder.cursor().execute("select from queue for update")
        wait_until(lambda: sql("select 1 from queue where due_at < clock_timestamp() - interval '0.3 s'"), "its time")
        holder.rollback()
        waiter.join(2.0)
        assert not waiter.is_alive()  # the next pause would be of 2.56 s


def test_it_does_not_keep_the_server_busy_with_what_is_locked_for_long(dsn: str, sql: Sql, connect: Connect) -> None:
    with PQ(dsn, poll_interval=0.5, queue_class=Counting) as pq:
        queue: Any = pq["a"]
        sql(INSERT)
        holder = connect()
        holder.cursor().execute("select from queue for update")
        began = time.monotonic()
        assert pq["a"].get(timeout=2.0) is None
        intervals = (time.monotonic() - began) / 0.5
        assert queue.claims <= 10 + 3 * intervals  # eight pauses, of 5 ms to 0.5 s; then two claims in each interval
        holder.rollback()


# -- many queues


def test_the_gates_of_many_queues_are_taken_and_left_by_one_statement(dsn: str, sql: Sql) -> None:
    with Proxy(dsn) as proxy, PQ(dsn, poll_interval=HOUR, listen_dsn=proxy.dsn) as pq:
        waiter = Background(first_job, pq, pq._table.waiter_for_all(MANY))
        wait_until(lambda: all(settled(pq, name) for name in MANY), "the sleep of the waiter")
        assert gates(sql) == len(MANY)
        sql("insert into queue (q_name, data) values (%s, '1')", (MANY[-1],))
        assert waiter.result() is not None
        wait_until(lambda: not gates(sql), "the release of the gates")
        assert messages(proxy, "pg_try_advisory_lock_shared") == 1
        assert messages(proxy, "pg_advisory_unlock_shared") == 1


def test_a_wait_costs_the_same_number_of_statements_for_any_number_of_queues(dsn: str, sql: Sql) -> None:
    counts = []
    for number in (FEW_QUEUES + 1, 1000):
        names = [f"queue {each}" for each in range(number)]
        with Proxy(dsn) as proxy, PQ(proxy.dsn, poll_interval=HOUR) as pq:
            waiter = Background(first_job, pq, pq._table.waiter_for_all(names))
            wait_until(lambda: all(settled(pq, name) for name in names), "the sleep of the waiter")  # noqa: B023
            sql("insert into queue (q_name, data) values (%s, '1')", (names[-1],))
            assert waiter.result() is not None
            counts.append(len(proxy.seen))
    few, many = counts
    assert many <= few + 3  # one to ask how many gates there may be; others by chance of a slow machine


def test_an_idle_wait_for_many_queues_is_one_statement_in_each_interval(dsn: str) -> None:
    with Proxy(dsn) as proxy, PQ(proxy.dsn, poll_interval=0.3) as pq:
        place = pq._table.waiter_for_all(MANY)
        Background(first_job, pq, place)
        wait_until(lambda: all(settled(pq, name) for name in MANY), "the sleep of the waiter")
        wait_until(lambda: proxy.seen and "unnest" in proxy.seen[-1], "a look")
        began, before = time.monotonic(), len(proxy.seen)
        wait_until(lambda: time.monotonic() > began + 1.5 or len(proxy.seen) > before + 20)
        assert len(proxy.seen) - before <= 2 + 2 * (time.monotonic() - began) / 0.3
        place.cancel()


def test_the_gates_are_kept_between_two_claims(dsn: str, sql: Sql, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leader, "LINGER", HOUR)
    with Proxy(dsn) as proxy, PQ(dsn, poll_interval=HOUR, listen_dsn=proxy.dsn) as pq:
        place = pq._table.waiter_for_all(MANY)
        for _ in range(3):
            waiter = Background(first_job, pq, place)
            wait_until(lambda: all(settled(pq, name) for name in MANY), "the sleep of the waiter")
            sql("insert into queue (q_name, data) values (%s, '1')", (MANY[-1],))
            assert waiter.result() is not None
        assert messages(proxy, "pg_try_advisory_lock_shared") == 1


def test_there_are_not_more_gates_than_the_server_has_room_for(dsn: str, sql: Sql) -> None:
    names = [f"queue {number}" for number in range(1200)]
    with PQ(dsn, poll_interval=0.5) as pq:
        waiter = Background(first_job, pq, pq._table.waiter_for_all(names))
        wait_until(lambda: gates(sql) == 1000, "the gates")
        wait_until(lambda: settled(pq, names[0]), "the sleep of the waiter")
        sql("insert into queue (q_name, data) values (%s, '1')", (names[-1],))  # has no gate
        assert waiter.result() is not None
        waiter = Background(first_job, pq, pq._table.waiter_for_all(names))
        sql("insert into queue (q_name, data) values (%s, '1')", (names[0],))
        assert waiter.result() is not None
        assert gates(sql) <= 1000


# -- which queues are worth a claim


def test_few_queues_are_all_worth_a_claim(pq: PQ) -> None:
    place = pq._table.waiter_for_all(["b", "a", "b"])
    assert place.ready() == ["b", "a"]
    place.empty("a")
    assert place.ready() == ["b", "a"]


def test_of_many_queues_those_that_have_jobs_are(pq: PQ) -> None:
    place = pq._table.waiter_for_all(MANY)
    assert place.ready() == []
    pq[MANY[3]].put(1)
    pq[MANY[7]].put(1, schedule_at="1ms")
    pq[MANY[8]].put(1, schedule_at="1h")
    pq[MANY[9]].put(1)
    pq[MANY[9]].pause()
    found = wait_until(lambda: len(place.ready()) == 2 and place.ready(), "a fresh look")
    assert found == [MANY[3], MANY[7]]
    place.empty(MANY[3])
    assert MANY[7] in place.ready()


def test_after_a_wait_those_are_that_something_was_heard_of(dsn: str) -> None:
    with PQ(dsn, poll_interval=HOUR) as pq:
        place = pq._table.waiter_for_all(["a", "b", "c"])
        with place:
            waiter = Background(place.wait, math.inf)
            wait_until(lambda: settled(pq, "c"), "the sleep of the waiter")
            pq["b"].put(1)
            assert waiter.result()
            assert place.ready() == ["b"]
            assert pq["b"].get(block=False) is not None
            place.empty("b")
            assert not place.wait(time.monotonic() + 0.05)


def test_a_place_can_be_entered_again(dsn: str) -> None:
    with PQ(dsn, poll_interval=HOUR) as pq:
        place = pq._table.waiter_for_all(["a", "b"])
        for _ in range(3):
            with place:
                assert not place.wait(time.monotonic() + 0.02) or [place.empty(name) for name in place.ready()]
        assert threading.active_count() < 50
