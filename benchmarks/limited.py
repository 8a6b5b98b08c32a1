"""A queue with a limit against the same one without, in pairs: ``python -m benchmarks.limited [WAY …]``.

Sixteen consumers, whose jobs take 5 ms each, go on working while the limit is set and removed again and again, so that
what else the machine does meets both. For each way to consume this prints the jobs a second with a limit of 10, as a
part of 10/16 of those without (the median of the pairs, with its interval), and how many jobs ran at once at most.
"""

from __future__ import annotations

import argparse
import os
import struct
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from subprocess import PIPE, Popen
from tempfile import TemporaryDirectory
from typing import Any

CONSUMERS = 16
LIMIT = 10
WORK = 0.005

#: Seconds that one of a pair is measured for, and those before it, in which the change of the limit has its effect.
TURN = 1.5
SETTLE = 0.3

#: More than are done in two turns.
BACKLOG = 30_000

#: Whether there are 16 processes instead of threads; whether these are workers.
WAYS = {
    "get": (False, False),
    "get-processes": (True, False),
    "worker": (False, True),
    "worker-processes": (True, True),
}

EVENT = struct.Struct("dd")


def main() -> None:
    from pq import PQ, Limit

    from .server import Server
    from .stats import interval

    parser = argparse.ArgumentParser(prog="python -m benchmarks.limited", description=__doc__.split("\n\n")[0])
    parser.add_argument("ways", nargs="*", metavar="WAY", help=f"default: {' '.join(WAYS)}")
    parser.add_argument("--pairs", type=int, default=10)
    args = parser.parse_args()
    with Server() as server, server.using("synchronous_commit", "off"), PQ(server.dsn()) as pq:
        pq.create()
        for way in args.ways or WAYS:
            ratios, rates, most = [], [], 0
            pq["a"].clear()  # the consumers before were killed, and have places
            fill(pq)
            with consumers(server.dsn(), way) as log:
                for turn in range(args.pairs):
                    fill(pq)
                    pair = {}
                    for limit in [None, LIMIT] if turn % 2 else [LIMIT, None]:
                        if limit is None:
                            pq.limits.pop("a", None)
                        else:
                            pq.limits["a"] = Limit(running=limit)
                        time.sleep(SETTLE)
                        began = time.monotonic()
                        time.sleep(TURN)
                        jobs = list(done(log, began))
                        pair[limit] = len(jobs) / TURN
                        most = max(most, at_once(jobs) if limit else 0)
                    ratios.append(pair[LIMIT] / pair[None] * CONSUMERS / LIMIT)
                    rates.append(pair[LIMIT])
            pq.limits.pop("a", None)
            print(
                f"{way}: {interval(ratios)} of {LIMIT}/{CONSUMERS}, {interval(rates)} jobs/s, {most} at once at most",
                flush=True,
            )


def fill(pq: Any) -> None:
    missing = BACKLOG - len(pq["a"])
    if missing > 0:
        pq["a"].load({"function": "work", "args": [], "kwargs": {}} for _ in range(missing))


def done(log: Path, since: float) -> Iterator[tuple[float, float]]:
    """When the jobs that have begun after that moment, and ended, began and ended."""
    for file in log.iterdir():
        for began, ended in EVENT.iter_unpack(file.read_bytes()):
            if began >= since and ended <= since + TURN:
                yield began, ended


def at_once(jobs: list[tuple[float, float]]) -> int:
    running = most = 0
    for _, change in sorted([(began, 1) for began, _ in jobs] + [(ended, -1) for _, ended in jobs]):
        running += change
        most = max(most, running)
    return most


@contextmanager
def consumers(dsn: str, way: str) -> Iterator[Path]:
    in_processes, _ = WAYS[way]
    with TemporaryDirectory(prefix="pq-benchmark-") as folder, ExitStack() as stack:
        for _ in range(CONSUMERS if in_processes else 1):
            process = Popen([sys.executable, "-m", __spec__.name, "--consume", dsn, way, folder], stdout=PIPE)
            stack.callback(process.wait)
            stack.callback(process.kill)
            assert process.stdout is not None
            process.stdout.readline()
            stack.callback(process.stdout.close)
        yield Path(folder)


def consume(dsn: str, way: str, folder: str) -> None:
    from pq.tasks import PQ
    from pq.worker import Worker

    in_processes, is_worker = WAYS[way]
    threads = 1 if in_processes else CONSUMERS
    log = os.open(f"{folder}/{os.getpid()}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def work(job_id: int = 0) -> None:
        began = time.monotonic()
        time.sleep(WORK)
        os.write(log, EVENT.pack(began, time.monotonic()))

    pq = PQ(dsn, max_connections=threads + 4)
    queue = pq["a"]

    def take() -> None:
        while True:
            job = queue.get(timeout=1, lease="30s")
            if job is not None:
                work()
                job.done()

    print("ready", flush=True)
    if is_worker:
        queue.task(name="work")(work)
        Worker(queue, threads=threads, capture_signals=False).run()
    else:
        for _ in range(threads):
            threading.Thread(target=take).start()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--consume"]:
        consume(*sys.argv[2:])
    else:
        main()
