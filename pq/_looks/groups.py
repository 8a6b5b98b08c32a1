"""`PQ.dead_groups`: dead jobs, grouped by what they died of."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice

from .._db import Rows
from .._queue import Queue
from .._queue.limits import rate_of
from .._table import Table
from .._table.look import look
from .overview import Count
from .times import aware, naive, task_name

#: What is masked in messages: addresses, UUIDs, numbers.
_NUMBERS = re.compile(r"0x[0-9a-fA-F]+|\b[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\b|[0-9]+")

#: The beginning of what `Failure.dumps` writes. Written like this, it takes steps from one backslash to the next.
_ERROR = re.compile(
    r'\{"type"\s*:\s*"([^"\\]*(?:\\.[^"\\]*)*)",\s*'
    r'"message"\s*:\s*"([^"\\]*(?:\\(?:u[0-9a-f]{4}|[^u])[^"\\]*)*)'
)

#: How many jobs one statement retries or deletes, or reads to find these.
BATCH = 1000

#: Characters of an error by which jobs are grouped; the statements of ``looks.sql`` return as many.
BEGINNING = 400

#: Queue, task, type of the error, and message.
Parts = tuple[str, str | None, str, str]


@dataclass(frozen=True)
class DeadGroup:
    """Dead jobs of one queue and task that died of the same error.

    :ivar key: a short name of the group, which stays the same while it has jobs.
    :ivar queue: the name of the queue.
    :ivar task: the name of the task; None if the jobs are no calls of tasks.
    :ivar error: the type of the error, such as ``'ValueError'``.
    :ivar message: the beginning of its message, with ``#`` in place of each number.
    :ivar count: how many jobs were seen, a `Count`; if it is cut, the look saw only the newest dead jobs of the queue.
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
        """Make the jobs ready again, as if they had never been tried, and those that had died before, too.

        This takes statements of 1,000 jobs each, the newest first. Each is committed at once: where it was interrupted,
        another call goes on.

        :param rate: how many of them become ready in a period, such as ``'100/m'`` or ``'5/s'``, as for `Limit`: the
            others are scheduled, evenly. None: all of them now.
        :returns: how many jobs were retried. Those on which somebody has decided meanwhile are passed over.
        :raises TypeError: the rate is not a str.
        :raises ValueError: the rate is of another form, or out of range.
        """
        pause = None if rate is None else (each := rate_of(rate)).period / each.number
        count = 0
        for ids in _batches(self._all()):
            if pause is None:
                count += self._queue.dead.retry(ids)
            else:
                # by those that were retried: as many as are scheduled already
                count += self._queue.dead._retry_each(ids, [pause * (count + number) for number in range(len(ids))])
        return count

    def discard(self) -> int:
        """Delete the jobs, as `retry` retries them, and return how many were deleted."""
        return sum(self._queue.dead.discard(ids) for ids in _batches(self._all()))

    def _all(self) -> Iterator[int]:
        """The ids of the jobs, including those that the look did not see."""
        yield from self.ids
        table = self._queue._table
        place = {"queue": self.queue, "id": self.ids[-1], "died_at": naive(self.first), "limit": BATCH}
        is_full = self.count.is_cut
        while is_full:
            rows = look(table, table.statements("looks.sql")["dead_before"], place)
            yield from (row[0] for row in rows if parts_of(row) == (self.queue, self.task, self.error, self.message))
            is_full = len(rows) == BATCH
            if is_full:
                place |= {"id": rows[-1][0], "died_at": rows[-1][4]}


def _batches(ids: Iterable[int]) -> Iterator[list[int]]:
    ids = iter(ids)
    while batch := list(islice(ids, BATCH)):
        yield batch


def groups(table: Table, queue_of: Callable[[str], Queue], queue: str | None, cap: int) -> list[DeadGroup]:
    """Return the groups, the largest first."""
    rows = look(table, table.statements("looks.sql")["dead"], {"queue": queue, "cap": cap})
    found: dict[Parts, Rows] = {}
    cut = set()
    seen: dict[str, int] = {}
    for row in rows:
        name, most = row[1], row[5]
        seen[name] = seen.get(name, 0) + 1
        if seen[name] > most:
            cut.add(name)
        else:
            found.setdefault(parts_of(row), []).append(row)
    made = []
    for parts, jobs in found.items():
        count = Count(len(jobs), parts[0] in cut)
        ids = tuple(row[0] for row in jobs)
        first, last = aware(jobs[-1][4]), aware(jobs[0][4])
        made.append(DeadGroup(key_of(parts), *parts, count, first, last, ids[0], ids, queue_of(parts[0])))
    return sorted(made, key=lambda group: (-group.count, group.queue, group.key))


def parts_of(row: tuple[object, ...]) -> Parts:
    """Return the group that a dead job belongs to."""
    _, queue, task, error, *_ = row
    return (str(queue), task_name(None if task is None else str(task)), *reason(str(error)))


def reason(error: str) -> tuple[str, str]:
    """Return the type of a stored error, of which this is the beginning, and its message with numbers masked."""
    match = _ERROR.match(error)
    kind, message = ("Failure", error) if match is None else (_unescaped(match[1]), _unescaped(match[2]))
    ends_here = match is not None and error[match.end() :].startswith('"')
    if len(error) >= BEGINNING and not ends_here:
        message = message.rstrip("0123456789")  # the last number may be cut: of how many digits is not to matter
    return kind, _NUMBERS.sub("#", message)


def _unescaped(text: str) -> str:
    if "\\" not in text:
        return text
    try:
        return str(json.loads(f'"{text}"'))
    except ValueError:
        return text


def key_of(parts: Parts) -> str:
    """Return the short name of a group."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:8]
