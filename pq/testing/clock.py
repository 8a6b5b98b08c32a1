"""The clock of a test: what is to come moves towards now, since nobody can turn the server's clock."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timezone
from typing import Any

from .._schedules.rules import times
from .._schedules.schedule import zone_or_utc
from ..sql import array

#: Seconds of the smallest step.
STEP = 0.001


class Clock:
    """How far a test has turned the clock, and what is due by then.

    :param pq: whose jobs and schedules these are.
    :param queues: their names.
    """

    def __init__(self, pq: Any, queues: Iterable[str]) -> None:
        self._pq = pq
        self._queues = array(queues)
        self._sql = pq._table.statements("testing.sql")

    def turn(self, seconds: float) -> None:
        """Turn the clock forward."""
        self._run("turn", seconds=seconds)

    def wait(self) -> float | None:
        """Return the seconds until something is due; None if nothing will be."""
        ((job,),) = self._run("next")
        found = [job] if job is not None else []
        found += [seconds for _, seconds, *_ in self._run("next_schedule")]
        return max(STEP, min(found)) if found else None

    def fire(self) -> None:
        """Put the jobs of the schedules that are due."""
        for name, seconds, rule, zone, anchor, was in iter(self._next_schedule, None):
            if seconds > 0:
                break
            anchor, was = anchor.replace(tzinfo=timezone.utc), was.replace(tzinfo=timezone.utc)
            following = next(times(rule, zone_or_utc(zone), anchor, was), None)
            self._run("fires_next", name=name, following=following)
            self._pq.schedules[name].fire()

    def _next_schedule(self) -> Any:
        return next(iter(self._run("next_schedule")), None)

    def _run(self, statement: str, **params: Any) -> Any:
        return self._pq._table.execute(self._sql[statement], {"queues": self._queues, **params})
