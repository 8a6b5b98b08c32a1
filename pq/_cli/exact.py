"""JSON whose numbers keep each digit, also those that a float can't hold, such as ``12345678901234567.89``."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable
from typing import Any

from .._codec import encode

#: Stands, with a number, for each number in a document until the rest of it has become text.
_MARK = os.urandom(16).hex()
_MARKED = re.compile(rf'"{_MARK} (.*?)"')


class Number(float):
    """A number of JSON, for code that computes with floats, and the text that it was read from."""

    text: str

    def __reduce__(self) -> Any:
        return float, (float(self),)


def _number(text: str) -> Number:
    """
    :raises ValueError: a float can't hold it: it is too large.
    """
    number = Number(text)
    if math.isinf(number):
        raise ValueError(f"{text[:40]} is too large for a number")
    number.text = text
    return number


def _integer(text: str) -> int | Number:
    return int(text) if text != "-0" else _number(text)  # an int has no such zero


def loads(text: str) -> Any:
    """Read JSON.

    :raises ValueError: it is not JSON, or Python can't read a number in it.
    """
    return json.loads(text, parse_float=_number, parse_int=_integer)


def dumps(value: Any, encode: Callable[[Any], str] = encode) -> str:
    """Write what `loads` has read, and what else `encode` takes.

    :raises ValueError: it is nested too deeply.
    """
    try:
        return _MARKED.sub(r"\1", encode(_marked(value)))
    except RecursionError:
        raise ValueError("the data is nested too deeply") from None


def _marked(value: Any) -> Any:
    if isinstance(value, Number):
        return f"{_MARK} {value.text}"
    if isinstance(value, dict):
        return {name: _marked(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_marked(each) for each in value]
    return value
