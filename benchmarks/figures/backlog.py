"""What get costs as the table grows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from functools import partial

import psycopg2

from ..run import Bench, Cell
from ..sizes import Sizes, amount
from .single import TAKEN, rate

#: Jobs that are got between two that are put, while they pass.
CHUNK = 500


def states(sizes: Sizes) -> dict[str, list[tuple[str, int]]]:
    """Case: kinds of rows and their numbers."""
    ready = sizes.series[1]
    return {
        **{f"{amount(number)} ready": [("ready", number)] for number in sizes.series},
        f"{amount(sizes.big)} finished": [("finished", sizes.big), ("ready", ready)],
        f"{amount(sizes.future)} future, priorities": [("future", sizes.future), ("mixed", ready)],
    }


def backlog(bench: Bench) -> Iterator[Cell]:
    return getting(bench, states(bench.sizes))


def queues(bench: Bench) -> Iterator[Cell]:
    ready = ("ready", bench.sizes.series[1])
    return getting(bench, {f"{amount(number)} queues": [("queues", number), ready] for number in bench.sizes.queues})


def getting(bench: Bench, cases: dict[str, list[tuple[str, int]]]) -> Iterator[Cell]:
    def measure(peer: str, case: str, rows: list[tuple[str, int]]) -> float:
        site = bench.site(peer, case)
        # the first time all of it, then what was taken
        kind, number = rows[-1]
        site.prepare([(kind, gone)] if (gone := missing.get((peer, case))) else rows)
        most = int(TAKEN * min(number, bench.sizes.series[1]))
        answer = site.child.ask("rate", what="getter", seconds=bench.sizes.seconds, most=most)
        missing[peer, case] = int(answer["count"])
        return rate(answer)

    missing: dict[tuple[str, str], int] = {}
    for case, rows in cases.items():
        for peer in bench.able("getter", "raw", "pq", "pq-1.9.1"):
            yield Cell(case, peer, partial(measure, peer, case, rows))


def keys(bench: Bench) -> Iterator[Cell]:
    """`raw` has no keys: it shows what else there is to a cycle of two statements."""
    ready = bench.sizes.series[1]

    def measure(peer: str, number: int) -> float:
        site = bench.site(peer)
        site.clear()
        if peer == "raw":
            site.prepare([("ready", ready)])
        else:
            site.child.ask("put_keys", jobs=ready, keys=number)
            site.prepare([])
        most = int(TAKEN * ready)
        return rate(site.child.ask("rate", what="lease_getter", seconds=bench.sizes.seconds, most=most))

    for number in bench.sizes.keys:
        for peer in bench.able("lease_getter", "raw", "pq"):
            yield Cell(f"{amount(number)} {'keys' if number > 1 else 'key'}", peer, partial(measure, peer, number))


def xmin(bench: Bench) -> Iterator[Cell]:
    def measure(peer: str) -> Mapping[str, float]:
        site = bench.site(peer)
        site.clear()
        sizes = bench.sizes
        rates = []
        with closing(psycopg2.connect(site.dsn)) as holder, holder.cursor() as cursor:
            holder.set_session(isolation_level="repeatable read")
            cursor.execute("select count(*) from pg_class")  # from here on nothing is cleaned up
            with closing(psycopg2.connect(site.dsn)) as conn, conn.cursor() as other:
                conn.autocommit = True
                for end in (False, True):
                    if end:
                        for _ in range(0, sizes.passing - 2 * sizes.ends, CHUNK):
                            other.execute(site.peer.ready, {"n": CHUNK})  # type: ignore[attr-defined]
                            other.execute("update queue set dequeued_at = now() where dequeued_at is null")
                    seconds = 0.0
                    for start in range(0, sizes.ends, CHUNK):
                        other.execute(site.peer.ready, {"n": min(CHUNK, sizes.ends - start)})  # type: ignore[attr-defined]
                        seconds += site.child.ask("again", what="getter", most=CHUNK)["seconds"]
                    rates.append(sizes.ends / seconds)
        first, last = rates
        number = amount(sizes.ends)
        return {f"first {number}": first, f"last {number}": last, "last / first": last / first}

    for peer in bench.able("getter", "raw", "pq", "pq-1.9.1"):
        yield Cell(f"{amount(bench.sizes.passing)} pass", peer, partial(measure, peer))
