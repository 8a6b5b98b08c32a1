"""Waiting: no put is missed, nobody polls, and nothing is left behind.

Most tests wait with a poll interval of an hour, so that no look out of turn can hide a lost wake-up.
"""

from __future__ import annotations

import linecache
import math
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from psycopg2.extensions import make_dsn
from support import PATIENCE, Background, wait_until
from support.driver import driver, either
from support.kinds import SEVERAL, WITH_PSYCOPG3, kit_of, make_pq, terminate
from support.proxy import Proxy
from support.signals import ctrl_c

from pq import PQ, ConnectionLost, Queue, TableMissing
from pq._db import execute
from pq._db.drivers.base import Driver
from pq._db.drivers.detect import own_driver
from pq._db.sockets import wait_readable
from pq._queue import claim as claim_module
from pq._queue import marks
from pq._queue.claim import Claim
from pq._table import table as table_module
from pq._wait import leader
from pq._wait import session as session_module
from pq._wait.room import WaitingRoom
from pq._wait.session import Gate, ListeningSession
from pq._wait.waited import Reason, WaitedQueue
from pq._wait.waiter import Waiter

Sql = Callable[..., list[tuple[Any, ...]]]
Connect = Callable[..., Any]

HOUR = 3600.0

#: Seconds after which a job that has not been got counts as missed: by mutants, for which an hour may pass as well.
MISSED = 0.3

SINGLE = ["connection", "autocommit connection"]
KINDS = ["dsn", "pool", "connection", "autocommit connection"]

INSERT = "insert into queue (q_name, data) values ('a', '1')"


@pytest.fixture
def patient(dsn: str) -> Iterator[PQ]:
    """A PQ that does not poll."""
    with PQ(dsn, poll_interval=HOUR) as pq:
        yield pq


def is_asleep(pq: PQ, queue: str = "a", waiters: int = 1, sure: bool = True) -> bool:
    """Whether so many threads wait for the queue, and W1 to W4 are done.

    :param sure: and the transactions that were noted have ended.
    """
    room = pq._table._room
    with room.lock:
        channel = room.queues.get(queue)
        line = room.leader.session
        gate = line and line.gates.get(queue)
        return bool(
            channel
            and len(channel.waiters) == waiters
            and not channel.stale
            and not any(waiter.called for waiter in channel.waiters)
            and gate
            and gate.next is not None
            and (channel.sure or not sure)
        )


def asleep(pq: PQ, queue: str = "a", waiters: int = 1, sure: bool = True) -> None:
    """Wait until `is_asleep`."""
    wait_until(lambda: is_asleep(pq, queue, waiters, sure), f"the sleep of {waiters} waiters for {queue}")


def waiting(pq: PQ, queue: str = "a", sure: bool = True) -> Background:
    """A thread that waits for a job, and sleeps."""
    before = len(getattr(pq._table._room.queues.get(queue), "waiters", ()))
    thread = Background(pq[queue].get, timeout=HOUR)
    asleep(pq, queue, before + 1, sure)
    return thread


def gates(sql: Sql) -> list[int]:
    """The sessions that hold a gate."""
    rows = sql(
        """
        select pid from pg_locks
        where locktype = 'advisory' and database = (select oid from pg_database where datname = current_database())
        """
    )
    return [pid for (pid,) in rows]


def gate_key(sql: Sql, queue: str = "a") -> int:
    ((key,),) = sql("select hashtextextended(format('public.queue %%s', %s::text), 0)", (queue,))
    return int(key)


def no_gates(sql: Sql) -> None:
    wait_until(lambda: not gates(sql), "the release of the gates")


def gates_are_left(sql: Sql, kind: str) -> None:
    """At once on a session of the application's, soon on one of pq's."""
    if kind == "autocommit connection":
        assert not gates(sql)
    no_gates(sql)


# -- no put is missed: each step of the protocol, and what becomes of the put without it


class Race:
    """Each method puts jobs at a certain moment, and returns the threads that must get one."""

    def __init__(self, pq: PQ, sql: Sql, connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
        self._pq = pq
        self._sql = sql
        self._connect = connect
        self._monkeypatch = monkeypatch
        self._sleeping = False
        monkeypatch.setattr("pq._wait.room.wait_readable", self._sleep)

    def _sleep(self, fds: tuple[int, ...], timeout: float, others: tuple[int, ...] = ()) -> set[int]:
        self._sleeping = True
        try:
            return wait_readable(fds, timeout, others)
        finally:
            self._sleeping = False

    def _waiting(self, queue: str = "a", sure: bool = True) -> Background:
        waiter = waiting(self._pq, queue, sure)
        wait_until(lambda: self._sleeping, "the leader's sleep")
        return waiter

    def put_while_asleep(self) -> list[Background]:
        waiter = self._waiting()
        self._sql(INSERT)
        return [waiter]

    def put_under_way(self) -> list[Background]:
        """P1 and P2 before W1, P4 after W4."""
        producer = self._connect()
        producer.cursor().execute(INSERT)
        waiter = self._waiting(sure=False)
        producer.commit()
        return [waiter]

    def put_before_the_gate(self) -> list[Background]:
        """P1 to P4 after the get has looked for the first time, and before W1."""
        admit = WaitingRoom.admit

        def put_first(room: WaitingRoom, waiter: Waiter) -> None:
            self._sql(INSERT)
            admit(room, waiter)

        self._monkeypatch.setattr(WaitingRoom, "admit", put_first)
        return [Background(self._pq["a"].get, timeout=HOUR)]

    def put_after_the_gate_was_refused(self) -> list[Background]:
        """Another producer is at P2 when the waiter is at W1."""
        producer = self._connect()
        producer.autocommit = True
        producer.cursor().execute("select pg_advisory_lock(%s)", (gate_key(self._sql),))
        waiter = Background(self._pq["a"].get, timeout=HOUR)
        wait_until(lambda: self._sleeping, "the leader's sleep")
        producer.cursor().execute("select pg_advisory_unlock_all()")
        self._sql(INSERT)
        return [waiter]

    def three_jobs_in_one_put(self) -> list[Background]:
        """There is one notification, for the first to wake."""
        first, second, third = self._waiting(), self._waiting(), self._waiting()
        self._sql(f"{INSERT}, ('a', '2'), ('a', '3')")
        return [first, second, third]

    def the_one_called_leaves(self) -> list[Background]:
        """It does not look, since it was interrupted, say."""

        def leave() -> None:
            with self._pq._table.waiter("a") as waiter:
                waiter.wait(math.inf)

        first = self._waiting()
        Background(leave)
        asleep(self._pq, waiters=2)
        third = self._waiting()
        self._sql(f"{INSERT}, ('a', '2')")
        return [first, third]

    def put_to_another_queue(self) -> list[Background]:
        """Somebody came for that while the leader slept."""
        self._waiting("b")
        waiter = Background(self._pq["a"].get, timeout=HOUR)
        wait_until(lambda: "a" in self._pq._table._room.queues)
        self._sql(INSERT)
        return [waiter]

    def put_before_coming_back(self) -> list[Background]:
        """As before the gate, which is still held."""
        self._come_and_go()
        return self.put_before_the_gate()

    def put_before_coming_back_while_another_leads(self) -> list[Background]:
        """That one reads the notification."""

        def come_back() -> bool | None:
            with self._pq._table.waiter("a") as waiter:
                return waiter.wait(math.inf) or None

        self._waiting("b")
        self._come_and_go()
        channel = self._pq._table._room.queues["a"]
        channel.stale = False
        self._sql(INSERT)
        wait_until(lambda: channel.stale, "the notification")
        return [Background(come_back)]

    def put_under_way_when_coming_back(self) -> list[Background]:
        producer = self._connect()
        producer.cursor().execute(INSERT)
        self._come_and_go(sure=False)
        waiter = self._waiting(sure=False)
        producer.commit()
        return [waiter]

    def put_while_the_claim_is_answered(self) -> list[Background]:
        """Another leads, and hears of it before the claim has said that nothing is left."""
        told = Waiter.told

        def late(waiter: Waiter, *args: Any) -> None:
            self._monkeypatch.setattr(Waiter, "told", told)
            waited = self._pq._table._room.queues["a"]
            before = waited.heard_at
            self._sql(INSERT)
            wait_until(lambda: waited.heard_at > before, "the notification")
            told(waiter, *args)

        self._waiting("b")
        waiter = self._waiting()
        self._monkeypatch.setattr(leader, "LINGER", HOUR)
        self._monkeypatch.setattr(Waiter, "told", late)
        self._sql(INSERT)
        assert waiter.result() is not None
        return [Background(self._pq["a"].get, timeout=HOUR)]

    def another_job_is_locked(self) -> list[Background]:
        """A claim passes it over, and can have it later, of which nothing tells."""
        fetch = Claim.fetch
        locked = threading.Event()

        def later(*args: Any) -> Any:
            assert locked.wait(PATIENCE)
            return fetch(*args)

        self._monkeypatch.setattr(leader, "LINGER", HOUR)
        waiter = self._waiting()
        self._monkeypatch.setattr(Claim, "fetch", later)
        self._sql(f"{INSERT}, ('a', '2')")
        locker = self._connect()
        locker.cursor().execute("select from queue order by id desc limit 1 for update")
        locked.set()
        assert waiter.result() is not None
        waiter = Background(self._pq["a"].get, timeout=HOUR)
        asleep(self._pq, sure=False)
        locker.rollback()
        return [waiter]

    def another_row_becomes_due(self) -> list[Background]:
        """It was put along with the first one."""
        self._come_and_go(also=", ('a', '2', now() + interval '200 ms')")
        return [Background(self._pq["a"].get, timeout=HOUR)]

    def lease_expires(self) -> list[Background]:
        """That of the job which it has taken itself."""
        self._come_and_go(lease="200ms")
        return [Background(self._pq["a"].get, timeout=HOUR)]

    def _come_and_go(self, sure: bool = True, also: str = "", **how: Any) -> None:
        self._monkeypatch.setattr(leader, "LINGER", HOUR)
        waiter = Background(self._pq["a"].get, timeout=HOUR, **how)
        asleep(self._pq, sure=sure)
        self._sql("insert into queue (q_name, data, schedule_at) values ('a', '1', null)" + also)
        assert waiter.result() is not None

    def earlier_row_becomes_due(self) -> list[Background]:
        self._pq["a"].put("later", schedule_at="1h")
        waiter = self._waiting()
        self._pq["a"].put("soon", schedule_at=timedelta(milliseconds=200))
        return [waiter]


RACES = [name for name in vars(Race) if not name.startswith("_")]


@pytest.fixture
def race(patient: PQ, sql: Sql, connect: Connect, monkeypatch: pytest.MonkeyPatch) -> Race:
    return Race(patient, sql, connect, monkeypatch)


@pytest.mark.parametrize("name", RACES)
def test_no_put_is_missed(race: Race, name: str) -> None:
    for thread in getattr(race, name)():
        assert thread.result() is not None


Mutant = Callable[[pytest.MonkeyPatch, Sql], None]


def statement(name: str, old: str, new: str) -> Mutant:
    """Another text in one of the line's statements."""

    def mutate(monkeypatch: pytest.MonkeyPatch, sql: Sql) -> None:
        bound = session_module.bound

        def mutated(path: str, table: str, **instead: str) -> dict[str, str]:
            texts = dict(bound(path, table, **instead))
            if name in texts:
                assert old in texts[name]
                texts[name] = texts[name].replace(old, new)
            return texts

        monkeypatch.setattr(session_module, "bound", mutated)

    return mutate


def look(**changes: Any) -> Mutant:
    """The leader overlooks something."""

    def mutate(monkeypatch: pytest.MonkeyPatch, sql: Sql) -> None:
        real = ListeningSession._seen
        monkeypatch.setattr(ListeningSession, "_seen", lambda *args: real(*args)._replace(**changes))

    return mutate


def method(owner: Any, name: str, new: Any) -> Mutant:
    return lambda monkeypatch, sql: monkeypatch.setattr(owner, name, new)


def no_notify(monkeypatch: pytest.MonkeyPatch, sql: Sql) -> None:
    body = "begin return null; end"
    sql(f"create or replace function queue_notify_function() returns trigger language plpgsql as '{body}'")


def no_hand_over(monkeypatch: pytest.MonkeyPatch, sql: Sql) -> None:
    leave = WaitingRoom.leave

    def silently(room: WaitingRoom, waiter: Waiter) -> None:
        waiter.called = {}
        leave(room, waiter)

    monkeypatch.setattr(WaitingRoom, "leave", silently)


def no_new_leader(monkeypatch: pytest.MonkeyPatch, sql: Sql) -> None:
    def resign(room: WaitingRoom, waiter: Waiter | None = None) -> None:
        if room._led_by == threading.get_ident():
            room._led_by = None

    monkeypatch.setattr(WaitingRoom, "_resign", resign)


def only_call(queue: WaitedQueue) -> None:
    queue.call(Reason.EVENT)


def nothing_left(queue: WaitedQueue, since: float, due_in: float | None) -> None:
    queue.empty, queue.stale = True, False


def told(change: Callable[..., tuple[Any, ...]]) -> Mutant:
    """A claim tells something else of what is left."""
    real = Waiter.told
    return method(Waiter, "told", lambda waiter, *args: real(waiter, *change(*args)))


GATE = "pg_try_advisory_lock_shared(pq_gate.key)"
NEXT = "pg_snapshot_xmax(pq_seen.snapshot)::text::bigint + age(pg_snapshot_xmax(pq_seen.snapshot)::xid)"

MUTANTS = [
    ("put_while_asleep", "W1: no gate", statement("take_gates", GATE, "true")),
    ("put_while_asleep", "W2: no LISTEN", method(Gate, "channel", "pq_nothing")),
    ("put_while_asleep", "P3: no NOTIFY", no_notify),
    ("put_under_way", "W3: notes nothing", statement("look", NEXT, "0")),
    ("put_under_way", "W3: notes what a snapshot lists", statement("look", NEXT, NEXT.split(" +")[0])),
    ("put_before_the_gate", "W4: does not look", look(ready=False)),
    ("put_after_the_gate_was_refused", "W1: refusal ignored", statement("take_gates", GATE, f"{GATE} is not null")),
    ("three_jobs_in_one_put", "no look after success", look(ready=False)),
    ("three_jobs_in_one_put", "success not told", no_hand_over),
    ("three_jobs_in_one_put", "no new leader", no_new_leader),
    ("the_one_called_leaves", "no hand-over", no_hand_over),
    ("put_to_another_queue", "leader not woken", method(WaitingRoom, "_wake", lambda *args: None)),
    ("earlier_row_becomes_due", "due rows overlooked", look(due_in=None)),
    ("put_while_the_claim_is_answered", "hears of nothing", method(WaitedQueue, "told", nothing_left)),
    ("another_job_is_locked", "counts what it took", method(claim_module, "is_all", lambda rows: True)),
    ("another_row_becomes_due", "no time is told", told(lambda name, since, due_in, lease: (name, since, None, lease))),
    ("lease_expires", "no lease is told", told(lambda name, since, due_in, lease: (name, since, due_in, None))),
    ("earlier_row_becomes_due", "no look after an event", method(WaitedQueue, "happened", only_call)),
]


@pytest.mark.parametrize(("name", "mutate"), [pytest.param(n, m, id=f"{n}-{what}") for n, what, m in MUTANTS])
def test_without_one_step_a_put_is_missed(
    race: Race, sql: Sql, monkeypatch: pytest.MonkeyPatch, name: str, mutate: Mutant
) -> None:
    mutate(monkeypatch, sql)
    threads = getattr(race, name)()
    deadline = time.monotonic() + MISSED
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    assert any(thread.is_alive() for thread in threads)


# -- when a get returns


def test_get_sleeps_until_the_next_row_is_due(patient: PQ, sql: Sql) -> None:
    queue = patient["a"]
    queue.put("first", schedule_at=timedelta(milliseconds=300))
    queue.put("second", schedule_at=timedelta(milliseconds=600))
    assert [queue.get(timeout=HOUR).data for _ in range(2)] == ["first", "second"]  # type: ignore[union-attr]
    assert sql("select dequeued_at >= schedule_at from queue") == [(True,), (True,)]


def test_a_due_row_that_is_locked_does_not_hide_the_next(patient: PQ, connect: Connect, sql: Sql) -> None:
    queue = patient["a"]
    locked = queue.put("locked", schedule_at=timedelta(seconds=-1))
    connect().cursor().execute("select from queue where id = %s for update", (locked,))
    queue.put("next", schedule_at=timedelta(milliseconds=300))
    assert queue.get(timeout=HOUR).data == "next"  # type: ignore[union-attr]


def test_the_deadline_holds_in_a_storm_of_notifications(patient: PQ, sql: Sql, connect: Connect) -> None:
    storm = connect()
    storm.autocommit = True
    over = threading.Event()

    def blow() -> None:
        with storm.cursor() as cursor:
            while not over.is_set():
                cursor.execute(f"notify \"{Gate(gate_key(sql)).channel}\"")

    thread = Background(blow)
    try:
        started = time.monotonic()
        assert patient["a"].get(timeout=1) is None
        assert 1 <= time.monotonic() - started < PATIENCE
    finally:
        over.set()
        thread.result()


@pytest.mark.parametrize("how", [{"timeout": 0}, {"block": False}, {"block": False, "timeout": 5}])
def test_get_without_blocking_does_not_enter_the_waiting_room(patient: PQ, sql: Sql, how: dict[str, Any]) -> None:
    assert patient["a"].get(**how) is None
    assert patient._table._room.leader.session is None


def test_nothing_is_remembered_from_one_call_to_the_next(patient: PQ, sql: Sql) -> None:
    queue = patient["a"]
    queue.timeout = HOUR
    queue.put("later", schedule_at="1h")
    assert queue.get(timeout=0.01) is None
    assert queue.timeout == HOUR
    waiter = waiting(patient)  # for an hour, not for 10 ms
    queue.put("now")
    assert waiter.result().data == "now"
    assert queue.get(timeout=0.01) is None  # after 10 ms, not an hour


# -- what waiting costs


def test_one_listening_connection_serves_all_threads(dsn: str, sql: Sql) -> None:
    with PQ(make_dsn(dsn, application_name="waits"), poll_interval=HOUR, max_connections=2) as pq:
        threads = [waiting(pq, f"queue {n % 4}") for n in range(20)]
        assert len(gates(sql)) == 4
        assert len(set(gates(sql))) == 1
        ((sessions,),) = sql("select count(*) from pg_stat_activity where application_name = 'waits'")
        assert sessions <= 2 + 1
        sql("insert into queue (q_name, data) select 'queue ' || n %% 4, '1' from generate_series(1, 20) as n", ())
        assert all(thread.result() for thread in threads)


def test_waiters_do_not_exhaust_a_pool(dsn: str, sql: Sql) -> None:
    pool = driver.pool(1, 2, dsn)
    with PQ(pool=pool, poll_interval=HOUR) as pq:
        threads = [waiting(pq) for _ in range(20)]
        taken = [pool.getconn(), pool.getconn()]
        for conn in taken:
            pool.putconn(conn)
        pq["b"].put("b")
        assert pq["b"].get().data == "b"  # type: ignore[union-attr]
        for n in range(20):
            pq["a"].put(n)
        assert sorted(thread.result().data for thread in threads) == list(range(20))


@pytest.mark.parametrize("kind", WITH_PSYCOPG3)
def test_no_transaction_is_open_while_waiting(dsn: str, sql: Sql, kind: str) -> None:
    with make_pq(kind, dsn, poll_interval=HOUR) as pq:
        waiter = waiting(pq)
        sessions = "select count(*), count(xact_start) from pg_stat_activity where application_name = 'on trial'"
        wait_until(lambda: sql(sessions)[0][1] == 0, "the end of the last transaction")
        assert sql(sessions)[0][0] > 0
        pq["a"].put(1)
        assert waiter.result().data == 1


@pytest.fixture
def executed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What pq sends in each message, but for the checks of keys that are made now and then."""
    messages: list[str] = []
    adapter = type(own_driver())
    run = adapter._run

    def note(driver: Any, conn: Any, sql: str, params: Any) -> Any:
        messages.append(sql)
        return run(driver, conn, sql, params)

    monkeypatch.setattr(adapter, "_run", note)
    monkeypatch.setattr(table_module, "HEAL_PAUSE", HOUR)
    monkeypatch.setattr(marks, "SLOW_SECONDS", HOUR)  # on a busy machine: then a claim does not tell what is left
    return messages


@pytest.mark.parametrize("waiters", [1, 3])
@pytest.mark.parametrize("lease", [None, "30s"])
def test_one_statement_takes_a_job_that_was_waited_for(
    patient: PQ, sql: Sql, executed: list[str], monkeypatch: pytest.MonkeyPatch, waiters: int, lease: str | None
) -> None:
    """The claim also tells that nothing is left: neither the listening session looks, nor does who comes back claim."""
    monkeypatch.setattr(leader, "LINGER", HOUR)
    got: list[Any] = []

    def work() -> None:
        while (job := patient["a"].get(timeout=HOUR, lease=lease)).data != "end":
            got.append(job)

    threads = [Background(work) for _ in range(waiters)]
    asleep(patient, waiters=waiters)
    for number in range(1, 11):
        if number == 6:  # prepared by now
            executed.clear()
        sql(INSERT)
        wait_until(lambda number=number: len(got) == number and is_asleep(patient, waiters=waiters))
    assert len(executed) == 5, '\n'.join(sql[:150] for sql in executed)
    sql("insert into queue (q_name, data) select 'a', '\"end\"' from generate_series(1, %s)", [waiters])
    for thread in threads:
        thread.result()


def test_who_is_woken_by_a_put_makes_no_checks_of_keys_before_its_claim(
    patient: PQ, sql: Sql, executed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are made when the thread comes back, although its first claim is left out."""

    def checks() -> int:
        return sum("heal_all" in text for text in executed)

    monkeypatch.setattr(leader, "LINGER", HOUR)
    waiter = waiting(patient)
    patient._table._memory.healed_at = time.monotonic() - 2 * HOUR
    executed.clear()
    sql(INSERT)
    assert waiter.result() is not None
    assert patient._table.is_seen_empty("a")
    assert checks() == 0
    waiter = waiting(patient)
    assert checks() == 1
    sql(INSERT)
    assert waiter.result() is not None


def test_what_was_put_before_a_get_is_found_though_its_notification_is_late(
    patient: PQ, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leader, "LINGER", HOUR)
    waiter = waiting(patient)
    sql(INSERT)
    assert waiter.result() is not None
    assert patient._table.is_seen_empty("a")
    monkeypatch.setattr(ListeningSession, "notified", lambda *args: [])
    sql(INSERT)
    assert patient["a"].get(timeout=0.1) is not None


class Counting(Queue):
    """Counts how often it looks."""

    looks = 0

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        take = self._claims.take

        def counted(*args: Any) -> Any:
            self.looks += 1
            return take(*args)

        self._claims.take = counted  # type: ignore[method-assign]


def test_as_many_threads_wake_as_there_are_jobs(dsn: str, sql: Sql) -> None:
    with PQ(dsn, poll_interval=HOUR, queue_class=Counting) as pq:
        queue = pq["a"]
        threads = [waiting(pq) for _ in range(10)]
        before = queue.looks
        sql("insert into queue (q_name, data) select 'a', '1' from generate_series(1, 3)")
        wait_until(lambda: sum(not thread.is_alive() for thread in threads) == 3)
        asleep(pq, waiters=7)
        assert queue.looks == before + 3


def test_a_hundred_jobs_in_one_transaction_keep_all_waiters_busy(patient: PQ, sql: Sql) -> None:
    def work() -> list[Any]:
        return [patient["a"].get(timeout=HOUR) for _ in range(10)]

    threads = [Background(work) for _ in range(10)]
    asleep(patient, waiters=10)
    sql("insert into queue (q_name, data) select 'a', '1' from generate_series(1, 100)")
    ids = {job.id for thread in threads for job in thread.result()}
    assert len(ids) == 100


def notifications(conn: Any, sql: Sql, queue: str = "a") -> Callable[[], int]:
    """Have a connection listen to a queue's channel; the result counts what has come."""
    conn.autocommit = True
    channel = Gate(gate_key(sql, queue)).channel
    with conn.cursor() as cursor:
        cursor.execute(f'listen "{channel}"; listen enough')

    def count() -> int:
        sql("notify enough")  # comes after all that was notified before

        def all_came() -> bool:
            driver.poll(conn)
            return "enough" in driver.kept(conn)

        wait_until(all_came, "the last notification")
        came = driver.kept(conn).count(channel)
        driver.forget(conn)
        return came

    return count


def test_a_put_notifies_only_if_somebody_waits(patient: PQ, sql: Sql, connect: Connect) -> None:
    count = notifications(connect(), sql)
    queue = patient["a"]
    for n in range(3):
        queue.put(n)
    assert count() == 0
    for n in range(3):
        assert queue.get().data == n  # type: ignore[union-attr]
    waiter = waiting(patient)
    assert count() == 0
    patient["b"].put(1)
    assert count() == 0
    queue.put(1)
    waiter.result()
    assert count() == 1
    no_gates(sql)
    queue.put(1)
    assert count() == 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("outcome", ["a job", "nothing", "an error"])
def test_nothing_is_left_when_nobody_waits(dsn: str, sql: Sql, kind: str, outcome: str) -> None:
    with make_pq(kind, dsn, poll_interval=HOUR) as pq:
        if outcome == "a job":
            waiter = waiting(pq)
            pq["a"].put(1)
            assert waiter.result().data == 1
        elif outcome == "nothing":
            assert pq["a"].get(timeout=0.1) is None
        else:
            with pytest.raises(ZeroDivisionError), pq._table.waiter("a") as waiter:
                waiter.wait(time.monotonic() + 0.1)
                raise ZeroDivisionError
        gates_are_left(sql, kind)
        line = pq._table._room.leader.session
        if line is not None:  # else the machine was too slow for it
            with line._connection.conn.cursor() as cursor:
                cursor.execute("select pg_listening_channels()")
                assert cursor.fetchall() == []


def test_who_comes_back_soon_finds_the_gate_held(dsn: str, sql: Sql, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leader, "LINGER", HOUR)
    with Proxy(dsn) as proxy, PQ(proxy.dsn, poll_interval=HOUR) as pq:
        for number in range(3):
            waiter = waiting(pq)
            sql(INSERT)
            assert waiter.result() is not None, number
        assert sum("listen" in text for text in proxy.seen) == 1
        assert len(gates(sql)) == 1
    no_gates(sql)


def test_the_thread_that_leaves_a_gate_ends(dsn: str, sql: Sql) -> None:
    with PQ(dsn) as pq:
        for _ in range(2):
            assert pq["a"].get(timeout=0.1) is None
            no_gates(sql)
            wait_until(lambda: pq._table._room._tidying._loop.ident is None, "the end of the thread")


def test_a_session_ends_that_is_in_use_while_its_pq_is_closed(
    dsn: str, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a thread that has waited, and gives up the gate."""
    monkeypatch.setattr(ListeningSession, "lingers", False)
    pq = PQ(dsn)
    keep = ListeningSession.keep

    def keep_and_close(session: ListeningSession, queues: Any) -> None:
        if not queues:
            monkeypatch.setattr(ListeningSession, "keep", keep)
            Background(pq.close).result()
        keep(session, queues)

    monkeypatch.setattr(ListeningSession, "keep", keep_and_close)
    # on a busy machine a get may be over before it has waited
    wait_until(lambda: pq["a"].get(timeout=0.1) is None and pq._table.closed, "the end of a wait")
    others = "select count(*) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"
    wait_until(lambda: sql(others) == [(0,)], "the end of all sessions")


def test_no_thread_stays_of_a_pq_that_is_closed_while_its_session_looks(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pq = PQ(dsn)
    look = ListeningSession.look

    def close_and_look(*args: Any) -> Any:
        Background(pq.close).result()
        return look(*args)

    monkeypatch.setattr(ListeningSession, "look", close_and_look)
    with pytest.raises(ConnectionLost):
        pq["a"].get(timeout=HOUR)
    wait_until(lambda: not any("pq" in thread.name for thread in threading.enumerate()), "the end of all threads", 10)


# -- where LISTEN can't work


@pytest.fixture
def pooled(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if a transaction pooler stood between."""
    monkeypatch.setattr(Driver, "backend_is_hidden", lambda driver, conn: True)


@pytest.mark.usefixtures("pooled")
@pytest.mark.parametrize("kind", KINDS)
def test_polling_behind_a_transaction_pooler(
    dsn: str, sql: Sql, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    with make_pq(kind, dsn, poll_interval=0.05) as pq:
        waiter = Background(pq["a"].get, timeout=HOUR)
        wait_until(lambda: "polling" in caplog.text, "the warning")
        assert not gates(sql)
        sql(INSERT)
        assert waiter.result() is not None
        assert pq["a"].get(timeout=0.1) is None
    assert len(caplog.records) == 1


@pytest.mark.usefixtures("pooled")
def test_polling_sleeps_until_the_next_row_is_due(patient: PQ) -> None:
    patient["a"].put("due", schedule_at=timedelta(milliseconds=300))
    assert patient["a"].get(timeout=HOUR) is not None


@pytest.mark.usefixtures("pooled")
def test_polling_looks_once_more_at_the_deadline(patient: PQ, sql: Sql) -> None:
    waiter = Background(patient["a"].get, timeout=1)
    wait_until(lambda: "a" in patient._table._room.queues)
    sql(INSERT)
    assert waiter.result() is not None


def test_listen_dsn_names_the_connection_to_listen_on(dsn: str, sql: Sql) -> None:
    with PQ(dsn, poll_interval=HOUR, listen_dsn=make_dsn(dsn, application_name="listens")) as pq:
        waiter = waiting(pq)
        ((listens,),) = sql("select pid from pg_stat_activity where application_name = 'listens'")
        assert gates(sql) == [listens]
        sql(INSERT)
        assert waiter.result() is not None


def test_without_a_listening_connection_get_polls(dsn: str, sql: Sql, caplog: pytest.LogCaptureFixture) -> None:
    nowhere = make_dsn(dsn, port=1)
    with PQ(dsn, poll_interval=0.05, listen_dsn=nowhere) as pq:
        waiter = Background(pq["a"].get, timeout=HOUR)
        wait_until(lambda: caplog.records, "the warning")
        sql(INSERT)
        assert waiter.result() is not None
    assert len(caplog.records) == 1


# -- many notifications


BURST = "select pg_notify(%s, n || repeat('x', 7900)) from generate_series(1, 1300) as n"  # 10 MB


@pytest.mark.parametrize("kind", KINDS)
def test_a_burst_of_notifications_is_drained_and_forgotten(dsn: str, sql: Sql, kind: str) -> None:
    with make_pq(kind, dsn, poll_interval=HOUR) as pq:
        waiter = waiting(pq)
        sql(BURST, (Gate(gate_key(sql)).channel,))
        line = pq._table._room.leader.session
        assert line is not None
        pq["a"].put(1)
        assert waiter.result().data == 1
        assert not line.pending()


@pytest.mark.parametrize("kind", SINGLE)
def test_notifications_of_the_application_stay_for_it(
    dsn: str, sql: Sql, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    turns = []
    kit = kit_of(kind)
    lead = WaitingRoom._lead
    monkeypatch.setattr(WaitingRoom, "_lead", lambda *args: (turns.append(1), lead(*args))[1])
    with make_pq(kind, dsn, poll_interval=HOUR) as pq:
        with pq["a"] as cursor:
            cursor.execute("listen mine")
        waiter = waiting(pq)
        sql(BURST, ("mine",))

        def all_came() -> bool:
            if kind == "connection":
                kit.poll(pq._db.conn)  # the waiter does not use it
            return len(kit.kept(pq._db.conn)) == 1300

        wait_until(all_came, "all notifications")
        before = len(turns)
        waiter.join(0.3)
        assert len(turns) <= before + 1  # they don't keep it busy
        sql(INSERT)
        assert waiter.result() is not None
        assert kit.kept(pq._db.conn) == ["mine"] * 1300


# -- a single connection shared by threads


@pytest.fixture(params=[*SINGLE, "repeatable read"])
def shared(request: pytest.FixtureRequest, dsn: str) -> Iterator[PQ]:
    """A PQ on a single connection."""
    with make_pq(request.param, dsn, poll_interval=HOUR) as pq:
        if request.param == "repeatable read":
            driver.set_session(pq._db.conn, isolation_level="repeatable read")
        yield pq


@pytest.mark.parametrize("in_transaction", [False, True])
def test_put_on_the_same_connection_wakes(shared: PQ, in_transaction: bool) -> None:
    waiter = waiting(shared)
    if in_transaction:
        with shared["b"]:
            shared["a"].put(1)
    else:
        shared["a"].put(1)
    assert waiter.result().data == 1


def test_put_of_others_wakes_who_waits_on_a_single_connection(shared: PQ, sql: Sql) -> None:
    waiter = waiting(shared)
    sql(INSERT)
    assert waiter.result().data == 1


def test_notification_that_came_during_a_transaction_of_another_thread(shared: PQ, sql: Sql) -> None:
    waiter = waiting(shared)
    with shared["b"] as cursor:
        cursor.execute("select 1")
        sql(INSERT)
    assert waiter.result().data == 1


def test_deadline_holds_during_a_transaction_of_another_thread(shared: PQ, sql: Sql) -> None:
    waiters = [Background(shared["a"].get, timeout=1) for _ in range(3)]
    asleep(shared, waiters=3)
    with shared["b"] as cursor:
        cursor.execute("select 1")
        assert [waiter.result() for waiter in waiters] == [None] * 3
    no_gates(sql)  # the last to leave could not have the connection


def test_two_pq_on_one_connection(shared: PQ, sql: Sql) -> None:
    with PQ(shared._db.conn, poll_interval=HOUR) as second:
        waiters = [waiting(shared, "a"), waiting(second, "b")]
        sql(INSERT)
        waiters[0].result()
        sql("insert into queue (q_name, data) values ('b', '1')")
        assert waiters[1].result() is not None
        waiters = [waiting(shared, "a"), waiting(second, "b")]
        shared["a"].put(1)
        second["b"].put(1)
        assert all(waiter.result() for waiter in waiters)


def test_search_path_changed_while_waiting(shared: PQ, dsn: str, sql: Sql, connect: Connect) -> None:
    other = connect(options="-c search_path=other")
    sql("create schema other")
    with PQ(dsn, schema="other") as pq:
        pq.create()
    waiter = waiting(shared)
    with shared["a"] as cursor:
        cursor.execute("set search_path = other")
    shared["a"].put("here")
    assert waiter.result().data == "here"
    waiter = waiting(shared)
    other.autocommit = True
    other.cursor().execute("insert into queue (q_name, data) values ('a', '\"there\"')")
    assert waiter.result().data == "there"


# -- in a transaction


@pytest.mark.parametrize("kind", KINDS)
def test_get_in_a_transaction_sees_what_is_put_meanwhile(dsn: str, sql: Sql, kind: str) -> None:
    with make_pq(kind, dsn, poll_interval=HOUR) as pq:

        def work() -> Any:
            with pq["a"] as cursor:
                cursor.execute("select 1")
                got.append(pq["a"].get(timeout=HOUR))
                cursor.execute("select dequeued_at is null from queue where id = %s", (got[0].id,))
                return cursor.fetchall()

        got: list[Any] = []
        thread = Background(work)
        if kind in SEVERAL:
            asleep(pq)
        else:
            wait_until(lambda: sql("select 1 from pg_stat_activity where state = 'idle in transaction'"))
        sql(INSERT)
        assert thread.result() == [(False,)]


def test_get_in_a_transaction_on_the_only_connection_of_a_pool(dsn: str, sql: Sql) -> None:
    with PQ(pool=driver.pool(1, 1, dsn), poll_interval=HOUR) as pq:

        def work() -> Any:
            with pq["a"]:
                return pq["a"].get(timeout=HOUR)

        thread = Background(work)
        asleep(pq)
        sql(INSERT)
        assert thread.result() is not None


@pytest.mark.parametrize("kind", KINDS)
def test_row_becomes_due_in_a_transaction(dsn: str, kind: str) -> None:
    with make_pq(kind, dsn, poll_interval=HOUR) as pq, pq["a"]:
        pq["a"].put("due", schedule_at=timedelta(milliseconds=300))
        assert pq["a"].get(timeout=HOUR).data == "due"  # type: ignore[union-attr]


# -- interruptions


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("role", ["leader", "follower"])
def test_ctrl_c_while_waiting_leaves_all_intact(dsn: str, sql: Sql, kind: str, role: str) -> None:
    with make_pq(kind, dsn, poll_interval=HOUR) as pq:
        others = [waiting(pq)] if role == "follower" else []

        with ctrl_c(lambda: is_asleep(pq, waiters=1 + len(others))):
            pq["a"].get(timeout=HOUR)
        if not others:
            gates_are_left(sql, kind)
        others.append(waiting(pq))
        for n in range(len(others)):
            pq["a"].put(n)
        assert all(other.result() for other in others)
        no_gates(sql)


class Interruption(KeyboardInterrupt):
    pass


def interrupted(function: Callable[[], Any], nth: int) -> bool:
    """Call it, and interrupt it at the nth line of the modules for waiting; False: it has not so many."""
    lines = 0

    def trace(frame: Any, event: str, arg: Any) -> Any:
        code = frame.f_code
        if not code.co_filename.endswith(("_wait/room.py", "_wait/waiter.py", "_wait/leader.py", "_wait/session.py")):
            return None
        return each_line

    def each_line(frame: Any, event: str, arg: Any) -> Any:
        nonlocal lines
        line = linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip()
        # signals are not served between the end of a "with" block and the release of its lock, nor before a "try"
        if event == "line" and not line.startswith("with ") and line != "try:":
            lines += 1
            if lines == nth:
                raise Interruption
        return each_line

    sys.settrace(trace)
    try:
        function()
    except Interruption:
        pass
    finally:
        sys.settrace(None)
    return lines >= nth


@pytest.mark.skipif(
    sys.version_info >= (3, 12), reason="there, line events also come where no signal is served, with a lock held"
)
@pytest.mark.parametrize("kind", ["dsn", "connection"])
@pytest.mark.parametrize("followers", [0, 1])
def test_interrupted_anywhere(dsn: str, sql: Sql, kind: str, followers: int) -> None:
    """A wait with all that belongs to it, interrupted at every tenth line, by kind at others; then another."""
    with make_pq(kind, dsn, poll_interval=HOUR) as pq:
        room = pq._table._room
        nth, misses = 1 if kind == "dsn" else 6, 0
        while misses < 3:  # a wait that is held up for longer than its timeout has fewer lines
            victim = Background(interrupted, lambda: pq["a"].get(timeout=0.05), nth)
            wait_until(lambda: not victim.is_alive() or room.queues.get("a"), "the one that is to lead")  # noqa: B023
            others = [Background(pq["a"].get, timeout=HOUR) for _ in range(followers)]
            misses = 0 if victim.result() else misses + 1
            others.append(Background(pq["a"].get, timeout=HOUR))
            asleep(pq, waiters=len(others))
            sql("insert into queue (q_name, data) select 'a', '1' from generate_series(1, %s)", (len(others),))
            assert all(other.result() for other in others), nth
            no_gates(sql)
            nth += 0 if misses else 10
        assert nth > 50


# -- what breaks, and what is replaced


def test_a_lost_listening_connection_is_replaced(
    patient: PQ, sql: Sql, caplog: pytest.LogCaptureFixture
) -> None:
    waiters = [waiting(patient), waiting(patient)]
    (listens, *_) = gates(sql)
    sql("select pg_terminate_backend(%s, 30000)", (listens,))
    sql(INSERT)  # nobody hears of it
    wait_until(lambda: not all(waiter.is_alive() for waiter in waiters), "the first job")
    asleep(patient)
    assert listens not in gates(sql)
    sql(INSERT)
    assert all(waiter.result() for waiter in waiters)
    assert len(caplog.records) == 1


@pytest.mark.parametrize("kind", SEVERAL)
def test_sessions_that_end_together_with_the_one_that_listens(
    dsn: str, sql: Sql, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """The end of that one makes the thread claim, on a connection that has just answered and seems to be alive."""
    alive = Driver.alive
    doomed: list[int] = []

    def alive_for_the_last_time(self: Driver, conn: Any) -> bool:
        if not alive(self, conn):
            return False
        if doomed:
            sql("select pg_terminate_backend(%s, 30000)", (self.backend_pid(conn),))
            doomed.clear()
        return True

    monkeypatch.setattr(Driver, "alive", alive_for_the_last_time)
    monkeypatch.setattr(execute, "HOT", HOUR)
    with make_pq(kind, dsn, poll_interval=HOUR) as pq:
        waiter = waiting(pq)
        doomed += gates(sql)
        sql("select pg_terminate_backend(%s, 30000)", (doomed[0],))
        wait_until(lambda: not doomed, "the claim")
        sql(INSERT)
        assert waiter.result().data == 1


@pytest.mark.parametrize("kind", SINGLE)
def test_all_who_wait_on_a_connection_that_breaks_are_told(dsn: str, sql: Sql, kind: str) -> None:
    with make_pq(kind, dsn, poll_interval=HOUR) as pq:
        waiters = [waiting(pq), waiting(pq), waiting(pq, "b")]
        terminate(dsn)
        for waiter in waiters:
            with pytest.raises(ConnectionLost):
                waiter.result()


@pytest.mark.parametrize("kind", WITH_PSYCOPG3)
def test_all_who_wait_are_told_of_close(dsn: str, kind: str) -> None:
    with make_pq(kind, dsn, poll_interval=HOUR) as pq:
        waiters = [waiting(pq), waiting(pq), waiting(pq, "b")]
    for waiter in waiters:
        with pytest.raises(ConnectionLost, match="closed"):
            waiter.result()
    with pytest.raises(either("Error"), match="closed"):
        pq["a"].get(timeout=HOUR)


@pytest.mark.parametrize("kind", KINDS)
def test_table_dropped_and_made_again_while_waiting(dsn: str, sql: Sql, kind: str) -> None:
    with make_pq(kind, dsn, poll_interval=HOUR) as pq:
        waiter = waiting(pq)
        sql("drop table queue")
        with PQ(dsn) as other:
            other.create()
        sql(INSERT)
        assert waiter.result() is not None


@pytest.mark.parametrize("kind", KINDS)
def test_table_dropped_while_waiting(dsn: str, sql: Sql, kind: str) -> None:
    with make_pq(kind, dsn, poll_interval=0.2) as pq:
        waiters = [waiting(pq), waiting(pq)]
        sql("drop table queue")
        for waiter in waiters:
            with pytest.raises(TableMissing):
                waiter.result()
        no_gates(sql)


WORKER = """
import sys
from pq import PQ

with PQ(sys.argv[1], poll_interval=3600) as pq:
    print(pq["a"].get(timeout=3600).data, flush=True)
"""


def test_two_processes_that_wait_are_both_served(patient: PQ, dsn: str, sql: Sql) -> None:
    workers = [
        subprocess.Popen([sys.executable, "-c", WORKER, dsn], stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    wait_until(lambda: len(gates(sql)) == 2, "both gates")
    with patient["a"]:
        patient["a"].put(1)
        patient["a"].put(2)
    assert sorted(worker.communicate(timeout=PATIENCE)[0] for worker in workers) == ["1\n", "2\n"]
    no_gates(sql)


FORKED = """
import os, sys, threading, warnings
from pq import PQ

warnings.simplefilter("ignore", DeprecationWarning)  # this process has threads, and forks
with PQ(sys.argv[1], poll_interval=3600) as pq:
    thread = threading.Thread(target=lambda: print("parent", pq["a"].get(timeout=3600).data, flush=True))
    thread.start()
    sys.stdin.readline()
    child = os.fork()
    if child == 0:
        print("child", pq["b"].get(timeout=3600).data, flush=True)
        pq.close()
        os._exit(0)
    os.waitpid(child, 0)
    thread.join()
"""


def test_a_forked_child_waits_for_itself(dsn: str, sql: Sql) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", FORKED, dsn], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    wait_until(lambda: len(gates(sql)) == 1, "the parent's gate")
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("fork\n")
    process.stdin.flush()
    wait_until(lambda: len(gates(sql)) == 2, "the child's gate")
    sql("insert into queue (q_name, data) values ('b', '1')")
    assert process.stdout.readline() == "child 1\n"
    wait_until(lambda: len(gates(sql)) == 1, "the end of the child")
    sql("insert into queue (q_name, data) values ('a', '2')")
    assert process.communicate(timeout=PATIENCE)[0] == "parent 2\n"
