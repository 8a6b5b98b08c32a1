"""Several worker processes: one that ends is replaced.

Each process has one end of a socket pair. It writes a byte to it when it is ready for signals, and reads from it
the end of the supervisor: whatever ends that, the system closes the other end.
"""

from __future__ import annotations

import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from .._db import Waker, wait_readable
from .._logs import worker_log as logger
from .signals import Handler, Signals

if TYPE_CHECKING:
    import subprocess

#: Seconds until a process that has ended is replaced: at first, and after it has ended at once again and again.
FIRST_PAUSE = 0.5
LONGEST_PAUSE = 30.0

#: Seconds after which a process counts as one that had worked.
SETTLED = 60.0

#: Seconds after which it has come through its start: from then on, what ends a process is not a mistake in its command.
STARTED = 10.0

#: Seconds between two looks at the processes.
TICK = 0.2

#: The option of the command line that names a process's end of its socket pair.
OPTION = "--supervised"


class Slot:
    """The place of a process.

    :param command: what it runs.
    :ivar code: the exit code with which it ended for good; None: it runs, or is to be started.
    :ivar told: how many of the signals to stop the process was sent.
    :ivar asked: how many of the requests for its status.
    """

    def __init__(self, command: list[str]) -> None:
        self._command = command
        self.process: subprocess.Popen[bytes] | None = None
        self.link: socket.socket | None = None
        self.ready: bool = False
        self.told: int = 0
        self.asked: int = 0
        self.start_at: float = 0.0  # monotonic seconds
        self.started_at: float = 0.0
        self.pause: float = FIRST_PAUSE
        self.code: int | None = None

    def start(self) -> None:
        """
        :raises OSError: there is no memory, process or file descriptor left.
        """
        ours, theirs = socket.socketpair()
        try:
            import subprocess  # few commands need it

            self.process = subprocess.Popen(
                [*self._command, OPTION, str(theirs.fileno())],
                pass_fds=(theirs.fileno(),),
                # a group of its own: Ctrl-C in a terminal would reach it by itself, and then once more from us
                start_new_session=True,
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        ours.setblocking(False)
        self.link, self.ready, self.told = ours, False, 0

    def is_ready(self) -> bool:
        """Whether the process handles signals by now."""
        if self.link is not None and not self.ready:
            try:
                self.ready = bool(self.link.recv(1))
            except OSError:  # nothing to read yet, or the process has just ended
                pass
        return self.ready

    def ended(self) -> None:
        self.process = None
        if self.link is not None:
            self.link.close()
            self.link = None


class Supervisor:
    """Runs a command in several processes.

    :param command: what to run; ``--supervised`` and the number of a file descriptor are appended.
    :param processes: how often.
    :param own: returns what is appended for one of the processes, by its number, from 0 on.
    """

    def __init__(
        self, command: list[str], processes: int, own: Callable[[int], list[str]] = lambda number: []
    ) -> None:
        commands = [[*command, *own(number)] for number in range(processes)]
        #: Exit codes of processes that are not replaced: done; wrong usage; no connection, at the start.
        self._final = {0, 2, 3}
        self._slots = [Slot(each) for each in commands]
        # Signal handlers only count: they may run at any point, such as in the middle of starting a process.
        self._stops = self._asks = 0
        self._waker = Waker()

    def run(self) -> int:
        """Run until all processes have ended for good.

        :returns: the highest of their exit codes.
        """
        handlers: dict[str, Handler] = {"SIGTERM": self._stop, "SIGINT": self._stop, "SIGUSR1": self._ask}
        with Signals(handlers, self._waker):
            try:
                while self.run_once():
                    wait_readable((self._waker.fileno(),), TICK)
                    self._waker.clear()
            finally:
                self._end()
        return max(slot.code or 0 for slot in self._slots)

    def run_once(self) -> bool:
        """See to each process once; return False if there is nothing more to do."""
        for slot in self._slots:
            if slot.process is not None:
                self._look(slot, time.monotonic())
            if slot.process is None:
                self._fill(slot, time.monotonic())
            if slot.process is not None:
                self._pass_on(slot, slot.process)
        return any(slot.code is None for slot in self._slots)

    def _look(self, slot: Slot, now: float) -> None:
        """Find out whether a process has ended, and whether it is to be replaced."""
        assert slot.process is not None
        code = slot.process.poll()
        if now - slot.started_at > STARTED:
            self._final = {0}
        if code is None:
            return
        pid = slot.process.pid
        slot.ended()
        if self._stops or code in self._final:
            # by our SIGTERM, before it listened for it
            unborn = self._stops and code == -signal.SIGTERM
            slot.code = 0 if unborn else abs(code)
            return
        if now - slot.started_at > SETTLED:
            slot.pause = FIRST_PAUSE / 2
        self._later(slot, now, f"worker process {pid} ended with {code}")

    def _fill(self, slot: Slot, now: float) -> None:
        """Start a process where there is none, unless it is too early."""
        if self._stops:
            slot.code = slot.code or 0
        elif slot.code is None and now >= slot.start_at:
            try:
                slot.start()
                slot.started_at, slot.asked = now, self._asks
            except OSError as error:
                self._later(slot, now, f"a worker process could not be started: {error}")

    def _later(self, slot: Slot, now: float, why: str) -> None:
        slot.pause = min(2 * slot.pause, LONGEST_PAUSE)
        slot.start_at = now + slot.pause
        logger.error("%s; another one starts in %.1f s", why, slot.pause)

    def _pass_on(self, slot: Slot, process: subprocess.Popen[bytes]) -> None:
        """Send a process the signals that the supervisor got."""
        for _ in range(self._stops - slot.told):
            slot.told += 1
            process.send_signal(signal.SIGTERM)
        if slot.asked < self._asks:
            slot.asked = self._asks
            if slot.is_ready():  # it would end one that is not
                process.send_signal(signal.SIGUSR1)

    def _stop(self, number: int) -> None:
        self._stops += 1
        self._waker.wake()

    def _ask(self, number: int) -> None:
        self._asks += 1
        self._waker.wake()

    def _end(self) -> None:
        processes = [slot.process for slot in self._slots if slot.process is not None]
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait()


def supervised(fd: int, stop: Callable[[], None]) -> None:
    """Tell the supervisor that this process handles signals, and call `stop` when the supervisor is gone.

    :param fd: this process's end of the socket pair. What tasks start does not inherit it.
    """
    link = socket.socket(fileno=fd)
    link.set_inheritable(False)
    link.setblocking(True)

    def watch() -> None:
        try:
            link.sendall(b"\0")
            while link.recv(1):
                pass
        except OSError:  # it is gone
            pass
        finally:
            stop()

    threading.Thread(target=watch, name="pq supervised", daemon=True).start()


def command(arguments: list[str]) -> list[str]:
    """Return the command line that runs ``python -m pq`` with these arguments."""
    return [sys.executable, "-m", "pq", *arguments]
