"""What stays behind: on disk, and in memory."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from functools import partial

from ..run import Bench, Cell, say
from ..sizes import amount

#: Seconds until the server's statistics have what all sessions did: they tell at most once in a second.
TOLD = 3.0

#: Rows that autovacuum does not come for.
DEAD = 1_000


def memory(bench: Bench) -> Iterator[Cell]:
    first, last = bench.sizes.memory

    def measure(peer: str) -> Mapping[str, float]:
        site = bench.site(peer)
        site.clear()
        child = site.start()
        try:
            found = child.ask("memory", steps=[first, last - first])
        finally:
            child.close()
        return dict(zip((f"after {amount(first)} jobs", f"after {amount(last)} jobs"), found, strict=True))

    for peer in bench.able("memory", "pq"):
        yield Cell("memory", peer, partial(measure, peer))


def size(bench: Bench) -> Iterator[Cell]:
    def measure(peer: str) -> Mapping[str, float]:
        site = bench.site(peer)
        site.child.ask("churn", jobs=bench.sizes.big)
        found = {f"after {amount(bench.sizes.big)} jobs": site.megabytes()}
        say("size: waiting for autovacuum")
        time.sleep(TOLD)
        deadline = time.monotonic() + bench.sizes.patience
        while dead(bench, peer) > DEAD:
            if time.monotonic() > deadline:
                bench.notes.append(f"size: autovacuum had not come after {bench.sizes.patience:g} s")
                return found
            time.sleep(0.5)
        return {**found, "after autovacuum": site.megabytes()}

    def measure_soon(peer: str) -> Mapping[str, float]:
        with bench.server.using("autovacuum_naptime", bench.sizes.naptime):
            return measure(peer)

    for peer in bench.able("churn", "pq-retain0"):
        yield Cell("size", peer, partial(measure_soon, peer))


def dead(bench: Bench, peer: str) -> int:
    """Rows that are deleted and still take their place. (An autovacuum that began before the end leaves some.)"""
    ((count,),) = bench.site(peer).execute(
        "select coalesce(max(n_dead_tup), 0) from pg_stat_user_tables where relname = 'queue'"
    )
    return int(count)
