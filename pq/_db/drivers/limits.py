"""How long statements may take, as far as drivers are concerned."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, Protocol


class Limits(Protocol):
    """How long statements may take on connections that pq opened; see `sources.dsn`."""

    def guard(self, conn: Any, limit: float | None = None) -> AbstractContextManager[Any]:
        """Return a context manager around one call to the server: in the end the connection is cut.

        :param limit: the seconds after which the server gives the statement up; None: find out.
        """

    def lift(self, conn: Any) -> str:
        """Return the SQL by which a transaction gets the limit that the session would have without pq."""


class Timed:
    """A file for COPY. Only the server's time counts, not that of whoever writes the file."""

    def __init__(self, file: Any, guard: Any) -> None:
        self._file = file
        self._guard = guard

    def read(self, size: int = -1) -> Any:
        self._guard.pause()
        try:
            return self._file.read(size)
        finally:
            self._guard.resume()
