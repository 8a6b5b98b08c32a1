"""Which of the two is behind the API of pgqueue, on a server."""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

from .._db.given import Given
from ..sql import statements
from .backend import Backend
from .extension import Extension
from .streams import Streams

#: Whether the databases of these connections have the extension.
_extended: WeakKeyDictionary[Any, bool] = WeakKeyDictionary()


def behind(curs: Any, *, again: bool = False) -> Backend:
    """Return what is behind the API, for a cursor, connection or session of the application.

    :param again: ask the server, although it was asked on this connection.
    :raises TypeError: it leads to no connection of psycopg2 or psycopg 3.
    :raises ValueError: it is a server-side cursor.
    """
    given = Given(curs)
    extended = None if again else _extended.get(given.conn)
    if extended is None:
        extended = _extended[given.conn] = bool(given.run(statements("pgqueue.sql")["is_installed"])[0][0])
    return Extension(given) if extended else Streams(given)
