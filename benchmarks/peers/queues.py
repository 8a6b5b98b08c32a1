"""What pq and pq 1.9.1 have in common: the same calls."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from .base import DATA, QUEUE
from .loops import Step
from .noop import noop
from .table import TablePeer


class QueuePeer(TablePeer):
    def queue(self, threads: int = 1) -> Any:
        """For so many threads at a time; connections are opened now or later."""
        raise NotImplementedError

    def putter(self, threads: int) -> Callable[[], Step]:
        queue = self.queue(threads)
        return lambda: lambda: bool(queue.put(DATA))

    def getter(self, threads: int) -> Callable[[], Step]:
        queue = self.queue(threads)
        return lambda: lambda: queue.get(block=False) is not None

    def with_getter(self, threads: int) -> Callable[[], Step]:
        queue = self.queue(threads)

        def step() -> int:
            with queue:
                return queue.get(block=False) is not None

        return lambda: step

    # -- waiting

    def stamper(self) -> Callable[[float], object]:
        put: Callable[[float], object] = self.queue().put
        return put

    def consume(self, samples: int) -> list[float]:
        """Seconds from the call of put to the return of get."""
        queue = self.queue()
        found: list[float] = []
        while len(found) < samples:
            job = queue.get(timeout=30)
            now = time.monotonic()
            if job is not None:
                found.append(now - job.data)
        return found

    def swallow(self) -> None:
        """Get jobs as they come, until killed."""
        queue = self.queue()
        while True:
            queue.get(timeout=60)

    def block(self, threads: int) -> None:
        """So many threads that get jobs as they come; in the background, until killed."""
        queue = self.queue(threads)

        def run() -> None:
            while True:
                queue.get(timeout=600)

        for _ in range(threads):
            threading.Thread(target=run, daemon=True).start()

    # -- tasks

    def tasks(self) -> Any:
        from pq.tasks import PQ

        queue = PQ(**self.connection())[QUEUE]
        queue.task()(noop)
        return queue

    def connection(self, threads: int = 1) -> dict[str, Any]:
        raise NotImplementedError
