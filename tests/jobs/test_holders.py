"""Every order of steps: two holders of one job, whose lease expires.

Each of them claims the job, extends its lease and settles it, at once or in a transaction; the lease expires in
between. In all interleavings of these steps, each one does what a model of a few lines says. So a delivery is settled
at most once, and by its holder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any, Protocol

import pytest
from support.orders import merges

from pq import PQ, LeaseLost, LeasesLost, Queue, sql
from pq._queue import claim

#: What an hour does; it passes over a row that a transaction has locked.
EXPIRE = """
    update queue set due_at = now() - interval '1 s'
    where id in (select id from queue where due_at is not null for update skip locked)
"""


class Actors(Protocol):
    """What can be done; each step returns whether it took effect."""

    def claim(self, who: str) -> bool: ...
    def extend(self, who: str) -> bool: ...
    def settle(self, who: str, how: str) -> bool: ...
    def done_in_transaction(self, who: str) -> bool: ...
    def commit(self) -> bool: ...
    def expire(self) -> bool: ...


class Model:
    """What must become of the job.

    :ivar holder: whose delivery is under way; None: the job is ready, or finished.
    :ivar open: a transaction is open in which the holder has finished the job.
    """

    def __init__(self) -> None:
        self.holder: str | None = None
        self.open = self.expired = self.finished = False

    def claim(self, who: str) -> bool:
        won = not self.finished and not self.open and (self.holder is None or self.expired)
        if won:
            self.holder, self.expired = who, False
        return won

    def extend(self, who: str) -> bool:
        if self.holder == who:
            self.expired = False
        return self.holder == who

    def settle(self, who: str, how: str) -> bool:
        won = self.holder == who
        if won:
            self.holder, self.finished, self.expired = None, how != "release", False
        return won

    def done_in_transaction(self, who: str) -> bool:
        self.open = self.holder == who
        return self.open

    def commit(self) -> bool:
        if self.open:
            self.holder, self.open, self.finished = None, False, True
        return True

    def expire(self) -> bool:
        if self.holder is None or self.open:
            return False
        self.expired = True
        return True


class Real:
    """The steps, by pq on a server."""

    def __init__(self, queue: Queue, clock: Any, conn: Any) -> None:
        self._queue = queue
        self._clock = clock
        self._conn = conn
        self._jobs: dict[str, Any] = {}

    def claim(self, who: str) -> bool:
        job = self._queue.get(block=False, lease="1h")
        if job is not None:
            self._jobs[who] = job
        return job is not None

    def extend(self, who: str) -> bool:
        return self._took_effect(who, lambda job: job.extend("1h"))

    def settle(self, who: str, how: str) -> bool:
        return self._took_effect(who, lambda job: getattr(job, how)(*(["broken"] if how == "fail" else [])))

    def done_in_transaction(self, who: str) -> bool:
        return self._took_effect(who, lambda job: self._queue.done([job], conn=self._conn))

    def commit(self) -> bool:
        self._conn.commit()
        return True

    def expire(self) -> bool:
        self._clock.execute(EXPIRE)
        return bool(self._clock.rowcount)

    def _took_effect(self, who: str, act: Callable[[Any], Any]) -> bool:
        if who not in self._jobs:
            return False
        try:
            act(self._jobs[who])
        except (LeaseLost, LeasesLost):
            return False
        return True


def play(order: Sequence[str], actors: Actors, how: str = "done") -> list[tuple[str, bool]]:
    """Return what each step did; `how` is how "a" settles."""
    steps: dict[str, Callable[[], bool]] = {
        "expire": actors.expire,
        "a claim": lambda: actors.claim("a"),
        "b claim": lambda: actors.claim("b"),
        "a extend": lambda: actors.extend("a"),
        "b extend": lambda: actors.extend("b"),
        "a settle": lambda: actors.settle("a", how),
        "b settle": lambda: actors.settle("b", "done"),
        "a done": lambda: actors.done_in_transaction("a"),
        "a commit": actors.commit,
    }
    return [(step, steps[step]()) for step in order]


@pytest.fixture
def real(pq: PQ, connect: Callable[..., Any]) -> Callable[[], Real]:
    clock, conn = connect(), connect()
    clock.autocommit = True

    def make() -> Real:
        clock.cursor().execute("delete from queue")
        queue = pq["a"]
        # without marks, which on a slow machine would pass over what is made due in the past
        queue._claims = claim.Claim()
        queue.put(1)
        return Real(queue, clock.cursor(), conn)

    return make


A = ["a claim", "a extend", "a settle"]
B = ["b claim", "b extend", "b settle"]


@pytest.mark.parametrize(("how", "step"), [("done", 1), ("release", 5), ("fail", 5)])
def test_all_orders_of_two_holders(real: Callable[[], Real], how: str, step: int) -> None:
    """Of the ways to settle, which have the same guard, all orders are tried with one, and some with the others."""
    for order in islice(merges(A, B, ["expire", "expire"]), 0, None, step):
        assert play(order, real(), how) == play(order, Model(), how)


def test_all_orders_of_a_holder_with_a_transaction_and_another(real: Callable[[], Real]) -> None:
    for order in merges(["a claim", "a done", "a commit"], B, ["expire", "expire"]):
        assert play(order, real()) == play(order, Model())


#: What the statements lose; the order of steps in which that shows.
MUTANTS = {
    "the guard of a settlement": (
        ("job.attempts = given.attempts and job.dequeued_at = given.dequeued_at", "true"),
        "a claim, expire, b claim, a settle",
    ),
    "that it is not settled": (("(job.due_at is null) is false", "true"), "a claim, a settle, a settle"),
    "the guard of an extension": (
        ("attempts = %(attempts)s and dequeued_at = %(dequeued_at)s", "true"),
        "a claim, expire, b claim, a extend",
    ),
    "the lease of a claim": (("due_at <= statement_timestamp()", "due_at is not null"), "a claim, b claim"),
    "the expiry of a lease": (("due_at <= statement_timestamp()", "false"), "a claim, expire, b claim"),
}


@pytest.fixture
def lose(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], None]]:
    """Has all statements lose a condition, where they are read: further up they are kept."""

    def forget() -> None:
        sql.bound.cache_clear()
        claim.statement.cache_clear()

    def replace(old: str, new: str) -> None:
        read = sql.statements

        def mutants(path: str) -> dict[str, str]:
            return {name: text.replace(old, new) for name, text in read(path).items()}

        assert any(read(path) != mutants(path) for path in ("common.sql", "lease.sql"))
        monkeypatch.setattr(sql, "statements", mutants)
        forget()

    yield replace
    monkeypatch.undo()
    forget()


@pytest.mark.parametrize("mutated", [False, True])
@pytest.mark.parametrize("name", MUTANTS)
def test_without_one_condition_it_fails_in_this_order(
    real: Callable[[], Real], lose: Callable[[str, str], None], name: str, mutated: bool
) -> None:
    condition, order = MUTANTS[name]
    if mutated:
        lose(*condition)
    steps = order.split(", ")
    assert (play(steps, real()) != play(steps, Model())) == mutated
