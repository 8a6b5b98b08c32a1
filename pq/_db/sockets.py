"""Waiting for sockets, and a socket to be woken by."""

from __future__ import annotations

import os
import select
import socket
import weakref

_NT = os.name == "nt"


def readable(fd: int, timeout: float = 0) -> bool:
    """Return whether there is something to read, or the other side has closed, within `timeout` seconds."""
    if timeout or _NT:
        return bool(wait_readable((fd,), timeout))
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(0))


def hung_up(fd: int) -> bool:
    """Return whether the other side has closed the connection. Nothing is read. Windows can't tell: False."""
    if os.name == "nt":
        return False
    poll = select.poll()
    poll.register(fd, getattr(select, "POLLRDHUP", 0))
    return bool(poll.poll(0))


def wait_readable(fds: tuple[int, ...], timeout: float, others: tuple[int, ...] = ()) -> set[int]:
    """Return those of the descriptors that can be read within `timeout` seconds (at most a day).

    This uses poll(), since select() fails for descriptors from 1024 on.

    :param others: descriptors of which only the end counts, as `hung_up` tells it.
    """
    timeout = max(0.0, min(timeout, 86400.0))
    if os.name == "nt":
        return set(select.select(fds, [], [], timeout)[0])
    poll = select.poll()
    for fd in fds:
        poll.register(fd, select.POLLIN)
    for fd in others:
        poll.register(fd, getattr(select, "POLLRDHUP", 0))
    return {fd for fd, _ in poll.poll(timeout * 1000)}


def shut(fd: int) -> None:
    """End the connection of a socket that belongs to somebody else, who then has to close it."""
    with duplicate(fd) as sock:
        try:
            sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # it went by itself


class Waker:
    """Wakes a thread that sleeps on file descriptors."""

    def __init__(self) -> None:
        self._out, self._in = (_Socket(fileno=each.detach()) for each in socket.socketpair())
        self._out.setblocking(False)
        self._in.setblocking(False)
        # not at the end of the process: daemon threads may sleep on it
        weakref.finalize(self, _close_all, self._out, self._in).atexit = False

    def fileno(self) -> int:
        return self._out.fileno()

    def wakeup_fd(self) -> int:
        """Return a descriptor to write to: any byte wakes the thread."""
        return self._in.fileno()

    def wake(self) -> None:
        try:
            self._in.send(b"\0")
        except BlockingIOError:
            pass  # its buffer is full: the thread is being woken

    def clear(self) -> None:
        """Forget that the thread was woken."""
        try:
            while self._out.recv(4096):
                pass
        except BlockingIOError:
            pass


def duplicate(fd: int) -> socket.socket:
    """Return another socket for the connection behind a descriptor."""
    return _Socket(fileno=socket.dup(fd))


class _Socket(socket.socket):
    """A socket that may be open at the end of the process, without a warning."""

    def __del__(self) -> None:
        pass


def _close_all(*sockets: socket.socket) -> None:
    for sock in sockets:
        sock.close()
