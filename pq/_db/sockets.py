"""Waiting for sockets."""

from __future__ import annotations

import os
import select


def readable(fd: int, timeout: float = 0) -> bool:
    """Whether there is something to read, or the other side has closed, within `timeout` seconds."""
    return bool(wait_readable((fd,), timeout))


def wait_readable(fds: tuple[int, ...], timeout: float) -> list[int]:
    """Those of the descriptors that can be read within `timeout` seconds (at most a day).

    poll(), since select() fails on descriptors from 1024.
    """
    timeout = max(0.0, min(timeout, 86400.0))
    if os.name == "nt":
        return list(select.select(fds, [], [], timeout)[0])
    poll = select.poll()
    for fd in fds:
        poll.register(fd, select.POLLIN)
    return [fd for fd, _ in poll.poll(timeout * 1000)]
