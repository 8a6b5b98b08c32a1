"""All figures, in rounds."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

import psycopg2

from .child import Failed
from .install import Installed
from .peers import PEERS
from .server import Server
from .sites import Site
from .sizes import Sizes

#: Variants of peers that the smaller sizes do without.
SPARED = ("raw-unprepared", "pgmq-archive")

#: Figure → case → peer → what each round has measured.
Results = dict[str, dict[str, dict[str, list[float]]]]


class Cell(NamedTuple):
    """Something that is measured in each round.

    :ivar measure: returns the value, or several by their cases.
    """

    case: str
    peer: str
    measure: Callable[[], float | Mapping[str, float]]


class Figure(NamedTuple):
    """
    :ivar unit: of its values.
    :ivar cells: what belongs to it; may prepare them.
    :ivar rounds: at most, and one in the smaller sizes: it is slow, or needs no more.
    :ivar brief: it belongs to the smaller sizes, too.
    """

    name: str
    what: str
    unit: str
    cells: Callable[[Bench], Iterator[Cell]]
    rounds: int | None = None
    brief: bool = True


@dataclass
class Bench:
    """What the figures work with.

    :ivar peers: names of those that are measured.
    :ivar end: by the monotonic clock: nothing new is begun then.
    :ivar spent: seconds, by the names of figures.
    :ivar notes: what was not measured, and why.
    """

    server: Server
    installed: Installed
    sizes: Sizes
    peers: list[str]
    end: float
    results: Results = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    spent: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._sites: dict[tuple[str, str], Site] = {}
        self._stack = ExitStack()
        self._number = 0
        self.notes += [f"{name} is absent: {why}" for name, why in self.installed.absent.items() if name in self.peers]

    # -- for figures

    def able(self, what: str, *names: str) -> list[str]:
        """Those of the peers that are here and can do it; in the smaller sizes not those that no limit is set for."""
        here = [name for name in names if name in self.peers and name in self.installed.folders]
        here = [name for name in here if not (self.sizes.brief and name in SPARED)]
        return [name for name in here if PEERS[name]("").able(what)]

    def site(self, peer: str, key: str = "", counted: bool = False) -> Site:
        """Of the figure that is being measured: the same for the same key."""
        if (peer, key) not in self._sites:
            self._number += 1
            site = Site(self.server, peer, self.installed.folders[peer], self._number, counted)
            self._stack.callback(site.close)
            self._sites[peer, key] = site
        return self._sites[peer, key]

    # -- the run

    def run(self, figures: list[Figure]) -> None:
        for figure in figures:
            begun = time.monotonic()
            if begun > self.end:
                self.notes.append(f"{figure.name} was not measured: the time was over")
                continue
            try:
                with self._figure():
                    self._measure(figure)
            except (Failed, psycopg2.Error) as error:
                self.notes.append(f"{figure.name}: {error}")
            self.spent[figure.name] = time.monotonic() - begun

    @contextmanager
    def _figure(self) -> Iterator[None]:
        with ExitStack() as self._stack:
            try:
                yield
            finally:
                self._sites.clear()

    def _measure(self, figure: Figure) -> None:
        say(f"{figure.name}: preparing")
        cells = list(figure.cells(self))
        failed: set[tuple[str, str]] = set()
        rounds = self.sizes.rounds
        if figure.rounds is not None:
            rounds = 1 if self.sizes.brief else min(rounds, figure.rounds)
        for number in range(rounds):
            if number and time.monotonic() > self.end:
                self.notes.append(f"{figure.name}: {number} rounds instead of {rounds}: the time was over")
                break
            # another one begins each time: what the machine does meanwhile hits now this one, now that one
            turn = number * len(cells) // rounds
            for place, cell in enumerate(cells[turn:] + cells[:turn]):
                if (cell.case, cell.peer) in failed:
                    continue
                say(f"{figure.name}: round {number + 1}/{rounds}, {place + 1}/{len(cells)}: {cell.case}, {cell.peer}")
                try:
                    self._add(figure.name, cell, cell.measure())
                except (Failed, psycopg2.Error) as error:
                    failed.add((cell.case, cell.peer))
                    self.notes.append(f"{figure.name}, {cell.case}, {cell.peer}: {error}")

    def _add(self, figure: str, cell: Cell, value: float | Mapping[str, float]) -> None:
        values = value if isinstance(value, Mapping) else {cell.case: value}
        for case, one in values.items():
            self.results.setdefault(figure, {}).setdefault(case, {}).setdefault(cell.peer, []).append(one)


def say(text: str) -> None:
    """The progress line."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text[:100]}", end="", file=sys.stderr, flush=True)
    else:
        print(text, file=sys.stderr, flush=True)
