"""What may run next of each key, token and follower, compared with a model: by two connections, of which one takes in
transactions. ``PQ_TEST_EXAMPLES=200`` tries more than the usual few."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from support.machine import run_machine

from pq import PQ, After, LeasedJob, Unique
from pq._jobs.settlement import Settlement, settle

keys = st.sampled_from(["k", "k", "l", None])
numbers = st.integers(0, 50)


@dataclass
class Row:
    """:ivar state: waiting (ready or held), scheduled, follows, running, retries, dead or over."""

    id: int
    queue: str
    key: str | None
    urgent: bool
    state: str
    token: str | None = None
    until: str = "started"
    parents: list[int] = field(default_factory=list)

    @property
    def rank(self) -> tuple[bool, int]:
        return not self.urgent, self.id


class Model:
    """Who is in line is a job of each key, until it has ended, or has been moved, or scheduled anew."""

    def __init__(self) -> None:
        self.rows: dict[int, Row] = {}
        self.line: dict[tuple[str, str], int] = {}

    def enter(self, row: Row) -> None:
        row.state = "waiting"
        if row.key is not None:
            self.line.setdefault((row.queue, row.key), row.id)

    def leave(self, row: Row) -> None:
        """The first of those that wait comes next."""
        place = (row.queue, row.key or "")
        if self.line.get(place) == row.id:
            del self.line[place]
            self.next(place, row)

    def next(self, place: tuple[str, str], but: Row | None = None) -> None:
        waiting = [
            row for row in self.rows.values()
            if (row.queue, row.key) == place and row.state == "waiting" and row is not but
        ]  # fmt: skip
        if waiting:
            self.line[place] = min(waiting, key=lambda row: row.rank).id

    def end(self, row: Row, state: str = "over") -> None:
        row.state, row.token = state, None
        self.leave(row)
        for follower in self.rows.values():
            if row.id in follower.parents:
                self.follow(follower)

    def follow(self, row: Row) -> None:
        if row.state == "follows" and all(self.rows[id].state in ("over", "dead") for id in row.parents):
            self.enter(row)

    def begin(self, row: Row) -> None:
        row.state = "running"
        if row.until == "started":
            row.token = None

    def ready(self, queue: str) -> list[Row]:
        found = [
            row for row in self.rows.values()
            if row.queue == queue and row.state == "waiting"
            and (row.key is None or self.line[queue, row.key] == row.id)
        ]  # fmt: skip
        return sorted(found, key=lambda row: row.rank)


class Block:
    """What a transaction has taken.

    :ivar after: what is so with its commit, but for what others do meanwhile.
    """

    def __init__(self, rows: list[Row], after: Model) -> None:
        self.ids = {row.id for row in rows}
        self.places = {(row.queue, row.key) for row in rows if row.key is not None}
        self.after = after


class Machine(RuleBasedStateMachine):
    def __init__(self, pq: PQ, other: PQ, sql: Any) -> None:
        super().__init__()
        self.pq, self.other = pq, other
        sql("delete from queue")
        sql("delete from queue_checks")
        self.model = Model()
        self.running: dict[int, LeasedJob] = {}
        self.block: Block | None = None
        self.paused = False

    def some(self, number: int, *states: str) -> Row | None:
        found = [row for row in self.model.rows.values() if row.state in states]
        return found[number % len(found)] if found else None

    def has_follower(self, row: Row) -> bool:
        return any(row.id in other.parents for other in self.model.rows.values())

    def ready(self, queue: str) -> list[Row]:
        """What others than the block may take."""
        if self.paused and queue == "a":
            return []
        return [
            row for row in self.model.ready(queue)
            if self.block is None or (row.id not in self.block.ids and (queue, row.key) not in self.block.places)
        ]  # fmt: skip

    # -- puts

    @rule(key=keys, urgent=st.booleans(), scheduled=st.sampled_from([False, False, True]))
    def put(self, key: str | None, urgent: bool, scheduled: bool) -> None:
        id = self.pq["a"].put(1, "1h" if scheduled else None, "0s" if urgent else None, key=key)
        self.new(Row(id, "a", key, urgent, "scheduled"))

    def new(self, row: Row) -> None:
        assert row.id not in self.model.rows
        self.model.rows[row.id] = row
        if self.pq[row.queue].find(row.id).state != "scheduled":  # type: ignore[union-attr]
            self.model.enter(row)

    @precondition(lambda self: self.block is None)
    @rule(key=keys, token=st.sampled_from("st"), until=st.sampled_from(["started", "done"]), replaces=st.booleans())
    def put_unique(self, key: str | None, token: str, until: Any, replaces: bool) -> None:
        options: dict[str, Any] = {"on_duplicate": "replace", "time": "keep"} if replaces else {}
        unique = Unique(f"{until} {token}", until, **options)
        id = self.pq["a"].put(1, key=key, unique=unique)
        had = [row for row in self.model.rows.values() if row.token == unique.token and row.queue == "a"]
        if had and not (replaces and had[0].state == "running"):
            assert (int(id), id.created) == (had[0].id, False)  # type: ignore[attr-defined]
            return
        assert id.created  # type: ignore[attr-defined]
        for row in had:
            row.token = None
        self.new(Row(int(id), "a", key, False, "scheduled", str(unique.token), until))

    @precondition(lambda self: self.block is None)
    @rule(key=keys, parents=st.lists(numbers, min_size=1, max_size=3))
    def put_after(self, key: str | None, parents: list[int]) -> None:
        found = [self.some(number, "waiting", "scheduled", "follows", "running", "retries") for number in parents]
        taken = {id for row in self.model.rows.values() for id in row.parents}
        ids = sorted({row.id for row in found if row is not None} - taken)  # a job has one follower
        if ids:
            id = self.pq["a"].put(1, key=key, after=After(ids, on_failed="run"))
            self.model.rows[id] = Row(id, "a", key, False, "follows", parents=ids)

    # -- takes

    @rule(queue=st.sampled_from("aab"), how=st.sampled_from(["get", "lease", "lease", "batch"]))
    def take(self, queue: str, how: str) -> None:
        expected = self.ready(queue)
        if self.block is not None and any(self.has_follower(row) for row in expected[:1]):
            how = "lease"  # while another's end is open, a follower waits for a check
        if how == "get":
            job = self.pq[queue].get(timeout=0)
            assert [row.id for row in expected[:1]] == ([] if job is None else [job.id])
            for row in expected[:1]:
                self.model.begin(row)
                self.model.end(row)
            return
        jobs: list[Any] = self.pq[queue].get_many(3 if how == "batch" else 1, timeout=0, lease="1h")
        expected = expected[: 3 if how == "batch" else 1]
        assert [row.id for row in expected] == [job.id for job in jobs]
        for row, job in zip(expected, jobs, strict=True):
            self.model.begin(row)
            self.running[row.id] = job

    @precondition(lambda self: self.block is None)
    @rule(count=st.integers(1, 3))
    def take_in_a_block(self, count: int) -> None:
        self.other["a"].__enter__()
        after, taken = deepcopy(self.model), []
        for _ in range(count):
            expected = [] if self.paused else after.ready("a")[:1]
            job = self.other["a"].get(timeout=0)
            assert [row.id for row in expected] == ([] if job is None else [job.id])
            for row in expected:
                taken.append(row)
                after.begin(row)
                after.end(row)
        self.block = Block(taken, after)

    @precondition(lambda self: self.block is not None)
    @rule(commits=st.booleans())
    def end_block(self, commits: bool) -> None:
        block, self.block = self.block, None
        assert block is not None
        if not commits:
            error = ZeroDivisionError()
            self.other["a"].__exit__(type(error), error, None)
            return
        self.other["a"].__exit__(None, None, None)
        for id in block.ids:
            self.model.rows[id].state, self.model.rows[id].token = "over", None
        for place in block.places:  # the next was chosen when they were taken, if there was one
            self.model.line.pop(place, None)  # a job that followed another one of the block came into line in it
            if place in block.after.line:
                self.model.line[place] = block.after.line[place]
            else:
                self.model.next(place)
        for row in self.model.rows.values():
            self.model.follow(row)

    # -- ends

    @contextmanager
    def ended(self, number: int) -> Iterator[tuple[Row, LeasedJob] | None]:
        row = self.some(number, "running")
        if row is None or (self.block is not None and self.has_follower(row)):
            yield None
        else:
            yield row, self.running.pop(row.id)

    @rule(number=numbers)
    def done(self, number: int) -> None:
        with self.ended(number) as found:
            if found:
                found[1].done()
                self.model.end(found[0])

    @rule(number=numbers)
    def fail(self, number: int) -> None:
        with self.ended(number) as found:
            if found:
                found[1].fail("no")
                self.model.end(found[0], "dead")

    @rule(number=numbers, how=st.sampled_from(["retry", "release", "give back"]))
    def try_again(self, number: int, how: str) -> None:
        row = self.some(number, "running")
        if row is not None:
            job = self.running.pop(row.id)
            if how == "give back":  # for a while, as workers do
                settle([Settlement(job, "released", timedelta(hours=1))])
            else:
                job.release() if how == "release" else job.retry("1h")
            row.state = "waiting" if how == "release" else "retries"

    # -- others

    @precondition(lambda self: self.block is None)
    @rule(number=numbers)
    def cancel(self, number: int) -> None:
        row = self.some(number, "waiting", "scheduled", "running", "retries")
        if row is not None:
            self.running.pop(row.id, None)
            assert self.pq[row.queue].cancel(row.id) == 1
            self.model.end(row)

    @precondition(lambda self: self.block is None)
    @rule(number=numbers)
    def move(self, number: int) -> None:
        row = self.some(number, "waiting", "scheduled")
        if row is not None:
            target = "b" if row.queue == "a" else "a"
            assert self.pq[row.queue].move(row.id, target)
            self.model.leave(row)
            row.queue, row.token = target, None
            if row.state == "waiting":
                self.model.enter(row)

    @precondition(lambda self: self.block is None)
    @rule(number=numbers)
    def later(self, number: int) -> None:
        row = self.some(number, "waiting", "retries")
        if row is not None and self.pq[row.queue].find(row.id).attempts == 0:  # type: ignore[union-attr]
            assert self.pq[row.queue].reschedule(row.id, "1h")
            row.state = "scheduled"
            self.model.leave(row)

    @precondition(lambda self: self.block is None)
    @rule(number=numbers)
    def now(self, number: int) -> None:
        row = self.some(number, "scheduled", "retries")
        if row is not None:
            assert self.pq[row.queue].reschedule(row.id, None)
            self.model.enter(row)

    @precondition(lambda self: self.block is None)
    @rule(number=numbers, again=st.booleans())
    def decide(self, number: int, again: bool) -> None:
        row = self.some(number, "dead")
        if row is not None:
            dead = self.pq[row.queue].dead
            assert (dead.retry(row.id) if again else dead.discard(row.id)) == 1
            if again:
                self.model.enter(row)
            else:
                row.state = "over"

    @precondition(lambda self: self.block is None)
    @rule()
    def prune(self) -> None:
        self.pq.prune()

    @rule(pauses=st.booleans())
    def pause(self, pauses: bool) -> None:
        self.pq["a"].pause() if pauses else self.pq["a"].resume()
        self.paused = pauses

    # -- what holds at any time

    @invariant()
    def one_of_a_key_is_ready_or_runs(self) -> None:
        for name in "ab":
            states = {job.id: job.state for job in self.pq[name].list()}
            for row in self.model.rows.values():
                if row.queue != name or row.state == "over":
                    assert row.id not in states or row.queue != name or states[row.id] == "finished"
                    continue
                is_first = row.key is None or self.model.line.get((name, row.key)) == row.id
                waiting = "ready" if is_first else "held"
                assert states[row.id] == {
                    "waiting": waiting, "follows": "held", "retries": "scheduled"
                }.get(row.state, row.state), row  # fmt: skip

    def teardown(self) -> None:
        if self.block is not None:
            self.end_block(commits=False)
        if self.paused:
            self.pause(pauses=False)


def test_keys_tokens_and_followers_behave_as_the_model(dsn: str, pq: PQ, sql: Any) -> None:
    pq.create(retain="1s")
    with PQ(dsn) as other:
        run_machine(lambda: Machine(pq, other, sql), 40)
