"""How many jobs a second are put, by two looks."""

from __future__ import annotations

import threading
from collections import deque
from datetime import datetime, timedelta

from .overview import Overview

#: How far apart the two looks are at most, and at least: the server completes its statistics once a second.
LONGEST = timedelta(seconds=60)
SHORTEST = timedelta(seconds=2)


class Rate:
    """What the looks of this process say, of the last minute."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: deque[tuple[datetime, int]] = deque()

    def puts(self, overview: Overview) -> float | None:
        """Note a look, and return how many jobs a second were put before it; None if no other look is near enough."""
        at, count = overview.at, overview.table.inserted
        with self._lock:
            if self._seen and count < self._seen[-1][1]:  # the statistics have begun anew
                self._seen.clear()
            if not self._seen or at > self._seen[-1][0]:
                self._seen.append((at, count))
            while at - self._seen[0][0] > LONGEST and len(self._seen) > 1:
                self._seen.popleft()
            since, before = self._seen[0]
        passed = at - since
        return (count - before) / passed.total_seconds() if SHORTEST <= passed <= LONGEST else None
