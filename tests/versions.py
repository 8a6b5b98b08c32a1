"""A version of pq in processes of its own: this one, or the real 1.9.1 from PyPI."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent
from typing import Any

PRELUDE = """
import datetime as dt, json, sys, time
import psycopg2, pq as library
from pq import PQ
assert library.__version__ == %(version)r, library.__file__
conn = psycopg2.connect(sys.argv[1])
pq = PQ(conn)
args = json.loads(sys.argv[2])
%(code)s
"""


class Library:
    """A version of pq, in processes of its own."""

    def __init__(self, version: str, path: Path, home: Path) -> None:
        self.version = version
        self._home = home
        # not in the project's folder: it would come first
        self._environment = {**os.environ, "PYTHONPATH": f"{path}{os.pathsep}{home}"}
        self._started: list[subprocess.Popen[str]] = []

    def start(self, dsn: str, code: str, *args: Any) -> subprocess.Popen[str]:
        """A process that executes `code` with ``pq``, ``conn`` and ``args``, and prints JSON."""
        program = PRELUDE % {"version": self.version, "code": dedent(code)}
        process = subprocess.Popen(
            [sys.executable, "-c", program, dsn, json.dumps(args)],
            cwd=self._home,
            env={**self._environment, "PQ_TEST_CHORES": dsn},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._started.append(process)
        return process

    def run(self, dsn: str, code: str, *args: Any) -> Any:
        """What such a process prints."""
        return result(self.start(dsn, code, *args))

    def kill(self) -> None:
        """End what a failed test has left."""
        for process in self._started:
            if process.returncode is None:
                process.kill()
                process.communicate()


def result(process: subprocess.Popen[str]) -> Any:
    """Let the process end, by the end of its input, and return what it printed."""
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    return json.loads(out or "null")
