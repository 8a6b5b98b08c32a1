"""Several worker processes, and the one that sees to them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from support import Background, wait_until

from pq.worker.supervisor import Supervisor

SLEEP = [sys.executable, "-S", "-c", "import time; time.sleep(600)"]

#: Tells that it is ready, as `supervised` does, and writes a line for each SIGUSR1.
READY = """
import signal, socket, sys, time
signal.signal(signal.SIGUSR1, lambda *args: print("asked", flush=True))
socket.socket(fileno=int(sys.argv[2])).send(b"x")
time.sleep(600)
"""


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[subprocess.Popen[bytes]]]:
    """The processes that supervisors start; a function in `hooks` is called after each start."""
    processes: list[subprocess.Popen[bytes]] = []
    hooks.clear()

    class Popen(subprocess.Popen):  # type: ignore[type-arg]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            processes.append(self)
            for hook in hooks:
                hook(len(processes))

    monkeypatch.setattr(subprocess, "Popen", Popen)
    yield processes
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.wait()


hooks: list[Any] = []


@pytest.mark.parametrize("which", [1, 2, 3])
def test_a_signal_in_the_middle_of_a_start_reaches_that_process(started: list[Any], which: int) -> None:
    def interrupt(number: int) -> None:
        if number == which:
            os.kill(os.getpid(), signal.SIGTERM)

    hooks.append(interrupt)
    supervisor = Supervisor(SLEEP, 3)
    timer = Background(lambda: wait_until(lambda: supervisor._slots[0].code is not None, "the end"))
    assert supervisor.run() == 0  # in the main thread, as it has signals
    timer.result()
    assert len(started) == which
    assert all(process.poll() is not None for process in started)


def test_a_process_that_cannot_be_started_is_tried_again_more_and_more_slowly(
    started: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(number: int) -> None:
        raise BlockingIOError("no more processes")

    hooks.append(refuse)
    supervisor = Supervisor(SLEEP, 1)
    (slot,) = supervisor._slots
    pauses: list[float] = []
    for _ in range(3):
        slot.start_at = 0.0
        assert supervisor.run_once()
        assert slot.process is None and slot.link is None
        pauses.append(slot.pause)
    supervisor.run_once()  # too early
    assert pauses == [1.0, 2.0, 4.0]
    assert len([record for record in caplog.records if "could not be started" in record.message]) == 3


def test_a_missing_program_does_not_end_the_supervisor() -> None:
    supervisor = Supervisor(["/nowhere/python"], 1)
    assert supervisor.run_once()
    assert supervisor._slots[0].pause == 1.0


def test_only_a_process_that_is_ready_is_asked(started: list[Any]) -> None:
    supervisor = Supervisor(SLEEP, 1)
    assert supervisor.run_once()
    supervisor._ask(signal.SIGUSR1)
    supervisor.run_once()
    (slot,) = supervisor._slots
    assert slot.asked == 1 and not slot.ready
    assert started[0].poll() is None  # SIGUSR1 would have ended it
    started[0].kill()
    supervisor._stop(signal.SIGTERM)
    wait_until(lambda: not supervisor.run_once(), "the end")


def test_a_ready_process_is_asked(started: list[Any], tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "ready.py"
    script.write_text(READY)
    monkeypatch.chdir(tmp_path)
    supervisor = Supervisor(["/bin/sh", "-c", f'exec {sys.executable} -S ready.py "$@" >out', "sh"], 1)
    supervisor.run_once()
    (slot,) = supervisor._slots
    wait_until(slot.is_ready, "readiness")
    supervisor._ask(signal.SIGUSR1)
    supervisor.run_once()
    wait_until(lambda: (tmp_path / "out").read_text() == "asked\n", "the question")
    supervisor._stop(signal.SIGTERM)
    wait_until(lambda: not supervisor.run_once(), "the end")


def test_nothing_is_inherited_by_what_tasks_start(started: list[Any], tmp_path: Any) -> None:
    out = tmp_path / "environment"
    supervisor = Supervisor(
        [sys.executable, "-S", "-c", f"import os; open({str(out)!r}, 'w').write(repr(dict(os.environ)))"], 1
    )
    supervisor.run_once()
    started[0].wait()
    added = eval(out.read_text()).keys() - os.environ.keys()
    assert added <= {"LC_CTYPE", "COLUMNS", "LINES"}  # of Python's, and of readline's
    wait_until(lambda: not supervisor.run_once(), "the end")
