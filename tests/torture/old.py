"""The same for pq 1.9.1: ``python tests/torture/old.py ROLE NAME DSN FOLDER SEED LEASE``, with it first on PYTHONPATH.

It is run as a script, so that neither this repository's pq nor its packages are found.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from itertools import count
from pathlib import Path
from typing import Any

import psycopg2
from history import History  # beside this script

import pq as library


class Actor:
    """A process that opens another connection after any error."""

    def __init__(self, name: str, dsn: str, folder: Path, seed: int) -> None:
        self.name, self.dsn = name, dsn
        self.random = random.Random(seed)
        self.history = History(folder, name)
        self.stopping = False
        self._parent = os.getppid()
        self._conn: Any = None
        signal.signal(signal.SIGTERM, self._stop)

    def _stop(self, number: int, frame: object) -> None:
        self.stopping = True

    def goes_on(self) -> bool:
        return not self.stopping and os.getppid() == self._parent

    def queue(self) -> Any:
        if self._conn is None:
            self._conn = psycopg2.connect(self.dsn)
            self._queue = library.PQ(self._conn)["lease"]
        return self._queue

    def trouble(self, error: Exception) -> None:
        self.history.note("trouble", error=str(error)[:120])
        if self._conn is not None:
            self._conn.close()
        self._conn = None
        time.sleep(0.1)

    def create(self) -> None:
        library.PQ(psycopg2.connect(self.dsn)).create()

    def producer(self) -> None:
        for number in count(1):
            if not self.goes_on():
                return
            key = f"l-{self.name}-{number}"
            self.history.note("put", keys=[key])
            try:
                id = self.queue().put({"key": key})
            except Exception as error:
                self.history.note("unknown", keys=[key])
                self.trouble(error)
            else:
                self.history.note("acknowledged", keys=[key], ids=[id])
            time.sleep(self.random.expovariate(1 / 0.004))

    def getter(self) -> None:
        while self.goes_on():
            try:
                job = self.queue().get(timeout=0.5)
            except Exception as error:
                self.trouble(error)
                continue
            if job is not None:
                key = job.data["key"]
                self.history.note("delivered", key=key, id=job.id, begun=time.time())
                time.sleep(random.expovariate(1 / 0.005))
                self.history.note("handled", key=key, id=job.id)


if __name__ == "__main__":
    assert library.__version__ == "1.9.1", library.__file__
    role, name, dsn, folder, seed, lease = sys.argv[1:]  # it knows no leases
    getattr(Actor(name, dsn, Path(folder), int(seed)), role)()
