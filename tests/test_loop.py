"""The thread around a `run_once`: no error ends it in silence."""

from __future__ import annotations

import linecache
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest
from support import PATIENCE, wait_until

from pq import _loop
from pq._loop import Loop


@pytest.fixture(autouse=True)
def _short_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_loop, "PAUSE", 0.01)


class Counter:
    """A `run_once` that counts its calls.

    :param pause: what it returns.
    """

    def __init__(self, pause: float | None = None, error: BaseException | None = None) -> None:
        self.calls = 0
        self._pause = pause
        self._error = error

    def __call__(self) -> float | None:
        self.calls += 1
        if self._error is not None:
            raise self._error
        return self._pause


@pytest.fixture
def stopped() -> Iterator[list[Loop]]:
    loops: list[Loop] = []
    yield loops
    for loop in loops:
        assert loop.stop(PATIENCE)


def test_it_calls_at_once_and_then_after_the_pause_that_was_returned(stopped: list[Loop]) -> None:
    often, once = Counter(0.001), Counter()
    stopped += [Loop(often, "often"), Loop(once, "once")]
    for loop in stopped:
        loop.start()
    wait_until(lambda: often.calls > 10, "many calls")
    assert once.calls == 1


def test_wake_calls_it_at_that_time_at_the_latest(stopped: list[Loop]) -> None:
    counter = Counter()
    loop = Loop(counter, "woken")
    stopped.append(loop)
    loop.start()
    wait_until(lambda: counter.calls == 1, "the first call")
    began = time.monotonic()
    loop.wake(began + 3600)
    loop.wake(began + 0.2)
    loop.wake(began + 3600)
    wait_until(lambda: counter.calls == 2, "the second call")
    assert time.monotonic() - began >= 0.2


def test_a_wake_during_a_call_is_not_missed(stopped: list[Loop]) -> None:
    inside, go_on = threading.Event(), threading.Event()
    calls: list[int] = []

    def run_once() -> None:
        calls.append(1)
        inside.set()
        assert go_on.wait(PATIENCE)

    loop = Loop(run_once, "busy")
    stopped.append(loop)
    loop.start()
    assert inside.wait(PATIENCE)
    loop.wake()
    go_on.set()
    wait_until(lambda: len(calls) == 2, "the second call")


@pytest.mark.parametrize("error", [ValueError("x"), SystemExit(1), KeyboardInterrupt(), MemoryError()], ids=repr)
def test_what_it_raises_is_told_and_it_goes_on(error: BaseException, stopped: list[Loop]) -> None:
    told: list[BaseException] = []
    counter = Counter(error=error)
    loop = Loop(counter, "failing", on_error=told.append)
    stopped.append(loop)
    loop.start()
    wait_until(lambda: counter.calls >= 3, "further calls")
    assert told[:2] == [error, error]


def test_what_it_raises_is_logged_by_default(stopped: list[Loop], caplog: pytest.LogCaptureFixture) -> None:
    counter = Counter(error=SystemExit("the hook"))
    loop = Loop(counter, "pq failing")
    stopped.append(loop)
    loop.start()
    wait_until(lambda: counter.calls >= 2, "the second call")
    (record, *_) = caplog.records
    assert "pq failing" in record.getMessage()
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], SystemExit)


@pytest.mark.parametrize("error", [RuntimeError, SystemExit], ids=lambda kind: kind.__name__)
def test_a_log_that_raises_does_not_end_it(error: type[BaseException], stopped: list[Loop]) -> None:
    def refuse(record: logging.LogRecord) -> bool:
        raise error

    counter = Counter(error=ValueError())
    logger = logging.getLogger("pq")
    logger.addFilter(refuse)
    try:
        loop = Loop(counter, "failing")
        stopped.append(loop)
        loop.start()
        wait_until(lambda: counter.calls >= 3, "further calls")
    finally:
        logger.removeFilter(refuse)


def test_it_ends_when_idle_and_starts_again_when_woken(stopped: list[Loop]) -> None:
    counter = Counter()
    loop = Loop(counter, "idle", idle=0.05)
    stopped.append(loop)
    for call in (1, 2):
        loop.wake()
        wait_until(lambda call=call: counter.calls == call, "the call")  # type: ignore[misc]
        wait_until(lambda: loop.ident is None, "the end of the thread")


def test_one_that_cannot_be_started_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: Any) -> None:
        raise RuntimeError("can't start new thread")

    loop = Loop(Counter(), "none", idle=1.0)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            loop.wake()
    loop.wake()
    assert loop.stop(PATIENCE)


def test_an_interrupt_at_any_line_of_start(stopped: list[Loop]) -> None:
    """By a signal handler that raises: no thread is taken for one that runs."""
    code = Loop.start.__code__

    def interrupted(act: Callable[[], object], nth: int) -> bool:
        lines = 0

        def trace(frame: FrameType, event: str, arg: object) -> Any:
            nonlocal lines
            if frame.f_code is not code:
                return None
            line = linecache.getline(code.co_filename, frame.f_lineno).strip()
            if event == "line" and not line.startswith("with "):  # no signal comes before the release of its lock
                lines += 1
                if lines == nth:
                    raise KeyboardInterrupt
            return trace

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            act()
        except KeyboardInterrupt:
            return True
        finally:
            sys.settrace(before)
        return False

    for nth in range(1, 20):
        counter = Counter()
        loop = Loop(counter, "interrupted", idle=60.0)
        stopped.append(loop)
        if not interrupted(loop.wake, nth):
            break
        loop.wake()
        wait_until(lambda counter=counter: counter.calls == 1, "the call")  # type: ignore[misc]
    assert 4 <= nth < 19


def test_stop_waits_only_as_long_as_it_is_told() -> None:
    inside, go_on = threading.Event(), threading.Event()

    def run_once() -> None:
        inside.set()
        go_on.wait(PATIENCE)

    loop = Loop(run_once, "hanging")
    loop.start()
    assert inside.wait(PATIENCE)
    assert not loop.stop(0.01)
    go_on.set()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_child_starts_a_thread_of_its_own(stopped: list[Loop]) -> None:
    counter = Counter()
    loop = Loop(counter, "forked", idle=60.0)
    stopped.append(loop)
    loop.wake()
    wait_until(lambda: counter.calls == 1, "the call in the parent")
    with loop._changed:  # a lock that is held, in the child by nobody
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                loop.wake()
                wait_until(lambda: counter.calls == 2, "the call in the child", 10)
                code = 0
            finally:
                os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0
