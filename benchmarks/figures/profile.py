"""Where the time of one operation goes: to the processors of the client and of the server, or to neither.

Client and server take turns, so what is left of the time passes while both wait: for the disk, and for a process that
has to be woken.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path

from ..child import Child, Failed
from ..run import Bench, Cell
from ..sites import Site
from .working import wait_until_at_pace

#: What is done: how a peer does it, and who does it. Jobs with keys and tokens stand beside plain ones.
OPERATIONS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "put": ("putter", ("raw", "raw-triggers", "pq", "pq-conn")),
    "put with a key": ("key_putter", ("pq",)),
    "put with a token": ("token_putter", ("pq",)),
    "get": ("getter", ("raw", "raw-triggers", "pq", "pq-conn")),
    "get in with": ("with_getter", ("raw", "raw-triggers", "pq", "pq-conn")),
    "leased get, and done": ("lease_getter", ("raw", "raw-triggers", "pq", "pq-conn")),
    "jobs(ahead=True)": ("ahead_getter", ("pq", "pq-conn")),
    "publish": ("publisher", ("raw", "pq")),
}

#: Calls before the clock runs: pq prepares what is repeated within a second.
WARM = 30

#: Calls, and tasks, for each second that a figure is to take.
CALLS = 1_000
TASKS = 150_000

PARTS = ("all", "client", "server", "neither")


def profile(bench: Bench) -> Iterator[Cell]:
    for case, (what, peers) in OPERATIONS.items():
        for peer in bench.able(what, *peers):
            yield Cell(case, peer, partial(of_operation, bench, peer, case, what))
    for peer in bench.able("work", "raw", "pq", "pq-conn", "graphile"):
        yield Cell("a task", peer, partial(of_task, bench, peer))


def of_operation(bench: Bench, peer: str, case: str, what: str) -> Mapping[str, float]:
    """Microseconds a call."""
    site = bench.site(peer)
    calls = max(10, int(CALLS * bench.sizes.seconds))
    site.clear()
    site.prepare([("ready", calls + 2 * WARM)])
    child = site.start()  # one that has no jobs of the round before
    try:
        if what == "publisher":
            child.ask("publish", events=0)  # makes the stream
        child.ask("again", what=what, most=WARM)
        before = used(site, child)
        answer = child.ask("again", what=what, most=calls)
        client, server = (after - first for after, first in zip(used(site, child), before, strict=True))
    finally:
        child.close()
    times = answer["seconds"], client, server, answer["seconds"] - client - server
    return {f"{case}: {part}": 1e6 * spent / answer["count"] for part, spent in zip(PARTS, times, strict=True)}


def of_task(bench: Bench, peer: str) -> Mapping[str, float]:
    """Microseconds a task of one worker process, which claims and ends many at a time. Client and server work side by
    side, so there is no rest."""
    site = bench.site(peer)
    site.clear()
    tasks = max(100, int(TASKS * (bench.sizes.seconds + 0.5)))
    site.prepare([("fill", tasks)])
    worker = site.start()
    try:
        worker.tell("work")
        wait_until_at_pace(site, [worker], tasks)
        waiting, before, began = site.remaining(), used(site, worker), time.monotonic()
        time.sleep(bench.sizes.seconds)
        after, ended, left = used(site, worker), time.monotonic(), site.remaining()
    finally:
        worker.close(gently=True)
    if not 0 < left < waiting:
        raise Failed(f"{waiting - left} of {waiting} tasks in {bench.sizes.seconds} seconds")
    client, server = (b - a for a, b in zip(before, after, strict=True))
    times = zip(PARTS[:3], (ended - began, client, server), strict=True)
    return {f"a task: {part}": 1e6 * spent / (waiting - left) for part, spent in times}


def used(site: Site, child: Child) -> tuple[float, float]:
    """Seconds of processor time that the client, and the server's processes for its database, have used."""
    return processor_time(child.pid), sum(map(processor_time, site.backends()))


def processor_time(pid: int) -> float:
    """Of all threads of a process that are alive, by Linux's scheduler, which counts nanoseconds."""
    total = 0
    for file in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        with suppress(OSError):  # a thread that has just ended
            total += int(file.read_text().split()[0])
    return total / 1e9
