"""How long rows are kept once nobody works on them any more, and the deletion of those whose time is over.

It is stored in the comment of the column result, as ``(pq keeps finished 7d, dead 30d)``: whoever may use the queue can
read it, only the table's owner can change it, and it costs neither a rewrite nor a long lock. Without it all is kept.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from .._args import UNSET, Unset, limit_of
from .._db import Database, Rows
from .._times import Delay, delay_of, duration, duration_text
from ..sql import bound

#: Rows that one statement deletes at most, by default, and how many times as many it may look at.
BATCH = 1000
LOOKED_AT = 10

#: `Pruner.prune` deletes no more rows by one statement, whatever it is asked for.
MAX_BATCH = 1_000_000

#: How long a finished row is left alone, whatever the retention: `Queue.get` may be about to give it back.
MIN_AGE = timedelta(minutes=1)

#: Seconds between two statements of a pass, and between two passes.
STATEMENT_PAUSE = 0.1
PASS_PAUSE = 60.0

#: Where rows are kept for long, a pass follows after a thousandth of the shortest time, or after so many seconds.
LONGEST_PAUSE = 600.0

#: After a pass that looked at so many rows in vain, the pause is twice as long as `PASS_PAUSE` at least; after twice as
#: many, three times.
IN_VAIN = 100_000

_ALWAYS = "always"
_MARK = re.compile(r" ?\(pq keeps finished (\w+), dead (\w+)\)")
_ANY_MARK = re.compile(r" ?\(pq keeps[^)]*\)?")

#: For how long: ``'7d'``, a timedelta or seconds; 0: not at all; None: for ever.
Span = Delay | None


@dataclass(frozen=True)
class Retention:
    """How long the rows of a table are kept.

    :ivar finished: after the job was finished, a timedelta; None: for ever.
    :ivar dead: after the job was given up; likewise.
    """

    finished: timedelta | None = None
    dead: timedelta | None = None

    @property
    def deletes_on_completion(self) -> bool:
        """Whether a job that is done is deleted by the statement that settles it."""
        return self.finished == timedelta()

    @property
    def pass_pause(self) -> float:
        """Seconds from one pass of pruning to the next."""
        kept = (span.total_seconds() for span in (self.finished, self.dead) if span is not None)
        return min(max(PASS_PAUSE, min(kept, default=math.inf) / 1000), LONGEST_PAUSE)

    @classmethod
    def of(cls, comment: str | None) -> Retention:
        """Read a comment. One that can't be read means that everything is kept."""
        return cls._read(comment) or cls()

    @classmethod
    def _read(cls, comment: str | None) -> Retention | None:
        mark = _MARK.search(comment or "")
        try:
            return cls(*map(_parsed, mark.groups())) if mark else None
        except ValueError:
            return None

    def noted(self, comment: str | None) -> str:
        """Return the comment with this retention in it, and with the text that the owner wrote there."""
        text = _ANY_MARK.sub("", comment or "")
        return f"{text} (pq keeps finished {_text(self.finished)}, dead {_text(self.dead)})".lstrip()


class Change:
    """A change of the retention, by `PQ.create`.

    :param finished: a `Span`; `UNSET` changes nothing.
    :param dead: a `Span` other than 0; `UNSET` changes nothing.
    :raises TypeError: an argument has another type.
    :raises ValueError: a time has another form, is negative or out of range, or has fractions of a second.
    """

    def __init__(self, finished: Span | Unset = UNSET, dead: Span | Unset = UNSET) -> None:
        self._parts: dict[str, Any] = {}
        if finished is not UNSET:
            self._parts["finished"] = _span("retain", finished)
        if dead is not UNSET:
            self._parts["dead"] = _span("retain_dead", dead)
            if self._parts["dead"] == timedelta():
                raise ValueError("retain_dead must be positive: a dead job waits for somebody's decision")

    def wanted(self, database: Database) -> bool:
        """Return whether the table says something else. If it says the same, no right to change it is needed."""
        return bool(self._parts) and self._applied(old := read(database)) != old

    def make(self, database: Database) -> None:
        """Change the table, inside of a transaction. Its lock lets puts and gets go on."""
        if self.wanted(database):
            old = comment(database)
            new = self._applied(Retention.of(old)).noted(old)
            database.execute(_statements(database)["note"], {"comment": new})

    def _applied(self, old: Retention) -> Retention:
        return replace(old, **self._parts)


def read(database: Database, timeout: float | None = None) -> Retention:
    """Return what the table says now. If there is no table, everything is kept.

    :param timeout: as for `Database.execute`.
    """
    return Retention.of(comment(database, timeout))


def is_garbled(comment: str | None) -> bool:
    """Return whether a comment is meant to say how long rows are kept, and can't be read."""
    return _ANY_MARK.search(comment or "") is not None and Retention._read(comment) is None


class Pruner:
    """Deletes the rows whose retention is over, in short statements.

    Finished rows are in no index but the primary key: another one would have to be written for each job, and would be
    built under a lock when a table is upgraded. So a *pass* goes along the primary key, from the oldest row until all
    that it sees are young, and then along the index of dead jobs. Several processes may do so at once: each passes over
    the rows that another has locked.

    :ivar pause: seconds until `run_once` should be called again.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._position: int | None = _BEFORE_ALL  # None: the finished rows are done, now for the dead jobs
        self._in_vain = 0
        self.pause = 0.0

    def run_once(self, limit: int = BATCH) -> int:
        """Execute the next statement of the pass, and return how many rows it deleted.

        :param limit: the largest number of rows to delete.
        """
        retention = read(self._database)
        self.pause = STATEMENT_PAUSE
        if retention.finished is not None and self._position is not None:
            ((deleted, seen, self._position),) = self._run(
                "finished", retention.finished, limit, position=self._position, look=limit * LOOKED_AT
            )
            self._in_vain += seen - deleted
            return int(deleted)
        deleted = 0
        if retention.dead is not None:
            ((deleted,),) = self._run("dead", retention.dead, limit)
        if deleted < limit:
            self.pause = max(retention.pass_pause, PASS_PAUSE * (1 + self._in_vain // IN_VAIN))
            self._position, self._in_vain = _BEFORE_ALL, 0
        return int(deleted)

    def prune(self, limit: int = BATCH) -> int:
        """Execute statements until one has deleted something, and return how many rows; 0: nothing is left to delete.

        :raises TypeError: `limit` is not an int.
        :raises ValueError: `limit` is not positive.
        :raises TableMissing: there is no table, which `run_once` does not mind.
        """
        limit = min(limit_of(limit, 1), MAX_BATCH)
        self._database.execute(_statements(self._database)["there"], {})
        complete = self._position == _BEFORE_ALL
        while not (deleted := self.run_once(limit)):
            if self.pause >= PASS_PAUSE:  # the end of a pass
                if complete:
                    return 0
                complete = True
        return deleted

    def _run(self, statement: str, kept: timedelta, limit: int, **params: Any) -> Rows:
        params |= {"kept": max(kept, MIN_AGE).total_seconds(), "limit": limit}
        return self._database.execute(_statements(self._database)[statement], params, patient=True)


_BEFORE_ALL = -(2**63)


def _statements(database: Database) -> Mapping[str, str]:
    return bound("retention.sql", database.table)


def comment(database: Database, timeout: float | None = None) -> str | None:
    """Return the comment that says how long rows are kept, as it stands there.

    :param timeout: as for `Database.execute`.
    """
    rows = database.execute(_statements(database)["read"], {"table": database.table}, timeout=timeout)
    return rows[0][0] if rows else None


def _span(name: str, spec: Any) -> timedelta | None:
    if spec is None:
        return None
    span = delay_of(name, spec)
    if span.microseconds:
        raise ValueError(f"{name} must be whole seconds: {span}")
    return span


def _text(span: timedelta | None) -> str:
    return _ALWAYS if span is None else duration_text(span)


def _parsed(text: str) -> timedelta | None:
    return None if text == _ALWAYS else duration("retention", text)
