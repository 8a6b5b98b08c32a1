"""The queue objects that a PQ has handed out, by name."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any
from weakref import WeakSet, WeakValueDictionary

from .queue import Queue

#: Queues that nobody else has a reference to, and that are kept all the same, at most.
MAX_KEPT = 1000


class KeptQueues:
    """A name leads to the same object for as long as the application has it, or has set an attribute of it; tasks do
    so, too. Of the others, `MAX_KEPT` are kept: names may be made of anything, and in a long-lived process be many.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        _kept.add(self)
        self._recent: dict[str, Queue] = {}
        self._as_made: dict[str, dict[str, Any]] = {}
        self._changed: dict[str, Queue] = {}
        self._known: WeakValueDictionary[str, Queue] = WeakValueDictionary()

    def get(self, name: str, make: Callable[[str], Queue]) -> Queue:
        queue = self._recent.get(name)
        if queue is None:
            queue = self._known.get(name)
        return self._add(name, make(name)) if queue is None else queue

    def _add(self, name: str, queue: Queue) -> Queue:
        with self._lock:
            found = self._known.get(name)
            if found is not None:  # another thread was faster
                return found
            while len(self._recent) >= MAX_KEPT:
                self._drop(next(iter(self._recent)))
            self._as_made[name] = _attributes(queue)  # first: an interrupt may come between any two lines
            self._recent[name] = self._known[name] = queue
            return queue

    def all(self) -> list[Queue]:
        with self._lock:
            return list(self._known.values())

    def _drop(self, name: str) -> None:
        queue, as_made = self._recent[name], self._as_made[name]
        now = _attributes(queue)
        if now.keys() != as_made.keys() or any(now[key] is not as_made[key] for key in now):
            self._changed[name] = queue
        del self._recent[name]
        del self._as_made[name]


def _attributes(queue: Queue) -> dict[str, Any]:
    return {name: value for name, value in vars(queue).items() if not name.startswith("_")}


_kept: WeakSet[KeptQueues] = WeakSet()


def _after_fork_in_child() -> None:
    for queues in list(_kept):
        queues._lock = threading.RLock()  # the parent's may be held by a thread that is not here


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
