"""What a test says of the jobs that were put."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from .._args import integer
from .._jobs.info import JobInfo
from .._text import cut
from ..errors import DecodeError

#: Jobs that a message names.
SHOWN = 5

_ANY: Any = object()


def assert_put(target: Any, data: Any = _ANY, *, count: int = 1, conn: Any = None) -> list[JobInfo]:
    """Check that so many jobs wait, and return them: jobs that were put and have neither ended nor died.

    ::

        assert_put(pq["mails"], {"to": "ann@example.org"}, conn=conn)
        assert_put(send_mail, {"to": "ann@example.org"}, conn=conn)  # a task, and its arguments by name

    :param target: a queue; or a task, for the jobs of its queue that call it.
    :param data: only jobs with this data count. Of a task: the arguments by name, of which only these are compared.
        Default: all.
    :param count: how many there must be.
    :param conn: where the test's transaction is open; see `PQ.bind`.
    :raises AssertionError: there are fewer or more; the message shows what is there.
    :raises TypeError: the target is neither a queue nor a task.
    """
    integer("count", count)
    queue, name = _queue_of(target)
    if conn is not None:
        queue = queue._on(queue._table.bind(conn))
    jobs = _all(queue)
    found = [job for job in jobs if _matches(job, target, name, data)]
    if len(found) != count:
        wanted = f"{'job' if name is None else f'job of task {name}'}{'' if data is _ANY else f' with {data!r}'}"
        others = "".join(f"\n  {job.id}: {cut(job.text, 200)}" for job in jobs[:SHOWN])
        more = f"\n  … {len(jobs) - SHOWN} more" if len(jobs) > SHOWN else ""
        raise AssertionError(
            f"{len(found)} instead of {count}: {wanted} in queue {queue.name!r}, which has {len(jobs)} in all"
            f"{':' if jobs else ''}{others}{more}"
        )
    return found


def assert_not_put(target: Any, data: Any = _ANY, *, conn: Any = None) -> None:
    """Check that no such job waits; the arguments and errors are those of `assert_put`."""
    assert_put(target, data, count=0, conn=conn)


def _queue_of(target: Any) -> tuple[Any, str | None]:
    """Return the queue that is meant, and the name of the task."""
    if hasattr(target, "new_job"):
        return target._queue, target.name
    if hasattr(target, "put"):
        return target, None
    raise TypeError(f"a queue or a task is needed, not {target!r}")


def _all(queue: Any) -> list[JobInfo]:
    found: list[JobInfo] = []
    for state in ("ready", "scheduled", "held", "running"):
        page = queue.list(state)
        while page:
            found += page
            page = queue.list(state, after=page[-1])
    return found


def _matches(job: JobInfo, target: Any, name: str | None, data: Any) -> bool:
    try:
        found = job.data
    except DecodeError:
        return False
    if name is None:
        return data is _ANY or found == data
    if not isinstance(found, Mapping) or found.get("function") != name:
        return False
    if data is _ANY:
        return True
    arguments = inspect.signature(target.__wrapped__).bind(None, *found["args"], **found["kwargs"])
    arguments.apply_defaults()
    named = arguments.arguments | arguments.arguments.get("kwargs", {})
    return all(key in named and named[key] == value for key, value in data.items())
