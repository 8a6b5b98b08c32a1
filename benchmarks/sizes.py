"""How much is measured."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Sizes:
    """
    :ivar name: for the report.
    :ivar rounds: how often everything is measured, at least once.
    :ivar seconds: that each figure runs each time.
    :ivar budget: seconds after which nothing new is begun; what is left out is said.
    :ivar series: backlogs, in jobs; `get` is measured with the second, to which others are compared.
    :ivar big: jobs in place of the million.
    :ivar future: scheduled jobs.
    :ivar queues: other queues, each with ten jobs.
    :ivar keys: of the jobs that are ready.
    :ivar crowd: consumers that wait in one process.
    :ivar passing: jobs that pass while a snapshot is held; `ends` of them, first and last, are measured.
    :ivar samples: of the latency.
    :ivar window: seconds in which statements of an idle process are counted.
    :ivar memory: jobs after which a worker's memory is read.
    :ivar pairs: of the figures that compare in pairs, each round.
    :ivar patience: seconds to wait for autovacuum.
    :ivar brief: only cases that a limit is set for, or a peer's best, and not the slowest figures.
    :ivar start: seconds until a process has started, and waits.
    :ivar puts: whose statements are counted.
    :ivar kills: of workers.
    :ivar naptime: of autovacuum. The default is one minute.
    """

    name: str
    rounds: int
    seconds: float
    budget: float
    series: tuple[int, ...]
    big: int
    future: int
    queues: tuple[int, ...]
    keys: tuple[int, ...]
    crowd: tuple[int, ...]
    passing: int
    ends: int
    samples: int
    window: float
    memory: tuple[int, int]
    patience: float
    pairs: int
    brief: bool = False
    start: float = 2.0
    puts: int = 50
    kills: int = 1
    naptime: str = "1min"


FULL = Sizes(
    "full", rounds=3, seconds=1.5, budget=45 * 60, series=(1_000, 10_000, 100_000, 1_000_000), big=1_000_000,
    future=200_000, queues=(10, 100, 1_000, 10_000), keys=(1, 10, 100, 1_000, 10_000), crowd=(0, 1, 4, 16, 32, 128),
    passing=100_000, ends=3_000, samples=1_000, window=10, memory=(10_000, 100_000), patience=300, pairs=5,
    kills=5,
)  # fmt: skip

QUICK = Sizes(
    "quick", rounds=1, seconds=0.4, budget=230, brief=True, series=(1_000, 10_000, 100_000), big=100_000,
    future=20_000, queues=(10, 1_000), keys=(1, 100, 10_000), crowd=(0, 4, 32), passing=20_000, ends=2_000, samples=100,
    window=5, memory=(2_000, 20_000), patience=30, pairs=3, start=1.0, puts=20, naptime="5s",
)  # fmt: skip

TINY = Sizes(
    "tiny", rounds=1, seconds=0.05, budget=600, brief=True, series=(10, 20), big=100, future=20, queues=(2, 3),
    keys=(1, 5), crowd=(0, 2), passing=40, ends=10, samples=5, window=0.2, start=0.5, memory=(50, 100), patience=0,
    pairs=1, puts=2, naptime="5s",
)  # fmt: skip


def amount(number: int) -> str:
    """``1,000,000`` as ``1M``."""
    for size, letter in ((1_000_000, "M"), (1_000, "k")):
        if number >= size and number % size == 0:
            return f"{number // size}{letter}"
    return str(number)
