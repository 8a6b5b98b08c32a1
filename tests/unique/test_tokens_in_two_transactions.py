"""Two transactions, step by step: one has done something about a token and stays open, another one puts with that
token, the first ends, the second ends. Each way to put, each state of the job, each thing that the first may do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import pytest
from support import Background, wait_until

from pq import PQ, Duplicate, LeasedJob, Queue, Unique

Sql = Callable[..., list[tuple[Any, ...]]]

MODES = ["keep", "replace", "merge", "error"]
STATES = ["none", "ready", "scheduled", "running", "waits again", "window", "ended in its window"]


class Case:
    """One token, in a queue of its own."""

    def __init__(self, pq: PQ, state: str, number: int) -> None:
        self.queue: Queue = pq[f"q{number}"]
        self.on: Callable[[Any], Queue] = lambda conn: pq.bind(conn)[self.queue.name]
        self.state = state
        self.job: LeasedJob | None = None
        self.first: int | None = None
        until: Any = None if "window" in state else "done" if state in ("running", "waits again") else "started"
        self.options: dict[str, Any] = {"until": until, "window": "1h" if "window" in state else None}
        if state == "none":
            return
        schedule_at = "1h" if state == "scheduled" else None
        self.first = self.queue.put(["R"], schedule_at, unique=Unique("t", **self.options))
        if state in ("running", "waits again"):
            found = self.queue.get(timeout=0, lease="1h")
            assert isinstance(found, LeasedJob)
            self.job = found
            if state == "waits again":
                found.retry("1h")
        elif state == "ended in its window":
            self.queue.get(timeout=0)

    def put(self, data: str, mode: Any, conn: Any) -> tuple[int, bool | None]:
        """The id, and whether it is new; None: a Duplicate."""
        schedule_at = "2h" if self.state == "scheduled" else None
        try:
            id = self.queue.put(
                [data], schedule_at, unique=Unique("t", on_duplicate=mode, **self.options), conn=conn
            )
        except Duplicate as error:
            return error.job_id, None
        return id, id.created


def taken(case: Case, conn: Any) -> None:
    case.queue.get(timeout=0, conn=conn)


def done(case: Case, conn: Any) -> None:
    if case.state == "running":
        assert case.job is not None
        case.job.done(conn=conn)


ACTIONS: dict[str, Callable[[Case, Any], Any]] = {
    **{f"put, {mode}": lambda case, conn, mode=mode: case.put("A", mode, conn) for mode in MODES},
    "take": taken,
    "done": done,
    "cancel": lambda case, conn: case.first and case.on(conn).cancel(case.first),
    "move": lambda case, conn: case.first and case.on(conn).move(case.first, "z"),
    "update": lambda case, conn: case.first and case.queue.update(case.first, ["U"], conn=conn),
}


@pytest.fixture
def conns(connect: Any) -> Iterator[tuple[Any, Any]]:
    first, second = connect(), connect()
    first.autocommit = second.autocommit = False
    yield first, second


@pytest.mark.parametrize("action", list(ACTIONS))
@pytest.mark.parametrize("mode", MODES)
def test_two_transactions(pq: PQ, conns: Any, sql: Sql, action: str, mode: str) -> None:
    for number, (state, commits, open) in enumerate(product(STATES, [True, False], [True, False])):
        print(state, "commits" if commits else "rolls back", "open" if open else "own")
        one(pq, conns, sql, Case(pq, state, number), action, mode, commits, open)


def one(
    pq: PQ, conns: tuple[Any, Any], sql: Sql, case: Case, action: str, mode: str, commits: bool, open: bool
) -> None:
    first, second = conns
    name = case.queue.name
    ACTIONS[action](case, first)
    put = Background(case.put, "B", mode, second if open else None)
    wait_until(lambda: not put.is_alive() or is_blocked(sql))
    (first.commit if commits else first.rollback)()
    id, created = put.result()
    if open:
        was_waiting = sql("select from queue where id = %s and dequeued_at is null", (id,))
        if created is False and mode != "error" and was_waiting and case.options["until"]:
            sql("update queue set due_at = null, schedule_at = null where q_name = %s and id <> %s", (name, id))
            # it can't start before the put is done
            assert id not in [job.id for job in case.queue.get_many(9, timeout=0)]
        second.commit()
    (holder,) = sql("select id, data, dequeued_at from queue where q_name = %s and unique_key = 't'", (name,))
    assert holder[0] == id
    assert (created is None) <= (mode == "error")
    if mode == "replace":
        assert holder[1] == ["B"]
    elif mode == "merge":
        assert holder[1][-1] == "B"
        assert (len(holder[1]) == 1) is created
    else:
        assert ("B" in holder[1]) is (created is True)
    assert created is not False or mode == "keep" or holder[2] is None  # what has begun is not changed


def is_blocked(sql: Sql) -> bool:
    waiting = "select from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
    return bool(sql(waiting))


def test_a_put_that_is_about_to_join_a_job_which_begins_makes_another(
    pq: PQ, conns: Any, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The put finds the job locked, and so is to join it after a wait. Before it does, the job is taken, in another
    transaction that has not ended: who has it need not see what was done before the put."""
    queue = pq["a"]
    first = queue.put(1, unique="t")
    locking, taking = conns
    locking.cursor().execute("select from queue where id = %s for share", (first,))
    statements = []
    run = queue._run_with_rights

    def step(statement: str, params: Any) -> Any:
        statements.append(statement)
        if len(statements) == 3:  # it has tried twice to put it
            locking.rollback()
            job = queue.get(timeout=0, conn=taking)
            assert job is not None and job.id == first
        return run(statement, params)

    monkeypatch.setattr(queue, "_run_with_rights", step)
    put = Background(queue.put, 1, unique="t")
    wait_until(lambda: not put.is_alive() or is_blocked(sql))
    taking.commit()
    id = put.result()
    assert id != first and id.created
