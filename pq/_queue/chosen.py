"""Which jobs of a queue a person means: by their key, their task, their error, or all."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from .._args import JOB_IDS, check_text, job_ids
from .._jobs.failure import Failure
from .._jobs.info import JobInfo
from .._table.rows import QueueRows
from ..sql import array

#: How many ids one statement reads.
PAGE = 1000


def chosen(
    queue: QueueRows,
    which: str,
    *,
    key: str | None = None,
    task: str | None = None,
    error: str | None = None,
    state: str | None = None,
    after: int | None = None,
) -> Iterator[list[int]]:
    """Return the ids of jobs that are there now, in pages, in order. What is not given does not matter.

    :param which: the jobs that come into question: ``'which'``, ``'unfinished'`` or ``'listed'`` of ``control.sql``.
    :param task: the name of the task that they call.
    :param error: what is in the type or the message of their last error, in upper or lower case.
    :param after: only ids beyond this one.
    :raises TypeError: the key, task or error is not a str; likewise a ValueError for one that is empty.
    """
    for name, text in (("key", key), ("task", task), ("error", error)):
        if text is not None:
            check_text(name, text)
    of_key = "any_key" if key is None or state == "finished" else "of_key"
    sql = queue._statements("control.sql", which=which, of_key=of_key)
    ((last,),) = queue._run(sql["last"])  # jobs that are put meanwhile come behind it
    place = {"after": JOB_IDS.start if after is None else after, "last": last}
    # a task is written as JSON has it; errors are read here
    params: dict[str, Any] = {"key": key, "task": task and json.dumps(task)[1:-1], "state": state}
    params["has_error"] = error is not None
    while rows := queue._run(sql["chosen"], **params, **place, limit=PAGE):
        yield [id for id, text in rows if error is None or _has(text, error)]
        place["after"] = rows[-1][0]


def these(queue: QueueRows, ids: Iterable[int]) -> list[JobInfo]:
    """Return the jobs of the queue with these ids, in any state, in the order of the ids."""
    rows = queue._run(queue._statements("browse.sql")["these"], ids=array(job_ids(ids)))
    return [JobInfo.of(queue, row[1:]) for row in rows if row[0] == queue.name]


def _has(text: str, error: str) -> bool:
    return error.lower() in str(Failure.loads(text)).lower()
