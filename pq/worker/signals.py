"""Signals while a worker runs in the main thread."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

from .._db import Waker

Handler = Callable[[int], None]


class Signals:
    """A context manager: inside, these signals call these functions. Outside of the main thread it does nothing.

    :param bell: is rung: the functions are called in the main thread, which may sleep while another gets the signal.
    """

    def __init__(self, handlers: dict[str, Handler], bell: Waker) -> None:
        self._handlers = {
            getattr(signal, name): handler for name, handler in handlers.items() if hasattr(signal, name)
        }
        self._bell = bell
        self._before: dict[int, Any] = {}
        self._wakeup = -1

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():
            self._wakeup = signal.set_wakeup_fd(self._bell.wakeup_fd(), warn_on_full_buffer=False)
            for number in self._handlers:
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *exc: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, signal.SIG_DFL if before is None else before)
        if self._before:
            signal.set_wakeup_fd(self._wakeup)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._handlers[number](number)
