"""PgQueuer: asyncpg and uvloop, as its own benchmark; one consumer in a process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from .base import QUEUE, TEXT, AsyncPeer
from .loops import Step
from .raw import BATCH


class PgQueuer(AsyncPeer):
    name = "pgqueuer"
    home = "pgqueuer"
    packages = ("pgqueuer[asyncpg]", "uvloop")
    tables = "pgqueuer, pgqueuer_log, pgqueuer_statistics"
    fill = (
        "insert into pgqueuer (priority, status, entrypoint)"
        f" select 0, 'queued', '{QUEUE}' from generate_series(1, %(n)s)"
    )
    remaining = "select count(*) from pgqueuer"
    batch = 10

    async def queries(self) -> Any:
        import asyncpg
        from pgqueuer.db import AsyncpgDriver
        from pgqueuer.queries import Queries

        host, port, user, database = (part.split("=")[1] for part in self.dsn.split())
        conn = await asyncpg.connect(host=host, port=int(port), user=user, database=database)
        return Queries(AsyncpgDriver(conn))

    def create(self) -> None:
        async def install() -> None:
            await (await self.queries()).install()

        asyncio.run(install())

    def step(self, put: Callable[[Any], Any], count: int = 1) -> Callable[[], Step]:
        import uvloop

        def make() -> Step:
            loop = uvloop.new_event_loop()
            queries = loop.run_until_complete(self.queries())

            def step() -> int:
                loop.run_until_complete(put(queries))
                return count

            return step

        return make

    def putter(self, threads: int) -> Callable[[], Step]:
        payload = TEXT.encode()
        return self.step(lambda queries: queries.enqueue(QUEUE, payload))

    def many_putter(self, threads: int) -> Callable[[], Step]:
        payload = TEXT.encode()
        return self.step(lambda q: q.enqueue([QUEUE] * BATCH, [payload] * BATCH, [0] * BATCH), BATCH)

    def stamper(self) -> Callable[[float], object]:
        import uvloop

        loop = uvloop.new_event_loop()
        queries = loop.run_until_complete(self.queries())
        return lambda now: loop.run_until_complete(queries.enqueue("stamped", repr(now).encode()))

    def work(self) -> None:
        import uvloop

        uvloop.run(self.run())

    swallow = work

    async def run(self) -> None:
        from pgqueuer import PgQueuer
        from pgqueuer.models import Job

        queries = await self.queries()
        worker = PgQueuer(queries.driver, queries=queries)

        async def noop(job: Any) -> None:
            pass

        async def stamped(job: Any) -> None:
            self.found.append(time.monotonic() - float(job.payload))

        for handler in (noop, stamped):
            handler.__annotations__ = {"job": Job, "return": None}
        worker.entrypoint(QUEUE)(noop)
        worker.entrypoint("stamped")(stamped)
        await worker.run(batch_size=self.batch)

    def consume(self, samples: int) -> list[float]:
        import uvloop

        found: list[float] = uvloop.run(self.receive(samples))
        return found


class PgQueuer1(PgQueuer):
    name = "pgqueuer-1"
    batch = 1
    guess = 1_500


class PgQueuer10(PgQueuer):
    name = "pgqueuer-10"
    guess = 8_000


class PgQueuer100(PgQueuer):
    name = "pgqueuer-100"
    batch = 100
    guess = 15_000
