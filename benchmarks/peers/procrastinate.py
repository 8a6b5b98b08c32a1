"""procrastinate: deferred by its synchronous connector; its worker, with asynchronous tasks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from .base import QUEUE, AsyncPeer
from .loops import Step
from .raw import BATCH

#: Jobs that a worker performs at a time. It takes them one by one; this is where it is fastest.
CONCURRENCY = 10


class Procrastinate(AsyncPeer):
    name = "procrastinate"
    home = "procrastinate"
    packages = ("procrastinate", "psycopg[binary]")
    tables = "procrastinate_jobs, procrastinate_events, procrastinate_periodic_defers"
    fill = (
        "insert into procrastinate_jobs (queue_name, task_name, priority, args)"
        f" select '{QUEUE}', 'noop', 0, '{{}}' from generate_series(1, %(n)s)"
    )
    remaining = "select count(*) from procrastinate_jobs where status in ('todo', 'doing')"
    guess = 1_000

    def app(self, connector: Any) -> Any:
        import procrastinate

        app = procrastinate.App(connector=connector)
        @app.task(name="noop", queue=QUEUE)
        async def noop() -> None:
            pass

        @app.task(name="stamped", queue=QUEUE)
        async def stamped(sent: float) -> None:
            self.found.append(time.monotonic() - sent)

        return app

    def sync(self, threads: int = 1) -> Any:
        import procrastinate

        app = self.app(
            procrastinate.SyncPsycopgConnector(conninfo=self.dsn, min_size=threads, max_size=threads)
        )
        app.open()
        return app

    def create(self) -> None:
        app = self.sync()
        app.schema_manager.apply_schema()
        app.close()

    def putter(self, threads: int) -> Callable[[], Step]:
        task = self.sync(threads).tasks["noop"]
        return lambda: lambda: bool(task.defer())

    def many_putter(self, threads: int) -> Callable[[], Step]:
        task = self.sync(threads).tasks["noop"]
        return lambda: lambda: len(task.batch_defer(*[{}] * BATCH))

    def stamper(self) -> Callable[[float], object]:
        task = self.sync().tasks["stamped"]
        return lambda now: task.defer(sent=now)

    def work(self) -> None:
        asyncio.run(self.run())

    swallow = work

    async def run(self) -> None:
        import procrastinate

        connector = procrastinate.PsycopgConnector(conninfo=self.dsn)
        async with self.app(connector).open_async() as app:
            await app.run_worker_async(concurrency=CONCURRENCY, install_signal_handlers=False)

    def consume(self, samples: int) -> list[float]:
        return asyncio.run(self.receive(samples))
