"""Checks of the arguments that users pass. Pure."""

from __future__ import annotations

import enum
import math
import reprlib
from collections.abc import Iterable, Sequence
from numbers import Real
from typing import Any

from ._text import is_a

#: What remains for the name in an entry of a B-tree (2,704 bytes), beside the other columns of the index.
QUEUE_NAME_BYTES = 2676


def integer(name: str, number: int, least: int = 0) -> int:
    """Return the number if it is an int and at least `least`.

    :param name: the name of the argument in the error.
    :raises TypeError: the number is not an int.
    :raises ValueError: it is below `least`.
    """
    if isinstance(number, bool) or not isinstance(number, int):
        raise TypeError(f"{name} must be an int, not {type(number).__name__}: {reprlib.repr(number)}")
    if number < least:
        what = "must not be negative" if least == 0 else f"must be at least {least}"
        raise ValueError(f"{name} {what}: {number}")
    return number


def is_number(value: object) -> bool:
    """Return whether it is an int or a float, and no bool, which counts as an int."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def limit_of(limit: int, least: int = 0) -> int:
    """Return the limit as a number that PostgreSQL can hold.

    :raises TypeError: it is not an int.
    :raises ValueError: it is below `least`.
    """
    return min(integer("limit", limit, least), JOB_IDS.stop - 1)


def timeout_seconds(timeout: float | None, name: str = "timeout") -> float:
    """Return a timeout in seconds as a float; None becomes infinity.

    :raises TypeError: the timeout is not a number.
    :raises ValueError: it is negative, NaN or, other than infinity, no number that a float can hold.
    """
    if timeout is None:
        return math.inf
    if type(timeout) is float and timeout >= 0:
        return timeout
    if isinstance(timeout, bool) or not isinstance(timeout, Real):
        raise TypeError(f"{name} must be a number of seconds, not {type(timeout).__name__}: {reprlib.repr(timeout)}")
    if not timeout >= 0:
        raise ValueError(f"{name} must be a non-negative number of seconds, not {timeout!r}")
    try:
        return float(timeout)
    except OverflowError:
        raise ValueError(f"{name} is out of range: {reprlib.repr(timeout)}") from None


#: What PostgreSQL can hold in a bigint. No row has another id.
JOB_IDS = range(-(2**63), 2**63)


def job_ids(ids: Any) -> list[int]:
    """Return an id, or several, as a list without those that no row can have. A range would search for a `JobId`.

    :raises TypeError: one of them is not an int.
    """
    found = list(ids) if isinstance(ids, Iterable) and not isinstance(ids, (str, bytes)) else [ids]
    for id in found:
        if isinstance(id, bool) or not isinstance(id, int):
            raise TypeError(f"a job id must be an int, not {type(id).__name__}: {reprlib.repr(id)}")
    return [number for number in map(int, found) if number in JOB_IDS]


def check_error(error: object) -> None:
    """
    :raises TypeError: `error` is neither an exception nor a reason in words.
    """
    if not isinstance(error, str) and not is_a(error, BaseException):
        raise TypeError(f"error must be an exception, or a reason in words, not {reprlib.repr(error)}")


def check_text(kind: str, text: object) -> str:
    """Return the text if it is not empty and PostgreSQL can hold it.

    :param kind: what the text is, for the error.
    :raises TypeError: it is not a str.
    :raises ValueError: it is empty, or has a NUL character or a lone surrogate.
    """
    if not isinstance(text, str):
        raise TypeError(f"{kind} must be a str, not {type(text).__name__}: {reprlib.repr(text)}")
    if not text:
        raise ValueError(f"{kind} must not be empty")
    if "\0" in text:
        raise ValueError(f"{kind} must not have a NUL character: {text!r}")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise ValueError(f"{kind} must not have a lone surrogate: {text!r}") from None
    return text


def check_word(name: str, word: object, known: Sequence[str]) -> str:
    """Return the word if it is one of those that are known.

    :param name: the name of the argument in the error.
    :raises TypeError: it is not a str.
    :raises ValueError: it is another word.
    """
    if not isinstance(word, str):
        raise TypeError(f"{name} must be a str, not {type(word).__name__}: {reprlib.repr(word)}")
    if word not in known:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, known))}, not {reprlib.repr(word)}")
    return word


def queue_name(name: str) -> str:
    """Return the name of a queue, without the suffix of a conversion, if the indexes of the table can hold it.

    :raises ValueError: it is too long.
    """
    size = len(name.encode())
    if size > QUEUE_NAME_BYTES:
        raise ValueError(
            f"queue name {reprlib.repr(name)} is too long: it has {size} bytes, and an index of PostgreSQL holds"
            f" {QUEUE_NAME_BYTES}"
        )
    return name


class Unset(enum.Enum):
    """The type of `UNSET`, the default of arguments for which None has a meaning."""

    UNSET = "unset"

    def __repr__(self) -> str:
        return "UNSET"


UNSET = Unset.UNSET
