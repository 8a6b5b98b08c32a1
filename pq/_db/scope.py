"""Which block a statement belongs to.

The innermost open block (``with queue``, `PQ.using`, a savepoint) is kept in a context variable. So threads and
coroutines, each of which has a context of its own, don't see each other's blocks.

A context can be copied: a task of asyncio gets a copy of the context that created it, `asyncio.to_thread` takes a copy
along into the other thread, and a web framework enters a dependency in a copy that it then throws away. Whoever has a
copy sees the block, but must not use it: the block's own code goes on meanwhile, and may commit or roll back at any
moment. So a block also knows the thread and the task that it was entered in, and a use anywhere else is an error.

One case is harmless. A block that was entered by plain code stays open for as long as that code calls something else,
such as ``asyncio.run()``: coroutines in there may use the block.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterable
from contextvars import ContextVar
from typing import Any, NamedTuple

from .._logs import queue_log as logger
from ..errors import BlockError

_BIND = "Pass the connection itself to where it is used, with pq.bind(conn) or conn=."

_innermost: ContextVar[Scope | None] = ContextVar("pq_innermost", default=None)


class _Thread(threading.local):
    """An identity of the current thread. Unlike its ident, it is never used again by a later thread."""

    def __init__(self) -> None:
        self.token = object()
        self.place = Place(self.token, None)  # where plain code runs


class Place(NamedTuple):
    """A thread and, in asynchronous code, the task that runs in it."""

    thread: object
    task: object

    def reaches(self, other: Place) -> bool:
        """Whether code at the other place runs while a block that was entered here can't go on."""
        return other.thread is self.thread and (self.task is None or other.task is self.task)


_thread = _Thread()


def here() -> Place:
    """Return the current place."""
    task = _task()
    return _thread.place if task is None else Place(_thread.token, task)


def _task() -> object:
    """The current task of asyncio or trio; None in plain code. Neither package is imported for this."""
    modules = sys.modules
    if "asyncio.events" in modules:
        loop_of = getattr(modules["asyncio.events"], "_get_running_loop", None)  # it may be in the midst of its import
        if loop_of is not None and (loop := loop_of()) is not None:
            return modules["asyncio"].current_task(loop) or loop
    if "trio.lowlevel" in modules:
        try:
            return modules["trio.lowlevel"].current_task()
        except (AttributeError, RuntimeError):  # this thread does not run trio
            pass
    return None


class Scope:
    """What statements may belong to: a transaction, or a savepoint in it.

    :ivar source: where the connection comes from; a scope counts for this source alone.
    :ivar outer: the scope that was the innermost one before, of any source.
    :ivar over: whether it has ended.
    :ivar simple: the identity of the thread that entered it, if no task did.
    :ivar block: the context manager that it belongs to, if somebody will look for that; see `block_of`.
    """

    def __init__(self, source: object) -> None:
        self.source = source
        self.outer: Scope | None = None
        self.over: bool = False
        self.block: Any = None
        self._process = _process
        self._place: Place | None = None
        self.simple: object = None

    @property
    def transaction(self) -> Any:
        raise NotImplementedError

    def enter(self) -> None:
        """Make this the innermost scope of the current context."""
        place = here()
        self.outer = _innermost.get()
        _innermost.set(self)
        self._place = place  # behind that, or an interrupt in between would look as if the block was left elsewhere
        self.simple = place.thread if place.task is None else None

    def leave(self) -> None:
        """Take it out again. In another context only `over` can be set, which has the same effect there."""
        self.over = True
        self.block = None
        self._place = None
        _prune()

    def mistake(self) -> str | None:
        """Say what is wrong with ending this scope here; None if nothing is."""
        if self._place is None or (self.simple is _thread.token and _innermost.get() is self):
            return None
        if not self._place.reaches(here()):
            where = "in another thread" if self._place.thread is not _thread.token else "in another coroutine"
        elif not self._is_visible():
            where = "in another context"
        else:
            return None
        return (
            f"a block of pq was entered here and left {where}, so what was done in between was not part of it. {_BIND}"
        )

    def check(self) -> None:
        """
        :raises BlockError: the current thread or task is not the one that entered the block.
        """
        if self._place is not None and not self._place.reaches(here()):
            other = "another thread" if self._place.thread is not _thread.token else "another coroutine"
            raise BlockError(f"a block of pq is open in {other}, whose context was copied here. {_BIND}")
        if self.transaction.top is not self:
            raise BlockError(f"another coroutine has opened a block inside of the one that is used here. {_BIND}")

    def _is_visible(self) -> bool:
        scope = _innermost.get()
        while scope is not None and scope is not self:
            scope = scope.outer
        return scope is not None


def current(source: object) -> Any:
    """Return the transaction that statements on this source belong to now; None: each is one of its own.

    :raises BlockError: there is one that must not be used from here.
    """
    scope = _innermost.get()
    if scope is None:
        return None
    if (
        scope.source is source
        and scope.simple is _thread.token  # plain code, in its own thread
        and not scope.over
        and scope._process is _process
    ):
        transaction = scope.transaction
        if (transaction._top or transaction) is scope:
            return transaction
    if scope.over or scope._process is not _process:
        scope = _prune()
    while scope is not None and (scope.source is not source or scope.over or scope._process is not _process):
        scope = scope.outer
    if scope is None:
        return None
    scope.check()
    return scope.transaction


def check_coroutines(begun: Iterable[Scope], connections: float) -> None:
    """Call this before a wait for a connection.

    :param begun: the open transactions that use the connections.
    :raises BlockError: coroutines of this thread have all of them in blocks, and can't go on during the wait.
    """
    me = here()
    places = [scope._place for scope in begun]
    stuck = [place for place in places if place is not None and place.thread is me.thread and not place.reaches(me)]
    if len(stuck) >= connections:
        raise BlockError(
            f"coroutines of this thread have all {connections} connections in blocks, and waiting for one would stop"
            " the event loop: raise max_connections, or leave the blocks before an await"
        )


def block_of(opener: object) -> Any:
    """Return the innermost block of this context that `opener` has entered and not left, or None."""
    scope = _innermost.get()
    while scope is not None and (scope.over or scope.block is None or scope.block.opener is not opener):
        scope = scope.outer
    return None if scope is None else scope.block


def tell(mistake: str, error: BaseException | None) -> None:
    """Raise it, unless the block is left by an error anyway, which then goes on."""
    if error is None:
        raise BlockError(mistake)
    logger.warning("%s", mistake)


def _prune() -> Scope | None:
    """Forget the innermost scopes that have ended, lest the context keep their connections alive.

    Blocks in generators may end in another order than they began; those are passed over until they are innermost.
    """
    scope = before = _innermost.get()
    while scope is not None and (scope.over or scope._process is not _process):
        scope = scope.outer
    if scope is not before:
        _innermost.set(scope)
    return scope


_process = object()


def _after_fork_in_child() -> None:
    """Blocks of the parent are none of the child's."""
    global _process
    _process = object()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
