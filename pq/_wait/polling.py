"""Waiting where notifications do not tell all: looking again and again."""

from __future__ import annotations

import time

from .._db import Database
from ..sql import array, bound
from .leader import FIRST_PAUSE
from .waiter import Waiter


class Polling:
    """Waiting on a connection that can't listen, since the waiting thread's own transaction is open on it.

    :param waiter: may hear of a put meanwhile.
    """

    def __init__(
        self, database: Database, table: str, poll_interval: float, queue: str, waiter: Waiter | None = None
    ) -> None:
        self._database = database
        self._poll_interval = poll_interval
        self._pause = FIRST_PAUSE
        self._waiter = waiter
        self._sql = bound("waiting.sql", table)["look"]
        self._params = {"queues": array([queue]), "table": table}

    def wait(self, deadline: float) -> bool:
        """As `Waiter.wait`."""
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            return False
        ((*_, due_in, _),) = self._database.execute(self._sql, self._params)
        pause = min(self._pause, self._poll_interval, remaining)
        self._pause *= 2
        pause = pause if due_in is None else max(0.0, min(pause, due_in))
        if self._waiter is None:
            time.sleep(pause)
        else:
            self._waiter.wait(time.monotonic() + pause)
        return True

    def __enter__(self) -> Polling:
        if self._waiter is not None:
            self._waiter.__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._waiter is not None:
            self._waiter.__exit__(*exc)
