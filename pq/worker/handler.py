"""The call of a handler, fenced off from the worker: what it leaves behind is not for the jobs after it."""

from __future__ import annotations

import os
import sys
import threading
from contextvars import ContextVar, copy_context
from types import TracebackType
from typing import Any

from .._calls import check_finished
from .._jobs.lease import LeasedJob
from .._text import NAME, cut
from ..errors import BlockError
from .call import Call

_running: ContextVar[LeasedJob | None] = ContextVar("pq_running", default=None)


def current() -> LeasedJob:
    """Return the job that this thread is running as a task.

    Use its `id`, `attempts`, `extend`, `progress`, `track`, `step` and `cancelled`, and in a transactional task its
    `cursor`.

    :raises LookupError: this thread is running no task.
    """
    job = _running.get()
    if job is None:
        raise LookupError("no task is running here")
    return job


def is_handling() -> bool:
    """Return whether this thread is running a task."""
    return _running.get() is not None


def call_handler(job: LeasedJob, call: Call) -> Any:
    """Call the handler of a job, in a context of its own, and return what it returned.

    :raises BlockError: the handler has left a block of pq open, which was rolled back.
    :raises TypeError: the handler returned work that is still to be done.
    """
    source = job.queue._table.database.source
    before = source.begun_by(threading.get_ident())
    pid = os.getpid()
    context = copy_context()
    context.run(_running.set, job)
    left = None
    try:
        result = context.run(call.handler, job.id, *call.args, **call.kwargs)
        if result is not None:
            check_finished(f"task `{cut(call.name, NAME)}`", result)
    except BaseException as error:
        if os.getpid() != pid:
            _end_child(error)
        raise
    finally:
        if os.getpid() != pid:
            _end_child(None)
        if source.begun:
            left = _roll_back([each for each in source.begun_by(threading.get_ident()) if each not in before])
    if left is not None:
        raise left
    return result


def from_handler(error: BaseException) -> None:
    """Leave what the handler did in the traceback of an error: the frames of pq that called it tell nobody anything."""
    found = in_handler(error)
    if found is not None:
        BaseException.with_traceback(error, found)


def in_handler(error: BaseException) -> TracebackType | None:
    """Return the part of an error's traceback that begins with the handler; None if the error is not from there."""
    found: TracebackType | None = BaseException.__dict__["__traceback__"].__get__(error)
    while found is not None and found.tb_frame.f_code is not call_handler.__code__:
        found = found.tb_next
    return None if found is None else found.tb_next


def _roll_back(blocks: list[Any]) -> BlockError | None:
    """End blocks that a handler has left open; return an error that tells of them, or None."""
    if not blocks:
        return None
    error = BlockError("the task has left a block of pq open (`with queue`), which was rolled back")
    for block in blocks:
        block.end(error)
    return error


def _end_child(error: BaseException | None) -> None:
    """End this process: a handler has forked it, and the job and all else belong to the worker in the parent."""
    code: Any = 0
    if isinstance(error, SystemExit):
        code = error.code
    elif error is not None:
        sys.excepthook(type(error), error, error.__traceback__)
        code = 1
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):
            pass
    os._exit(code & 255 if isinstance(code, int) else code is not None)
