"""Single operations and batches."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial

from ..peers.loops import WARM_STEPS
from ..peers.raw import BATCH
from ..run import Bench, Cell

#: Case: threads and processes.
PRODUCERS = {
    "1 producer": (1, 1),
    "4 threads": (4, 1),
    "16 threads": (16, 1),
    "4 processes": (1, 4),
    "16 processes": (1, 16),
}

#: Those of the smaller sizes.
BRIEF = ("1 producer", "16 processes")

#: More jobs than can be put, or got, in the time.
PLENTY = 10**9

#: How many of the jobs that are ready one consumer gets at most.
TAKEN = 0.3

#: Batches of 100 that are got from so many.
STOCK = 200


def put(bench: Bench) -> Iterator[Cell]:
    for case, (threads, processes) in PRODUCERS.items():
        if bench.sizes.brief and case not in BRIEF:
            continue
        other = ["pq-conn", "pq-psycopg3"] if case == "1 producer" else []  # they have one connection
        ours = ("raw", "raw-unprepared", "pq", *other, "pq-1.9.1")
        for peer in bench.able("putter", *ours, "procrastinate", "pgqueuer", "pgmq"):
            yield Cell(case, peer, partial(put_rate, bench, peer, threads, processes))


def put_consumed(bench: Bench) -> Iterator[Cell]:
    def measure(peer: str, threads: int, processes: int) -> float:
        site = bench.site(peer)
        site.clear()
        consumer = site.start()
        try:
            consumer.tell("swallow")
            time.sleep(bench.sizes.start / 2)  # for its start, so that it waits
            found = put_rate(bench, peer, threads, processes, clear=False)
            consumer.check()
        finally:
            consumer.close()
        return found

    for case in ("1 producer", "4 threads", "16 processes"):
        for peer in bench.able("swallow", "pq", "pq-1.9.1", "procrastinate", "pgqueuer"):
            yield Cell(case, peer, partial(measure, peer, *PRODUCERS[case]))


def put_many(bench: Bench) -> Iterator[Cell]:
    def measure(peer: str, what: str) -> float:
        site = bench.site(peer)
        site.clear()
        return rate(site.child.ask("rate", what=what, seconds=bench.sizes.seconds, most=PLENTY))

    for peer in bench.able("many_putter", "raw", "pq", "pq-psycopg3", "pq-1.9.1", "procrastinate", "pgqueuer", "pgmq"):
        yield Cell("ids returned", peer, partial(measure, peer, "many_putter"))
    for peer in bench.able("loader", "pq"):
        yield Cell("load, 10,000", peer, partial(measure, peer, "loader"))


def get(bench: Bench) -> Iterator[Cell]:
    ready = bench.sizes.series[1]
    ours = ("raw", "raw-unprepared", "pq", "pq-conn", "pq-psycopg3", "pq-1.9.1")
    cases = {
        "get": ("getter", "pgmq"),
        "in with": ("with_getter",),
        "leased, and done": ("lease_getter", "pgmq", "pgmq-archive"),
        "jobs(ahead=True)": ("ahead_getter",),
    }
    for case, (what, *others) in cases.items():
        for peer in bench.able(what, *ours, *others):
            yield Cell(case, peer, partial(taken, bench, peer, what, ready, int(TAKEN * ready)))


def get_many(bench: Bench) -> Iterator[Cell]:
    most = int(100_000 * bench.sizes.seconds)
    cases = {"100": ("many_getter", "pgmq"), "100, leased, and done": ("many_lease_getter", "pgmq", "pgmq-archive")}
    for case, (what, *others) in cases.items():
        for peer in bench.able(what, "raw", "raw-unprepared", "pq", "pq-psycopg3", *others):
            yield Cell(case, peer, partial(taken, bench, peer, what, most + 100 * STOCK, most))


def stream(bench: Bench) -> Iterator[Cell]:
    """Events are read from so many that what was asked for in the time are fewer."""
    sizes = bench.sizes
    cases = {"publish": "publisher", "publish_many(1000)": "many_publisher", "batch(1000)": "reader"}

    def measure(peer: str, what: str) -> float:
        child, most = bench.site(peer).child, PLENTY
        if what == "reader":
            most = int(100_000 * sizes.seconds) // BATCH * BATCH
        child.ask("publish", events=most + WARM_STEPS * BATCH if what == "reader" else 0)
        return rate(child.ask("rate", what=what, seconds=sizes.seconds, most=most))

    for case, what in cases.items():
        for peer in bench.able(what, "raw", "pq", "pgque"):
            yield Cell(case, peer, partial(measure, peer, what))


def put_rate(bench: Bench, peer: str, threads: int, processes: int, clear: bool = True) -> float:
    site = bench.site(peer)
    if clear:
        site.clear()
    seconds = bench.sizes.seconds
    return rate(
        site.child.ask("rate", what="putter", seconds=seconds, most=PLENTY, threads=threads, processes=processes)
    )


def taken(bench: Bench, peer: str, what: str, ready: int, most: int) -> float:
    site = bench.site(peer)
    site.clear()
    site.prepare([("ready", ready)])
    return rate(site.child.ask("rate", what=what, seconds=bench.sizes.seconds, most=most))


def rate(answer: dict[str, float]) -> float:
    return answer["count"] / answer["seconds"]
