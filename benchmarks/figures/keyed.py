"""Jobs with keys and tokens against plain ones, in pairs.

This process does the one and then the other, again and again, so that what else the machine does meets both, and no
commit waits for the disk. A round's value is the median of the ratios of the rates.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import count
from typing import Any, NamedTuple

from ..limits import KEYED
from ..run import Bench, Cell
from ..sizes import Sizes, amount
from ..stats import median, percentile

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


CALLS = 240


def cases(sizes: Sizes) -> dict[str, tuple[Way, Way]]:
    """Name: what is measured, and what it is divided by."""
    big = min(sizes.big, 100_000)
    return {
        "put, 10k keys": (Way(many), Way(plain)),
        "put, one key": (Way(hot), Way(plain)),
        "put, 10k keys, 8 threads": (Way(many, producers=8), Way(plain, producers=8)),
        "put, one key, 8 threads": (Way(hot, producers=8), Way(plain, producers=8)),
        "get and done, 10k keys": (Way(many, 100), Way(plain, 100)),
        "get and done, one key": (Way(hot, 100), Way(plain, 100)),
        "get and done by 100, 10k keys": (Way(many, 2000, 100), Way(plain, 2000, 100)),
        "put, unique, no duplicates": (Way(new), Way(plain)),
        "put, unique, 99 % duplicates": (Way(known), Way(plain)),
        f"put, one key, {amount(big)} waiting / 100": (Way(hot, left=big), Way(hot, left=100)),
        f"get and done, one key, {amount(big)} waiting / 100": (Way(hot, 100, left=big), Way(hot, 100, left=100)),
    }


def keyed(bench: Bench) -> Iterator[Cell]:
    from pq import PQ

    def dsn() -> str:
        return f"{bench.site('pq').dsn} options=-csynchronous_commit=off"

    def measure(case: str, ways: tuple[Way, Way]) -> float:
        with PQ(dsn()) as pq:
            keyed, plain = (Measured(pq[f"{case} {number}"], way) for number, way in enumerate(ways))
            keyed.rate(), plain.rate()
            ratios = []
            for turn in range(bench.sizes.pairs):
                rates = {way: way.rate() for way in ((keyed, plain) if turn % 2 else (plain, keyed))}
                ratios.append(rates[keyed] / rates[plain])
        return median(ratios)

    def beside() -> Mapping[str, float]:
        with PQ(dsn()) as pq:
            added = beside_open(pq, dsn(), bench.sizes.pairs)
        return {f"{what}, beside an open put of its key, ms more": 1000 * seconds for what, seconds in added.items()}

    if bench.able("putter", "pq"):
        for case, ways in cases(bench.sizes).items():
            yield Cell(case, KEYED, partial(measure, case, ways))
        yield Cell("beside an open put", KEYED, beside)


class Measured:
    """A way, on a queue of its own, whose jobs stay there from one turn to the next if so many are to be left."""

    def __init__(self, queue: Any, way: Way) -> None:
        self.queue = queue
        self.way = way
        self.numbers = count()
        if (missing := way.left - len(queue)) > 0:
            self.fill(missing)

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

