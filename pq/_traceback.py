"""The traceback of an exception as text, whatever the exception is. Pure.

`traceback.format_exception` would do, if it did not trust the exception: it reads attributes that may be properties
which raise, it asks foreign objects for suggestions of names, and it formats chains and groups of any length.
"""

from __future__ import annotations

import builtins
import traceback
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Any

from ._text import attribute, is_a, message_of, name_of
from .errors import TaskTimeout

#: Characters kept of a traceback, the last ones: the end of a traceback tells most.
TRACEBACK = 8_000

#: Frames shown of one exception, and exceptions shown of one chain or group.
FRAMES = 100
CHAIN = 10

#: Characters shown of a frame: a line of generated code can have megabytes.
LINE = 1_000

#: How deep groups inside of groups are shown.
DEPTH = 3

CAUSE = "\nThe above exception was the direct cause of the following exception:\n\n"
CONTEXT = "\nDuring handling of the above exception, another exception occurred:\n\n"

_GROUP: Any = getattr(builtins, "BaseExceptionGroup", None)  # new in Python 3.11


def traceback_of(error: BaseException, start: TracebackType | None = None) -> str | None:
    """Return the traceback of an exception, at most the last 8,000 characters; None if it was never raised.

    :param start: the part of its traceback to begin with; None: all of it.
    """
    if is_a(error, TaskTimeout):
        stack = attribute(error, "stack")  # where the thread of the handler is now
        if is_a(stack, str):
            return str.__str__(stack)[-TRACEBACK:]
    if _traceback(error) is None:
        return None
    try:
        return _chain(error, DEPTH, start)[-TRACEBACK:]
    except BaseException as problem:
        return f"Traceback: it could not be formatted ({name_of(problem)})\n"


def stack_of(frame: FrameType) -> str:
    """Return where a thread is, at most the last 8,000 characters."""
    try:
        lines = traceback.format_stack(frame)
    except BaseException:  # the loader of a module can't give its source
        places = [(each.f_code, number) for each, number in traceback.walk_stack(frame)][FRAMES::-1]
        lines = [f'  File "{code.co_filename}", line {number}, in {code.co_name}\n' for code, number in places]
    return "".join(lines)[-TRACEBACK:]


def cause_of(error: BaseException) -> BaseException | None:
    """Return what the exception was raised from."""
    return _own(error, "__cause__")  # type: ignore[no-any-return]


def _chain(error: BaseException, depth: int, start: TracebackType | None = None) -> str:
    """Format an exception and what led to it, the oldest first."""
    text, seen = "", {id(error)}
    current: BaseException | None = error
    while current is not None and len(seen) <= CHAIN and len(text) < TRACEBACK:
        text = _one(current, depth, start if current is error else None) + text
        link, current = _before(current)
        if current is None or id(current) in seen:
            break
        seen.add(id(current))
        text = link + text
    return text


def _one(error: BaseException, depth: int, start: TracebackType | None) -> str:
    found = start or _traceback(error)
    text = "" if found is None else f"Traceback (most recent call last):\n{_frames(found)}"
    message = message_of(error)
    text += f"{name_of(error)}: {message}\n" if message else f"{name_of(error)}\n"
    return text + "".join(f"{note}\n" for note in _notes(error)) + "".join(_members(error, depth))


def _frames(found: TracebackType) -> str:
    try:
        lines = traceback.format_tb(found, -FRAMES)
        return "".join(line if len(line) <= LINE else f"{line[:LINE]}...\n" for line in lines)
    except BaseException:  # the loader of a module can't give its source
        places = [(frame.f_code, number) for frame, number in traceback.walk_tb(found)][-FRAMES:]
        return "".join(f'  File "{code.co_filename}", line {number}, in {code.co_name}\n' for code, number in places)


def _members(error: BaseException, depth: int) -> Iterator[str]:
    """Format the exceptions in a group, indented."""
    if _GROUP is None or not is_a(error, _GROUP):
        return
    members = _GROUP.exceptions.__get__(error)
    for member in members[:CHAIN] if depth else ():
        yield "".join(f"  | {line}\n" for line in _chain(member, depth - 1).splitlines())
    if len(members) > CHAIN or not depth:
        yield f"  | ({len(members)} exceptions in this group)\n"


def _notes(error: BaseException) -> list[str]:
    notes = attribute(error, "__notes__")
    return [message_of(note) for note in notes[:CHAIN]] if type(notes) in (list, tuple) else []


def _traceback(error: BaseException) -> TracebackType | None:
    return _own(error, "__traceback__")  # type: ignore[no-any-return]


def _before(error: BaseException) -> tuple[str, BaseException | None]:
    cause = _own(error, "__cause__")
    if cause is not None:
        return CAUSE, cause
    return CONTEXT, None if _own(error, "__suppress_context__") else _own(error, "__context__")


def _own(error: BaseException, name: str) -> Any:
    """Return an attribute as Python itself keeps it: a subclass may have a property of that name."""
    return BaseException.__dict__[name].__get__(error)
