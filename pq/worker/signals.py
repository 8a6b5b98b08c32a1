"""Signals while a worker or a supervisor runs in the main thread."""

from __future__ import annotations

import json
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

from .._logs import worker_log as logger
from .stop import Stop

Handler = Callable[[int], None]


class StopSignals:
    """What SIGTERM and SIGINT ask of a worker: the first signal that it stop, the second that it wait for no job, the
    third that it end now.

    :param stop: the worker's `Stop`.
    """

    def __init__(self, stop: Stop) -> None:
        self._stop = stop
        self._count = 0

    def __call__(self, number: int) -> None:
        self._count += 1
        if self._count > 2:
            self._stop.wait_for_nothing()
        elif self._stop.wanted:
            self._stop.hurry()
        else:
            self._stop.ask()


def handlers(stop: Stop) -> dict[str, Handler]:
    """Return what a worker does at each signal."""
    ask = StopSignals(stop)
    return {"SIGTERM": ask, "SIGINT": ask, "SIGUSR1": stop.ask_status}


class Signals:
    """A context manager inside of which signals call functions. Outside of the main thread it does nothing.

    :param handlers: the functions, by the names of the signals. Signals that this system does not have are left out.
    :param waker: a `Waker`, which each signal wakes: Python calls the functions in the main thread, which may sleep.
    """

    def __init__(self, handlers: dict[str, Handler], waker: Any) -> None:
        self._handlers = {
            getattr(signal, name): handler for name, handler in handlers.items() if hasattr(signal, name)
        }
        self._waker = waker
        self._before: dict[int, Any] = {}
        self._fd_before = -1

    def __enter__(self) -> Signals:
        if self._handlers and threading.current_thread() is threading.main_thread():
            self._fd_before = signal.set_wakeup_fd(self._waker.wakeup_fd(), warn_on_full_buffer=False)
            for number in self._handlers:
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *exc: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, signal.SIG_DFL if before is None else before)
        if self._before:
            signal.set_wakeup_fd(self._fd_before)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._handlers[number](number)


def report(status: Callable[[], dict[str, Any]]) -> None:
    """Print what `Worker.status` returns to stderr, as a line of JSON. It never raises: stderr may be closed."""
    try:
        print(json.dumps(status(), default=repr), file=sys.stderr, flush=True)
    except Exception as error:
        logger.warning("the status could not be printed", exc_info=error)
