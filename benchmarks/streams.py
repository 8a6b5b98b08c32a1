"""Streams, in pairs with what they stand beside: ``python -m benchmarks.streams [FIGURE …]``.

Each pair does the one thing and then the other, again and again, so that what else the machine does meets both. For
each this prints the median of the ratios of the rates, with its interval:

    wake       from a publish to the consumer: how much longer than from a put to `Queue.get`, of the times
    snapshot   one event in a transaction, while an old snapshot is held: the last thousand of 3,000 batches, of the
               first thousand of another stream

The figure `stream` of ``python -m benchmarks`` has what publishing and reading cost beside bare tables.
"""

from __future__ import annotations

import argparse
import threading
import time
from collections.abc import Callable
from functools import cached_property
from typing import Any

#: How many batches a subscription has had under the old snapshot before those that are measured, and how many of these
#: are in a turn: with 20 turns, they are the last thousand of 3,000.
AGE, ROUNDS = 2000, 50


def main() -> None:
    from pq import PQ

    from .server import Server
    from .stats import interval

    parser = argparse.ArgumentParser(prog="python -m benchmarks.streams", description=__doc__.split("\n\n")[0])
    parser.add_argument("figures", nargs="*", metavar="FIGURE", help="default: all")
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--durable", action="store_true", help="wait for the disk at each commit")
    args = parser.parse_args()
    commit = "on" if args.durable else "off"
    with Server() as server, server.using("synchronous_commit", commit), PQ(server.dsn()) as pq:
        pq.create()
        figures = Figures(pq, server.dsn())
        for name, (ours, other) in figures.all().items():
            if args.figures and name not in args.figures:
                continue
            ours(), other()
            ratios = []
            for turn in range(args.pairs):
                rates = {way: way() for way in ((ours, other) if turn % 2 else (other, ours))}
                ratios.append(rates[ours] / rates[other])
            print(f"{name:9} {interval(ratios)}", flush=True)
        figures.close()


class Figures:
    """The ways; each returns a rate."""

    def __init__(self, pq: Any, dsn: str) -> None:
        import psycopg2

        self.pq = pq
        self.stream = pq.streams["bench"]
        self.stream.create()
        self.reader = self.stream.subscribe("reader")
        self.old = psycopg2.connect(dsn)

    def all(self) -> dict[str, tuple[Callable[[], float], Callable[[], float]]]:
        return {
            "wake": (self.wake_stream, self.wake_get),
            "snapshot": (self.take_old, self.take_new),
        }

    def wake_get(self) -> float:
        queue = self.pq["wake"]
        return latency(lambda: [queue.get(timeout=10), time.perf_counter()], lambda: queue.put(1))

    def wake_stream(self) -> float:
        self.reader.seek("new")

        def take() -> list[Any]:
            with self.reader.batch(1, timeout=10) as batch:
                return [batch[0], time.perf_counter()]

        return latency(take, lambda: self.stream.publish(1))

    def take_old(self) -> float:
        return one_by_one(*self.aged[0])

    def take_new(self) -> float:
        return one_by_one(*self.aged[1])

    @cached_property
    def aged(self) -> list[tuple[Any, Any]]:
        """Two streams under an old snapshot, and their readers; of the first, many batches were taken."""
        with self.old.cursor() as cursor:
            cursor.execute("set transaction isolation level repeatable read")
            cursor.execute("select txid_current()")
        streams = [self.pq.streams["aged"], self.pq.streams["new"]]
        for stream in streams:
            stream.create()
        readers = [stream.subscribe("reader") for stream in streams]
        one_by_one(streams[0], readers[0], AGE - ROUNDS)  # the first turn is none
        return list(zip(streams, readers, strict=True))

    def close(self) -> None:
        self.old.close()


def one_by_one(stream: Any, reader: Any, rounds: int = ROUNDS) -> float:
    """Return batches a second, of one event that was published before; publishing does not count."""
    seconds = 0.0
    for n in range(rounds):
        stream.publish(n)
        began = time.perf_counter()
        with reader.batch(1, timeout=0) as batch:
            assert batch
        seconds += time.perf_counter() - began
    return rounds / seconds


def latency(take: Callable[[], list[Any]], give: Callable[[], Any], rounds: int = 11) -> float:
    """Return the median of the seconds from giving to having, by a thread that waits.

    :param take: returns what it has, and since when.
    """
    times = []
    for _ in range(rounds):
        ends: list[float] = []
        thread = threading.Thread(target=lambda ends=ends: ends.append(take()[1]))
        thread.start()
        time.sleep(0.2)  # until it waits: no figure but this one depends on it
        began = time.perf_counter()
        give()
        thread.join()
        times.append(ends[0] - began)
    return sorted(times)[rounds // 2]


if __name__ == "__main__":
    main()
