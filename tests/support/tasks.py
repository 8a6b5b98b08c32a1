"""Helpers of the tests of workers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from pq.tasks import PQ, Queue, Worker

from . import PATIENCE, Background

Sql = Callable[..., list[tuple[Any, ...]]]

READY = "select count(*) from queue where dequeued_at is null and due_at is null"
HELD = "select count(*) from queue where dequeued_at is not null and due_at is not null"
DONE = "select count(*) from queue where dequeued_at is not null and due_at is null and error is null"
DEAD = "select count(*) from queue where dequeued_at is not null and due_at is null and error is not null"


def number(sql: Sql, query: str) -> int:
    """The number that a query returns."""
    ((found,),) = sql(query)
    return int(found)


class Gate:
    """Tasks wait in it until it is opened; it tells which came."""

    def __init__(self) -> None:
        self.came: list[int] = []
        self._opened = threading.Event()

    def __call__(self, job_id: int, *args: Any) -> None:
        self.came.append(job_id)
        assert self._opened.wait(PATIENCE)

    def open(self) -> None:
        self._opened.set()


def fill(queue: Queue, count: int, name: str, **data: Any) -> list[int]:
    """Put so many calls of a task."""
    call = {"function": name, "args": [], "kwargs": {}, "retried": 0, "retry_in": None, **data}
    return queue.put_many([call] * count)


@contextmanager
def working(worker: Worker) -> Iterator[Background]:
    """The worker runs in a thread inside of the block."""
    thread = Background(worker.run)
    try:
        yield thread
    finally:
        worker.stop()
    thread.result()


def all_threads() -> set[str]:
    return {thread.name.split(":")[0] for thread in threading.enumerate()}


__all__ = ["DEAD", "DONE", "HELD", "PQ", "READY", "Gate", "Sql", "fill", "number", "working"]
