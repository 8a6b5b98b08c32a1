"""A connection that is taken from a source for a while.

An exception may come between any two lines of Python: a signal handler raises it. So nobody relies on reaching the line
that gives a connection back. A loan that is dropped with its connection leaves it to the next one, which gives it back.
"""

from __future__ import annotations

from typing import Any, Protocol


class Lender(Protocol):
    """What a loan needs of `pq._db.sources.base.Source`."""

    dropped: Any
    holders: Any

    def acquire(self, timeout: float | None = None, into: Any = None) -> Any: ...
    def release(self, conn: Any, lost: bool = False) -> None: ...
    def restore(self, conn: Any) -> None: ...
    def reclaim(self) -> None: ...


class Loan:
    """A connection of a source, for this thread alone.

    :ivar conn: the connection, or None.
    """

    __slots__ = ("_dropped", "_source", "_token", "conn")

    def __init__(self, source: Lender) -> None:
        self.conn: Any = None
        self._source = source
        self._dropped = source.dropped  # in a child process the source has another
        self._token = object()

    def take(self, timeout: float | None = None) -> Any:
        """Take a connection, and return it. The errors are those of `Source.acquire`."""
        source = self._source
        if source.dropped:
            source.reclaim()
        self.conn = source.acquire(timeout, self)
        source.holders[id(self.conn)] = self._token
        return self.conn

    def give(self, lost: bool = False) -> None:
        """Give the connection back. A second call does nothing."""
        conn = self.conn
        if conn is not None:
            source = self._source
            if source.holders.get(id(conn)) is self._token:
                source.release(conn, lost)
                self.conn = None  # from here on it may be somebody else's
                source.holders.pop(id(conn), None)
            else:  # taken, but not yet returned by `acquire`
                source.restore(conn)
                self.conn = None

    def __del__(self) -> None:
        if getattr(self, "conn", None) is not None:
            self._dropped.append((self.conn, self._token))  # no lock: the collector may be at work anywhere
