"""A thread that calls a function again and again, and that no error can end in silence."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from weakref import WeakSet

from ._logs import queue_log as logger

#: Seconds before `run_once` is called again after it raised.
PAUSE = 1.0

_NEVER = float("inf")


class _Marks(threading.local):
    """Whether the current thread is one that pq started."""

    own = False


_marks = _Marks()


def mark_own_thread() -> None:
    """Note that pq has started the current thread."""
    _marks.own = True


def is_own_thread() -> bool:
    """Return whether pq has started the current thread: a `Loop`, or a thread of a worker."""
    return _marks.own


class Loop:
    """A daemon thread around `run_once`.

    Whatever `run_once` raises, ``SystemExit`` included, is handed to `on_error`; then the thread goes on after `PAUSE`.
    The thread ends only by `stop`, or because it was idle. After a fork the child has no thread until it calls `start`
    or `wake`.

    :param run_once: does what is to be done now, and returns the seconds until it must be called again; None: not
        before `wake`.
    :param name: the name of the thread.
    :param idle: end the thread after so many seconds without anything to do; `wake` starts another one. None: never.
    :param on_error: called, in the thread, with what `run_once` raised. Default: the error is logged.
    """

    def __init__(
        self,
        run_once: Callable[[], float | None],
        name: str,
        *,
        idle: float | None = None,
        on_error: Callable[[BaseException], object] | None = None,
    ) -> None:
        self.name = name
        self._run_once = run_once
        self._idle = idle
        self._on_error = on_error or self._log
        self._reset()
        _loops.add(self)

    def _reset(self) -> None:
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._wakes = 0.0  # monotonic seconds; while run_once is running: when it must run once more
        self._woken_at = time.monotonic()  # when _wakes became 0
        self._began: float | None = None  # when the run_once that is running was called

    @property
    def ident(self) -> int | None:
        """The ident of the thread; None if there is none."""
        thread = self._thread
        return None if thread is None else thread.ident

    @property
    def behind(self) -> float:
        """For how many seconds the thread has not come to what is due: since `run_once` was called and has not
        returned, or since it was to be called. 0: there is nothing, or no thread."""
        thread, began, wakes = self._thread, self._began, self._wakes
        if thread is None:
            return 0.0
        if not thread.is_alive():
            return _NEVER
        since = (wakes or self._woken_at) if began is None else began
        return max(0.0, time.monotonic() - since)

    def start(self) -> None:
        """Start the thread, unless it runs.

        :raises RuntimeError: no thread can be started.
        """
        with self._changed:
            if self._thread is None:
                self._woken_at = time.monotonic()
                thread = threading.Thread(target=self._work, name=self.name, daemon=True)
                thread.start()
                self._thread = thread  # interrupted before that, the thread ends, since it is not this one

    def wake(self, by: float = 0.0) -> None:
        """Have `run_once` called at this time at the latest. First make visible what it is to do.

        :param by: monotonic seconds; default: now.
        :raises RuntimeError: the thread has ended because it was idle, and no other one can be started.
        """
        # Without the lock: the thread raises _wakes only before it calls run_once, which sees what the caller has done.
        if by >= self._wakes and self._thread is not None:
            return
        with self._changed:
            if by < self._wakes:
                if not by:
                    self._woken_at = time.monotonic()
                self._wakes = by
                self._changed.notify()
            if self._idle is not None:
                self.start()

    def stop(self, timeout: float | None = None) -> bool:
        """End the thread, after the call of `run_once` that is under way.

        :param timeout: seconds to wait for that at most; None: as long as it takes.
        :returns: whether it has ended.
        """
        with self._changed:
            thread, self._thread = self._thread, None
            self._changed.notify()
        if thread is None or thread is threading.current_thread():
            return True
        thread.join(timeout)
        return not thread.is_alive()

    # -- in the thread

    def _work(self) -> None:
        mark_own_thread()
        pause: float | None = 0.0
        while True:
            try:
                if not self._sleep(pause):
                    return
                pause = self._run_once()
            except BaseException as error:
                pause = PAUSE
                self._tell(error)

    def _sleep(self, pause: float | None) -> bool:
        """Sleep until it is time to call `run_once`. Return False when the thread is to end."""
        self._began = None
        with self._changed:
            self._wakes = min(self._wakes, _NEVER if pause is None else time.monotonic() + pause)
            idle_until = _NEVER if self._idle is None else time.monotonic() + self._idle
            while self._thread is threading.current_thread():
                now = time.monotonic()
                if now >= self._wakes:
                    self._began = now
                    self._wakes = _NEVER  # from here on wake() counts for the next call
                    return True
                if now >= idle_until and self._wakes == _NEVER:
                    self._thread = None
                    return False
                until = self._wakes if self._wakes < _NEVER else idle_until
                self._changed.wait(min(until - now, threading.TIMEOUT_MAX))
            return False

    def _tell(self, error: BaseException) -> None:
        try:
            self._on_error(error)
        except BaseException:
            pass  # nothing more can be done: a handler of the log may raise, too

    def _log(self, error: BaseException) -> None:
        logger.error("%s: an error; the thread goes on in %s s", self.name, PAUSE, exc_info=error)


_loops: WeakSet[Loop] = WeakSet()


def _after_fork_in_child() -> None:
    for loop in list(_loops):
        loop._reset()  # the threads stayed with the parent, and so did whoever held the locks


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
