"""A queue with a limit against the same one without, in pairs.

Sixteen consumers, whose jobs take 5 ms each, go on working while the limit is set and removed again and again, so that
what else the machine does meets both. No commit waits for the disk.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ..limits import LIMITED
from ..peers.base import QUEUE
from ..peers.slow import EVENT, WORK
from ..run import Bench, Cell
from ..stats import median

CONSUMERS = 16
LIMIT = 10

#: Seconds until a change of the limit has its effect.
SETTLE = 0.3


def limited(bench: Bench) -> Iterator[Cell]:
    if bench.able("consume_slowly", "pq"):
        for worker in (False, True):
            for processes in (1,) if bench.sizes.brief else (1, CONSUMERS):
                case = f"{'worker' if worker else 'get'}, {CONSUMERS} {'threads' if processes == 1 else 'processes'}"
                yield Cell(case, LIMITED, partial(measure, bench, case, worker, processes))


def measure(bench: Bench, case: str, worker: bool, processes: int) -> Mapping[str, float]:
    """The jobs a second with the limit, as a part of what is allowed, and how many of them ran at once at most."""
    from pq import PQ, Limit

    site = bench.site("pq")
    site.clear()
    site.execute(f"alter database {site.database} set synchronous_commit = off")
    ratios, most = [], 0
    with PQ(site.dsn) as pq, ExitStack() as stack:
        pq.limits.pop(QUEUE, None)  # of a round that failed
        backlog = int(2.5 * (bench.sizes.seconds + SETTLE) * CONSUMERS / WORK)  # more than are done in two turns
        fill(pq, backlog)
        log = Path(stack.enter_context(TemporaryDirectory(prefix="pq-benchmark-")))
        for _ in range(processes):
            child = site.start()
            stack.callback(child.close)
            child.tell("consume_slowly", worker=worker, threads=CONSUMERS // processes, log=str(log))
        time.sleep(bench.sizes.start)
        for turn in range(bench.sizes.pairs):
            fill(pq, backlog)
            counts = {}
            for limit in [None, LIMIT] if turn % 2 else [LIMIT, None]:
                if limit is None:
                    pq.limits.pop(QUEUE, None)
                else:
                    pq.limits[QUEUE] = Limit(running=limit)
                time.sleep(SETTLE)
                began = time.monotonic()
                time.sleep(bench.sizes.seconds)
                jobs = list(done(log, began, time.monotonic()))
                counts[limit] = len(jobs)
                most = max(most, at_once(jobs) if limit else 0)
            # on a busy machine none may have run
            ratios.append(counts[LIMIT] / max(counts[None], 1) * CONSUMERS / LIMIT)
        pq.limits.pop(QUEUE, None)
    return {case: median(ratios), f"{case}: at once at most": most}


def fill(pq: Any, backlog: int) -> None:
    missing = backlog - len(pq[QUEUE])
    if missing > 0:
        pq[QUEUE].load({"function": "work", "args": [], "kwargs": {}} for _ in range(missing))


def done(log: Path, since: float, until: float) -> Iterator[tuple[float, float]]:
    """When the jobs that began and ended between these moments began and ended."""
    for file in log.iterdir():
        content = file.read_bytes()
        for began, ended in EVENT.iter_unpack(content[: len(content) // EVENT.size * EVENT.size]):
            if began >= since and ended <= until:
                yield began, ended


def at_once(jobs: list[tuple[float, float]]) -> int:
    running = most = 0
    for _, change in sorted([(began, 1) for began, _ in jobs] + [(ended, -1) for _, ended in jobs]):
        running += change
        most = max(most, running)
    return most
