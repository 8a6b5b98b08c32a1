"""Which of the two is behind the API of pgqueue, on a server."""

from __future__ import annotations

from typing import Any
from weakref import WeakSet

from .._db.given import Given
from ..sql import statements
from .backend import Backend
from .extension import Extension
from .streams import Streams

#: Connections whose database has the extension, which is asked once, unless it has not.
_extended: WeakSet[Any] = WeakSet()


def behind(curs: Any) -> Backend:
    """Return what is behind the API, for a cursor, connection or session of the application.

    :raises TypeError: it leads to no connection of psycopg2 or psycopg 3.
    :raises ValueError: it is a server-side cursor.
    """
    given = Given(curs)
    if given.conn not in _extended:
        if not given.run(statements("pgqueue.sql")["is_installed"])[0][0]:
            return Streams(given)
        _extended.add(given.conn)
    return Extension(given)
