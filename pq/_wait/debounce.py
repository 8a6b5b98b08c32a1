"""Something to be done when it has not been asked for again for a while."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from weakref import WeakMethod

#: Seconds without anything to do after which the thread ends.
IDLE = 5.0


class Later:
    """Calls a method `delay` seconds after it was asked for the last time.

    In a thread, since nobody else may be there then. It is started when it is needed, and ends when it has not been for
    a while, or the method's object is gone.
    """

    def __init__(self, method: Callable[[], object], delay: float) -> None:
        self._method = WeakMethod(method)
        self._delay = delay
        self._changed = threading.Condition()
        self._at: float | None = None  # monotonic seconds
        self._thread: threading.Thread | None = None

    def ask(self) -> None:
        with self._changed:
            was_idle, self._at = self._at is None, time.monotonic() + self._delay
            if self._thread is None:
                thread = threading.Thread(target=self._work, name="pq later", daemon=True)
                try:
                    thread.start()
                except RuntimeError:  # the interpreter is about to end
                    return
                self._thread = thread
            elif was_idle:
                self._changed.notify()

    def stop(self) -> None:
        """End the thread now."""
        with self._changed:
            thread, self._thread = self._thread, None
            self._changed.notify()
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _work(self) -> None:
        while self.run_once():
            pass

    def run_once(self) -> bool:
        """Wait until it is time, and call the method. False when the thread is to end."""
        with self._changed:
            if self._thread is not threading.current_thread():
                return False
            now = time.monotonic()
            at = now + IDLE if self._at is None else self._at
            if now < at and not self._changed.wait(at - now) and self._at is None:
                self._thread = None
                return False
            if self._at is None or time.monotonic() < self._at:
                return True
            self._at = None
        method = self._method()
        if method is not None:
            method()
        return method is not None
