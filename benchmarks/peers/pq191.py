"""pq 1.9.1: one connection as in its documentation, a pool for threads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .base import QUEUE
from .loops import Step
from .queues import QueuePeer


class Pq191(QueuePeer):
    name = "pq-1.9.1"
    home = "pq191"
    packages = ("pq==1.9.1",)
    #: psycopg2 is this interpreter's, as for the others that use it.
    dependencies = False
    due = False
    guess = 1_000

    def connection(self, threads: int = 1) -> dict[str, Any]:
        import psycopg2
        import psycopg2.pool

        if threads == 1:
            return {"conn": psycopg2.connect(self.dsn)}
        return {"pool": psycopg2.pool.ThreadedConnectionPool(threads, threads, self.dsn)}

    def create(self) -> None:
        import pq

        pq.PQ(**self.connection()).create()

    def queue(self, threads: int = 1) -> Any:
        import pq

        assert pq.__version__ == "1.9.1", pq.__file__
        return pq.PQ(**self.connection(threads))[QUEUE]

    def many_putter(self, threads: int) -> Callable[[], Step]:
        """It has no such thing: one after the other."""
        return self.putter(threads)

    def work(self) -> None:
        self.tasks().work()
