"""Why an attempt at a job failed, as the table keeps it: JSON in a text column. Pure."""

from __future__ import annotations

import json
import traceback
from typing import NamedTuple

#: Characters kept of a message, and of a traceback. The end of a traceback is what tells most.
MESSAGE = 2_000
TRACEBACK = 8_000


class Failure(NamedTuple):
    """An error of an attempt.

    :ivar type: name of the exception's class, with its module unless that is ``builtins``.
    :ivar message: its text, cut to 2,000 characters.
    :ivar traceback: the last 8,000 characters of it; None if there is none, or the queue keeps none.
    """

    type: str
    message: str
    traceback: str | None = None

    @classmethod
    def of(cls, error: BaseException | str, keep_traceback: bool = True) -> Failure:
        """From an exception, or from a reason in words."""
        if not isinstance(error, BaseException):
            return cls("Failure", _head(str(error)))
        kind = type(error)
        name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
        try:
            message = str(error)
        except Exception:
            message = "(its message can't be had)"
        text = getattr(error, "stack", None) if keep_traceback else None  # of a handler that hangs
        if text is None and keep_traceback and error.__traceback__ is not None:
            text = "".join(traceback.format_exception(kind, error, error.__traceback__))[-TRACEBACK:]
        return cls(name, _head(message), text)

    def dumps(self) -> str:
        return json.dumps({name: value for name, value in self._asdict().items() if value is not None})

    @classmethod
    def loads(cls, text: str) -> Failure:
        """Also of a text that somebody has written by hand."""
        try:
            found = json.loads(text)
            return cls(str(found["type"]), str(found["message"]), found.get("traceback"))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return cls("Failure", text)

    def __str__(self) -> str:
        return f"{self.type}: {self.message}" if self.message else self.type


def _head(text: str) -> str:
    return text if len(text) <= MESSAGE else text[: MESSAGE - 3] + "..."
