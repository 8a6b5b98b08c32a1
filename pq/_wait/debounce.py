"""A call that is made once nobody has asked for it for a while."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from weakref import WeakMethod

from .._loop import Loop


class Debounce:
    """Calls a method `delay` seconds after `ask` was called for the last time.

    The call is made by a thread, since no other thread may be there by then; after that it ends. The object of the
    method may go away.

    :param delay: seconds.
    """

    def __init__(self, method: Callable[[], object], delay: float) -> None:
        self._method = WeakMethod(method)
        self._delay = delay
        self._at = self._made_at = -math.inf  # monotonic seconds: of the call that was asked for, and of the last one
        self._loop = Loop(self.run_once, "pq debounce", idle=0)

    def ask(self) -> None:
        self._at = time.monotonic() + self._delay
        try:
            self._loop.wake(by=self._at)
        except RuntimeError:
            pass  # no thread can be started: the interpreter is about to end

    def stop(self) -> None:
        """End the thread now. The call that was asked for is not made."""
        self._loop.stop()

    def run_once(self) -> float | None:
        """Call the method if it is time to; return the seconds until then, or None if nobody has asked."""
        at = self._at
        if at == self._made_at:
            return None
        remaining = at - time.monotonic()
        if remaining > 0:
            return remaining
        self._made_at = at
        method = self._method()
        if method is not None:
            method()
        return None
