"""Waiting where notifications do not tell all: by looking again and again."""

from __future__ import annotations

import time

from .._db import Database
from ..sql import array, bound
from .waited import FIRST_PAUSE
from .waiter import Waiter


class Polling:
    """Waits for jobs in a transaction, on whose connection no notification can be heard.

    It has the methods of `Waiter`. The pauses between two looks become longer, up to the poll interval.

    :param table: the quoted name of the table.
    :param poll_interval: seconds.
    :param waiter: one that listens on another connection, and may learn of a put sooner.
    """

    def __init__(
        self, database: Database, table: str, poll_interval: float, queue: str, waiter: Waiter | None = None
    ) -> None:
        self._database = database
        self._poll_interval = poll_interval
        self._pause = FIRST_PAUSE
        self._retry_pause = FIRST_PAUSE
        self._queue = queue
        self._waiter = waiter
        self._sql = bound("waiting.sql", table)["look"]
        self._params = {"queues": array([queue]), "table": table}

    def wait(self, deadline: float) -> bool:
        """Sleep until it is time to claim. False if the deadline has passed."""
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            return False
        ((*_, due_in, ready, _),) = self._database.execute(self._sql, self._params)
        pause = min(self._pause, self._poll_interval, remaining)
        self._pause = 2 * pause
        if ready:  # and the last claim did not get it: see WaitedQueue.claimed_in_vain
            pause = min(pause, self._retry_pause)
            self._retry_pause = min(2 * self._retry_pause, self._poll_interval)
        else:
            self._retry_pause = FIRST_PAUSE
        pause = pause if due_in is None else max(0.0, min(pause, due_in))
        if self._waiter is None:
            time.sleep(pause)
        else:
            self._waiter.wait(time.monotonic() + pause)
        return True

    def ready(self) -> list[str]:
        return [self._queue]

    def empty(self, queue: str) -> None:
        if self._waiter is not None:
            self._waiter.empty(queue)

    def is_seen_empty(self, queue: str) -> bool:
        return False

    def __enter__(self) -> Polling:
        if self._waiter is not None:
            self._waiter.__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._waiter is not None:
            self._waiter.__exit__(*exc)
