"""The times of a rule: cron by cronsim, RRULE by python-dateutil, intervals. Pure.

A rule is kept as text: ``every 5m``, ``cron 0 3 * * *`` or ``rrule FREQ=DAILY;BYHOUR=3``. Its *anchor* is where
intervals, and RRULEs without a DTSTART, count from.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from .._times import duration, duration_text

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

UTC = timezone.utc

#: The shortest interval, and the longest.
LEAST, LONGEST = timedelta(milliseconds=100), timedelta(days=3660)

#: What has passed is looked for in the last minute, then in the last half hour, and so on: each as many times as long.
_LOOK_BACK, _LONGER = timedelta(minutes=1), 30

_EXTRA = "needs an extra: pip install '.[schedules]' in pq's checkout"

#: The parts of an RRULE, and what their numbers may be. More is not understood, or makes dateutil search for ever.
_RANGES = {
    "INTERVAL": range(1, 100_001), "COUNT": range(1, 100_001), "BYSECOND": range(60), "BYMINUTE": range(60),
    "BYHOUR": range(24), "BYMONTH": range(1, 13), "BYMONTHDAY": range(1, 32), "BYYEARDAY": range(1, 367),
    "BYWEEKNO": range(1, 54), "BYSETPOS": range(1, 367),
}  # fmt: skip
_SIGNED = {"BYMONTHDAY", "BYYEARDAY", "BYWEEKNO", "BYSETPOS"}
_FORMS = {
    "FREQ": "SECONDLY|MINUTELY|HOURLY|DAILY|WEEKLY|MONTHLY|YEARLY",
    "UNTIL": r"\d{8}(T\d{6}Z?)?",
    "WKST": "MO|TU|WE|TH|FR|SA|SU",
    "BYDAY": r"[+-]?\d{0,2}(MO|TU|WE|TH|FR|SA|SU)(,[+-]?\d{0,2}(MO|TU|WE|TH|FR|SA|SU))*",
}
_MOMENT = "%Y%m%dT%H%M%S"

#: How long the periods are that are of one length.
_PERIODS = {
    "WEEKLY": timedelta(weeks=1),
    "DAILY": timedelta(days=1),
    "HOURLY": timedelta(hours=1),
    "MINUTELY": timedelta(minutes=1),
    "SECONDLY": timedelta(seconds=1),
}


class UnknownZone(ValueError):
    """This machine knows no time zone of that name; another one may."""


def zone_of(name: str) -> ZoneInfo:
    """Return a time zone.

    :raises UnknownZone: there is none of that name.
    """
    from zoneinfo import ZoneInfo  # most programs have no schedules

    try:
        return ZoneInfo(name)
    except (ValueError, OSError, KeyError):  # the last one is what zoneinfo raises for a name that nothing has
        raise UnknownZone(f"zone {name!r} is unknown: a time zone is named as in 'Europe/Berlin' or 'UTC'") from None


def every(interval: timedelta) -> str:
    """Return the text of an interval as a rule.

    :raises ValueError: it is shorter than `LEAST` or longer than `LONGEST`, or has fractions of a millisecond.
    """
    if not LEAST <= interval <= LONGEST or interval % timedelta(milliseconds=1):
        raise ValueError(f"every must be whole milliseconds, from 100ms to {LONGEST.days}d, not {interval}")
    return f"every {duration_text(interval)}"


def cron(text: str) -> str:
    """Return the text of a cron expression as a rule.

    :raises ValueError: it is none, or fires at no time.
    :raises ImportError: cronsim is not installed.
    """
    fields = text.split()
    if len(fields) != 5:
        raise ValueError(f"cron must have the five fields minute, hour, day, month and weekday: {text!r}")
    return _checked(f"cron {' '.join(fields)}")


def rrule(text: str, zone: ZoneInfo) -> str:
    """Return the text of an RRULE of RFC 5545 as a rule.

    :raises ValueError: it is none, fires at no time, or has a start that the zone does not have.
    :raises ImportError: python-dateutil is not installed.
    """
    start, rule = _parts(text)
    if start is not None and _local(_utc(start, zone), zone) != start:
        raise ValueError(f"rrule: DTSTART {start} does not exist in zone {zone}, whose clocks are put forward then")
    whole = ";".join(f"{name}={value}" for name, value in rule.items())
    return _checked(f"rrule {whole}" if start is None else f"rrule DTSTART:{start.strftime(_MOMENT)} RRULE:{whole}")


def anchor_of(rule: str, zone: ZoneInfo, now: datetime) -> datetime:
    """Return where a new rule counts from: its DTSTART; for an RRULE without one the next whole minute, or second if it
    is SECONDLY; else now."""
    kind, _, text = rule.partition(" ")
    if kind != "rrule":
        return now
    start, parts = _parts(text)
    if start is not None:
        return _utc(start, zone)
    step = timedelta(seconds=1 if parts["FREQ"] == "SECONDLY" else 60)
    return now + (datetime.min.replace(tzinfo=UTC) - now) % step


def times(rule: str, zone: ZoneInfo, anchor: datetime, after: datetime) -> Iterator[datetime]:
    """Iterate the times of a rule after a moment, in UTC.

    :raises ImportError: what evaluates such a rule is not installed.
    :raises Exception: it can't be evaluated.
    """
    kind, _, text = rule.partition(" ")
    found = {"every": _every, "cron": _cron, "rrule": _rrule}[kind](text, zone, anchor, after)
    last = after
    for at in found:
        if at > last:  # the hour that comes twice is gone through once
            last = at
            yield at


def missed(
    rule: str, zone: ZoneInfo, anchor: datetime, since: datetime, now: datetime, most: int
) -> list[datetime]:
    """Return the last times after `since` until now, at most so many."""
    back = _LOOK_BACK
    while True:
        after = max(since, now - back) if back < now - since else since
        found = list(takewhile(lambda at: at <= now, times(rule, zone, anchor, after)))
        if len(found) >= most or after == since:
            return found[-most:]
        back *= _LONGER


def _checked(rule: str) -> str:
    """
    :raises ValueError: it can't be evaluated, or never fires.
    """
    try:
        found = _first(rule)
    except ImportError:
        raise
    except Exception as error:  # cronsim has an exception of its own, and both have some that they did not mean
        raise ValueError(f"{rule!r} can't be evaluated: {error}") from None
    if found is None:
        raise ValueError(f"{rule!r} fires at no time")
    return rule


def _first(rule: str) -> object:
    kind, _, text = rule.partition(" ")
    start = datetime(2000, 1, 1, tzinfo=UTC)
    if kind == "cron":
        return next(times(rule, zone_of("UTC"), start, start), None)
    # dateutil goes on until the year 9999: begin so close to it that the end comes soon. After 400 years the calendar
    # repeats itself, weekdays included.
    begin, parts = _parts(text)
    begin = begin or start.replace(tzinfo=None)
    begin = begin.replace(year=begin.year + (9999 - begin.year) // 400 * 400)
    parts.pop("UNTIL", None)
    return next(iter(_parsed({**parts, "COUNT": "1"}, begin)), None)


def _every(text: str, zone: ZoneInfo, anchor: datetime, after: datetime) -> Iterator[datetime]:
    interval = duration("every", text)
    at = anchor + max(0, (after - anchor) // interval) * interval
    while True:
        at += interval
        yield at


def _cron(text: str, zone: ZoneInfo, anchor: datetime, after: datetime) -> Iterator[datetime]:
    try:
        from cronsim import CronSim
    except ImportError as error:
        raise ImportError(f"cron= {_EXTRA}") from error
    for at in CronSim(text, after.astimezone(zone)):
        yield at.astimezone(UTC)


def _rrule(text: str, zone: ZoneInfo, anchor: datetime, after: datetime) -> Iterator[datetime]:
    """Naive local times: a day is a day, whatever the clocks do. A time that is missing then is as much later as the
    clocks were put forward; of one that comes twice the first counts."""
    _, parts = _parts(text)
    start, since = _local(anchor, zone), _local(after, zone)
    if "COUNT" not in parts and since > start:
        start = _later(parts, start, since)
    until = parts.get("UNTIL", "")
    if until.endswith("Z"):
        moment = datetime.strptime(until, f"{_MOMENT}Z").replace(tzinfo=UTC)
        parts["UNTIL"] = _local(moment, zone).strftime(_MOMENT)
    for at in _parsed(parts, start):
        if at >= since:
            yield _utc(at, zone)


def _later(parts: dict[str, str], start: datetime, since: datetime) -> datetime:
    """Return another start, a whole number of intervals later: dateutil goes through all times from there on."""
    frequency, interval = parts["FREQ"], int(parts.get("INTERVAL", 1))
    period = _PERIODS.get(frequency)
    if period is not None:
        return start + (since - start) // (period * interval) * (period * interval)
    if not parts.keys() & {"BYDAY", "BYMONTHDAY", "BYYEARDAY", "BYWEEKNO"}:
        return start  # its day is that of the start, and not every month has it; so there are few times
    months = interval if frequency == "MONTHLY" else 12 * interval
    passed = 12 * (since.year - start.year) + since.month - start.month
    year, month = divmod(12 * start.year + start.month - 1 + max(0, passed // months - 1) * months, 12)
    return max(start, start.replace(year=year, month=month + 1, day=1))


def _parsed(parts: dict[str, str], start: datetime) -> Any:
    try:
        from dateutil.rrule import rrulestr
    except ImportError as error:
        raise ImportError(f"rrule= {_EXTRA}") from error
    return rrulestr(";".join(f"{name}={value}" for name, value in parts.items()), dtstart=start)


def _parts(text: str) -> tuple[datetime | None, dict[str, str]]:
    """Return the DTSTART of an RRULE, in local time, and the parts of the rule.

    :raises ValueError: it has another form.
    """
    match = re.fullmatch(r"(?:DTSTART:(\d{8}T\d{6})\s+)?(?:RRULE:)?([A-Z]+=[^\s]*)", text.strip().upper())
    if match is None:
        raise ValueError(
            f"rrule must be of the form 'FREQ=DAILY;BYHOUR=3', perhaps after 'DTSTART:20300131T090000' in local time:"
            f" {text!r}"
        )
    parts: dict[str, str] = {}
    for part in match[2].strip(";").split(";"):
        name, _, value = part.partition("=")
        if name in parts:
            raise ValueError(f"rrule {text!r} has {name} twice")
        _check_part(name, value)
        parts[name] = value
    if "FREQ" not in parts:
        raise ValueError(f"rrule {text!r} has no FREQ")
    if "COUNT" in parts and "UNTIL" in parts:
        raise ValueError(f"rrule {text!r} has both COUNT and UNTIL")
    return None if match[1] is None else datetime.strptime(match[1], _MOMENT), parts


def _check_part(name: str, value: str) -> None:
    if name in _FORMS:
        if not re.fullmatch(_FORMS[name], value):
            raise ValueError(f"rrule: {name} can't be {value!r}")
        if name == "UNTIL":  # dateutil reads it when a time is reached
            datetime.strptime(value.rstrip("Z"), _MOMENT if "T" in value else "%Y%m%d")
        return
    known = _RANGES.get(name)
    if known is None:
        raise ValueError(f"rrule: {name!r} is not one of {', '.join(sorted([*_FORMS, *_RANGES]))}")
    for number in value.split(",") if name.startswith("BY") else [value]:
        sign = "[+-]?" if name in _SIGNED else ""
        if not re.fullmatch(rf"{sign}\d{{1,6}}", number) or abs(int(number)) not in known:
            least = f"±{known.start}" if sign else known.start
            raise ValueError(f"rrule: {name} can't be {number!r}: it goes from {least} to {known.stop - 1}")


def _local(moment: datetime, zone: ZoneInfo) -> datetime:
    return moment.astimezone(zone).replace(tzinfo=None)


def _utc(local: datetime, zone: ZoneInfo) -> datetime:
    return local.replace(tzinfo=zone).astimezone(UTC)
