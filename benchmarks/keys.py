"""Jobs with keys and tokens against plain ones, in pairs: ``python -m benchmarks.keys [CASE …]``.

One process does the one and then the other, again and again, so that what else the machine does meets both. For each
case this prints the median of the ratios of the rates with its interval; the last case tells what an open transaction
that has put a job of the same key adds to the calls of others.
"""

from __future__ import annotations

import argparse
import threading
import time
from collections.abc import Callable
from itertools import count
from typing import Any, NamedTuple

KEYS = 10_000


class Way(NamedTuple):
    """
    :ivar options: of a put, by its number.
    :ivar waiting: so many jobs are there before the clock runs, and are taken; 0: jobs are put.
    :ivar batch: so many are taken together.
    :ivar left: so many more are there, and stay.
    """

    options: Callable[[int], dict[str, Any]]
    waiting: int = 0
    batch: int = 1
    left: int = 0
    producers: int = 1


def plain(number: int) -> dict[str, Any]:
    return {}


def hot(number: int) -> dict[str, Any]:
    return {"key": "hot"}


def many(number: int) -> dict[str, Any]:
    return {"key": f"k{number % KEYS}"}


def new(number: int) -> dict[str, Any]:
    return {"unique": f"t{number}"}


def known(number: int) -> dict[str, Any]:
    return {"unique": "hot" if number % 100 else f"t{number}"}


#: Name → what is measured, and what it is divided by.
CASES = {
    "put, 10,000 keys": (Way(many), Way(plain)),
    "put, one key": (Way(hot), Way(plain)),
    "put, 10,000 keys, 8 producers": (Way(many, producers=8), Way(plain, producers=8)),
    "put, one key, 8 producers": (Way(hot, producers=8), Way(plain, producers=8)),
    "get and done, 10,000 keys": (Way(many, 100), Way(plain, 100)),
    "get and done, one key": (Way(hot, 100), Way(plain, 100)),
    "get and done by 100, 10,000 keys": (Way(many, 2000, 100), Way(plain, 2000, 100)),
    "put, unique, no duplicates": (Way(new), Way(plain)),
    "put, unique, 99 % duplicates": (Way(known), Way(plain)),
    "put, one key, 100,000 waiting to 100": (Way(hot, left=100_000), Way(hot, left=100)),
    "get and done, one key, 100,000 waiting to 100": (Way(hot, 100, left=100_000), Way(hot, 100, left=100)),
}
OPEN = "beside an open put of the key"

CALLS = 240


def main() -> None:
    from pq import PQ

    from .server import Server
    from .stats import interval

    parser = argparse.ArgumentParser(prog="python -m benchmarks.keys", description=__doc__.split("\n\n")[0])
    names = ", ".join((*CASES, OPEN)).replace("%", "%%")
    parser.add_argument("cases", nargs="*", metavar="case", help=f"a part of a name; default: all of {names}")
    parser.add_argument("--pairs", type=int, default=20)
    args = parser.parse_args()
    asked = [name for name in (*CASES, OPEN) if not args.cases or any(case in name for case in args.cases)]
    if not asked:
        parser.error("no such case")
    with Server() as server, server.using("synchronous_commit", "off"), PQ(server.dsn()) as pq:
        pq.create()
        for name in asked:
            if name == OPEN:
                for what, added in beside_open(pq, server.dsn(), args.pairs).items():
                    print(f"{what} {OPEN}: {added * 1000:.1f} ms more (95 % of the pairs)", flush=True)
                continue
            ways = [Measured(pq[f"{name} {turn}"[-60:]], way) for turn, way in enumerate(CASES[name])]
            ratios = []
            for turn in range(-1, args.pairs):  # the first pair warms up
                rates = {way: way.rate() for way in (ways if turn % 2 else ways[::-1])}
                if turn >= 0:
                    ratios.append(rates[ways[0]] / rates[ways[1]])
            print(f"{name}: {interval(ratios)}", flush=True)
            for way in ways:
                way.queue.clear()


class Measured:
    """A way, on a queue of its own, whose jobs stay there from one turn to the next if so many are to be left."""

    def __init__(self, queue: Any, way: Way) -> None:
        self.queue = queue
        self.way = way
        self.numbers = count()
        if way.left:
            self.fill(way.left)

    def fill(self, jobs: int) -> None:
        from pq import NewJob

        self.queue.put_many(NewJob({"n": n}, **self.way.options(n)) for n in (next(self.numbers) for _ in range(jobs)))

    def rate(self) -> float:
        """Jobs a second."""
        way, queue = self.way, self.queue
        if not way.left:
            queue.clear()
        if way.waiting:
            self.fill(way.waiting)
            began = time.perf_counter()
            for _ in range(way.waiting // way.batch):
                queue.done(queue.get_many(way.batch, timeout=5, lease="1m"))
            return way.waiting / (time.perf_counter() - began)

        def produce() -> None:
            for _ in range(CALLS // way.producers):
                number = next(self.numbers)
                queue.put({"n": number}, **way.options(number))

        threads = [threading.Thread(target=produce) for _ in range(way.producers)]
        began = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return CALLS / (time.perf_counter() - began)


def beside_open(pq: Any, dsn: str, pairs: int) -> dict[str, float]:
    """Seconds that an open put of the same key adds to a put, and to a get and done, in 95 % of the pairs."""
    import psycopg2

    from .stats import percentile

    conn = psycopg2.connect(dsn)
    queue = pq["beside"]
    added: dict[str, list[float]] = {"put": [], "done": []}

    def seconds() -> dict[str, float]:
        times = {}
        began = time.perf_counter()
        queue.put({}, key="hot")
        times["put"] = time.perf_counter() - began
        job = queue.get(lease="1m", timeout=5)
        began = time.perf_counter()
        job.done()
        times["done"] = time.perf_counter() - began
        return times

    for _ in range(pairs * 10):
        queue.clear()
        queue.put({}, key="hot")
        alone = seconds()
        queue.clear()
        queue.put({}, key="hot")
        queue.put({}, key="hot", conn=conn)
        beside = seconds()
        conn.rollback()
        for what, values in added.items():
            values.append(beside[what] - alone[what])
    conn.close()
    return {what: percentile(values, 95) for what, values in added.items()}


if __name__ == "__main__":
    main()
