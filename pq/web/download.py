"""A group of dead jobs as a file of JSON lines."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

from .._jobs.job import utc_format
from .jobs import LONGEST, Row
from .request import Answer
from .view import View

#: Jobs that one look reads, and bytes of a file: what is more is left out, and told in the last line.
JOBS = 50
LARGEST = 16 * 1024 * 1024

#: With times as ``pq list --json`` has them.
_dumps = partial(json.dumps, default=utc_format)


def group(view: View) -> Answer:
    """Return the jobs of a group that a look has seen, the newest first."""
    found = view.dead_group(view.queue_asked_for(), view.request.get("group"))
    body = "".join(f"{line}\n" for line in lines(view, found.ids)).encode("utf-8", "replace")
    headers = [
        ("Content-Type", "application/x-ndjson; charset=utf-8"), ("Cache-Control", "no-store"),
        ("Content-Disposition", f'attachment; filename="dead-{found.key}.jsonl"'),
    ]  # fmt: skip
    return Answer(body, 200, headers)


def lines(view: View, ids: Sequence[int]) -> Iterator[str]:
    """Write jobs that are still dead; the last line says how many were left out, if some were."""
    size = 0
    for first in range(0, len(ids), JOBS):
        if size >= LARGEST:
            yield json.dumps({"left_out": len(ids) - first})
            return
        for row in view.jobs.these(ids[first : first + JOBS]):
            if row.job.state == "dead":
                line = written(row)
                size += len(line)
                yield line


def written(row: Row) -> str:
    """Write a job. Its data stands there as in the table, so that numbers keep their digits; or its beginning as a
    text, under another name."""
    job, error = row.job, row.job.error
    told = {
        "id": job.id, "queue": row.queue, "task": row.task, "key": job.key, "attempts": job.attempts,
        "enqueued_at": job.enqueued_at, "first_failed_at": job.first_failed_at, "died_at": job.finished_at,
        "worker": job.worker, "headers": job.headers,
        "error": None if error is None else error._asdict(),
    }  # fmt: skip
    if len(job.text) < LONGEST:
        # a line has no end in it: in JSON these stand between values alone
        text = job.text.replace("\r", " ").replace("\n", " ")
        return f'{_dumps(told)[:-1]}, "data": {text}}}'
    return _dumps({**told, "beginning_of_data": job.text})


PAGES: Mapping[str, Callable[[View], Answer]] = {"/dead/download": group}
