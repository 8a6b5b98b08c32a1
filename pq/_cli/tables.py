"""The tables that `pq top` shows, as lines. Pure."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from .._jobs.failure import Failure
from .._jobs.track import ratio
from .._looks import DeadGroup, QueueOverview, RunningJob
from .._text import printable
from .._times import age_text
from ..doctor import Finding
from .cells import Column, Line, fit, table
from .watch import Snapshot

#: Cells of a progress bar.
BAR = 10


def first_of(at: int, count: int, space: int) -> int:
    """Return which of so many rows is shown first, so that the chosen one is shown, too."""
    return 0 if count <= space else max(0, min(at - space // 2, count - space))


def job_lines(queue: str, jobs: Sequence[Any], width: int) -> tuple[list[Line], list[str]]:
    """Return the heading and the rows of a table of the first jobs of a queue."""
    heading, *rows = table(
        [
            Column("ID", [str(job.id) for job in jobs]),
            Column("STATE", [job.state for job in jobs], right=False),
            Column("PUT", [f"{job.enqueued_at:%m-%d %H:%M:%S}" for job in jobs], 4),
            Column("DUE", ["-" if job.due_at is None else f"{job.due_at:%m-%d %H:%M:%S}" for job in jobs], 3),
            Column("KEY", [job.key or "-" for job in jobs], 5, right=False, most=20),
            Column("ATT", [str(job.attempts) for job in jobs], 2),
            Column("DATA", [one_line(job.text) for job in jobs], 1, False),
        ],
        width,
    )
    title = f"queue {queue!r}: the first {len(jobs)} jobs, in the order in which they are taken"
    return [Line(fit(title, width)), Line(heading, "heading")], rows


def dead_lines(groups: Sequence[DeadGroup], now: datetime, width: int) -> tuple[list[Line], list[str]]:
    """Return the heading and the rows of a table of groups of dead jobs."""
    if not groups:
        return [Line(fit("no dead jobs", width), "quiet")], []
    heading, *rows = table(
        [
            Column("QUEUE", [group.queue for group in groups], right=False),
            Column("COUNT", [str(group.count) for group in groups]),
            Column("LAST", [since(group.last, now) for group in groups], 2),
            Column("FIRST", [since(group.first, now) for group in groups], 4),
            Column("SAMPLE", [str(group.sample) for group in groups], 3),
            Column("TASK", [group.task or "-" for group in groups], 5, right=False, most=30),
            Column("ERROR", [one_line(str(Failure(group.error, group.message))) for group in groups], 1, False),
        ],
        width,
    )
    return [Line(heading, "heading")], rows


def finding_lines(findings: Sequence[Finding], width: int) -> list[Line]:
    """Return the doctor's findings with their remedies."""
    lines = []
    for finding in findings:
        first, *rest = text_lines(str(finding), width)
        lines += [first._replace(style="" if finding.severity == "note" else finding.severity), *rest]
    return lines or [Line(fit("the doctor finds nothing wrong", width), "quiet")]


def text_lines(text: str, width: int) -> list[Line]:
    """Return a text in as many lines as it needs."""
    lines = []
    for line in text.splitlines():
        indent = " " * (len(line) - len(line.lstrip(" ")))
        lines += textwrap.wrap(printable(line), max(width, 10), subsequent_indent=f"{indent}  ") or [""]
    return [Line(fit(line, width)) for line in lines]


def queue_table(queues: Sequence[QueueOverview], snapshot: Snapshot, sort: str, width: int) -> list[str]:
    """Return the heading and a line for each queue."""
    growth, finished = snapshot.growth, snapshot.finished

    def title(name: str) -> str:
        return f"{name.upper()}*" if name == sort else name.upper()

    return table(
        [
            Column(title("name"), [queue.name for queue in queues], right=False, most=60),
            Column(title("ready"), [str(queue.ready) for queue in queues]),
            Column(title("age"), ["-" if queue.next_age is None else age_text(queue.next_age) for queue in queues]),
            Column("+/S", [f"{growth[queue.name]:+.1f}" if queue.name in growth else "-" for queue in queues], 4),
            Column("DONE/MIN", [str(finished.get(queue.name, "-")) for queue in queues], 5),
            Column("SCHEDULED", [str(queue.scheduled) for queue in queues], 7),
            Column("HELD", [str(queue.held) for queue in queues], 8),
            Column(title("running"), [str(queue.running) for queue in queues], 2),
            Column(title("dead"), [str(queue.dead) for queue in queues], 1),
            Column("WAIT", [str(queue.waiting) for queue in queues], 6),
            Column("", [state_of(queue) for queue in queues], 3, right=False),
        ],
        width,
    )


def running_lines(snapshot: Snapshot, width: int) -> list[Line]:
    """Return a table of the jobs that run, below an empty line; nothing if there are none."""
    jobs, now = snapshot.running, snapshot.overview.at
    if not jobs:
        return []
    heading, *rows = table(
        [
            Column("RUNNING IN", [job.queue for job in jobs], right=False, most=30),
            Column("ID", [str(job.id) for job in jobs]),
            Column("FOR", [since(job.since, now) for job in jobs]),
            Column("ATT", [str(job.attempts) for job in jobs], 4),
            Column("LEASE", [since(now, job.lease_ends) for job in jobs], 5),
            Column("TASK", [job.task or "-" for job in jobs], 2, right=False, most=40),
            Column("WORKER", [job.worker or "-" for job in jobs], 3, right=False, most=30),
            Column("PROGRESS", [progress(job) for job in jobs], 1, right=False, most=40),
        ],
        width,
    )
    return [Line(" " * width), Line(heading, "heading"), *map(Line, rows)]


def progress(job: RunningJob) -> str:
    """Return how far a job is: a bar for a number, else its text."""
    told = job.progress
    part = ratio(told)
    if part is None:
        return "" if told is None else one_line(told if isinstance(told, str) else json.dumps(told))
    text = told.get("text", "") if isinstance(told, dict) else ""
    full = int(part * BAR)
    return f"[{'#' * full}{' ' * (BAR - full)}] {int(part * 100):3} % {one_line(str(text))}".rstrip()


def one_line(text: str) -> str:
    """Return the beginning of a text, in one line."""
    return " ".join(text[:500].split())


def since(earlier: datetime, later: datetime) -> str:
    """Return how long it was from one time to another."""
    return age_text(max(0.0, (later - earlier).total_seconds()))


def style_of(queue: QueueOverview) -> str:
    """Return the style of a queue's line."""
    if queue.paused:
        return "quiet"
    return "warning" if state_of(queue) == "nobody takes" else ""


def state_of(queue: QueueOverview) -> str:
    """Return what is special about a queue."""
    if queue.paused:
        return "paused"
    if queue.ready and not queue.running and not queue.waiting and (queue.next_age or 0) > 5:
        return "nobody takes"
    return "limited" if queue.limited else ""
