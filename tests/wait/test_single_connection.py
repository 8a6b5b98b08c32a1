"""Whatever makes jobs ready on a connection wakes those that wait on the same connection, which notifies nobody."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support import Background, wait_until
from support.kinds import make_pq

from pq import PQ, Queue
from pq._db.aside import Aside
from pq._db.sources.single import ends_jobs, makes_ready
from pq._queue.claim_sql import statement
from pq.sql import bound

HOUR = 3600.0

Sql = Callable[..., list[tuple[Any, ...]]]


@pytest.fixture(params=["connection", "connection alone", "autocommit connection"])
def shared(request: pytest.FixtureRequest, dsn: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[PQ]:
    """With a second connection for threads that wait, or without."""
    kind = request.param.removesuffix(" alone")
    if kind != request.param:
        monkeypatch.setattr(Aside, "_open", lambda aside: None)
    with make_pq(kind, dsn, poll_interval=HOUR, retry_in="100ms") as pq:
        yield pq


def die(queue: Queue) -> Any:
    queue.put(1)
    job: Any = queue.get(lease="1h")
    job.fail("broken")
    return job


def resumed(queue: Queue) -> Any:
    queue.pause()
    queue.put(1)
    return queue


def leased(queue: Queue) -> Any:
    queue.put(1)
    return queue.get(lease="1h")


def other(queue: Queue) -> Any:
    return queue.put(1)


def followed(pq: PQ) -> Any:
    """A job that another one waits for."""
    pq["a"].put(2, after=pq["b"].put(1))
    return pq["b"].get(lease="1h")


def deleted(pq: PQ) -> Any:
    """The same, where finished jobs are deleted."""
    pq.create(retain=0)
    return followed(pq)


def keyed(pq: PQ) -> Any:
    """A job with whose key another one waits."""
    pq["a"].put(1, key="k")
    pq["a"].put(2, key="k")
    return pq["a"].get(lease="1h")


#: What is done before somebody waits for queue "a", and what makes a job ready then.
WAYS: dict[str, tuple[Callable[[PQ], Any], Callable[[PQ, Any], Any]]] = {
    "put": (lambda pq: None, lambda pq, _: pq["a"].put(1)),
    "put in a moment": (lambda pq: None, lambda pq, _: pq["a"].put(1, schedule_at="200ms")),
    "put_many": (lambda pq: None, lambda pq, _: pq["a"].put_many([1])),
    "load": (lambda pq: None, lambda pq, _: pq["a"].load([1])),
    "put with max_ready": (lambda pq: setattr(pq["a"], "max_ready", 5), lambda pq, _: pq["a"].put(1)),
    "release": (lambda pq: leased(pq["a"]), lambda pq, job: job.release()),
    "retry": (lambda pq: leased(pq["a"]), lambda pq, job: job.retry()),
    "settle": (lambda pq: leased(pq["a"]), lambda pq, job: pq["a"].settle([(job, ValueError())])),
    "done": (followed, lambda pq, job: job.done()),
    "done, with retain=0": (deleted, lambda pq, job: job.done()),
    "done, of a key": (keyed, lambda pq, job: job.done()),
    "settle, done": (followed, lambda pq, job: pq["b"].done([job])),
    "cancel, of a key": (keyed, lambda pq, job: pq["a"].cancel(job.id)),
    "dead.retry": (lambda pq: die(pq["a"]), lambda pq, job: pq["a"].dead.retry(job.id)),
    "resume": (lambda pq: resumed(pq["a"]), lambda pq, _: pq["a"].resume()),
    "move": (lambda pq: other(pq["b"]), lambda pq, id: pq["b"].move(id, "a")),
    "reschedule": (
        lambda pq: pq["a"].put(1, schedule_at="1h"),
        lambda pq, id: pq["a"].reschedule(id, schedule_at=None),
    ),
}


def plain_sql(pq: PQ, _: Any) -> None:
    with pq["b"] as cursor:
        cursor.execute("insert into queue (q_name, data) values ('a', '1')")


WAYS["plain SQL in a block"] = (lambda pq: None, plain_sql)


def sleeps(pq: PQ) -> bool:
    """Whether somebody waits, and has nothing to do before."""
    queue = pq._table._room.queues.get("a")
    return bool(queue and queue.sure and not queue.stale)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("in_block", [False, True])
def test_what_makes_a_job_ready_wakes(shared: PQ, way: str, in_block: bool) -> None:
    before, act = WAYS[way]
    given = before(shared)
    waiter = Background(shared["a"].get, timeout=HOUR)
    wait_until(lambda: sleeps(shared), "the sleep of the waiter")
    if in_block:
        with shared["c"]:
            act(shared, given)
    else:
        act(shared, given)
    assert waiter.result() is not None


def statements_of_which(holds: Callable[[str], bool]) -> set[str]:
    """The names of pq's statements on jobs of which it holds."""
    return {
        name
        for path in ("queue.sql", "control.sql", "lease.sql", "dead.sql", "claim.sql")
        for name, text in bound(path, '"queue"', **({"some": "all"} if path == "dead.sql" else {})).items()
        if holds(text)
    }


def test_the_statements_that_make_jobs_ready_are_known() -> None:
    found = statements_of_which(makes_ready)
    puts = {"put", "put_timed", "put_untimed", "put_many", "put_bounded"}
    assert {*puts, "settle", "resume", "move", "reschedule"} <= found
    assert not {"claim", "claim_in_transaction", "extend", "cancel", "count"} & found


def test_the_statements_that_end_jobs_are_known() -> None:
    found = statements_of_which(ends_jobs)
    assert {"done", "done_and_remove", "done_and_next", "cancel", "clear"} <= found
    assert not {"claim", "claim_ready", "claim_first", "claim_in_transaction", "extend", "extend_all", "count"} & found


@pytest.mark.parametrize("how", ["taken", "removed", "leased"])
@pytest.mark.parametrize("name", [None, "claim_ready", "claim_first"])
def test_a_claim_is_none_of_them(how: str, name: str | None) -> None:
    assert not ends_jobs(statement('"queue"', how, False, False, False, False, name))


def test_in_autocommit_mode_nobody_claims_in_a_transaction_that_another_thread_has_begun(dsn: str, sql: Sql) -> None:
    with make_pq("autocommit connection", dsn, poll_interval=0.2) as pq:
        waiter = Background(pq["a"].get, timeout=HOUR)
        wait_until(lambda: sleeps(pq), "the sleep of the waiter")  # else its first claim may come now
        with pq._db.conn.cursor() as cursor:
            cursor.execute("begin")
            sql("insert into queue (q_name, data) values ('a', '1')")
            wait_until(lambda: pq._table._room.leader.busy, "a look that finds the connection in use")
            cursor.execute("rollback")
        assert waiter.result().data == 1
        assert sql("select count(*) from queue where dequeued_at is not null") == [(1,)]
