"""Every order of steps: a put and the threads that wait for it, taken through all interleavings of their steps.

The steps are those of the protocol, P1 to P4 and W1 to W5, as the docstring of `pq._wait` names them. The waiter is a
real one, `Queue.get` on a real server; it is held at each step, and let go on when it is its turn. The poll interval is
an hour, so a waiter that sleeps past its job is noticed.

Each mutant, a protocol in which one step is left out or comes too early, misses the put in the interleaving that is
named beside it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import pytest
from support import PATIENCE, Background, wait_until
from support.orders import merges

from pq import PQ
from pq._wait import connections
from pq._wait import session as sessions
from pq._wait.session import Gate, ListeningSession, Look

HOUR = 3600.0

#: Seconds after which a put counts as missed: by mutants, for which an hour may pass as well.
MISSED = 0.3

#: The key of the lock that holds a look up on the server.
HELD_UP = 99

SEEN = "pg_current_snapshot() as pq_seen (snapshot)"
HELD_UP_SEEN = (
    f"lateral (select pg_current_snapshot() from pg_advisory_xact_lock_shared({HELD_UP})) as pq_seen (snapshot)"
)


class Held:
    """A thread that is held before each of its steps."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waits_for: str | None = None
        self._free = False

    def reach(self, step: str) -> None:
        """The thread has come to a step: wait for its turn."""
        with self._changed:
            if self._free:
                return
            self._waits_for = step
            self._changed.notify_all()
            assert self._changed.wait_for(lambda: self._waits_for is None or self._free, PATIENCE)

    def arrived(self, step: str) -> None:
        """Wait until the thread has done all that comes before a step."""
        with self._changed:
            assert self._changed.wait_for(lambda: self._waits_for == step, PATIENCE), f"no {step}"

    def go(self) -> None:
        with self._changed:
            self._waits_for = None
            self._changed.notify_all()

    def free(self) -> None:
        with self._changed:
            self._free = True
            self._changed.notify_all()


class Waiting:
    """A thread that waits for a job of queue a: W1 and W2, which are one message else; W4, which has W3 in it."""

    def __init__(self, pq: PQ) -> None:
        self._pq = pq
        self._held = Held()
        held_back[pq] = self._held
        self.thread = Background(pq["a"].get, timeout=HOUR)
        self._held.arrived("W1")

    def step(self, name: str) -> None:
        self._held.arrived(name)
        self._held.go()
        self._held.arrived({"W1": "W2", "W2": "W4", "W4": "W5"}[name])
        if name == "W4":
            self._held.free()

    def free(self) -> None:
        self._held.free()


class HeldUp(Waiting):
    """The look in two steps: "W4", its snapshot; "W3", which reads the transaction id that is to be given out next."""

    def __init__(self, pq: PQ, conn: Any) -> None:
        self._cursor = conn.cursor()
        self._cursor.execute(f"select pg_advisory_lock({HELD_UP})")
        super().__init__(pq)

    def step(self, name: str) -> None:
        if name == "W4":
            self._held.arrived("W4")
            self._held.go()
            query = f"select 1 from pg_locks where locktype = 'advisory' and objid = {HELD_UP} and not granted"
            wait_until(lambda: self._cursor.execute(query) or self._cursor.fetchall(), "the look")
        elif name == "W3":
            self._cursor.execute(f"select pg_advisory_unlock({HELD_UP})")
            self._held.arrived("W5")
            self._held.free()
        else:
            super().step(name)


held_back: dict[PQ, Held] = {}


@pytest.fixture(autouse=True)
def _hold(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Hold sessions at their steps; and leave a gate as soon as nobody waits."""
    limited = ListeningSession._limited

    def held_limited(session: ListeningSession, conn: Any, sql: str, params: Any = None) -> Any:
        held = next((held for pq, held in held_back.items() if pq._table._room.leader.session is session), None)
        if held is not None and "pg_try_advisory_lock_shared" in sql:
            held.reach("W1")
            rows = limited(session, conn, f"begin; {sql}", params)
            held.reach("W2")
            session._driver.run(conn, "commit")
            return rows
        if held is not None and "pg_current_snapshot" in sql:
            held.reach("W4")
            rows = limited(session, conn, sql, params)
            held.reach("W5")
            return rows
        return limited(session, conn, sql, params)

    monkeypatch.setattr(ListeningSession, "_limited", held_limited)
    monkeypatch.setattr(ListeningSession, "lingers", False)
    monkeypatch.setattr(connections, "SILENCE_LIMIT", 2 * PATIENCE)
    monkeypatch.setattr(sessions, "TIME_LIMIT", 2 * PATIENCE)
    yield
    held_back.clear()


@pytest.fixture
def patient(dsn: str) -> Iterator[PQ]:
    with PQ(dsn, poll_interval=HOUR) as pq:
        yield pq


@pytest.fixture
def other(dsn: str) -> Iterator[PQ]:
    with PQ(dsn, poll_interval=HOUR) as pq:
        yield pq


class Putting:
    """A put, whose trigger does P2 and P3."""

    steps: Sequence[str] = ("P1-3", "P4")

    def __init__(self, conn: Any, jobs: int = 1) -> None:
        self._conn = conn
        self._cursor = conn.cursor()
        self._jobs = jobs

    def step(self, name: str) -> None:
        if name == "P1-3":
            self._insert()
        else:
            self._conn.commit()

    def _insert(self) -> None:
        self._cursor.execute(
            "insert into queue (q_name, data) select 'a', '1' from generate_series(1, %s)", (self._jobs,)
        )


class PuttingByHand(Putting):
    """A put whose steps are statements of their own; P2 is the moment at which it has the gate, if it gets it."""

    steps = ("P1", "P2", "P3", "P4")

    def __init__(self, conn: Any, jobs: int = 1) -> None:
        super().__init__(conn, jobs)
        self._cursor.execute("alter table queue disable trigger queue_notify_trigger")
        self._cursor.execute("select hashtextextended('public.queue a', 0)")
        ((self._key,),) = self._cursor.fetchall()
        conn.commit()
        self._was_free = True

    def step(self, name: str) -> None:
        if name == "P1":
            self._insert()
        elif name == "P2":
            self._cursor.execute("select pg_try_advisory_lock(%s)", (self._key,))
            ((self._was_free,),) = self._cursor.fetchall()
        elif name == "P3" and self._was_free:
            self._cursor.execute("select pg_advisory_unlock(%s)", (self._key,))
        elif name == "P3":
            self._cursor.execute("select pg_notify(%s, '')", (Gate(self._key).channel,))
        elif name == "P4":
            self._conn.commit()


def drive(order: Sequence[str], put: Putting, waiters: dict[str, Waiting]) -> None:
    for step in order:
        if step.startswith("P"):
            put.step(step)
        else:
            actor, _, name = step.rpartition(" ")
            waiters[actor].step(name)


def finished(waiter: Waiting, order: Sequence[str]) -> None:
    waiter.thread.join(PATIENCE)
    assert not waiter.thread.is_alive(), f"sleeps past its job: {' '.join(order)}"
    assert waiter.thread.result() is not None


def test_the_orders_are_all_there_are() -> None:
    assert sorted(merges("ab", "c")) == [["a", "b", "c"], ["a", "c", "b"], ["c", "a", "b"]]
    assert len(list(merges("abcd", "efgh"))) == 70


def test_one_put_and_one_waiter(patient: PQ, connect: Callable[..., Any]) -> None:
    conn = connect()
    for order in merges(Putting.steps, ("W1", "W2", "W4")):
        waiter = Waiting(patient)
        drive(order, Putting(conn), {"": waiter})
        finished(waiter, order)


def test_one_put_in_its_smallest_steps_and_one_waiter(
    patient: PQ, connect: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    conn, holder = connect(), connect()
    holder.autocommit = True
    held_limited = ListeningSession._limited
    monkeypatch.setattr(
        ListeningSession,
        "_limited",
        lambda session, conn, sql, params=None: held_limited(session, conn, sql.replace(SEEN, HELD_UP_SEEN), params),
    )
    put = PuttingByHand(conn)
    for order in merges(put.steps, ("W1", "W2", "W4", "W3")):
        waiter = HeldUp(patient, holder)
        drive(order, put, {"": waiter})
        finished(waiter, order)


def test_one_put_of_two_jobs_and_two_waiters(patient: PQ, other: PQ, connect: Callable[..., Any]) -> None:
    """In two processes, as it were; which of them comes first makes no difference."""
    conn = connect()
    first, second = [f"a {step}" for step in ("W1", "W2", "W4")], [f"b {step}" for step in ("W1", "W2", "W4")]
    for order in merges(Putting.steps, first, second):
        if order.index("a W1") > order.index("b W1"):
            continue
        waiters = {"a": Waiting(patient), "b": Waiting(other)}
        drive(order, Putting(conn, jobs=2), waiters)
        for waiter in waiters.values():
            finished(waiter, order)


def two_wait(pq: PQ, threads: list[Background]) -> bool:
    """Whether two threads wait, or not even that: the job was there."""
    queue = pq._table._room.queues.get("a")
    return len(getattr(queue, "waiters", ())) == 2 or not all(thread.is_alive() for thread in threads)


def test_one_put_of_two_jobs_and_two_waiters_of_one_process(patient: PQ, connect: Callable[..., Any]) -> None:
    """The second thread comes while the first one leads."""
    conn = connect()
    for order in merges(Putting.steps, ("W1", "W2", "W4"), ("comes",)):
        waiter, seconds, put = Waiting(patient), [], Putting(conn, jobs=2)
        for step in order:
            if step == "comes":
                seconds.append(Background(patient["a"].get, timeout=HOUR))
                wait_until(partial(two_wait, patient, [waiter.thread, *seconds]), "that the second one waits")
            else:
                (put if step.startswith("P") else waiter).step(step)
        finished(waiter, order)
        assert seconds[0].result() is not None, order


# -- mutants


Mutate = Callable[[pytest.MonkeyPatch], None]


def text(old: str, new: str) -> Mutate:
    """Another text in the statements of the session."""

    def mutate(monkeypatch: pytest.MonkeyPatch) -> None:
        limited = ListeningSession._limited
        monkeypatch.setattr(
            ListeningSession,
            "_limited",
            lambda session, conn, sql, params=None: limited(session, conn, sql.replace(old, new), params),
        )

    return mutate


def seen(**changes: Any) -> Mutate:
    """The session believes something else of what it has seen."""

    def mutate(monkeypatch: pytest.MonkeyPatch) -> None:
        real = ListeningSession._seen
        monkeypatch.setattr(ListeningSession, "_seen", lambda *args: real(*args)._replace(**changes))

    return mutate


def looks_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """W4 before W1 and W2, as in pq 1.9.1."""
    look, take = ListeningSession.look, ListeningSession._take_gates

    def late(session: ListeningSession, queues: Any, *args: Any) -> dict[str, Look]:
        monkeypatch.setattr(ListeningSession, "_take_gates", lambda *args: None)
        found = look(session, queues, *args)
        monkeypatch.setattr(ListeningSession, "_take_gates", take)
        take(session, list(queues))
        return {queue: seen._replace(sure=True) for queue, seen in found.items()}

    monkeypatch.setattr(ListeningSession, "look", late)


class PutsEarly(PuttingByHand):
    """P2 before P1."""

    def step(self, name: str) -> None:
        super().step({"P1": "P2", "P2": "P3", "P3": "P1"}.get(name, name))


class TellsNobody(PuttingByHand):
    """Without P3."""

    def step(self, name: str) -> None:
        if name != "P3" or self._was_free:
            super().step(name)


NEXT = "pg_snapshot_xmax(pq_seen.snapshot)::text::bigint + age(pg_snapshot_xmax(pq_seen.snapshot)::xid)"

#: What is wrong; the order of steps in which the put is missed; who puts; how the waiter is changed.
MUTANTS: dict[str, tuple[str, type[PuttingByHand], Mutate | None]] = {
    "W1 left out": (
        "W1 W2 W4 P1 P2 P3 P4",
        PuttingByHand,
        text("pg_try_advisory_lock_shared(pq_gate.key)", "pg_try_advisory_lock_shared(pq_gate.key - 1)"),
    ),
    "W2 left out": ("W1 W2 W4 P1 P2 P3 P4", PuttingByHand, text('listen "pq_', 'listen "not_')),
    "W3 left out": ("P1 P2 P3 W1 W2 W4 P4", PuttingByHand, text(NEXT, "0::bigint")),
    "W3 notes what the snapshot lists": ("P1 P2 P3 W1 W2 W4 P4", PuttingByHand, text(NEXT, NEXT.split(" +")[0])),
    "W4 left out": ("P1 P2 P3 P4 W1 W2 W4", PuttingByHand, seen(ready=False)),
    "W4 before W1": ("W4 P1 P2 P3 P4 W1 W2", PuttingByHand, looks_first),
    "W5 does not look again": ("P1 P2 P3 W1 W2 W4 P4", PuttingByHand, seen(sure=True)),
    "P2 before P1": ("P1 P2 W1 W2 W4 P3 P4", PutsEarly, None),
    "P3 left out": ("W1 W2 W4 P1 P2 P3 P4", TellsNobody, None),
}


@pytest.mark.parametrize("mutant", [None, *MUTANTS])
def test_without_one_step_the_put_is_missed_in_this_order(
    patient: PQ, connect: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, mutant: str | None
) -> None:
    conn = connect()
    for name, (steps, putting, mutate) in MUTANTS.items():
        if mutant is None:  # in these orders nothing is missed if nothing is left out
            order = steps.split()
            if order[0] != "W4":
                waiter = Waiting(patient)
                drive(order, PuttingByHand(conn), {"": waiter})
                finished(waiter, order)
        elif mutant == name:
            if mutate is not None:
                mutate(monkeypatch)
            waiter = early(patient) if steps.startswith("W4") else Waiting(patient)
            drive(steps.split(), putting(conn), {"": waiter})
            waiter.thread.join(MISSED)
            assert waiter.thread.is_alive()


def early(pq: PQ) -> Waiting:
    """A waiter that looks first."""

    class Early(Waiting):
        def __init__(self) -> None:
            self._held = held_back[pq] = Held()
            self.thread = Background(pq["a"].get, timeout=HOUR)
            self._held.arrived("W4")

        def step(self, name: str) -> None:
            self._held.arrived(name)
            self._held.go()
            if name == "W4":
                self._held.arrived("W5")
                self._held.go()
                self._held.arrived("W1")
            elif name == "W1":
                self._held.arrived("W2")
            else:
                self._held.free()

    return Early()
