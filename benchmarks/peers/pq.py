"""This checkout."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

from .base import DATA, QUEUE
from .loops import Step
from .queues import QueuePeer
from .raw import BATCH
from .table import CALL

#: Jobs that wait for a worker at most, in `Pq.churn`.
AHEAD = 5 * BATCH


class Pq(QueuePeer):
    """As it is out of the box: a DSN; finished jobs are kept for 7 days."""

    name = "pq"
    remaining = "select count(*) from queue where dequeued_at is null or due_at is not null"
    guess = 40_000
    retain: Any = "7d"

    def connection(self, threads: int = 1) -> dict[str, Any]:
        # a worker settles in a thread of its own, and the server has 100
        return {"conn": self.dsn, "max_connections": min(max(threads, 4), 32)}

    def create(self) -> None:
        import pq

        with pq.PQ(self.dsn) as queues:
            queues.create(retain=self.retain)

    def queue(self, threads: int = 1) -> Any:
        import pq

        return pq.PQ(**self.connection(threads))[QUEUE]

    def key_putter(self, threads: int) -> Callable[[], Step]:
        queue, numbers = self.queue(threads), count()
        return lambda: lambda: bool(queue.put(DATA, key=f"k{next(numbers) % 10_000}"))

    def token_putter(self, threads: int) -> Callable[[], Step]:
        queue, numbers = self.queue(threads), count()
        return lambda: lambda: bool(queue.put(DATA, unique=f"t{next(numbers)}"))

    def many_putter(self, threads: int) -> Callable[[], Step]:
        queue = self.queue(threads)
        return lambda: lambda: len(queue.put_many([DATA] * BATCH))

    def loader(self, threads: int) -> Callable[[], Step]:
        queue = self.queue(threads)
        return lambda: lambda: int(queue.load([DATA] * 10 * BATCH))

    def many_getter(self, threads: int) -> Callable[[], Step]:
        queue = self.queue(threads)
        return lambda: lambda: len(queue.get_many(100, block=False))

    def lease_getter(self, threads: int) -> Callable[[], Step]:
        """Two transactions: take it, and finish it."""
        queue = self.queue(threads)

        def step() -> int:
            job = queue.get(block=False, lease="30s")
            if job is not None:
                job.done()
            return job is not None

        return lambda: step

    def many_lease_getter(self, threads: int) -> Callable[[], Step]:
        queue = self.queue(threads)

        def step() -> int:
            jobs = queue.get_many(100, block=False, lease="30s")
            queue.done(jobs)
            return len(jobs)

        return lambda: step

    def ahead_getter(self, threads: int) -> Callable[[], Step]:
        """One transaction, which ends a job and takes the next one."""
        jobs = self.queue(threads).jobs(lease="30s", timeout=0, ahead=True)

        def step() -> int:
            job = next(jobs, None)
            if job is not None:
                with job:
                    pass
            return job is not None

        return lambda: step

    def put_keys(self, jobs: int, keys: int) -> None:
        import pq

        self.queue().load(pq.NewJob(DATA, key=f"k{number % keys}") for number in range(jobs))

    # -- a stream

    def stream(self) -> Any:
        import pq

        return pq.PQ(**self.connection()).streams[QUEUE]

    def publish(self, events: int) -> None:
        """There are so many, and no other ones."""
        stream = self.stream()
        stream.drop(force=True)
        stream.create()
        stream.subscribe("reader", "beginning")
        for _ in range(0, events, BATCH):
            stream.publish_many([DATA] * BATCH)

    def publisher(self, threads: int) -> Callable[[], Step]:
        stream = self.stream()
        return lambda: lambda: stream.publish(DATA) is not None

    def many_publisher(self, threads: int) -> Callable[[], Step]:
        stream = self.stream()
        return lambda: lambda: len(stream.publish_many([DATA] * BATCH))

    def reader(self, threads: int) -> Callable[[], Step]:
        subscription = self.stream().subscription("reader")

        def step() -> int:
            with subscription.batch(BATCH, timeout=0) as batch:
                return len([event.data for event in batch])

        return lambda: step

    # -- tasks

    def work(self) -> None:
        from pq.tasks import Worker

        Worker(self.tasks()).run()

    def consume_slowly(self, worker: bool, threads: int, log: str) -> None:
        from pq.tasks import PQ

        from .slow import consume

        consume(PQ(self.dsn, max_connections=threads + 4)[QUEUE], worker, threads, log)

    def hold(self, threads: int) -> None:
        """Perform tasks that do not end."""
        from pq.tasks import Worker

        from .noop import hang

        queue = self.tasks()
        queue.task()(hang)
        Worker(queue, threads=threads).run()

    def hold_in_transaction(self) -> None:
        with (queue := self.queue()):
            queue.get()
            time.sleep(3600)

    def memory(self, steps: list[int]) -> list[float]:
        """MB when so many tasks are done, and so many more, by one worker process."""
        from pq.tasks import Worker

        queue, found = self.tasks(), []
        for most in steps:
            for start in range(0, most, BATCH):
                queue.put_many([json.loads(CALL)] * min(BATCH, most - start))
            Worker(queue, max_jobs=most).run()
            found.append(self.resident())
        return found

    def churn(self, jobs: int) -> None:
        """Jobs come, and a worker does them; at most so many wait."""
        from pq.tasks import Worker

        queue = self.tasks()
        worker = Worker(queue, max_jobs=jobs, capture_signals=False)
        thread = threading.Thread(target=worker.run)
        thread.start()
        for put in range(0, jobs, BATCH):
            while put - worker.events.counts["done"] > AHEAD:
                time.sleep(0.001)
            queue.put_many([json.loads(CALL)] * BATCH)
        thread.join()


class PqConnection(Pq):
    """The same on a connection of psycopg2."""

    name = "pq-conn"

    def connection(self, threads: int = 1) -> dict[str, Any]:
        import psycopg2

        conn = psycopg2.connect(self.dsn)
        conn.autocommit = True
        return {"conn": conn}


class PqDeleting(Pq):
    """The same, but finished jobs are deleted."""

    name = "pq-retain0"
    retain = 0


class PqPsycopg3(Pq):
    """The same on a connection of psycopg 3."""

    name = "pq-psycopg3"
    home = "psycopg3"
    packages = ("psycopg[binary]",)

    def __init__(self, dsn: str) -> None:
        super().__init__(dsn)
        sys.path.append(str(Path(__file__).parents[2]))  # in a process that has only the driver on its path

    def connection(self, threads: int = 1) -> dict[str, Any]:
        import psycopg

        return {"conn": psycopg.connect(self.dsn, autocommit=True)}
