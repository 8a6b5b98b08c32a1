"""The helpers of pq 1.9.1 that applications import."""

from __future__ import annotations

from datetime import datetime, timezone
from logging import Logger, getLogger

from ._db import Literal
from ._jobs.job import utc_format
from ._times import TimeSpec, when

__all__ = ["Literal", "convert_time_spec", "logger", "utc_format"]

logger: Logger = getLogger("pq")


def convert_time_spec(spec: TimeSpec) -> datetime | None:
    """Convert a time that `Queue.put` accepts to a naive datetime in UTC; relative times are by this machine's clock.

    :raises TypeError: the time is neither None, a str, a timedelta, a number of seconds nor a datetime.
    :raises ValueError: the text has another form, or the time is out of range.
    """
    moment = when("spec", spec)
    if moment.at is not None:
        return moment.at.replace(tzinfo=None)
    if moment.delay is None:
        return None
    return datetime.now(timezone.utc).replace(tzinfo=None) + moment.delay
