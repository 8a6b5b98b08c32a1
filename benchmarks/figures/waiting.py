"""Processes that wait for jobs."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Mapping
from functools import partial

from ..child import Child
from ..run import Bench, Cell, say
from ..stats import percentile
from .single import put_rate

#: Not counted: after a start all is slower.
WARM = 5

#: Seconds after which connections that are not needed are closed.
CLOSED = 8

#: Consumers that wait in one process.
CONSUMERS = 32


def wakeup(bench: Bench) -> Iterator[Cell]:
    producers: dict[str, Child] = {}
    pauses = [random.Random(7).uniform(0.002, 0.015) for _ in range(97)]

    def measure(peer: str) -> Mapping[str, float]:
        site = bench.site(peer)
        producers[peer] = producers.get(peer) or site.start()
        site.clear()
        samples = bench.sizes.samples
        site.child.tell("consume", samples=samples + WARM)
        time.sleep(bench.sizes.start)
        producers[peer].ask("produce", samples=samples + WARM, pauses=pauses)
        found = [1000 * seconds for seconds in site.child.answer()[WARM:]]
        return {f"p{percent}": percentile(found, percent) for percent in (50, 95, 99)}

    for peer in bench.able("consume", "pq", "pq-1.9.1", "procrastinate", "pgqueuer"):
        yield Cell("all", peer, partial(measure, peer))


def crowd(bench: Bench) -> Iterator[Cell]:
    """The consumers are threads of one process, and take the jobs. `raw` tells nobody, and has none."""

    def measure(peer: str, threads: int) -> float:
        site = bench.site(peer)
        site.clear()
        if not threads or peer == "raw":
            return put_rate(bench, peer, 1, 1, clear=False)
        consumers = site.start()
        try:
            consumers.ask("block", threads=threads)
            time.sleep(bench.sizes.start)
            return put_rate(bench, peer, 1, 1, clear=False)
        finally:
            consumers.close()

    for threads in bench.sizes.crowd:
        # each of 1.9.1's has a connection of its own, and the server has 100
        for peer in bench.able("block", "pq", *(["pq-1.9.1"] if threads < 90 else [])):
            yield Cell(f"{threads} waiting", peer, partial(measure, peer, threads))
        for peer in bench.able("putter", "raw"):
            yield Cell(f"{threads} waiting", peer, partial(measure, peer, threads))


def idle(bench: Bench) -> Iterator[Cell]:
    """All at once: they hardly do anything."""
    sites = {}
    for peer in bench.able("block", "pq", "pq-1.9.1"):
        for threads in (1, 8):
            case = f"{threads} threads" if threads > 1 else "1 thread"
            sites[peer, case] = site = bench.site(peer, case, counted=True)
            site.child.ask("block", threads=threads)
    for peer in bench.able("work", "pq", "procrastinate", "pgqueuer-10", "graphile"):
        sites[peer, "worker"] = site = bench.site(peer, "worker", counted=True)
        site.child.tell("work")
    window = bench.sizes.window
    time.sleep(CLOSED)
    say(f"idle: counting for {window:g} s")
    marks = {key: site.mark() for key, site in sites.items()}
    time.sleep(window)
    found = {key: len(site.statements(marks[key])) / window for key, site in sites.items()}
    for (peer, case), site in sites.items():
        yield Cell(f"queries/s, {case}", peer, partial(float, found[peer, case]))
        yield Cell(f"connections, {case}", peer, partial(float, site.connections()))


def statements(bench: Bench) -> Iterator[Cell]:
    producers: dict[tuple[str, int], Child] = {}
    pauses = [0.05]

    def measure(peer: str, threads: int) -> Mapping[str, float]:
        site = bench.site(peer, str(threads), counted=True)
        puts = bench.sizes.puts
        if (peer, threads) not in producers:
            site.child.ask("block", threads=threads)
            producers[peer, threads] = site.start()
            producers[peer, threads].ask("produce", samples=WARM, pauses=pauses)
            time.sleep(bench.sizes.start)
        begun, mark = time.monotonic(), site.mark()
        time.sleep(bench.sizes.start)
        alone = len(site.statements(mark)) / (time.monotonic() - begun)
        begun, mark = time.monotonic(), site.mark()
        producers[peer, threads].ask("produce", samples=puts, pauses=pauses)
        time.sleep(0.2)
        seconds = time.monotonic() - begun
        found = (len(site.statements(mark)) - alone * seconds) / puts
        return {f"{threads} threads": found} if threads > 1 else {"1 thread, besides the put": found - 1}

    for threads in (1, CONSUMERS):
        for peer in bench.able("block", "pq", "pq-1.9.1"):
            yield Cell(str(threads), peer, partial(measure, peer, threads))
