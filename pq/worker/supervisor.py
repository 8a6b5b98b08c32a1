"""Several worker processes: one that ends is replaced."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time

from .._db import Waker, wait_readable
from .signals import Handler, Signals

logger = logging.getLogger("pq.tasks")

#: Seconds until a process that has ended is replaced: at first, and after it has ended at once again and again.
FIRST = 0.5
LONGEST = 30.0

#: Seconds after which a process counts as one that had worked.
SETTLED = 60.0

#: Seconds after which it has come through its start: from then on, what ends a process is not a mistake in its command.
STARTED = 10.0

#: Seconds between two looks at the processes.
TICK = 0.2

#: In the environment of the processes: whose they are. They stop when that one is gone.
PARENT = "PQ_SUPERVISOR"


class Slot:
    """The place of a process."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None
        self.start_at = 0.0
        self.started_at = 0.0
        self.pause = FIRST
        self.code: int | None = None  # with which it ended for good


class Supervisor:
    """Runs a command in several processes.

    :param command: what to run.
    :param processes: how often.
    """

    def __init__(self, command: list[str], processes: int) -> None:
        self._command = command
        #: Exit codes of processes that are not replaced: done; wrong usage; no connection, at the start.
        self._final = {0, 2, 3}
        self._slots = [Slot() for _ in range(processes)]
        self._stopping = False
        self._bell = Waker()

    def run(self) -> int:
        """Returns when all have ended: the highest of their exit codes."""
        handlers: dict[str, Handler] = {"SIGTERM": self._stop, "SIGINT": self._stop, "SIGUSR1": self._forward}
        with Signals(handlers, self._bell):
            try:
                while self.run_once():
                    wait_readable((self._bell.fileno(),), TICK)
                    self._bell.silence()
            finally:
                self._end()
        return max(slot.code or 0 for slot in self._slots)

    def run_once(self) -> bool:
        """See to each place; False if there is nothing more to do."""
        for slot in self._slots:
            self._see_to(slot)
        return any(slot.process is not None or slot.code is None for slot in self._slots)

    def _see_to(self, slot: Slot) -> None:
        now = time.monotonic()
        if slot.process is not None:
            code = slot.process.poll()
            if now - slot.started_at > STARTED:
                self._final = {0}
            if code is None:
                return
            pid, slot.process = slot.process.pid, None
            if self._stopping or code in self._final:
                # by our SIGTERM, before it had begun to listen for it
                unborn = self._stopping and code == -signal.SIGTERM
                slot.code = 0 if unborn else abs(code)
                return
            slot.pause = FIRST if now - slot.started_at > SETTLED else min(2 * slot.pause, LONGEST)
            slot.start_at = now + slot.pause
            logger.error("worker process %s ended with %s; another one starts in %.1f s", pid, code, slot.pause)
        if self._stopping:
            slot.code = slot.code or 0
        elif slot.code is None and now >= slot.start_at:
            # a group of its own: Ctrl-C in a terminal would reach it by itself, and then once more from us
            environment = {**os.environ, PARENT: str(os.getpid())}
            slot.process = subprocess.Popen(self._command, env=environment, start_new_session=True)
            slot.started_at = now

    def _stop(self, number: int) -> None:
        self._stopping = True
        self._forward(signal.SIGTERM)

    def _forward(self, number: int) -> None:
        for slot in self._slots:
            if slot.process is not None and slot.process.returncode is None:
                slot.process.send_signal(number)
        self._bell.ring()

    def _end(self) -> None:
        for slot in self._slots:
            if slot.process is not None:
                slot.process.terminate()
        for slot in self._slots:
            if slot.process is not None:
                slot.process.wait()


def orphaned() -> bool:
    """Whether this is a process of a supervisor that is gone."""
    parent = os.environ.get(PARENT)
    return parent is not None and parent.isdigit() and os.getppid() != int(parent)


def command(arguments: list[str]) -> list[str]:
    """To run ``python -m pq`` with these arguments."""
    return [sys.executable, "-m", "pq", *arguments]
