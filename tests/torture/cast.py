"""The processes that are tortured. Those that are killed are started anew."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from itertools import count
from pathlib import Path

from .history import History

PRODUCERS = (
    "producer", "scheduler", "business", "feeder", "keyput", "keyopen", "keyunique", "operator", "setter",
    "streamput", "streammany", "streamopen", "streamoperator",
)  # fmt: skip
CONSUMERS = (
    "worker", "leaser", "block", "single", "getter",
    "keylease", "keyblock", "keyitem", "keyget", "keyconn", "keyold", "keyworker", "limiter",
    "streamblock", "streamtake", "streamsettle", "streamlease", "streamparted", "streamshared", "streamtypes",
    "streamworker",
)  # fmt: skip

#: How many of each.
FULL = {"producer": 2, "scheduler": 1, "business": 1, "worker": 2, "leaser": 2, "block": 2, "feeder": 1, "single": 1}
SMALL = {"producer": 1, "scheduler": 1, "business": 1, "worker": 1, "leaser": 1, "block": 2, "feeder": 1, "single": 1}
KEYED = {
    "keyput": 2, "keyopen": 2, "keyunique": 2, "operator": 1, "setter": 1, "keylease": 2, "keyblock": 2, "keyitem": 1,
    "keyget": 1, "keyconn": 1, "keyold": 1, "keyworker": 1, "limiter": 3,
}
KEYED_SMALL = {**KEYED, "keyput": 1, "keyopen": 1, "keyunique": 1, "keyblock": 1, "limiter": 2}
STREAMS = {
    "streamput": 2, "streammany": 1, "streamopen": 3, "streamoperator": 1, "streamblock": 3, "streamtake": 3,
    "streamsettle": 2, "streamlease": 3, "streamparted": 3, "streamshared": 3, "streamtypes": 2, "streamworker": 1,
}  # fmt: skip
STREAMS_SMALL = dict.fromkeys(STREAMS, 1) | {"streamparted": 2, "streamblock": 2, "streamtake": 2}
OLD = {"producer": 2, "getter": 3}


class Cast:
    """
    :param dsn: where the processes connect to.
    :param folder: of their histories.
    :param seed: of all that they do by chance.
    :param lease: of all jobs.
    :param old: the folder of pq 1.9.1, to torture that instead.
    :ivar deaths: of those that ended without being told to: a fault of pq's, or of the actor.
    """

    def __init__(
        self, roles: dict[str, int], dsn: str, folder: Path, seed: int, lease: str, old: Path | None = None
    ) -> None:
        self._dsn, self._folder, self._seed, self._lease = dsn, folder, seed, lease
        self._program, self._environment = ["-m", "tests.torture.clock"], dict(os.environ)
        if old is not None:
            self._program, self._environment["PYTHONPATH"] = [str(Path(__file__).with_name("old.py"))], str(old)
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)  # they inherit it: else it would end one that has just begun
        self._numbers = count(1)
        self._lock = threading.Lock()
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self.deaths: list[str] = []
        self._roles = roles

    def start(self, patience: float) -> None:
        """Return when all have begun: on a busy machine a short run would be over before."""
        names = [self._start(role) for role, number in self._roles.items() for _ in range(number)]
        end = time.monotonic() + patience
        while not all(History.path(self._folder, name).exists() for name in names) and time.monotonic() < end:
            self.look()
            time.sleep(0.02)

    def _start(self, role: str) -> str:
        number = next(self._numbers)
        name = f"{role}{number}"
        with open(self._folder / f"{name}.err", "ab") as errors:
            self._processes[name] = subprocess.Popen(
                [
                    sys.executable, *self._program, role, name, self._dsn, str(self._folder),
                    str(self._seed * 1_000_003 + number), self._lease,
                ],
                stdin=subprocess.DEVNULL, stderr=errors, env=self._environment,
            )  # fmt: skip
        return name

    def play(self, role: str) -> None:
        """A short part: returns when it is over."""
        with self._lock:
            process = self._processes.pop(self._start(role))
        if process.wait():
            raise RuntimeError(f"{role} failed with {process.returncode}; see {self._folder}")

    def names(self) -> list[str]:
        """Of those that live; sorted."""
        with self._lock:
            return sorted(self._processes)

    def kill(self, name: str) -> None:
        """kill -9, and another one in its place."""
        with self._lock:
            process = self._processes.pop(name, None)
            if process is not None:
                process.kill()
                process.wait()
                self._start(name.rstrip("0123456789"))

    def freeze(self, name: str, seconds: float) -> None:
        with self._lock:
            process = self._processes.get(name)
        if process is not None:
            process.send_signal(signal.SIGSTOP)
            time.sleep(seconds)
            process.send_signal(signal.SIGCONT)

    def jump(self, name: str) -> None:
        """Its wall clock is wrong from now on; or, if it was, right again."""
        with self._lock:
            if name in self._processes:
                self._processes[name].send_signal(signal.SIGUSR2)

    def look(self) -> None:
        """Note who has ended, and start others."""
        with self._lock:
            for name, process in list(self._processes.items()):
                if process.poll() is not None:
                    del self._processes[name]
                    self._died(name, process)
                    self._start(name.rstrip("0123456789"))

    def stop(self, roles: tuple[str, ...], patience: float) -> None:
        """SIGTERM; they must end by themselves in time, with 0."""
        with self._lock:
            going = {name: p for name, p in self._processes.items() if name.rstrip("0123456789") in roles}
            for name, process in going.items():
                del self._processes[name]
                process.terminate()
        end = time.monotonic() + patience
        for name, process in going.items():
            try:
                code = process.wait(max(0.1, end - time.monotonic()))
                if code and not (code == -signal.SIGTERM and self._was_starting(name)):
                    self._died(name, process)
            except subprocess.TimeoutExpired:
                self.deaths.append(f"{name} does not end")
                process.kill()
                process.wait()

    def _was_starting(self, name: str) -> bool:
        """One that has noted nothing may not have come to the handler of the signal."""
        path = History.path(self._folder, name)
        return not path.exists() or not path.stat().st_size

    def close(self) -> None:
        with self._lock:
            for process in self._processes.values():
                process.kill()
            for process in self._processes.values():
                process.wait()
            self._processes.clear()

    def _died(self, name: str, process: subprocess.Popen[bytes]) -> None:
        errors = (self._folder / f"{name}.err").read_text(errors="replace")
        self.deaths.append(f"{name} ended with {process.returncode}: {errors[-2000:]}")
