"""Helpers of the tests: wait for a condition, run a function in a thread, execute a statement."""

from __future__ import annotations

import io
import os
import platform
import threading
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any

import psycopg2
import pytest

from pq import LeasedJob, Queue

#: Seconds that a test waits for something that must happen. Long: machines are slow, and only a failure waits so long.
PATIENCE = 30.0

#: Who has what this process has taken under a lease.
HOLDER = f"{platform.node()}:{os.getpid()}"


def execute(dsn: str, sql: str, params: Any = None) -> list[tuple[Any, ...]]:
    """One statement on a connection of its own, in autocommit mode."""
    with closing(psycopg2.connect(dsn)) as conn:
        conn.autocommit = True
        with conn.cursor() as cursor:
            cursor.execute(sql, params)
            return cursor.fetchall() if cursor.description is not None else []


def wait_until(condition: Callable[[], Any], what: str = "it", patience: float = PATIENCE) -> Any:
    """Return the first true value of `condition`, looked at again and again."""
    deadline = time.monotonic() + patience
    while not (value := condition()):
        if time.monotonic() > deadline:
            pytest.fail(f"{what} did not happen within {patience} s")
        time.sleep(0.005)
    return value


def take(queue: Queue, **kwargs: Any) -> LeasedJob:
    """The next job, for long enough."""
    job = queue.get(timeout=PATIENCE, lease="1h", **kwargs)
    assert isinstance(job, LeasedJob)
    return job


def taken(queue: Queue) -> Any:
    """What the next job under a lease is, which is done at once; None if there is none."""
    job = queue.get(lease="30s")
    if job is None:
        return None
    job.done()
    return job.data


class Terminal(io.StringIO):
    """What is to be taken for a terminal, to read from or to write to."""

    def isatty(self) -> bool:
        return True


class Background(threading.Thread):
    """A function in a thread; `result()` joins it and returns its value, or raises its exception."""

    def __init__(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        super().__init__(daemon=True)
        self._call = (function, args, kwargs)
        self._value: Any = None
        self._error: BaseException | None = None
        self.start()

    def run(self) -> None:
        function, args, kwargs = self._call
        try:
            self._value = function(*args, **kwargs)
        except BaseException as error:
            self._error = error

    def result(self, patience: float = PATIENCE) -> Any:
        self.join(patience)
        if self.is_alive():
            pytest.fail(f"thread did not end within {patience} s")
        if self._error is not None:
            raise self._error
        return self._value
