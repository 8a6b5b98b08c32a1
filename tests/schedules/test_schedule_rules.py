"""The times of rules: cron, RRULE and intervals, in zones whose clocks change. No database."""

from __future__ import annotations

import builtins
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from itertools import islice
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from pq import Schedule
from pq._schedules import check_schedule, rules

UTC = timezone.utc
BERLIN = ZoneInfo("Europe/Berlin")

#: The clocks go from 02:00 to 03:00 on the first of these days, and from 03:00 back to 02:00 on the second.
SPRING, AUTUMN = datetime(2026, 3, 29, tzinfo=BERLIN), datetime(2026, 10, 25, tzinfo=BERLIN)


def rule_of(**given: Any) -> str:
    return check_schedule(Schedule("q", None, **given), "q").rule


def local(rule: str, after: datetime, count: int, zone: ZoneInfo = BERLIN, anchor: datetime | None = None) -> list[str]:
    """The next times of a rule, in a zone."""
    found = rules.times(rule, zone, anchor or after.astimezone(UTC), after.astimezone(UTC))
    return [at.astimezone(zone).strftime("%d %H:%M%z") for at in islice(found, count)]


DST = [
    # rule, the day before, and the times of a cron with fixed hours: once each day
    ({"cron": "30 2 * * *"}, SPRING, ["29 03:00+0200", "30 02:30+0200"]),
    ({"cron": "30 2 * * *"}, AUTUMN, ["25 02:30+0200", "26 02:30+0100"]),
    ({"cron": "0 3 * * *"}, SPRING, ["29 03:00+0200", "30 03:00+0200"]),
    ({"cron": "0 3 * * *"}, AUTUMN, ["25 03:00+0100", "26 03:00+0100"]),
    # both become 03:00, which fires once
    ({"cron": "0,30 2 * * *"}, SPRING, ["29 03:00+0200", "30 02:00+0200"]),
    # each half hour, as it comes
    ({"cron": "*/30 * * * *"}, SPRING + timedelta(hours=1), ["29 01:30+0100", "29 03:00+0200", "29 03:30+0200"]),
    (
        {"cron": "*/30 * * * *"},
        AUTUMN + timedelta(hours=2),
        ["25 02:30+0200", "25 02:00+0100", "25 02:30+0100", "25 03:00+0100"],
    ),
    # RRULE: local times; a missing one is as much later as the clocks were put forward, of two the first counts
    ({"rrule": "FREQ=DAILY;BYHOUR=2;BYMINUTE=30;BYSECOND=0"}, SPRING, ["29 03:30+0200", "30 02:30+0200"]),
    ({"rrule": "FREQ=DAILY;BYHOUR=2;BYMINUTE=30;BYSECOND=0"}, AUTUMN, ["25 02:30+0200", "26 02:30+0100"]),
    ({"rrule": "FREQ=HOURLY;BYMINUTE=0"}, SPRING, ["29 01:00+0100", "29 03:00+0200", "29 04:00+0200"]),
    ({"rrule": "FREQ=HOURLY;BYMINUTE=0"}, AUTUMN, ["25 01:00+0200", "25 02:00+0200", "25 03:00+0100"]),
    # an interval knows no zone
    ({"every": "1h"}, SPRING, ["29 01:00+0100", "29 03:00+0200", "29 04:00+0200"]),
    ({"every": "1h"}, AUTUMN, ["25 01:00+0200", "25 02:00+0200", "25 02:00+0100", "25 03:00+0100"]),
    ({"every": "1d"}, AUTUMN, ["25 23:00+0100", "26 23:00+0100"]),
]


@pytest.mark.parametrize(("given", "after", "expected"), DST, ids=[f"{g}-{a:%m}" for g, a, _ in DST])
def test_when_the_clocks_change(given: dict[str, Any], after: datetime, expected: list[str]) -> None:
    assert local(rule_of(**given), after, len(expected)) == expected


@pytest.mark.parametrize("given", [{"cron": "30 2 * * *"}, {"rrule": "FREQ=MINUTELY;INTERVAL=10"}])
def test_the_hour_that_comes_twice_is_no_step_back(given: dict[str, Any]) -> None:
    """Whoever begins in its second half gets later times alone."""
    begin = datetime(2026, 10, 25, 1, 15, tzinfo=UTC)  # 02:15, for the second time
    found = list(islice(rules.times(rule_of(**given), BERLIN, begin - timedelta(days=9), begin), 20))
    assert found == sorted(set(found))
    assert found[0] > begin


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("FREQ=MONTHLY;BYDAY=-1FR;BYHOUR=9;BYMINUTE=0", "30 09:00+0100"),
        ("RRULE:FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=29;BYHOUR=0;BYMINUTE=0", "29 00:00+0100"),
        ("freq=weekly;byday=mo;byhour=8;byminute=0", "26 08:00+0100"),
        ("DTSTART:20260101T070000\nRRULE:FREQ=DAILY", "25 07:00+0100"),
        ("DTSTART:20991231T070000 FREQ=DAILY", "31 07:00+0100"),
        ("FREQ=DAILY;UNTIL=20261026T050000Z;BYHOUR=6;BYMINUTE=0", "25 06:00+0100"),
    ],
)
def test_rrules(text: str, first: str) -> None:
    rule = rule_of(rrule=text, zone="Europe/Berlin")
    after = AUTUMN.astimezone(UTC)
    assert local(rule, AUTUMN, 1, anchor=rules.anchor_of(rule, BERLIN, after)) == [first]


def test_until_is_local_time_or_with_z_utc() -> None:
    begin = datetime(2026, 11, 1, 12, tzinfo=UTC)
    for until, count in (("20261103T060000", 2), ("20261103T055959", 1), ("20261103T050000Z", 2), ("20261103", 1)):
        rule = rule_of(rrule=f"FREQ=DAILY;BYHOUR=6;BYMINUTE=0;BYSECOND=0;UNTIL={until}", zone="Europe/Berlin")
        assert len(list(rules.times(rule, BERLIN, begin, begin))) == count, until


def test_count_counts_from_the_anchor() -> None:
    begin = datetime(2026, 11, 1, 12, 0, 30, tzinfo=UTC)
    rule = rule_of(rrule="FREQ=HOURLY;COUNT=3")
    anchor = rules.anchor_of(rule, ZoneInfo("UTC"), begin)
    assert anchor == datetime(2026, 11, 1, 12, 1, tzinfo=UTC)
    found = list(rules.times(rule, ZoneInfo("UTC"), anchor, begin))
    assert found == [anchor + timedelta(hours=n) for n in range(3)]
    assert list(rules.times(rule, ZoneInfo("UTC"), anchor, found[1])) == found[2:]


@pytest.mark.parametrize(
    "text",
    [
        "FREQ=SECONDLY;INTERVAL=7", "FREQ=MINUTELY;INTERVAL=13", "FREQ=HOURLY;INTERVAL=5;BYMINUTE=3,40",
        "FREQ=DAILY;INTERVAL=3", "FREQ=WEEKLY;INTERVAL=2;BYDAY=MO,FR", "FREQ=WEEKLY;INTERVAL=3;WKST=SU;BYDAY=SU,SA",
        "FREQ=WEEKLY", "FREQ=DAILY;BYHOUR=8,9;BYMINUTE=0,30;BYSETPOS=-1", "FREQ=MONTHLY;BYDAY=-1FR,2MO",
        "FREQ=MONTHLY;INTERVAL=2;BYMONTHDAY=1,31", "FREQ=YEARLY;INTERVAL=2;BYMONTH=3,9;BYMONTHDAY=1,15",
        "FREQ=YEARLY;BYWEEKNO=20,53;BYDAY=TU", "FREQ=YEARLY", "FREQ=MONTHLY",
        f"FREQ=YEARLY;BYDAY=MO,TU,WE,TH,FR,SA,SU;BYHOUR={','.join(map(str, range(24)))};BYMINUTE=0,10,20,30,40,50",
    ],
)  # fmt: skip
def test_an_old_rule_is_not_gone_through_from_its_start(text: str) -> None:
    """And fires at the times at which it would fire if it were."""
    from dateutil.rrule import rrulestr

    start = datetime(2026, 1, 7, 10, 11, 12)
    zone = ZoneInfo("UTC")
    for days in (3, 40, 400, 1000) if "SECONDLY" not in text and "MINUTELY" not in text else (3, 40):
        after = start + timedelta(days=days, hours=5, seconds=1)
        slow = list(islice((at for at in rrulestr(text, dtstart=start) if at > after), 12))
        quick = rules.times(rule_of(rrule=text), zone, start.replace(tzinfo=UTC), after.replace(tzinfo=UTC))
        assert [at.replace(tzinfo=None) for at in islice(quick, 12)] == slow
    began = time.process_time()
    later = after.replace(year=2056, tzinfo=UTC)
    assert next(rules.times(rule_of(rrule=text), zone, start.replace(tzinfo=UTC), later)) > later
    assert time.process_time() - began < 0.5


@pytest.mark.parametrize("given", [{"cron": "*/7 * * * *"}, {"every": "250ms"}, {"rrule": "FREQ=MINUTELY"}])
@pytest.mark.parametrize("most", [1, 5, 1000])
@pytest.mark.parametrize("gone", [timedelta(seconds=1), timedelta(minutes=3), timedelta(hours=30)])
def test_what_was_missed(given: dict[str, Any], most: int, gone: timedelta) -> None:
    rule, since = rule_of(**given), datetime(2026, 11, 1, 12, 0, 30, tzinfo=UTC)
    now = since + gone
    all_of_them = []
    for at in rules.times(rule, ZoneInfo("UTC"), since, since):
        if at > now:
            break
        all_of_them.append(at)
    assert rules.missed(rule, ZoneInfo("UTC"), since, since, now, most) == all_of_them[-most:]


def test_years_that_were_missed_take_no_time() -> None:
    began, now = time.process_time(), datetime(2036, 1, 1, tzinfo=UTC)
    for given in ({"cron": "* * * * *"}, {"every": "100ms"}, {"rrule": "FREQ=SECONDLY"}):
        found = rules.missed(rule_of(**given), ZoneInfo("UTC"), now.replace(year=2026), now.replace(year=2026), now, 1)
        assert found and now - found[0] <= timedelta(minutes=1)
    assert time.process_time() - began < 1


BAD = [
    ({}, TypeError, "one of cron=, rrule= and every=, not none"),
    ({"cron": "0 3 * * *", "every": "1h"}, TypeError, "not cron and every"),
    ({"every": "1h", "zone": "UTC"}, TypeError, "has no zone="),
    ({"cron": 3}, TypeError, "cron must be a str, not int"),
    ({"rrule": 3}, TypeError, "rrule must be a str"),
    ({"every": [3]}, TypeError, "every must be a number of seconds, a str or timedelta"),
    ({"cron": "0 3 * * *", "zone": 1}, TypeError, "zone must be a str"),
    ({"cron": "61 * * * *"}, ValueError, "Bad minute"),
    ({"cron": "0 3 * *"}, ValueError, "five fields"),
    ({"cron": "* * * * * *"}, ValueError, "five fields"),
    ({"cron": "@daily"}, ValueError, "five fields"),
    ({"cron": "0 3 * * x"}, ValueError, "Bad day-of-week"),
    ({"cron": "0 0 30 2 *"}, ValueError, "cron"),
    ({"cron": "0 0 31 2 *"}, ValueError, "cron"),
    ({"cron": ""}, ValueError, "cron must not be empty"),
    ({"cron": "0 3 * * *", "zone": "Europe/Nowhere"}, ValueError, "'Europe/Nowhere' is unknown"),
    ({"cron": "0 3 * * *", "zone": "../etc/passwd"}, ValueError, "is unknown"),
    ({"cron": "0 3 * * *", "zone": "x" * 400}, ValueError, "is unknown"),
    ({"cron": "0 3 * * *", "zone": ""}, ValueError, "zone must not be empty"),
    ({"rrule": "every day"}, ValueError, "must be of the form"),
    ({"rrule": "INTERVAL=2"}, ValueError, "no FREQ"),
    ({"rrule": "FREQ=DAYLY"}, ValueError, "FREQ can't be 'DAYLY'"),
    ({"rrule": "FREQ=DAILY;INTERVAL=0"}, ValueError, "INTERVAL can't be '0': it goes from 1"),
    ({"rrule": "FREQ=DAILY;INTERVAL=-1"}, ValueError, "INTERVAL can't be '-1'"),
    ({"rrule": "FREQ=DAILY;COUNT=0"}, ValueError, "COUNT can't be '0'"),
    ({"rrule": "FREQ=DAILY;BYHOUR=24"}, ValueError, "BYHOUR can't be '24'"),
    ({"rrule": "FREQ=DAILY;BYHOUR="}, ValueError, "BYHOUR can't be ''"),
    ({"rrule": "FREQ=DAILY;BYMONTHDAY=0"}, ValueError, "BYMONTHDAY can't be '0': it goes from ±1 to 31"),
    ({"rrule": "FREQ=DAILY;BYHOUR=1;BYHOUR=2"}, ValueError, "BYHOUR twice"),
    ({"rrule": "FREQ=DAILY;COLOUR=1"}, ValueError, "'COLOUR' is not one of"),
    ({"rrule": "FREQ=DAILY;COUNT=3;UNTIL=20300101"}, ValueError, "both COUNT and UNTIL"),
    ({"rrule": "FREQ=DAILY;UNTIL=tomorrow"}, ValueError, "UNTIL can't be"),
    ({"rrule": "FREQ=DAILY;UNTIL=20301399T000000"}, ValueError, "20301399"),
    ({"rrule": "FREQ=DAILY;BYMONTH=2;BYMONTHDAY=30"}, ValueError, "fires at no time"),
    ({"rrule": "FREQ=SECONDLY;BYMONTH=2;BYMONTHDAY=30"}, ValueError, "fires at no time"),
    ({"rrule": "FREQ=HOURLY;INTERVAL=2;BYHOUR=1"}, ValueError, "can't be evaluated"),
    ({"rrule": "DTSTART;TZID=Europe/Berlin:20260101T000000\nRRULE:FREQ=DAILY"}, ValueError, "must be of the form"),
    ({"rrule": "DTSTART:20260101T000000Z\nRRULE:FREQ=DAILY"}, ValueError, "must be of the form"),
    ({"rrule": "DTSTART:20261301T000000\nRRULE:FREQ=DAILY"}, ValueError, "20261301T000000"),
    ({"rrule": "DTSTART:20260329T023000 FREQ=DAILY", "zone": "Europe/Berlin"}, ValueError, "does not exist in zone"),
    ({"rrule": "FREQ=DAILY\nEXDATE:20260101T000000"}, ValueError, "must be of the form"),
    ({"every": "0s"}, ValueError, "every must be positive"),
    ({"every": "99ms"}, ValueError, "from 100ms"),
    ({"every": "99999d"}, ValueError, "to 3660d"),
    ({"every": timedelta(seconds=1, microseconds=1)}, ValueError, "whole milliseconds"),
    ({"every": "soon"}, ValueError, "every must be of the form"),
    ({"every": "1h", "missed": "never"}, ValueError, "missed must be one of 'once', 'skip', 'all', not 'never'"),
    ({"every": "1h", "missed": None}, TypeError, "missed must be a str, not NoneType"),
    ({"every": "1h", "jitter": "-1s"}, ValueError, "jitter must be of the form"),
    ({"every": "1h", "jitter": timedelta(-1)}, ValueError, "jitter must not be negative"),
    ({"every": "1h", "jitter": [5]}, TypeError, "jitter must be a number of seconds, a str or timedelta"),
    ({"every": "1h", "jitter": "9999d"}, ValueError, "jitter must be at most 3660 days"),
    ({"every": "1h", "key": ""}, ValueError, "key must not be empty"),
    ({"every": "1h", "key": b"x"}, TypeError, "key must be a str"),
    ({"every": "1h", "unique": "x" * 501}, ValueError, "unique must have at most 500 bytes"),
    ({"every": "1h", "unique": "a\0"}, ValueError, "NUL"),
]


@pytest.mark.parametrize(("given", "kind", "message"), BAD, ids=[f"{n}-{given}" for n, (given, _, _) in enumerate(BAD)])
def test_what_is_wrong_is_said_at_once(given: dict[str, Any], kind: type[Exception], message: str) -> None:
    began = time.process_time()
    with pytest.raises(kind) as caught:
        check_schedule(Schedule("q", None, **given), "q")
    assert message in str(caught.value)
    assert time.process_time() - began < 2


@pytest.mark.parametrize(
    ("given", "package"), [({"cron": "0 3 * * *"}, "cronsim"), ({"rrule": "FREQ=DAILY"}, "dateutil")]
)
def test_a_missing_extra_says_how_to_get_it(
    given: dict[str, Any], package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    without(package, monkeypatch)
    with pytest.raises(ImportError, match=r"pip install '\.\[schedules\]'"):
        check_schedule(Schedule("q", None, **given), "q")
    check_schedule(Schedule("q", None, every="5m"), "q")


def without(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have no such package."""
    real: Callable[..., Any] = builtins.__import__

    def fake(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.split(".")[0] == package:
            raise ImportError(f"No module named {name!r}")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", fake)


@pytest.mark.parametrize(("given", "text"), [("90s", "1m30s"), ("1500ms", "1s500ms"), ("48h", "2d"), ("1d1h", "1d1h")])
def test_an_interval_is_written_in_one_way(given: str, text: str) -> None:
    assert rule_of(every=given) == f"every {text}"
