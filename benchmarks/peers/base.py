"""What a peer is asked to do. One that can't do something lacks the method."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Callable
from typing import Any

from .loops import Step, measure, timed

#: What a job carries, the same for all.
DATA = {"kind": "apple", "number": 7}
TEXT = json.dumps(DATA)

QUEUE = "bench"


class Peer:
    """A library, in a database of its own.

    :ivar name: in the tables.
    :ivar home: the folder that it is installed in; peers of one library share it. None: this checkout.
    :ivar packages: what pip, or npm, is asked for.
    :ivar file: the address and the SHA-256 of the file that it is, if it is in no registry.
    :ivar tables: what is emptied between two measurements.
    :ivar fill: SQL that puts `n` no-op tasks for the worker.
    :ivar remaining: SQL that counts the tasks that are not settled.
    :ivar guess: tasks a second, for how many are put at first.
    """

    name: str
    home: str | None = None
    packages: tuple[str, ...] = ()
    file: tuple[str, str] | None = None
    dependencies = True
    node = False
    tables: str
    fill: str
    remaining: str
    guess = 20_000

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn
        self._steps: dict[str, Step] = {}
        self._put: Callable[[float], object] | None = None

    # -- each returns a function that does one step and says how many jobs that were; it opens connections itself,
    # -- since it may be called after a fork. Those that are missing here are what not every peer can do.

    def create(self) -> None:
        raise NotImplementedError

    def putter(self, threads: int) -> Callable[[], Step]:
        raise NotImplementedError

    def work(self) -> None:
        """Perform tasks, until killed."""
        raise NotImplementedError

    # -- commands

    def rate(self, what: str, seconds: float, most: int, threads: int = 1, processes: int = 1) -> dict[str, Any]:
        """How many jobs went by in how many seconds."""
        return measure(lambda: getattr(self, what)(threads), seconds, most, threads, processes)

    def again(self, what: str, most: int) -> dict[str, Any]:
        """The same on a connection that is kept from call to call, so that what the library learns stays."""
        if what not in self._steps:
            self._steps[what] = getattr(self, what)(1)()
        count, begun, ended = timed(self._steps[what], 3600, most)
        return {"count": count, "seconds": ended - begun}

    def produce(self, samples: int, pauses: list[float]) -> None:
        """Put one job after another, each with the time when `put` was called."""
        if self._put is None:
            self._put = self.stamper()
        put = self._put
        for number in range(samples):
            time.sleep(pauses[number % len(pauses)])
            put(time.monotonic())

    def stamper(self) -> Callable[[float], object]:
        raise NotImplementedError

    def resident(self) -> float:
        """The memory of this process, in MB."""
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6

    def able(self, what: str) -> bool:
        return hasattr(self, what)


class AsyncPeer(Peer):
    """One whose worker is a coroutine.

    :ivar found: the seconds that each stamped job took to arrive; its handler notes them.
    """

    found: list[float]

    async def run(self) -> None:
        """The worker."""
        raise NotImplementedError

    async def receive(self, samples: int) -> list[float]:
        """Run the worker until so many have arrived."""
        self.found = []  # not those of the last time
        worker = asyncio.create_task(self.run())
        while not worker.done() and len(self.found) < samples:
            await asyncio.sleep(0.05)
        worker.cancel()
        return self.found
