"""What the figures are to reach. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple

from .sizes import Sizes, amount
from .stats import median

#: The columns of figures that compare in pairs.
KEYED, LIMITED = "of plain jobs", "of 10/16 of those without"

#: Figure → case → peer → what each round has measured.
Results = Mapping[str, Mapping[str, Mapping[str, Sequence[float]]]]


class Limit(NamedTuple):
    """
    :ivar bound: of the median, or of its ratio to another one.
    :ivar of: the peer that it is compared with, in the same case unless `to` names another. None: it stands for itself.
    :ivar most: the bound is an upper one.
    """

    figure: str
    case: str
    bound: float
    of: str | None = None
    to: str | None = None
    most: bool = False
    peer: str = "pq"

    def reached(self, results: Results) -> float | None:
        """None: it was not measured, or what it is compared with was not."""
        cases = results.get(self.figure, {})
        ours = cases.get(self.case, {}).get(self.peer)
        if not ours:
            return None
        if self.of is None:
            return median(ours)
        other = cases.get(self.to or self.case, {}).get(self.of)
        return median(ours) / median(other) if other and median(other) else None

    def met(self, reached: float) -> bool:
        return reached <= self.bound if self.most else reached >= self.bound

    @property
    def wanted(self) -> str:
        text = f"{'at most' if self.most else 'at least'} {self.bound:g}"
        if self.of is None:
            return text
        other = ", ".join(filter(None, [self.of if self.of != self.peer else "", self.to]))
        return f"{text} × {other}"


def limits(sizes: Sizes) -> list[Limit]:
    """In the order of the issues that ask for them; those that only a million shows are for that size."""
    base = f"{amount(sizes.series[1])} ready"
    big = f"{amount(sizes.big)} ready"
    crowded = (big, f"{amount(sizes.big)} finished", f"{amount(sizes.future)} future, priorities")
    few, many = (f"{amount(number)} queues" for number in (sizes.queues[0], sizes.queues[-1]))
    hot = f"one key, {amount(min(sizes.big, 100_000))} waiting / 100"
    first, last = (f"after {amount(number)} jobs" for number in sizes.memory)
    plain = partial(Limit, "keyed", peer=KEYED)
    limited = partial(Limit, "limited", peer=LIMITED)
    return [
        # one operation
        Limit("get", "in with", 0.80, "raw"),
        Limit("get", "get", 0.80, "raw"),
        Limit("get", "get", 0.80, "raw", peer="pq-conn"),
        Limit("put", "1 producer", 0.82, "raw"),
        Limit("put", "1 producer", 0.82, "raw", peer="pq-conn"),
        Limit("get", "leased, and done", 0.70, "raw"),
        Limit("get", "jobs(ahead=True)", 1.10, "raw", "leased, and done"),
        # tasks
        Limit("work", "1 process", 0.36, "raw", peer="pq-conn"),
        Limit("work", "1 process", 0.39, "raw"),
        Limit("work", "4 processes", 1.0, "graphile"),
        # many at once
        Limit("put", "16 threads", 0.60, "raw"),
        Limit("put", "16 processes", 0.62, "raw"),
        # keys, tokens, limits
        plain("put, 10k keys", 0.75),
        plain("put, 10k keys, 8 threads", 0.75),
        plain("get and done, 10k keys", 0.60),
        plain("get and done by 100, 10k keys", 0.25),
        plain(f"put, {hot}", 0.90),
        plain(f"get and done, {hot}", 0.90),
        plain("put, unique, no duplicates", 0.85),
        plain("put, unique, 99 % duplicates", 0.95),
        *(plain(f"{what}, beside an open put of its key, ms more", 50, most=True) for what in ("put", "done")),
        *(limited(f"{who}, 16 threads", 0.95) for who in ("get", "worker")),
        *(limited(f"{who}, 16 threads: at once at most", 10, most=True) for who in ("get", "worker")),
        # streams
        Limit("stream", "publish", 0.80, "raw"),
        # waiting
        *(Limit("wakeup", percent, 1.1, "pq-1.9.1", most=True) for percent in ("p50", "p99")),
        Limit("statements", "1 thread, besides the put", 2, most=True),
        Limit("statements", "32 threads", 3, most=True),
        *(Limit("idle", f"{what}, 8 threads", 1, most=True) for what in ("connections", "queries/s")),
        *(Limit("idle", f"{what}, worker", 1, most=True) for what in ("connections", "queries/s")),
        # what stays behind
        Limit("size", f"after {amount(sizes.big)} jobs", 20, peer="pq-retain0", most=True),
        # psycopg 3
        Limit("put", "1 producer", 0.95, "pq-conn", peer="pq-psycopg3"),
        *(
            Limit("get", case, 0.95, "pq-conn", peer="pq-psycopg3")
            for case in ("get", "in with", "leased, and done", "jobs(ahead=True)")
        ),
        # of the issues before
        Limit("put", "1 producer", 1.3, "pq-1.9.1"),
        Limit("put", "16 processes", 2.5, "pq-1.9.1"),
        Limit("put-many", "ids returned", 0.70, "raw"),
        Limit("put-many", "ids returned", 40, "pq-1.9.1"),
        Limit("get", "get", 7, "pq-1.9.1"),
        *(Limit("backlog", case, 0.85, "pq", base) for case in crowded),
        Limit("queues", many, 0.85, "pq", few),
        *([Limit("backlog", big, 500, "pq-1.9.1")] if sizes.big >= 1_000_000 else []),
        Limit("xmin", "last / first", 0.85),
        Limit("get-many", "100", 0.70, "raw"),
        Limit("work", "1 process", 40, "pq-1.9.1"),
        Limit("work", "1 process", 1.0, "pgqueuer-100"),
        Limit("work", "4 processes", 2.5, "pgqueuer-100", "1 process"),
        Limit("recovery", "kill -9 of a worker, s", 31, most=True),
        Limit("recovery", "kill -9 in a transaction, s", 2, most=True),
        Limit("recovery", "SIGTERM to a worker, s", 1, most=True),
        Limit("recovery", "statements per heartbeat, 1,000 running jobs", 1, most=True),
        Limit("memory", last, 1.05, "pq", first, most=True),
    ]
