"""Those who look on, each again and again in a thread of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .cast import ROOT

PAGES = (
    "/", "/running", "/retrying", "/dead", "/finished", "/workers", "/schedules", "/limits", "/streams", "/health",
    "/queue?q=tasks", "/queue?q=keyed", "/queue?q=limited&state=ready", "/queue?q=mails&state=finished",
)  # fmt: skip

#: Seconds for any of them.
PATIENCE = 60.0


class Visitors:
    """
    :ivar done: how often each has looked.
    :ivar slowest: the seconds of the longest look of each.
    :ivar wrong: what they did not like.
    :ivar findings: what the doctor has found, and how often.
    """

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self.done: Counter[str] = Counter()
        self.slowest: dict[str, float] = {}
        self.wrong: list[str] = []
        self.findings: Counter[str] = Counter()

    def begin(self, name: str, seconds: float, look: Callable[[], Any]) -> None:
        """Have a function called every so many seconds, until `stop`."""

        def run() -> None:
            while not self._stop.wait(seconds):
                began = time.monotonic()
                try:
                    look()
                except Exception as error:
                    self.wrong.append(f"{name}: {error!r}"[:500])
                self.done[name] += 1
                self.slowest[name] = max(self.slowest.get(name, 0.0), round(time.monotonic() - began, 3))

        self._threads.append(threading.Thread(target=run, name=name))
        self._threads[-1].start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def examine(self, dsn: str) -> None:
        """Ask the doctor."""
        command = [sys.executable, "-m", "pq", "doctor", "--json", "--dsn", dsn]
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        how: Any = {"capture_output": True, "text": True, "timeout": PATIENCE, "cwd": ROOT, "env": env, "check": False}
        asked = subprocess.run(command, **how)
        if asked.stderr:
            raise RuntimeError(asked.stderr)
        self.findings.update(f"{each['severity']} {each['name']}" for each in json.loads(asked.stdout))


def fetch(port: int, *paths: str) -> None:
    """Fetch pages; each must be there."""
    for path in paths:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=PATIENCE) as answer:
            answer.read()


def scrape(exporter: int, health: int) -> None:
    """Fetch the metrics of the queues, and of a worker."""
    for port in (exporter, health):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=PATIENCE) as answer:
            text = answer.read().decode()
        if "\npq_" not in text or "pq_up 0" in text:
            raise RuntimeError(f"no metrics at port {port}")
    fetch(health, "/live", "/ready", "/status")


def dump(binaries: Path, dsn: str) -> None:
    """Dump the database, to nowhere."""
    command = [binaries / "pg_dump", "--format=custom", dsn]
    how: Any = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True, "timeout": 600, "check": False}
    done = subprocess.run(command, **how)
    if done.returncode or done.stderr:
        raise RuntimeError(done.stderr or f"pg_dump ended with {done.returncode}")
