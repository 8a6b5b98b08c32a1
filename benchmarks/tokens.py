"""Puts with a token against plain ones, in pairs: ``python -m benchmarks.tokens``.

One process puts some hundred jobs in the one way and then in the other, again and again, so that what else the machine
does meets both. For each share of duplicates this prints the median of the ratios of the rates, with its interval.
"""

from __future__ import annotations

import argparse
import threading
import time
from itertools import count
from typing import Any

CALLS = 300
SHARES = (0.0, 0.5, 0.99)


def main() -> None:
    from pq import PQ

    from .server import Server
    from .stats import interval

    parser = argparse.ArgumentParser(prog="python -m benchmarks.tokens", description=__doc__.split("\n\n")[0])
    parser.add_argument("--pairs", type=int, default=30)
    parser.add_argument("--producers", type=int, default=1)
    args = parser.parse_args()
    with Server() as server, server.using("synchronous_commit", "off"), PQ(server.dsn()) as pq:
        pq.create()
        for share in SHARES:
            ratios = []
            for turn in range(args.pairs):
                pq["a"].clear()
                ways = [None, share] if turn % 2 else [share, None]
                rates = {way: rate(pq, way, args.producers) for way in ways}
                ratios.append(rates[share] / rates[None])
            print(f"{share:4.0%} duplicates, {args.producers} producers: {interval(ratios)} of plain puts", flush=True)


def rate(pq: Any, share: float | None, producers: int) -> float:
    """Puts a second; `share` of them are duplicates; None: without a token."""
    numbers = count()

    def produce() -> None:
        queue = pq["a"]
        for call in range(CALLS // producers):
            if share is None:
                queue.put({"n": call})
            else:
                number = next(numbers)
                token = "hot" if number % 100 < share * 100 else f"{id(numbers)} {number}"
                queue.put({"n": call}, unique=token)

    threads = [threading.Thread(target=produce) for _ in range(producers)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return CALLS / (time.perf_counter() - began)


if __name__ == "__main__":
    main()
