"""Ctrl-C in the middle of what a test does."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import pytest

from . import Background, wait_until


@contextmanager
def ctrl_c(when: Callable[[], Any], then: Callable[[], Any] = lambda: None) -> Iterator[None]:
    """SIGINT for the main thread as soon as `when`; then KeyboardInterrupt must come out of the block.

    It is sent until its handler was called. A thread that has given up the GIL, and is about to sleep in a system call,
    sleeps there although the signal came just before; Python calls the handler when it wakes.
    """
    served = threading.Event()

    def serve(number: int, frame: FrameType | None) -> None:
        if not served.is_set():
            served.set()
            raise KeyboardInterrupt

    def interrupt() -> None:
        wait_until(when, "what is to be interrupted")
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        then()
        while not served.wait(0.5):
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    before = signal.signal(signal.SIGINT, serve)
    try:
        thread = Background(interrupt)
        with pytest.raises(KeyboardInterrupt):
            yield
            thread.result()  # where it is raised if the block was faster
        thread.result()
    finally:
        served.set()
        signal.signal(signal.SIGINT, before)
