"""Each public call where nothing listens: a connection error, whichever way the call takes to the database."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from support.driver import BOTH, driver

from pq import PQ, ConnectionFailed, Queue, Worker

NOWHERE = "host=127.0.0.1 port=1 dbname=nowhere"


def block(queue: Queue) -> None:
    with queue:
        pass


def item(queue: Queue) -> None:
    with queue.item(timeout=0):
        pass


CALLS: dict[str, Callable[[PQ, Queue], Any]] = {
    "create": lambda pq, _: pq.create(),
    "drop": lambda pq, _: pq.drop(),
    "reset": lambda pq, _: pq.reset(),
    "retention": lambda pq, _: pq.retention,
    "prune": lambda pq, _: pq.prune(),
    "version": lambda pq, _: pq.version(),
    "doctor": lambda pq, _: pq.doctor(),
    "contains": lambda pq, _: "a" in pq,
    "iter(pq)": lambda pq, _: list(pq),
    "queues": lambda pq, _: pq.queues(),
    "put": lambda _, queue: queue.put(1),
    "put later": lambda _, queue: queue.put(1, "1h"),
    "put_many": lambda _, queue: queue.put_many([1]),
    "put_many of many": lambda _, queue: queue.put_many(range(2000)),
    "load": lambda _, queue: queue.load([1]),
    "get": lambda _, queue: queue.get(),
    "get at once": lambda _, queue: queue.get(block=False),
    "get lease": lambda _, queue: queue.get(lease="5s"),
    "get_many lease": lambda _, queue: queue.get_many(5, lease="5s"),
    "iter(queue)": lambda _, queue: next(iter(queue)),
    "jobs": lambda _, queue: next(iter(queue.jobs())),
    "update": lambda _, queue: queue.update(1, 2),
    "peek": lambda _, queue: queue.peek(),
    "find": lambda _, queue: queue.find(1),
    "items": lambda _, queue: next(iter(queue.items())),
    "item": lambda _, queue: item(queue),
    "batches": lambda _, queue: next(iter(queue.batches(3, lease="5s"))),
    "block": lambda _, queue: block(queue),
    "len": lambda _, queue: len(queue),
    "count": lambda _, queue: queue.count(),
    "counts": lambda _, queue: queue.counts(),
    "list": lambda _, queue: queue.list(),
    "queue[id]": lambda _, queue: queue[1],
    "result": lambda _, queue: queue.result(1),
    "cancel": lambda _, queue: queue.cancel(1),
    "reschedule": lambda _, queue: queue.reschedule(1, None),
    "move": lambda _, queue: queue.move(1, "b"),
    "pause": lambda _, queue: queue.pause(),
    "resume": lambda _, queue: queue.resume(),
    "paused": lambda _, queue: queue.paused,
    "clear": lambda _, queue: queue.clear(),
    "dead.list": lambda _, queue: queue.dead.list(),
    "dead.len": lambda _, queue: len(queue.dead),
    "dead.iter": lambda _, queue: list(queue.dead),
    "dead.get": lambda _, queue: queue.dead.get(1),
    "dead.retry": lambda _, queue: queue.dead.retry(all=True),
    "dead.discard": lambda _, queue: queue.dead.discard(all=True),
    "task": lambda _, queue: queue.task(name="nowhere")(lambda job_id: None)(),
    "run_once": lambda _, queue: Worker(queue).run_once(),
}


@pytest.mark.parametrize("call", CALLS)
def test_with_a_dsn_each_call_says_that_the_connection_failed(call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Queue, "handler_registry", {})
    with PQ(NOWHERE) as pq, pytest.raises(ConnectionFailed, match="refused"):
        CALLS[call](pq, pq["a"])


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("kind", ["psycopg2 pool", "psycopg pool", "engine"])
def test_with_a_pool_each_call_raises_what_the_pool_does(
    kind: str, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Queue, "handler_registry", {})
    errors: Any = driver.Error
    if kind == "engine":
        sqlalchemy = pytest.importorskip("sqlalchemy")
        given = sqlalchemy.create_engine(f"postgresql+{driver.package}://x@127.0.0.1:1/nowhere")
        errors = (driver.Error, sqlalchemy.exc.OperationalError, ConnectionFailed)
    elif kind == "psycopg2 pool":
        given = pytest.importorskip("psycopg2.pool").ThreadedConnectionPool(0, 2, NOWHERE)
        errors = BOTH["psycopg2"].Error
    else:
        given = pytest.importorskip("psycopg_pool").ConnectionPool(
            NOWHERE, min_size=0, max_size=2, timeout=0.1, open=True
        )
        errors = BOTH["psycopg"].Error
    with PQ(given) if kind == "engine" else PQ(pool=given) as pq, pytest.raises(errors):
        CALLS[call](pq, pq["a"])
