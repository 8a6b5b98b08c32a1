"""Tasks through workers."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial

from ..child import Failed
from ..peers import PEERS
from ..run import Bench, Cell

ONE = ("raw", "pq", "pq-retain0", "pq-1.9.1", "procrastinate", "pgqueuer-1", "pgqueuer-10", "pgqueuer-100", "graphile")
FOUR = ("raw", "pq", "pq-retain0", "pq-1.9.1", "pgqueuer-100", "graphile")

#: Seconds for workers to start, or to do what is far less than they could.
PATIENCE = 60

#: Share of the jobs after which workers are at their pace.
STARTED = 0.03

#: How often more jobs are put, because they were done before the time was over.
TRIES = 4


def work(bench: Bench) -> Iterator[Cell]:
    jobs: dict[tuple[str, int], int] = {}

    def measure(peer: str, processes: int) -> float:
        site = bench.site(peer)
        seconds = bench.sizes.seconds
        count = jobs.get((peer, processes)) or int(PEERS[peer].guess * (seconds + 0.5) * (1 + processes) / 2)
        for _ in range(TRIES):
            site.clear()
            site.prepare([("fill", count)])
            jobs[peer, processes] = count
            workers = [site.start() for _ in range(processes)]
            try:
                for worker in workers:
                    worker.tell("work")
                deadline = time.monotonic() + PATIENCE
                while (before := site.remaining()) > count * (1 - STARTED):
                    for worker in workers:
                        worker.check()
                    if time.monotonic() > deadline:
                        raise Failed(f"{count - before} of {count} jobs in {PATIENCE} seconds")
                    time.sleep(0.02)
                begun = time.monotonic()
                before = site.remaining()
                time.sleep(seconds)
                ended = time.monotonic()
                after = site.remaining()
            finally:
                for worker in workers:
                    worker.close(gently=True)
            if after:
                return (before - after) / (ended - begun)
            count *= 2
        raise Failed(f"{count // 2} jobs were too few for {seconds} seconds")

    for case, processes, peers in (("1 process", 1, ONE), ("4 processes", 4, FOUR)):
        for peer in bench.able("work", *peers):
            yield Cell(case, peer, partial(measure, peer, processes))
