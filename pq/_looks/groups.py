"""`PQ.dead_groups`: dead jobs, grouped by what they died of."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from .._queue import Queue
from .._table import Table
from .._table.look import look
from .overview import Count
from .times import aware, task_name

#: What is masked in messages: addresses, UUIDs, numbers.
_NUMBERS = re.compile(r"0x[0-9a-fA-F]+|\b[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\b|[0-9]+")

#: The beginning of what `Failure.dumps` writes.
_ERROR = re.compile(r'\{"type"\s*:\s*"((?:[^"\\]|\\.)*)",\s*"message"\s*:\s*"((?:[^"\\]|\\(?:u[0-9a-f]{4}|[^u]))*)')

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
    reasons: dict[str, tuple[str, str]] = {}
    found: dict[tuple[str, str | None, str, str], list[tuple[int, datetime]]] = {}
    for id, name, task, error, died_at, most in rows:
        seen[name] = seen.get(name, 0) + 1
        if seen[name] <= most:
            if error not in reasons:
                reasons[error] = reason(error)
            kind, message = reasons[error]
            found.setdefault((name, task_name(task), kind, message), []).append((id, died_at))
    made = []
    for parts, jobs in found.items():
        ids = tuple(id for id, _ in jobs)
        count = Count(len(jobs), seen[parts[0]] > rows[0][-1])
        last, first = jobs[0][1], jobs[-1][1]
        made.append(
            DeadGroup(key_of(*parts), *parts, count, aware(first), aware(last), ids[0], ids, queue_of(parts[0]))
        )
    return sorted(made, key=lambda group: (-group.count, group.queue, group.key))


def reason(error: str) -> tuple[str, str]:
    """Return the type of a stored error, of which this may be the beginning, and its message with numbers masked."""
    match = _ERROR.match(error)
    kind, message = ("Failure", error) if match is None else (_unescaped(match[1]), _unescaped(match[2]))
    return kind, _NUMBERS.sub("#", message[:MESSAGE])


def _unescaped(text: str) -> str:
    if "\\" not in text:
        return text
    try:
        return str(json.loads(f'"{text}"'))
    except ValueError:
        return text


def key_of(*parts: str | None) -> str:
    """Return the short name of a group."""
    return hashlib.sha256(repr(parts).encode("utf-8", "backslashreplace")).hexdigest()[:8]
