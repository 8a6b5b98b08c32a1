"""When the next schedule is due, as the looks of the listening session see it."""

from __future__ import annotations

import math
import time

#: Seconds after which the next look tells of the schedules again.
PAUSE = 0.5

#: Seconds for which looks don't tell of them after one that failed.
REFUSED = 600.0


class NextSchedule:
    """A process that waits looks at its queues once in each poll interval. Where it fires schedules, too, the same
    statement says when the next one is due, so that it needs no other one for that.

    It is read and written without a lock: each side sees what the other one has written completely, or before.
    """

    def __init__(self) -> None:
        self._seen: tuple[float, float] = -math.inf, math.inf  # when that was asked, and the next is due; monotonic
        self._asked = False
        self._refused_until = -math.inf

    def pause(self, fresh: float) -> float:
        """Return for how many seconds nobody has to look: until the next schedule is due, or what was seen is too old.
        0 or less: now. From the first call on, looks see to it.

        :param fresh: seconds after which it is too old.
        """
        self._asked = True
        asked_at, due_at = self._seen
        return min(due_at, asked_at + fresh) - time.monotonic()

    @property
    def wanted(self) -> bool:
        """Whether the next look is to tell."""
        return self._asked and time.monotonic() >= max(self._seen[0] + PAUSE, self._refused_until)

    def saw(self, asked_at: float, due_in: float | None) -> None:
        """Note what a look has told.

        :param asked_at: a moment before it, in monotonic seconds.
        :param due_in: seconds; None: there is no schedule.
        """
        self._seen = asked_at, math.inf if due_in is None else asked_at + due_in

    def refuse(self) -> None:
        """Say that looks can't tell for now: the role has no right to it, or the table is locked. Whoever fires the
        schedules tells of that."""
        self._refused_until = time.monotonic() + REFUSED
