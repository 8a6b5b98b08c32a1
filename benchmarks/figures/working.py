"""Tasks through workers."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial

from ..child import Child, Failed
from ..peers import PEERS
from ..run import Bench, Cell
from ..sites import Site

ONE = (
    *("raw", "pq", "pq-conn", "pq-retain0", "pq-1.9.1", "procrastinate"),
    *("pgqueuer-1", "pgqueuer-10", "pgqueuer-100", "graphile"),
)
#: Each at its best.
BRIEF = ("raw", "pq", "pq-conn", "pq-1.9.1", "procrastinate", "pgqueuer-100", "graphile")
FOUR = ("raw", "pq", "pq-retain0", "pq-1.9.1", "pgqueuer-100", "graphile")

#: Seconds for workers to start, or to do what is far less than they could.
PATIENCE = 60

#: Share of the jobs after which workers are at their pace.
STARTED = 0.03

#: How often more jobs are put, because they were done before the time was over.
TRIES = 4


def work(bench: Bench) -> Iterator[Cell]:
    jobs: dict[tuple[str, int], int] = {}
    for case, processes, peers in (("1 process", 1, ONE), ("4 processes", 4, FOUR)):
        for peer in bench.able("work", *(peer for peer in peers if peer in BRIEF or not bench.sizes.brief)):
            yield Cell(case, peer, partial(work_rate, bench, peer, processes, jobs))


def work_rate(bench: Bench, peer: str, processes: int, jobs: dict[tuple[str, int], int]) -> float:
    """
    :param jobs: how many were enough, by peer and processes; is kept from round to round.
    """
    site = bench.site(peer)
    seconds = bench.sizes.seconds
    # not fewer than `get` begins with: how much is there matters to some
    guess = max(bench.sizes.series[1], int(PEERS[peer].guess * (seconds + 0.5) * (1 + processes) / 2))
    count = jobs.get((peer, processes), guess)
    for _ in range(TRIES):
        site.clear()
        site.prepare([("fill", count)])
        jobs[peer, processes] = count
        workers = [site.start() for _ in range(processes)]
        try:
            for worker in workers:
                worker.tell("work")
            found = pace(site, workers, count, seconds)
        finally:
            for worker in workers:
                worker.close(gently=True)
        if found is not None:
            return found
        count *= 2
    raise Failed(f"{count // 2} jobs were too few for {seconds} seconds")


def pace(site: Site, workers: list[Child], count: int, seconds: float) -> float | None:
    """Jobs a second, from when the workers have got going; None: there were too few."""
    wait_until_at_pace(site, workers, count)
    begun = time.monotonic()
    before = site.remaining()
    time.sleep(seconds)
    ended = time.monotonic()
    after = site.remaining()
    return (before - after) / (ended - begun) if after else None


def wait_until_at_pace(site: Site, workers: list[Child], count: int) -> None:
    """
    :raises Failed: they are far too slow.
    """
    deadline = time.monotonic() + PATIENCE
    while (before := site.remaining()) > count * (1 - STARTED):
        for worker in workers:
            worker.check()
        if time.monotonic() > deadline:
            raise Failed(f"{count - before} of {count} jobs in {PATIENCE} seconds")
        time.sleep(0.02)
