"""What is looked at every few seconds at most, however many pages show it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from ..errors import StatementTimeout

T = TypeVar("T")


class Kept(Generic[T]):
    """Keeps what a function returns for a while.

    :param make: the function.
    :param seconds: for how long.
    """

    def __init__(self, make: Callable[[], T], seconds: float) -> None:
        self._make = make
        self._seconds = seconds
        self._lock = threading.Lock()
        self._value: T | None = None
        self._made_at = -seconds

    def get(self, seconds: float | None = None) -> T | None:
        """Return it; None if the server has taken too long.

        :param seconds: how old it may be; default: what the argument of the class says.

        One thread at a time makes it anew; the others get the one before, or wait if there is none.
        """
        if not self._lock.acquire(blocking=self._value is None):
            return self._value
        try:
            if time.monotonic() >= self._made_at + (self._seconds if seconds is None else seconds):
                try:
                    self._value = self._make()
                except StatementTimeout:
                    self._value = None
                self._made_at = time.monotonic()
            return self._value
        finally:
            self._lock.release()
