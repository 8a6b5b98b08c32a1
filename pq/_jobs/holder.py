"""Who has a lease, as the column ``worker`` tells it."""

from __future__ import annotations

import os
import socket
from functools import lru_cache


def holder() -> str:
    """Return the name of this process: its host and its process id, ``'host:pid'``."""
    return _named(os.getpid())


@lru_cache(maxsize=1)  # by the process id, which is another one after a fork
def _named(pid: int) -> str:
    return f"{socket.gethostname()}:{pid}"
