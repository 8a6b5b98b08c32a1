"""What pq knows of each connection, for as long as the connection object lives."""

from __future__ import annotations

import math
import socket
import weakref
from typing import Any, NamedTuple

from .prepared import Prepared
from .sockets import duplicate


class ServerSession(NamedTuple):
    """What pq knows of the server session behind a connection.

    :ivar hidden: a transaction pooler stands between: the next statement may meet another session.
    :ivar own_limit: milliseconds that statements may take by the settings of role, database or connection; 0: no limit.
    :ivar limited: the source's `statement_timeout` holds in its place.
    """

    hidden: bool = False
    own_limit: int = 0
    limited: bool = False


class Known:
    """What pq knows of one connection. It belongs to one thread at a time, as the connection does.

    :ivar prepared: the statements that are prepared there, by all PQ that share the connection.
    :ivar answered_at: when a statement last succeeded, in monotonic seconds; 0: none has.
    :ivar session: what is known of the session; None: it was not asked yet.
    :ivar limit: the session's `statement_timeout` in milliseconds, where it is pq's to set; None: unknown.
    :ivar wanted: the limit that the last statement had there.
    :ivar guards: around single statements, by the seconds after which the server gives these up.
    """

    __slots__ = ("_socket", "answered_at", "guards", "limit", "prepared", "session", "wanted")

    def __init__(self) -> None:
        self.prepared = Prepared()
        self.answered_at: float = 0.0
        self.session: ServerSession | None = None
        self.limit: int | None = None
        self.wanted: int | None = None
        self.guards: dict[float, Any] = {}
        self._socket: socket.socket | None = None

    def socket(self, conn: Any) -> socket.socket:
        """Return a duplicate of the connection's descriptor. The driver may close its own at any time, and the number
        then mean somebody else's file."""
        if self._socket is None:
            self._socket = duplicate(conn.fileno())
            weakref.finalize(conn, self._socket.close).atexit = False
        return self._socket

    def close(self) -> None:
        """Close what belongs to the connection, which pq has closed: the object may live on, in a cursor, say."""
        if self._socket is not None:
            self._socket.close()


def known(conn: Any) -> Known:
    """Return what is known of a connection."""
    found = _known.get(conn)
    if found is None:
        found = _known[conn] = Known()
    return found


def doubt() -> None:
    """Take none of the connections to be alive any more: one was lost, and others may have been lost with it. The next
    statement on each takes a round trip more."""
    for ref in _known.keyrefs():  # a list: other threads add some
        conn = ref()
        its = None if conn is None else _known.get(conn)
        if its is not None and its.answered_at:
            its.answered_at = -math.inf


def count() -> int:
    """Return how many connections pq knows."""
    return len(_known)


_known: weakref.WeakKeyDictionary[Any, Known] = weakref.WeakKeyDictionary()
