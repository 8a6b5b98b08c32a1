"""Times as users write them: ``'1h30m'``, a `timedelta`, or a `datetime`. Pure: this module reads no clock."""

from __future__ import annotations

import re
import reprlib
from datetime import datetime, timedelta, timezone
from functools import lru_cache
from typing import Any, NamedTuple

from ._args import is_number, timeout_seconds

#: What `schedule_at` and `expected_at` accept.
TimeSpec = str | timedelta | float | datetime | None

#: A duration: ``'30s'``, ``'1h30m'``, a timedelta, or a number of seconds.
Delay = str | timedelta | float

#: The longest relative time that is accepted. The server's ``now()`` plus this must stay within the year 9999, the
#: last one that Python can read back.
LIMIT = timedelta(days=2_000_000)

_FORM = re.compile(r"(?:[0-9]+(?:ms|[smhd]))+")
_PART = re.compile(r"([0-9]+)(ms|[smhd])")

#: The units of durations, from the longest, in milliseconds.
UNITS = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1000, "ms": 1}


class When(NamedTuple):
    """A point in time: absolute (`at`), relative to the server's clock (`delay`), or neither."""

    at: datetime | None = None
    delay: timedelta | None = None


#: No time was given.
NOW = When()


def when(name: str, spec: TimeSpec) -> When:
    """Read a time.

    :param name: the name of the argument in the error.
    :raises TypeError: `spec` is neither None, a str, a timedelta, a number of seconds nor a datetime.
    :raises ValueError: the text has another form, or the time is out of range.
    """
    if spec is None:
        return NOW
    if isinstance(spec, str):
        return When(delay=_bounded(name, spec, duration(name, spec)))
    if isinstance(spec, timedelta):
        return When(delay=_bounded(name, spec, spec))
    if isinstance(spec, datetime):
        return When(at=_utc(name, spec))
    if is_number(spec):
        return When(delay=_bounded(name, spec, _of_seconds(name, spec)))
    what = f"{type(spec).__name__}: {reprlib.repr(spec)}"
    raise TypeError(f"{name} must be a number of seconds, a str, timedelta or datetime, not {what}")


@lru_cache(maxsize=256)
def duration(name: str, text: str) -> timedelta:
    """Read ``'90s'``, ``'5m'``, ``'1h30m'``, ``'2d'`` or ``'50ms'``.

    :param name: the name of the argument in the error.
    :raises ValueError: the text has another form, or the time is out of range.
    """
    if not _FORM.fullmatch(text):
        raise ValueError(f"{name} must be of the form '30s', '5m', '2h', '1d' or '1h30m', not {text!r}")
    try:
        return timedelta(milliseconds=sum(int(n) * UNITS[unit] for n, unit in _PART.findall(text)))
    except (OverflowError, ValueError):  # ValueError: int() refuses thousands of digits
        raise _out_of_range(name, text) from None


def duration_text(delay: timedelta) -> str:
    """Return a duration of whole milliseconds, which is not negative, as text that `duration` reads."""
    left = delay // timedelta(milliseconds=1)
    parts = []
    for unit, length in UNITS.items():
        count, left = divmod(left, length)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


def age_text(seconds: float) -> str:
    """Return how long it is as one number for people, or two: ``0.4s``, ``12s``, ``3m05s``, ``2h10m``, ``5d``."""
    whole = int(seconds)
    if seconds < 10:
        return f"{seconds:.1f}s"
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    if whole < 86_400:
        return f"{whole // 3600}h{whole % 3600 // 60:02}m"
    return f"{whole // 86_400}d"


def _of_seconds(name: str, seconds: float) -> timedelta:
    try:
        return timedelta(seconds=seconds)
    except (OverflowError, ValueError):  # ValueError: NaN
        raise _out_of_range(name, seconds) from None


def _bounded(name: str, spec: object, delay: timedelta) -> timedelta:
    if abs(delay) > LIMIT:
        raise _out_of_range(name, spec)
    return delay


def _utc(name: str, moment: datetime) -> datetime:
    if moment.utcoffset() is None:
        return moment.replace(tzinfo=timezone.utc)
    try:
        return moment.astimezone(timezone.utc)
    except OverflowError:
        raise _out_of_range(name, moment) from None


def _out_of_range(name: str, spec: object) -> ValueError:
    is_long = isinstance(spec, int) and abs(spec) >= 10**40  # of which Python may refuse to make text
    text = "inf" if is_long else str(spec)
    shown = text if len(text) <= 40 else text[:40] + "..."
    reach = f"relative times reach {LIMIT.days} days, absolute ones the years 1 to 9999"
    return ValueError(f"{name} is out of range: {shown!r}; {reach}")


def delay_of(name: str, spec: Any) -> timedelta:
    """Read a duration that is not negative.

    :param name: the name of the argument in the error.
    :raises TypeError: `spec` is neither a str, a timedelta nor a number of seconds.
    :raises ValueError: the text has another form, or the duration is negative or out of range.
    """
    if not isinstance(spec, (str, timedelta)) and not is_number(spec):
        what = f"{type(spec).__name__}: {reprlib.repr(spec)}"
        raise TypeError(f"{name} must be a number of seconds, a str or timedelta, not {what}")
    delay = when(name, spec).delay
    assert delay is not None
    if delay < timedelta():
        raise ValueError(f"{name} must not be negative: {spec}")
    return delay


def positive_delay(name: str, spec: Any) -> timedelta:
    """Read a duration that is positive; the errors are those of `delay_of`, and a ValueError for zero."""
    delay = delay_of(name, spec)
    if not delay:
        raise ValueError(f"{name} must be positive, not {spec!r}")
    return delay


def patience(name: str, spec: Any) -> float:
    """Return how long to wait, in seconds: of a number of them, or of a duration.

    :param name: the name of the argument in the error.
    :raises TypeError: `spec` is neither a number, a str nor a timedelta.
    :raises ValueError: it is negative or NaN, or the text has another form.
    """
    if spec is None:
        raise TypeError(f"{name} must be a number of seconds, a str or timedelta, not None")
    return wait_of(spec, name)


def wait_of(spec: Delay | None, name: str = "timeout") -> float:
    """Return how long to wait, as `patience` does; infinity for None."""
    if isinstance(spec, (str, timedelta)):
        return delay_of(name, spec).total_seconds()
    return timeout_seconds(spec, name)
