"""Checks of what is passed to this API. Pure."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Mapping
from typing import Any

from .._args import check_text, integer

#: What of a queue can be configured, and what PgQ takes where nothing is said.
SETTINGS = {
    "ticker_max_count": "500",
    "ticker_max_lag": "3 seconds",
    "ticker_idle_period": "1 minute",
    "ticker_paused": "False",
    "rotation_period": "2 hours",
    "external_ticker": "False",
}

#: Columns of an event that can be written, without ``ev_``.
COLUMNS = ("id", "time", "txid", "owner", "retry", "type", "data", "extra1", "extra2", "extra3", "extra4")

#: A century in seconds: PostgreSQL has no time that is much later.
_LONGEST = 3.2e9


def given(kind: str, value: Any) -> str:
    """Return a name that the caller or the class must give.

    :raises ValueError: there is none, or PostgreSQL can't hold it.
    :raises TypeError: it is not a str.
    """
    if value is None:
        raise ValueError(f"{kind} is missing: pass it, or set it in the class")
    return check_text(kind, value)


def text(kind: str, value: Any) -> Any:
    """Return a part of an event.

    :param value: a str, None, or an object that the driver turns into text, such as ``psycopg2.extras.Json``.
    :raises TypeError: it is a number, bytes, a list or a mapping.
    :raises ValueError: it has a NUL character or a lone surrogate.
    """
    if value is None or isinstance(value, str):
        return check_text(kind, value) if value else value
    if isinstance(value, (int, float, bytes, bytearray, memoryview, list, tuple, set, Mapping)):
        raise TypeError(f"{kind} must be a str or None, not {type(value).__name__}: {reprlib.repr(value)}")
    return value


def seconds(name: str, value: Any) -> float:
    """Return a number of seconds, which may be a str.

    :raises TypeError: it is no number.
    :raises ValueError: it is NaN, or more than a century.
    """
    if isinstance(value, bool):
        raise TypeError(f"{name} must be a number of seconds, not bool: {value}")
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        raise TypeError(
            f"{name} must be a number of seconds, not {type(value).__name__}: {reprlib.repr(value)}"
        ) from None
    if not abs(number) <= _LONGEST:  # NaN, too
        raise ValueError(f"{name} must be a number of seconds below {_LONGEST:.1e}, not {value!r}")
    return number


def count(name: str, value: Any, least: int = 0) -> int | None:
    """Return an int that PostgreSQL can hold, or None.

    :raises TypeError: it is none.
    :raises ValueError: it is below `least`, or above what an int8 holds.
    """
    if value is None:
        return None
    if integer(name, value, least) >= 2**63:
        raise ValueError(f"{name} is out of range: {value}")
    return int(value)


def setting(name: Any, value: Any) -> tuple[str, str]:
    """Return the name and the value of a setting.

    :raises ValueError: there is no such setting, or PostgreSQL can't hold the value.
    """
    if name not in SETTINGS:
        raise ValueError(f"a queue has no setting {name!r}: there are {', '.join(SETTINGS)}")
    return str(name), check_text(str(name), str(value))


def columns(names: Any) -> list[str]:
    """Return names of columns of an event.

    :raises ValueError: one is unknown or comes twice, or there is none.
    :raises TypeError: they are one str.
    """
    if isinstance(names, str):
        raise TypeError(f"columns must be a list of names, not a str: {names!r}")
    found = list(names)
    unknown = [name for name in found if name not in COLUMNS]
    if unknown:
        raise ValueError(f"an event has no column {unknown[0]!r}: there are {', '.join(COLUMNS)}")
    if not found or len(set(found)) < len(found):
        raise ValueError(f"columns must be names of columns, each once: {found!r}")
    return found


def period(config: Mapping[str, Any], name: str, default: float) -> float:
    """Return a period of a ticker in seconds; infinity: never.

    :param config: None or 0 in it for ``stats_period``: never.
    :raises TypeError: it is no number.
    :raises ValueError: it is NaN, negative or, other than for the statistics, 0.
    """
    value = config.get(name, default)
    if name == "stats_period" and (value is None or seconds(name, value) <= 0):
        return math.inf
    number = seconds(name, value)
    if number <= 0:
        raise ValueError(f"{name} must be a positive number of seconds, not {value!r}")
    return number
