"""What settings of the server do to pq."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from ..run import Bench, Cell
from .single import TAKEN, put_rate, taken
from .working import work_rate

PEER = "pq"

#: Besides those that all other figures are measured with.
SETTINGS = (("synchronous_commit", "off"), ("shared_buffers", "128MB"))


def settings(bench: Bench) -> Iterator[Cell]:
    jobs: dict[tuple[str, int], int] = {}
    ready = bench.sizes.series[1]
    figures: dict[str, Callable[[], float]] = {
        "put, 1 producer": partial(put_rate, bench, PEER, 1, 1),
        "put, 16 processes": partial(put_rate, bench, PEER, 1, 16),
        "get": partial(taken, bench, PEER, "getter", ready, int(TAKEN * ready)),
        "work, 1 process": partial(work_rate, bench, PEER, 1, jobs),
    }

    def measure(name: str, value: str, figure: Callable[[], float]) -> float:
        with bench.server.using(name, value):
            return figure()

    if bench.able("putter", PEER):
        for case, figure in figures.items():
            yield Cell(case, "as above", figure)
            for name, value in SETTINGS:
                yield Cell(case, f"{name} = {value}", partial(measure, name, value, figure))
