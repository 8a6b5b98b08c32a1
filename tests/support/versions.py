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


FORKING = """
import json, os, signal, sys, traceback
import psycopg2, pq, pq.tasks

for line in sys.stdin:
    order = json.loads(line)
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        os.chdir(order["home"])
        sys.path.insert(0, order["home"])
        for number, name in (1, "out"), (2, "err"):
            os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        os.environ["PQ_TEST_CHORES"] = order["dsn"]
        sys.argv = ["-c", order["dsn"], json.dumps(order["args"])]
        try:
            exec(order["code"], globals())
        except BaseException:
            traceback.print_exc()
            sys.stdout.flush()
            os._exit(1)
        sys.stdout.flush()
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Forks:
    """The same for many short programs: a process that has imported all, and forks for each of them."""

    def __init__(self, version: str, path: Path) -> None:
        self.version = version
        environment = {**os.environ, "PYTHONPATH": str(path)}
        command = [sys.executable, "-c", FORKING]
        self._process = subprocess.Popen(
            command, cwd="/", env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(self, dsn: str, home: Path, code: str, *args: Any) -> tuple[int, str, str]:
        """The exit code of the program, run in the folder `home`, what it printed, and what it wrote to stderr."""
        program = PRELUDE % {"version": self.version, "code": dedent(code)}
        assert self._process.stdin is not None and self._process.stdout is not None
        order = {"dsn": dsn, "home": str(home), "code": program, "args": args}
        print(json.dumps(order), file=self._process.stdin, flush=True)
        return int(self._process.stdout.readline()), (home / "out").read_text(), (home / "err").read_text()

    def close(self) -> None:
        self._process.communicate()


def result(process: subprocess.Popen[str]) -> Any:
    """Let the process end, by the end of its input, and return what it printed."""
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    return json.loads(out or "null")


def checkout(revision: str, folder: Path) -> bool:
    """Put the package as it was in that revision of this repository into a folder, if the revision is known here."""
    command = ["git", "-C", str(Path(__file__).parents[2]), "archive", revision, "pq"]
    try:
        archive = subprocess.run(command, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return False
    subprocess.run(["tar", "-x", "-C", str(folder)], input=archive, check=True)
    return True


def await_ready(process: subprocess.Popen[str]) -> None:
    """Wait until the process has printed ``ready``."""
    assert process.stdout is not None
    if process.stdout.readline() != "ready\n":
        result(process)
        raise AssertionError("not ready")


def tell(process: subprocess.Popen[str], line: str) -> None:
    """Write a line to its input."""
    assert process.stdin is not None
    process.stdin.write(line)
    process.stdin.flush()
