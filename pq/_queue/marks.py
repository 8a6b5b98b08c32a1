"""Low-water marks: where a claim begins to look."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from .._jobs.row import DEQUEUED_AT, EXPECTED_AT, ID

#: How far below the last job taken the marks stay: in ids, and in jobs that this process took.
ID_MARGIN = 1000
JOB_MARGIN = 500

#: Seconds after which a claim looks everywhere again.
FORGET = 1.0

#: An exact look is slow when it takes this many times as long as the quickest one, and this many seconds.
SLOW_TIMES = 3.0
SLOW_SECONDS = 0.001

#: After a slow exact look the next one follows after this many times as long, but after `FORGET` at the latest.
SLOW_PAUSE = 20.0

#: After so many slow exact looks in a row, the marks of urgent and due jobs follow at each.
SLOW_IN_A_ROW = 3

LOWEST = -(2**63)

Rows = Sequence[tuple[Any, ...]]


class Marks:
    """The marks of one queue in one process.

    While an old transaction is open anywhere on the server, the entries of the jobs that were taken stay in the
    indexes, in front of those of ready jobs, and a claim that began at the start would step over all of them. So a
    claim begins at a mark somewhat below what this process took last. What becomes ready below the marks (put by a long
    transaction, given back, made ready by another process) is found by an *exact* look, which begins at the start.

    Among jobs without priority each claim uses the mark, and makes an exact look once a second, and whenever there is
    not enough above the mark. For urgent and for due jobs there are marks, too; claims use these, and leave out the
    second look, only while exact looks are slow. An exact look is then made at least once a second.

    A look also takes long because the machine is busy. Then one that uses the marks takes as long, too: they are
    dropped, and an exact look follows at once.

    :ivar position: where claims begin now.
    """

    def __init__(self) -> None:
        self.position = Position()
        self._promotions = 0  # claims that have made jobs ready
        self._quickest = math.inf
        self._exact_at = -math.inf  # monotonic seconds, as all that follow
        self._slow_until = 0.0
        self._slow_looks = 0
        self._slow_took = 0.0  # the last of them; seconds

    def look(self, exact: bool) -> Look:
        """Begin to look.

        :param exact: pass nothing over, unless exact looks are slow.
        """
        now = time.monotonic()
        slow = now < self._slow_until
        if now - self._exact_at >= FORGET or (exact and not slow):
            self.position.id = LOWEST
            slow = False
        return Look(self, now, slow)

    def _replace(self, id: int) -> Position:
        """Begin anew, with jobs without priority at this id or, if that is lower, where the old mark is."""
        position = Position(id)
        if self.position.id < id:  # no call from here on: Python lets other threads run at these
            position.id = position.begins = self.position.id
        self.position = position
        return position


class Position:
    """The marks themselves, shared by the claims that began while they were in force.

    Several threads claim at the same time. If one of them makes jobs ready, or finds some below the marks, others that
    began before may not have seen these, and what they have taken says nothing of them. So the one replaces the marks,
    and the others move the old ones when they end. They may also have had such jobs locked: a claim that comes to a due
    row which another one makes ready locks it before it sees that. Claims that began meanwhile stepped over it, and
    moved the marks past it. So each of the others replaces the marks once more.

    :ivar begins: the id at the beginning.
    :ivar id: jobs without priority below this id are not looked at.
    :ivar urgent: neither are jobs with an earlier `expected_at`, if it is not None and exact looks are slow.
    :ivar due: neither are jobs that became due earlier, likewise.
    """

    __slots__ = (
        "_next_due", "_next_urgent", "begins", "due", "id", "seen_due", "seen_urgent", "taken", "taken_at", "urgent"
    )  # fmt: skip

    def __init__(self, id: int = LOWEST) -> None:
        self.id = self.begins = id
        self.urgent: datetime | None = None
        self.due: datetime | None = None
        self._next_urgent: datetime | None = None
        self._next_due: datetime | None = None
        self.seen_urgent: datetime | None = None
        self.seen_due: datetime | None = None
        self.taken = 0
        self.taken_at: datetime | None = None

    @property
    def hides(self) -> bool:
        """Whether urgent or due jobs may be passed over."""
        return self.urgent is not None or self.due is not None

    def follow(self) -> None:
        """Have the marks of urgent and due jobs follow, with a lag: so they hide nothing from a process that has taken
        few jobs, to which an exact look may have seemed slow by chance."""
        self.taken = 0
        self.urgent, self._next_urgent = self._next_urgent or self.urgent, self.seen_urgent
        self.due, self._next_due = self._next_due or self.due, self.seen_due


class Look:
    """One claim, from its beginning on.

    :ivar mark: the lowest id of a job without priority.
    :ivar slow: whether the marks of urgent and of due jobs are used.
    :ivar suffices: once it is over: whether there is no need to look for what was passed over.
    """

    __slots__ = ("_began_at", "_marks", "_position", "_promotions", "mark", "slow", "suffices")

    def __init__(self, marks: Marks, now: float, slow: bool) -> None:
        self._marks = marks
        self._promotions = marks._promotions  # first: what comes between counts as later
        self._position = position = marks.position
        self._began_at = now
        self.mark = position.id
        self.slow = self.suffices = slow

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters of the statement."""
        if not self.slow:
            return {"mark": self.mark}
        return {
            "mark": self.mark,
            "urgent_mark": self._position.urgent or "-infinity",
            "due_mark": self._position.due or "-infinity",
        }

    def saw(self, rows: Rows, promoted: int | None, all_due: bool) -> None:
        """Take note of what was found.

        :param rows: the jobs that were taken, in order.
        :param promoted: the lowest id of the jobs that the claim has made ready; None if there were none.
        :param all_due: whether there is no due job left.
        """
        marks, position = self._marks, self._position
        exact = self.mark == LOWEST and not self.slow  # nothing was passed over
        if exact:
            self.suffices = True
            self._time()
        elif self.slow and self._was_no_quicker():
            self.suffices = False
            marks._slow_until, marks._slow_looks = 0.0, 0
            if position.hides:
                position = marks._replace(position.id)
        if promoted is not None:
            marks._replace(promoted)
            marks._promotions += 1
            return
        if self._promotions != marks._promotions:
            marks._replace(marks.position.begins)
            return
        if all_due:
            position.seen_due = position.taken_at
        if not rows:
            return
        first, last = rows[0], rows[-1]
        urgent = last[EXPECTED_AT] or first[EXPECTED_AT]
        if urgent is not None and exact and position.urgent is not None and first[EXPECTED_AT] < position.urgent:
            position = marks._replace(position.id)  # there may be more where this one was
        if last[EXPECTED_AT] is None:
            position.id = max(position.id, last[ID] - ID_MARGIN)
        if urgent is not None:
            position.seen_urgent = max(urgent, position.seen_urgent or urgent)
        position.taken_at = last[DEQUEUED_AT]
        position.taken += len(rows)
        if position.taken >= JOB_MARGIN:
            position.follow()

    def _was_no_quicker(self) -> bool:
        """Whether the marks that were in force did not help: not the index is slow, but the machine."""
        if self.mark == LOWEST and not self._position.hides:
            return False
        return self._marks._slow_took <= SLOW_TIMES * (time.monotonic() - self._began_at) + SLOW_SECONDS

    def _time(self) -> None:
        marks = self._marks
        now = time.monotonic()
        took = now - self._began_at
        marks._quickest = min(marks._quickest, took)
        marks._exact_at = now
        if took <= SLOW_TIMES * marks._quickest + SLOW_SECONDS:
            marks._slow_looks = 0
            return
        marks._slow_took = took
        marks._slow_until = now + min(FORGET, SLOW_PAUSE * took)
        marks._slow_looks += 1
        if marks._slow_looks >= SLOW_IN_A_ROW:  # this is no accident: the marks need not wait for more jobs
            self._position.follow()
