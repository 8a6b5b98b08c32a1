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
    def restore(self, conn: Any, lost: bool = False) -> None: ...
    def reclaim(self) -> None: ...


class Loan:
    """A connection of a source, for this thread alone.

    :param begins: whether the borrower begins transactions, to be rolled back if the loan is dropped.
    :ivar conn: the connection, or None.
    """

    __slots__ = ("_begins", "_dropped", "_source", "_token", "conn")

    def __init__(self, source: Lender, begins: bool = False) -> None:
        self.conn: Any = None
        self._begins = begins
        self._source = source
        self._dropped = source.dropped  # in a child process the source has another
        self._token = object()

    def acquire(self, timeout: float | None = None) -> Any:
        """Take a connection, and return it. The errors are those of `Source.acquire`."""
        source = self._source
        if source.dropped:
            source.reclaim()
        self.conn = source.acquire(timeout, self)
        source.holders[id(self.conn)] = self._token
        return self.conn

    def release(self, lost: bool = False) -> None:
        """Give the connection back. A second call does nothing, or what an interrupt has left of the first."""
        conn = self.conn
        if conn is not None:
            source = self._source
            if source.dropped:
                source.reclaim()  # a loan of the same connection, in a signal handler, say
            holder = source.holders.get(id(conn))
            if holder is self._token:
                del source.holders[id(conn)]  # first: once it is back, somebody else may hold it
                source.release(conn, lost)
            elif holder is None:  # interrupted in `acquire`, or in the first call
                source.restore(conn, lost)
            self.conn = None

    def __del__(self) -> None:
        if getattr(self, "conn", None) is not None:
            # no lock: the collector may be at work anywhere
            self._dropped.append((self.conn, self._token, self._begins))
