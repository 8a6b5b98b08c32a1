"""Ending the session of a thread that hangs."""

from __future__ import annotations

import threading
from typing import Any

from ..drivers.base import _ACTIVE as ACTIVE
from ..drivers.base import Driver
from ..sockets import shut

#: Seconds for which the server is asked to cancel a statement. It may not accept the connection that this takes.
CANCEL_TIMEOUT = 1.0


def cut(driver: Driver, conn: Any) -> None:
    """End the session of a connection that another thread uses; that thread gets an error."""
    if driver._status(conn) == ACTIVE:  # then the server would not notice the end of the session before the statement's
        thread = threading.Thread(target=_cancel, args=(driver, conn), name="pq cancel", daemon=True)
        try:
            thread.start()
            thread.join(CANCEL_TIMEOUT)
        except RuntimeError:  # no thread can be started: the server notices later
            pass
    shut(conn.fileno())


def _cancel(driver: Driver, conn: Any) -> None:
    try:
        conn.cancel()
    except driver.Error:
        pass  # it has just ended
