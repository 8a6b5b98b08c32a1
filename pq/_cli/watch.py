"""What `pq top` shows: looks at the queues, again and again, by one thread."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from .._looks import Overview, QueueOverview, RunningJob
from .._looks.history import finished_lately
from .._looks.rate import Rate
from .._loop import Loop
from .._manager import PQ
from .._text import describe
from ..doctor import Finding

#: Seconds between two looks of the doctor, and between two at what has ended lately.
DOCTOR_PAUSE = 30.0
HISTORY_PAUSE = 10.0

#: How many running jobs are looked at.
RUNNING = 100


@dataclass(frozen=True)
class Snapshot:
    """What was seen at one moment.

    :ivar growth: by queue: how many jobs a second it has more, or less, than at the look before. A queue is not there
        if that is not known, because its numbers are cut.
    :ivar finished: by queue: how many jobs were finished in the last whole minute, of those looked at.
    :ivar puts: how many jobs a second were put in the last minute; None: that is not known.
    :ivar findings: of the doctor; None: it has not looked yet.
    :ivar error: why the last look failed, or ``''``; the rest is as it was before.
    """

    overview: Overview
    running: Sequence[RunningJob] = ()
    growth: Mapping[str, float] = field(default_factory=dict)
    finished: Mapping[str, int] = field(default_factory=dict)
    puts: float | None = None
    findings: Sequence[Finding] | None = None
    error: str = ""


class Watch:
    """Looks once in `interval` seconds, in a thread of its own: a database that answers late must not stop the keys.

    :ivar snapshot: what was seen last; None: nothing yet.
    :ivar loop: the thread.
    """

    def __init__(self, pq: PQ, interval: float) -> None:
        self.snapshot: Snapshot | None = None
        self.loop: Loop = Loop(self.run_once, "pq top")
        self._pq = pq
        self._interval = interval
        self._doctor_at = self._history_at = 0.0
        self._rate = Rate()

    def run_once(self) -> float:
        """Look; return the seconds until the next look."""
        try:
            self.look()
        except Exception as error:  # of the driver, too: the next look may find the database back
            if self.snapshot is not None:
                self.snapshot = replace(self.snapshot, error=describe(error))
        return self._interval

    def look(self, doctor: bool = True) -> Snapshot:
        """Look at everything whose time has come, and return it.

        :param doctor: whether to call the doctor, if it is time.
        """
        before, now = self.snapshot, time.monotonic()
        overview = self._pq.overview()
        seen = Snapshot(overview, self._pq.running(RUNNING), _growth(before, overview), puts=self._rate.puts(overview))
        if before is not None:
            seen = replace(seen, finished=before.finished, findings=before.findings)
        if now >= self._history_at:
            self._history_at = now + HISTORY_PAUSE
            seen = replace(seen, finished=finished_lately(self._pq.history(minutes=2), overview.at))
        self.snapshot = seen
        if doctor and now >= self._doctor_at:
            self._doctor_at = now + DOCTOR_PAUSE
            seen = self.snapshot = replace(seen, findings=tuple(self._pq.doctor()))
        return seen


def _growth(before: Snapshot | None, overview: Overview) -> dict[str, float]:
    if before is None:
        return {}
    seconds = (overview.at - before.overview.at).total_seconds()
    if seconds <= 0:  # the same look, from memory
        return dict(before.growth)
    old = {queue.name: _jobs(queue) for queue in before.overview.queues}
    new = {queue.name: _jobs(queue) for queue in overview.queues}
    return {
        name: (count - last) / seconds
        for name, count in new.items()
        if count is not None and (last := old.get(name, 0)) is not None
    }


def _jobs(queue: QueueOverview) -> int | None:
    """Return how many jobs a queue has that are to be done; None if that is not known."""
    counts = (queue.ready, queue.scheduled, queue.held, queue.running)
    return None if any(count.is_cut for count in counts) else sum(counts)
