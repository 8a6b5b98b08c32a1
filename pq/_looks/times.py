"""Times and names as the statements of ``looks.sql`` return them. Pure."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from typing import Any


def aware(time: Any) -> Any:
    """Return a time with its zone; one without, as a driver reads it, is in UTC. None stays None."""
    return time if time is None or time.tzinfo is not None else time.replace(tzinfo=timezone.utc)


def naive(time: datetime | None) -> datetime | None:
    """Return an aware time in UTC without its time zone."""
    return None if time is None else time.replace(tzinfo=None)


def seconds_between(earlier: datetime | None, later: datetime) -> float | None:
    """Return the seconds from one time to another, 0 if it is the other way round; None if there is no earlier one."""
    return None if earlier is None else max(0.0, (later - earlier).total_seconds())


def task_name(escaped: str | None) -> str | None:
    """Return the name of a task, of which the statement returns what stands in the JSON."""
    if escaped is None or "\\" not in escaped:
        return escaped
    try:
        return str(json.loads(f'"{escaped}"'))
    except ValueError:
        return escaped
