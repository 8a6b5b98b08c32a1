"""Text that others wrote: shown, logged and kept without trusting it. Pure.

A task may raise an exception of any library, and a row may hold any text. So nothing here calls a method of a foreign
object without a guard, each text has a bound, and what could command a terminal or begin a log line is escaped.
"""

from __future__ import annotations

from typing import Any

#: Characters kept of the message of an exception, and of the name of its class.
MESSAGE = 2_000
NAME = 200

#: Stands for a message whose exception can't be turned into text.
NO_MESSAGE = "(the exception could not be converted to text)"


def is_a(value: object, kind: type | tuple[type, ...]) -> bool:
    """Return `isinstance(value, kind)` without asking the value: its ``__class__`` may be a property that raises."""
    return issubclass(type(value), kind)


def name_of(error: BaseException) -> str:
    """Return the name of an exception's class, with its module unless that is ``builtins``; at most 200 characters."""
    kind = type(error)
    # by the descriptors of type: a metaclass may have properties of these names
    module = type.__dict__["__module__"].__get__(kind)
    qualname = str.__str__(type.__dict__["__qualname__"].__get__(kind))
    if not is_a(module, str) or module == "builtins":
        return cut(qualname, NAME)
    return cut(f"{str.__str__(module)}.{qualname}", NAME)


def message_of(error: object) -> str:
    """Return the text of an exception, or of a reason that somebody gave; at most 2,000 characters."""
    if is_a(error, (bytes, bytearray)):
        return cut(bytes(error[: MESSAGE + 1]).decode(errors="backslashreplace"), MESSAGE)  # type: ignore[index]
    try:
        # a copy of type str: __str__ may return a subclass, whose methods are foreign, too
        return cut(str.__str__(str(error)), MESSAGE)
    except BaseException:  # SystemExit, too: it is not meant for us
        return NO_MESSAGE


def describe(error: BaseException) -> str:
    """Return the class and the message of an exception, in one line that is safe to print."""
    name = cut(str.__str__(type.__dict__["__name__"].__get__(type(error))), NAME)
    message = " ".join(message_of(error).split())
    return printable(f"{name}: {message}" if message else name)


def attribute(error: object, name: str) -> Any:
    """Return an attribute of a foreign object, or None if it has none or reading it fails."""
    try:
        return getattr(error, name, None)
    except BaseException:
        return None


def fields_of(data: object) -> dict[Any, Any]:
    """Return a dict as one of type dict, whose methods are Python's own; an empty one for anything else."""
    if type(data) is dict:
        return data
    try:
        return dict(data) if is_a(data, dict) else {}  # type: ignore[call-overload]
    except BaseException:
        return {}


def cut(text: str, most: int) -> str:
    """Return the beginning of a text that is too long, with an ellipsis."""
    return text if len(text) <= most else text[: most - 3] + "..."


def printable(text: str, newlines: bool = False) -> str:
    """Escape what can't be printed: control characters, ANSI sequences, line separators, lone surrogates.

    :param newlines: keep line feeds.
    """
    if text.isprintable():  # quick, and the text may be long
        return text
    return "".join(
        each if each.isprintable() or (newlines and each == "\n") else each.encode("unicode_escape").decode()
        for each in text
    )


def size(count: float) -> str:
    """Write a number of bytes as PostgreSQL does: a kB has 1,024."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1024 or unit == "GB":
            return f"{count:.0f} {unit}" if count >= 10 or unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    raise AssertionError
