"""Which fault happens when, to whom and for how long: drawn by the seed, or read from a file."""

from __future__ import annotations

import json
import random
from typing import NamedTuple


class Fault(NamedTuple):
    """
    :ivar at: seconds after the beginning.
    :ivar luck: between 0 and 1: whom it hits.
    :ivar seconds: how long, for those that last.
    """

    at: float
    kind: str
    luck: float
    seconds: float


#: The kinds, how often each is chosen, and the seconds that it lasts.
KINDS: dict[str, tuple[int, float, float]] = {
    "kill": (6, 0, 0),
    "terminate": (4, 0, 0),
    "cut": (3, 0, 0),
    "commit-lost": (4, 0, 0),  # the connection is cut before the COMMIT gets to the server
    "commit-unheard": (4, 0, 0),  # after the server has done it
    "change-lost": (3, 0, 0),  # the same for statements outside of transactions
    "change-unheard": (3, 0, 0),
    "freeze": (3, 0.1, 1.0),
    "freeze-long": (2, 2.5, 4.5),  # longer than the lease
    "restart": (1, 0, 0.5),
    "promote": (1, 0, 0),
    "black-hole": (1, 0.5, 3.0),
    "statement-timeout": (1, 1.0, 3.0),
    "idle-timeout": (1, 1.0, 3.0),
    "exhaust": (1, 0.5, 2.0),
    "create": (2, 0, 0),
    "xmin": (1, 2.0, 6.0),
    "clock": (2, 0.5, 3.0),
}


#: Seconds, of which the last third is quiet: then nothing but keys holds up a job with a key.
CYCLE = 18.0


class Schedule(NamedTuple):
    """All that a run is given.

    :ivar seconds: how long, without the draining.
    :ivar small: with few processes.
    :ivar keyed: with those that put and take jobs with keys, tokens and limits.
    :ivar streams: with those that publish and read events.
    """

    seed: int
    seconds: float
    small: bool
    faults: list[Fault]
    keyed: bool = False
    streams: bool = False

    @classmethod
    def drawn(
        cls, seed: int, seconds: float, interval: float, kinds: list[str], small: bool = False, keyed: bool = False,
        streams: bool = False,
    ) -> Schedule:
        """About one fault each `interval` seconds; with keys, none in the last third of each `CYCLE`."""
        chance = random.Random(seed)
        weights = [KINDS[kind][0] for kind in kinds]
        faults: list[Fault] = []
        at = 1.0
        while kinds and (at := at + chance.uniform(0.2, 1.8) * interval) < seconds:
            (kind,) = chance.choices(kinds, weights)
            if keyed and at % CYCLE > CYCLE * 2 / 3:
                continue
            faults.append(Fault(round(at, 3), kind, chance.random(), round(chance.uniform(*KINDS[kind][1:]), 3)))
        return cls(seed, seconds, small, faults, keyed, streams)

    @classmethod
    def loads(cls, text: str) -> Schedule:
        """
        :raises ValueError: it is not what `dumps` has made.
        """
        try:
            schedule = cls(**json.loads(text))
            schedule = schedule._replace(faults=[Fault(*fault) for fault in schedule.faults])
        except TypeError as error:
            raise ValueError(f"not a schedule: {error}") from None
        if unknown := {fault.kind for fault in schedule.faults} - KINDS.keys():
            raise ValueError(f"not a schedule: {', '.join(sorted(unknown))}")
        return schedule

    def dumps(self) -> str:
        return json.dumps(self._asdict())
