"""Where the time goes from put to a get that waits: ``python -m benchmarks.wakeup``.

One process puts jobs, and another one waits for them, of this checkout and of pq 1.9.1 in turn, on one server. Both
note when they call the driver, and when it returns. For each step this prints the median in microseconds:

    put        from the call of put to its first statement
    putting    its statements, to the answer of the last one
    notified   from that to the return of poll() in the process that waits; negative, if that comes first
    woken      from there to the first statement of the claim
    claiming   its statements, to the answer of the last one
    get        from that to the return of get
    all        from the call of put to the return of get

The notes themselves take 5 to 10 µs of each step. ``TMPDIR=/dev/shm`` leaves out the disk.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]

STEPS = ("put", "putting", "notified", "woken", "claiming", "get", "all")

#: How many jobs a turn has, and how many of the first do not count.
JOBS, COLD = 120, 20


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.wakeup", description=__doc__.split("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--commit", default="on", choices=("on", "off"), help="synchronous_commit (default: on)")
    args = parser.parse_args()
    from .install import Installed
    from .server import Server
    from .stats import median

    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pq-benchmark-wakeup-")))
        old = Installed(folder, ["pq-1.9.1"], {}).folders["pq-1.9.1"]
        server = stack.enter_context(Server())
        stack.enter_context(server.using("synchronous_commit", args.commit))
        places = [("pq", ROOT), ("pq-1.9.1", old)]
        found: dict[str, list[list[float]]] = {name: [] for name, _ in places}
        for n, (_, path) in enumerate(places):
            server.execute(f"create database wakeup_{n}")
            answer(start("create", server.dsn(f"wakeup_{n}"), path))
        for turn in range(args.rounds):
            for n, (name, path) in list(enumerate(places))[:: -1 if turn % 2 else 1]:
                found[name] += measured(server.dsn(f"wakeup_{n}"), path)
        print(f"{'':9}" + "".join(f"{step:>9}" for step in STEPS))
        for name, rows in found.items():
            times = [median(column) for column in zip(*rows, strict=True)]
            print(f"{name:9}" + "".join(f"{1e6 * each:9.0f}" for each in times), flush=True)


def measured(dsn: str, folder: Path) -> list[list[float]]:
    """Return the seconds of each step, of each job, by two processes of the library in a folder."""
    consumer = start("get", dsn, folder)
    try:
        assert consumer.stdout is not None
        consumer.stdout.readline()  # it waits, or is about to
        puts, gets = answer(start("put", dsn, folder)), answer(consumer)
    finally:
        consumer.kill()  # if the other one has failed
    return [steps(put, get) for put, get in zip(puts[COLD:], gets[COLD:], strict=True)]


def answer(process: subprocess.Popen[str]) -> Any:
    """Return what a process has printed, when it has ended.

    :raises SystemExit: it has failed, and told why on standard error.
    """
    printed, _ = process.communicate()
    if process.returncode:
        sys.exit(f"a process ended with {process.returncode}")
    return json.loads(printed or "null")


def steps(put: list[Any], get: list[Any]) -> list[float]:
    """Return the seconds of each of `STEPS`.

    :param put: when it was called, when it returned, and the calls of the driver in between; `get` likewise.
    """
    called, _, its = put
    _, returned, others = get
    at = max((n for n, call in enumerate(others) if call[0] == "poll"), default=-1)
    woken = others[at][2] if at >= 0 else called  # it had not begun to wait
    claim = others[at + 1 :]
    answered, first, last = its[-1][2], claim[0][1], claim[-1][2]
    return [
        its[0][1] - called, answered - its[0][1], woken - answered, first - woken, last - first, returned - last,
        returned - called,
    ]  # fmt: skip


def start(role: str, dsn: str, folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, __file__, role, dsn, str(folder)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, encoding="utf-8", cwd="/", start_new_session=True)


def child(role: str, dsn: str, folder: str) -> None:
    """Put or get, and print the notes; or create the table."""
    sys.path[0] = folder
    calls = note_calls()
    import psycopg2

    import pq

    old = pq.__version__ == "1.9.1"
    queues = pq.PQ(conn=psycopg2.connect(dsn)) if old else pq.PQ(dsn)
    if role == "create":
        queues.create()
        return
    queue = queues["bench"]
    found: list[Any] = []
    pauses = random.Random(7)
    if role == "get":
        queue.get(block=False)
        print(flush=True)
    for n in range(JOBS):
        if role == "put":
            time.sleep(pauses.uniform(0.002, 0.015) if n else 0.5)
        calls.clear()
        began, job = time.monotonic(), None
        if role == "put":
            queue.put(n)
        while role == "get" and job is None:
            job = queue.get(timeout=30)
        found.append([began, time.monotonic(), list(calls)])
    print(json.dumps(found))


def note_calls() -> list[tuple[str, float, float]]:
    """Return a list to which each call of the driver, and each time that the process sleeps, is going to be added."""
    import select

    import psycopg2
    from psycopg2.extensions import connection, cursor

    calls: list[tuple[str, float, float]] = []

    def noted(name: str, call: Any, *args: Any) -> Any:
        began = time.monotonic()
        try:
            return call(*args)
        finally:
            calls.append((name, began, time.monotonic()))

    class Cursor(cursor):
        def execute(self, *args: Any) -> None:
            noted("execute", super().execute, *args)

    class Connection(connection):
        def cursor(self, *args: Any, **options: Any) -> Any:
            return super().cursor(*args, **{**options, "cursor_factory": Cursor})

        def commit(self) -> None:
            noted("commit", super().commit)

    class Poll:
        def __init__(self) -> None:
            self._poll = poll()
            self.register = self._poll.register

        def poll(self, timeout: float) -> Any:
            return noted("poll", self._poll.poll, timeout) if timeout else self._poll.poll(timeout)

    connect, poll, wait = psycopg2.connect, select.poll, select.select
    psycopg2.connect = lambda *args, **options: connect(*args, connection_factory=Connection, **options)
    select.poll = Poll  # type: ignore[assignment, misc]
    select.select = lambda *args: noted("poll", wait, *args)
    return calls


if __name__ == "__main__":
    child(*sys.argv[1:]) if len(sys.argv) == 4 else main()
