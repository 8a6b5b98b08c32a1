"""What must hold of the histories, and of what is in the database at the end. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

from .history import Event
from .order import passed_over, turns

#: Seconds by which clocks of one machine may differ: what is rounded.
ROUNDING = 0.002


class Row(NamedTuple):
    """A row of the queue table; `state` is ``'done'``, ``'dead'`` or ``'open'``."""

    id: int
    key: str
    state: str


@dataclass
class Report:
    """
    :ivar acknowledged: how many puts were.
    :ivar unknown: how many have an outcome that nobody knows.
    :ivar delivered: how many jobs were delivered.
    :ivar redelivered: how many of them more than once, without those that always fail.
    :ivar duplicates: how many leased jobs had a handler end more than once: allowed, if there were faults.
    :ivar in_line: how many jobs had their order of delivery checked.
    :ivar recoveries: seconds between a delivery and the next one of the same job; sorted.
    :ivar counts: what else was counted.
    :ivar wrong: what did not hold: keys of jobs, by the kind of fault.
    """

    acknowledged: int = 0
    unknown: int = 0
    aborted: int = 0
    delivered: int = 0
    redelivered: int = 0
    duplicates: int = 0
    dead: int = 0
    in_line: int = 0
    recoveries: list[float] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    wrong: dict[str, list[str]] = field(default_factory=dict)

    @property
    def lost(self) -> int:
        return len(self.wrong.get("lost", []))

    def recovery(self, share: float) -> float:
        """The time within which this share of the redeliveries came."""
        times = self.recoveries
        return times[min(len(times) - 1, int(share * len(times)))] if times else 0.0


def check(
    events: Iterable[Event], rows: Iterable[Row], effects: Iterable[str], orders: Iterable[str], faults: bool = True
) -> Report:
    """Compare what the processes have noted with the database, after all work was done. As for the order of delivery,
    `passed_over` says what is asserted.

    :param rows: of the queue table.
    :param effects: keys of the rows that transactional handlers inserted.
    :param orders: keys of the rows that were inserted together with puts.
    :param faults: whether there were any; without them nothing may be handled twice.
    """
    by_kind: dict[str, list[Event]] = defaultdict(list)
    for event in events:
        by_kind[event["event"]].append(event)
    outcome: dict[str, str] = {}  # of each put; "put": its process was killed before it knew
    for kind in ("put", "unknown", "aborted", "acknowledged"):
        for event in by_kind[kind]:
            outcome |= dict.fromkeys(event["keys"], kind)
    acknowledged = {key for key, how in outcome.items() if how == "acknowledged"}
    aborted = {key for key, how in outcome.items() if how == "aborted"}
    poison = {key for key in acknowledged if key.startswith("p")}
    found = list(rows)
    times = Counter(row.key for row in found)
    state = {row.key: row.state for row in found}
    dead = {key for key, how in state.items() if how == "dead"}
    effect = Counter(effects)
    ordered = Counter(orders)
    handled = Counter(event["key"] for event in by_kind["handled"])
    deliveries: dict[str, list[Event]] = defaultdict(list)
    for event in by_kind["delivered"]:
        deliveries[event["key"]].append(event)
    seen = deliveries.keys() | handled.keys() | effect.keys()
    line = turns(by_kind["put"], by_kind["acknowledged"], by_kind["delivered"])
    expected = {key for event in by_kind["put"] if event.get("order") for key in event["keys"]}

    wrong = {
        # acknowledged, and nobody has handled it, or its row is not there any more
        "lost": (acknowledged - poison - dead - handled.keys() - effect.keys())
        | (poison - dead)
        | (acknowledged - state.keys()),
        "unfinished": {key for key, how in state.items() if how == "open"},
        "dead": {key for key in dead if not key.startswith("p")},
        "dead without a delivery": dead - deliveries.keys(),
        "dead and done": dead & {event["key"] for event in by_kind["done"]},
        "put twice": {key for key, number in times.items() if number > 1},
        "effect more than once": {key for key, number in effect.items() if number > 1},
        "effect of a job that is not done": {key for key in effect if state.get(key) != "done"},
        "done without effect": {key for key, how in state.items() if how == "done" and key[0] == "e"} - effect.keys(),
        "never put": (seen | state.keys()) - outcome.keys(),
        "aborted, but there": aborted & (seen | state.keys() | ordered.keys()),
        "order without job, or job without order": {
            key for key in expected if ordered[key] != times[key] or ordered[key] > 1
        },
        "early": _early(by_kind["put"], deliveries),
        "delivered after done": _late(by_kind["done"], deliveries),
        "passed over": passed_over(line, (event["at"] for event in by_kind["session"])),
    }
    if not faults:
        wrong["handled twice without a fault"] = {key for key, number in handled.items() if number > 1}
    return Report(
        acknowledged=len(acknowledged),
        unknown=sum(how in ("put", "unknown") for how in outcome.values()),
        aborted=len(aborted),
        delivered=len(deliveries),
        redelivered=sum(len(events) > 1 for key, events in deliveries.items() if key[0] != "p"),
        duplicates=sum(number > 1 for number in handled.values()),
        dead=len(dead),
        in_line=len(line),
        recoveries=sorted(gap for key, events in deliveries.items() if key[0] != "p" for gap in _gaps(events)),
        wrong={kind: sorted(keys) for kind, keys in wrong.items() if keys},
    )


def _early(puts: list[Event], deliveries: dict[str, list[Event]]) -> set[str]:
    """Delivered before its time, by the server's clock."""
    return {
        key
        for put in puts
        for key in put["keys"]
        for delivery in deliveries.get(key, ())
        if delivery["begun"] < put.get("not_before", 0) - ROUNDING
    }


def _late(dones: list[Event], deliveries: dict[str, list[Event]]) -> set[str]:
    """A delivery has begun, by the server's clock, after the one that was settled."""
    return {
        done["key"]
        for done in dones
        for delivery in deliveries.get(done["key"], ())
        if delivery["begun"] > done["begun"]
    }


def _gaps(events: list[Event]) -> list[float]:
    at = sorted(event["begun"] for event in events)
    return [later - earlier for earlier, later in pairwise(at)]
