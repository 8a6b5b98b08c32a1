"""Everything a queue does, in any order, compared with a model of a few lines."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from support.driver import driver
from support.machine import run_machine

from pq import PQ, Job, JobNotFound, Queue
from pq._queue import marks

Sql = Callable[..., list[tuple[Any, ...]]]

PAST, FUTURE = dt.datetime(2001, 1, 1), dt.datetime(3001, 1, 1)
NAMES = ["a", "b/pickle"]

queues = st.sampled_from(NAMES)
data = st.none() | st.integers(-5, 5) | st.text("xé\0", max_size=3) | st.lists(st.booleans(), max_size=2)
schedules = st.sampled_from([None, None, PAST, PAST + dt.timedelta(days=1), FUTURE])
priorities = st.sampled_from([None, PAST, dt.datetime(2500, 1, 1), FUTURE])  # few, so that many are equal
puts = st.tuples(queues, data, schedules, priorities)
numbers = st.integers(0, 30)


@dataclass
class Row:
    queue: str
    data: Any
    schedule_at: dt.datetime | None
    expected_at: dt.datetime | None
    taken: bool = False


@dataclass
class State:
    """The table as one level of a transaction sees it, and what that level has locked."""

    rows: dict[int, Row] = field(default_factory=dict)
    locked: set[int] = field(default_factory=set)

    def ready(self, queue: str) -> list[int]:
        """Ids of the jobs that can be got, in order."""
        ids = [i for i, r in self.rows.items() if r.queue == queue and not r.taken and r.schedule_at != FUTURE]
        return sorted(ids, key=lambda i: (self.rows[i].expected_at or dt.datetime.max, i))


class Machine(RuleBasedStateMachine):
    def __init__(self, pq: PQ, other: PQ, sql: Sql) -> None:
        super().__init__()
        self.pq, self.other, self.sql = pq, other, sql
        sql("delete from queue")
        #: committed, then one more for each open block
        self.states = [State()]
        self.blocks: list[Queue] = []
        self.jobs: list[Job] = []
        self.last_id = 0

    @property
    def now(self) -> State:
        return self.states[-1]

    # -- jobs

    @initialize(jobs=st.lists(puts, min_size=4, max_size=12))
    def begin_with_some(self, jobs: list[tuple[Any, ...]]) -> None:
        self.put(jobs)

    @rule(jobs=st.lists(puts, min_size=1, max_size=6))
    def put(self, jobs: list[tuple[Any, ...]]) -> None:
        for name, *args in jobs:
            self.now.rows[self.new(self.pq[name].put(*args))] = Row(name, *args)

    @rule(queue=queues, data=data, schedule_at=schedules, expected_at=priorities)
    def put_by_another_producer(self, queue: str, data: Any, schedule_at: Any, expected_at: Any) -> None:
        id = self.new(self.other[queue].put(data, schedule_at, expected_at))
        for state in self.states:
            state.rows[id] = Row(queue, data, schedule_at, expected_at)

    def new(self, id: int) -> int:
        assert id > self.last_id
        self.last_id = id
        return id

    @rule(queue=queues, count=st.integers(1, 3))
    def get(self, queue: str, count: int) -> None:
        for _ in range(count):
            expected = self.now.ready(queue)[:1]
            job = self.pq[queue].get(block=False)
            self.check(job, expected)
            if job is not None:
                self.now.rows[job.id].taken = True
                self.lock(job.id)
                self.jobs.append(job)

    @rule(queue=queues)
    def get_by_another_consumer(self, queue: str) -> None:
        job = self.other[queue].get(block=False)
        self.check(job, self.left_for_others(queue))
        if job is not None:
            for state in self.states:
                state.rows[job.id].taken = True

    def left_for_others(self, queue: str) -> list[int]:
        """They see what is committed, and step over what the open transaction has locked."""
        locked = set().union(*(state.locked for state in self.states))
        return [id for id in self.states[0].ready(queue) if id not in locked][:1]

    def check(self, job: Job | None, expected: list[int]) -> None:
        assert ([] if job is None else [job.id]) == expected
        if job is not None:
            row = self.now.rows[job.id]
            assert (job.data, job.schedule_at, job.expected_at) == (row.data, row.schedule_at, row.expected_at)

    @rule(queue=queues, number=numbers, data=data)
    def update(self, queue: str, number: int, data: Any) -> None:
        id = self.last_id - number
        self.write(queue, id, data, lambda: self.pq[queue].update(id, data))

    @precondition(lambda self: self.jobs)
    @rule(number=numbers, data=data)
    def assign(self, number: int, data: Any) -> None:
        """To the data of a job that was got some time ago; its row may be gone, or be back in the queue."""
        job = self.jobs[number % len(self.jobs)]
        queue = next(name for name in NAMES if self.pq[name] is job._queue)
        before = (job.data, job.size)
        if self.write(queue, job.id, data, lambda: setattr(job, "data", data)):
            assert job.data == data
        else:
            assert (job.data, job.size) == before

    def write(self, queue: str, id: int, data: Any, action: Callable[[], Any]) -> bool:
        row = self.now.rows.get(id)
        if row is None or row.queue != queue:
            with pytest.raises(JobNotFound):
                action()
            return False
        action()
        row.data = data
        self.lock(id)
        return True

    @precondition(lambda self: len(self.now.rows) > 8)
    @rule(queue=queues)
    def clear(self, queue: str) -> None:
        self.pq[queue].clear()
        for id in [id for id, row in self.now.rows.items() if row.queue == queue]:
            del self.now.rows[id]
            self.lock(id)

    @precondition(lambda self: not self.blocks)
    @rule()
    def years_pass(self) -> None:
        """The scheduled jobs become due."""
        past, future = PAST.replace(tzinfo=dt.timezone.utc), FUTURE.replace(tzinfo=dt.timezone.utc)
        self.sql("update queue set schedule_at = %s, due_at = %s where due_at = %s", [past, past, future])
        for row in self.now.rows.values():
            if row.schedule_at == FUTURE and not row.taken:
                row.schedule_at = PAST

    # -- transactions

    def lock(self, id: int) -> None:
        if self.blocks:
            self.now.locked.add(id)

    @precondition(lambda self: len(self.blocks) < 4)
    @rule(queue=queues)
    def begin(self, queue: str) -> None:
        cursor = self.pq[queue].__enter__()
        self.blocks.append(self.pq[queue])
        self.states.append(State(deepcopy(self.now.rows)))
        cursor.execute("select count(*) from queue")
        assert cursor.fetchone()[0] == len(self.now.rows)

    @precondition(lambda self: self.blocks)
    @rule()
    def commit(self) -> None:
        self.blocks.pop().__exit__(None, None, None)
        ended = self.states.pop()
        self.now.rows = ended.rows
        self.now.locked = self.now.locked | ended.locked if self.blocks else set()

    @precondition(lambda self: self.blocks)
    @rule()
    def roll_back(self) -> None:
        error = ZeroDivisionError()
        assert not self.blocks.pop().__exit__(type(error), error, None)  # the exception goes on
        self.states.pop()

    @rule(queue=queues)
    def fail_in_a_block(self, queue: str) -> None:
        """An error in SQL undoes the innermost block and nothing else."""
        with pytest.raises(driver.Error), self.pq[queue] as cursor:
            self.new(self.pq[queue].put("undone"))
            self.pq[queue].get(block=False)
            cursor.execute("select nonsense")

    # -- what holds at any time

    @invariant()
    def lengths(self) -> None:
        for name in NAMES:
            assert len(self.pq[name]) == len(self.now.ready(name))

    @invariant()
    def names(self) -> None:
        held = {row.queue for row in self.now.rows.values() if not row.taken}
        assert list(self.pq) == sorted(name.removesuffix("/pickle") for name in held)
        assert [name in self.pq for name in NAMES] == [name in held for name in NAMES]

    @invariant()
    def others_could_get_what_is_left(self) -> None:
        for name in NAMES:
            with suppress(ZeroDivisionError), self.other[name]:
                self.check(self.other[name].get(block=False), self.left_for_others(name))
                raise ZeroDivisionError

    @invariant()
    def others_see_what_is_committed(self) -> None:
        columns = "id, q_name, dequeued_at is not null"
        assert self.sql(f"select {columns} from queue order by id") == [
            (id, row.queue.removesuffix("/pickle"), row.taken) for id, row in sorted(self.states[0].rows.items())
        ]

    def teardown(self) -> None:
        while self.blocks:
            self.roll_back()


@pytest.fixture(params=["dsn", "connection", "autocommit"])
def source(request: pytest.FixtureRequest, dsn: str) -> Iterator[PQ]:
    if request.param == "dsn":
        given = dsn
    else:
        given = driver.connect(dsn)
        given.autocommit = request.param == "autocommit"
    with PQ(given) as pq:
        yield pq


def test_the_model(source: PQ, pq: PQ, sql: Sql, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(marks, "SLOW_PAUSE", 0.0)  # on a slow machine marks may hide a job for a moment
    run_machine(lambda: Machine(source, pq, sql), 30, examples=10)  # on each of the three sources
