"""`PQ.dead_groups`: dead jobs, grouped by what they died of."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from .._jobs.failure import Failure
from .._queue import Queue
from .._table import Table
from .._table.look import look
from .overview import Count
from .times import aware, task_name

#: What is masked in messages: addresses, UUIDs, numbers.
_NUMBERS = re.compile(r"0x[0-9a-fA-F]+|\b[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\b|[0-9]+")

#: How many jobs one statement retries or deletes.
BATCH = 1000

#: Characters of a message by which jobs are grouped.
MESSAGE = 500


@dataclass(frozen=True)
class DeadGroup:
    """Dead jobs of one queue and task that died of the same error.

    :ivar key: a short name of the group, which stays the same while it has jobs.
    :ivar queue: the name of the queue.
    :ivar task: the name of the task; None if the jobs are no calls of tasks.
    :ivar error: the type of the error, such as ``'ValueError'``.
    :ivar message: its message, with ``#`` in place of each number.
    :ivar count: how many jobs were seen, a `Count`; if it is cut, the look saw only the newest jobs of the queue.
    :ivar first: when the first of these died; in UTC.
    :ivar last: when the last of these died; in UTC.
    :ivar sample: the id of that one.
    :ivar ids: the ids of those that were seen, the newest first.
    """

    key: str
    queue: str
    task: str | None
    error: str
    message: str
    count: Count
    first: datetime
    last: datetime
    sample: int
    ids: Sequence[int] = field(repr=False)
    _queue: Queue = field(repr=False, compare=False)

    def retry(self, rate: str | None = None) -> int:
        """Make the jobs ready again, as `Dead.retry` does.

        :param rate: how many of them become ready in a period, such as ``'100/m'``; None: all of them now.
        :returns: how many jobs were retried.
        """
        return self._queue.dead.retry(self.ids)

    def discard(self) -> int:
        """Delete the jobs, and return how many."""
        return self._queue.dead.discard(self.ids)


def groups(table: Table, queue_of: Callable[[str], Queue], queue: str | None, cap: int) -> list[DeadGroup]:
    """Return the groups, the largest first."""
    rows = look(table, table.statements("looks.sql")["dead"], {"queue": queue, "cap": cap})
    seen: dict[str, int] = {}
    found: dict[tuple[str, str | None, str, str], list[tuple[int, datetime]]] = {}
    for id, name, task, error, died_at in rows:
        seen[name] = seen.get(name, 0) + 1
        if seen[name] <= cap:
            kind, message = reason(error)
            found.setdefault((name, task_name(task), kind, message), []).append((id, died_at))
    made = []
    for (name, task, kind, message), jobs in found.items():
        made.append(
            DeadGroup(
                key_of(name, task, kind, message), name, task, kind, message, Count(len(jobs), seen[name] > cap),
                aware(jobs[-1][1]), aware(jobs[0][1]), jobs[0][0], tuple(id for id, _ in jobs), queue_of(name),
            )
        )
    return sorted(made, key=lambda group: (-group.count, group.queue, group.key))


def reason(error: str) -> tuple[str, str]:
    """Return the type of a stored error, and its message with numbers masked."""
    failure = Failure.loads(error)
    return failure.type, _NUMBERS.sub("#", failure.message[:MESSAGE])


def key_of(*parts: str | None) -> str:
    """Return the short name of a group."""
    return hashlib.sha256(repr(parts).encode("utf-8", "backslashreplace")).hexdigest()[:8]
