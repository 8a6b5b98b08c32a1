"""Why an attempt at a job failed, as the table keeps it: JSON in a text column. Pure.

Nothing here can raise, loop or grow, whatever exception it is given: see `pq._text` and `pq._traceback`.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from .._text import MESSAGE, is_a, message_of, name_of
from .._traceback import TRACEBACK, traceback_of

__all__ = ["MESSAGE", "TRACEBACK", "Failure"]


class Failure(NamedTuple):
    """The error of an attempt.

    :ivar type: name of the exception's class, with its module unless that is ``builtins``; cut to 200 characters.
        ``'Failure'`` if the reason was given in words.
    :ivar message: its text, cut to 2,000 characters.
    :ivar traceback: the last 8,000 characters of its traceback; None if it has none, or the queue keeps none.
    """

    type: str
    message: str
    traceback: str | None = None

    @classmethod
    def of(cls, error: BaseException | str, keep_traceback: bool = True) -> Failure:
        """Make one of an exception, or of a reason in words."""
        if not is_a(error, BaseException):
            return cls("Failure", message_of(error))
        raised: Any = error
        return cls(name_of(raised), message_of(raised), traceback_of(raised) if keep_traceback else None)

    def dumps(self) -> str:
        """Return it as the table keeps it."""
        return json.dumps({name: value for name, value in self._asdict().items() if value is not None})

    @classmethod
    def loads(cls, text: str) -> Failure:
        """Read it from the table; a text that somebody else has written there becomes the message."""
        try:
            found = json.loads(text)
            traceback = found.get("traceback")
            return cls(str(found["type"]), str(found["message"]), None if traceback is None else str(traceback))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return cls("Failure", text)

    def __str__(self) -> str:
        return f"{self.type}: {self.message}" if self.message else self.type
