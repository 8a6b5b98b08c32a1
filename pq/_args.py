"""Checks of the arguments that users give. Pure."""

from __future__ import annotations

import enum
import math
import reprlib
from collections.abc import Iterable
from numbers import Real
from typing import Any


def integer(name: str, number: int, least: int = 0) -> int:
    """The number, if it is an int and not too small; `name` is what the error calls it.

    :raises TypeError: it is no int.
    :raises ValueError: it is below `least`.
    """
    if isinstance(number, bool) or not isinstance(number, int):
        raise TypeError(f"{name} must be an int, not {type(number).__name__}: {reprlib.repr(number)}")
    if number < least:
        what = "must not be negative" if least == 0 else f"must be at least {least}"
        raise ValueError(f"{name} {what}: {number}")
    return number


def timeout_seconds(timeout: float | None, name: str = "timeout") -> float:
    """The timeout as a number; None is infinity.

    :raises TypeError: it is no number.
    :raises ValueError: it is negative or NaN.
    """
    if timeout is None:
        return math.inf
    if isinstance(timeout, bool) or not isinstance(timeout, Real):
        raise TypeError(f"{name} must be a number of seconds, not {type(timeout).__name__}: {reprlib.repr(timeout)}")
    if not timeout >= 0:
        raise ValueError(f"{name} must be a non-negative number of seconds, not {timeout!r}")
    return float(timeout)


def job_ids(ids: Any) -> list[int]:
    """An id, or several, as a list.

    :raises TypeError: one is no int.
    """
    found = list(ids) if isinstance(ids, Iterable) and not isinstance(ids, (str, bytes)) else [ids]
    for id in found:
        if isinstance(id, bool) or not isinstance(id, int):
            raise TypeError(f"a job id must be an int, not {type(id).__name__}: {reprlib.repr(id)}")
    return found


def check_text(kind: str, text: object) -> str:
    """The text, if PostgreSQL can hold it as a non-empty name.

    :raises TypeError: not a str.
    :raises ValueError: empty, or with a NUL character or a lone surrogate.
    """
    if not isinstance(text, str):
        raise TypeError(f"{kind} must be a str, not {type(text).__name__}: {reprlib.repr(text)}")
    if not text:
        raise ValueError(f"{kind} must not be empty")
    if "\0" in text:
        raise ValueError(f"{kind} must not have a NUL character: {text!r}")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{kind} must not have a lone surrogate: {text!r}") from None
    return text


class Unset(enum.Enum):
    """The type of `UNSET`: an argument that was not given, where None means something."""

    UNSET = "unset"

    def __repr__(self) -> str:
        return "UNSET"


UNSET = Unset.UNSET
