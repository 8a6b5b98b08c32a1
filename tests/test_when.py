"""Points in time as users write them."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pq._times import LIMIT, When, delay_of, duration, patience, positive_delay, wait_of, when
from pq.utils import convert_time_spec, utc_format

UTC = dt.timezone.utc
SECOND = dt.timedelta(seconds=1)
UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30s", 30),
        ("5m", 300),
        ("2h", 7200),
        ("1d", 86400),
        ("1h30m", 5400),
        ("1d1h1m1s", 90061),
        ("30m1h", 5400),
        ("90s90s", 180),
        ("0s", 0),
        ("50ms", 0.05),
        ("1m5ms1s", 61.005),
        ("007m", 420),
        ("2000000d", 2_000_000 * 86400),
    ],
)
def test_texts_are_relative(text: str, seconds: int) -> None:
    assert when("x", text) == When(delay=dt.timedelta(seconds=seconds))


@given(st.lists(st.tuples(st.integers(0, 10_000), st.sampled_from(sorted(UNITS))), min_size=1, max_size=6))
def test_the_parts_of_a_text_add_up(parts: list[tuple[int, str]]) -> None:
    text = "".join(f"{number}{unit}" for number, unit in parts)
    assert duration("x", text) == sum((number * (SECOND * UNITS[unit]) for number, unit in parts), dt.timedelta())


@given(st.text(alphabet="0123456789smhd -+.,\n٥²Sxe", max_size=8))
def test_a_text_is_read_whole_or_not_at_all(text: str) -> None:
    rest = text
    while rest:  # what remains after taking off number and unit, again and again
        number = rest.lstrip("0123456789")
        unit = "ms" if number[:2] == "ms" else number[:1]
        if number == rest or unit not in UNITS:
            break
        rest = number[len(unit) :]
    if text and not rest:
        assert duration("x", text) >= dt.timedelta()
    else:
        with pytest.raises(ValueError, match="must be of the form"):
            duration("x", text)


@pytest.mark.parametrize("seconds", [0, 5, 1.5, -2, 2_000_000 * 86400])
def test_a_number_is_of_seconds(seconds: float) -> None:
    assert when("x", seconds) == When(delay=dt.timedelta(seconds=seconds))


@pytest.mark.parametrize("spec", [5, 5.0, "5s", dt.timedelta(seconds=5)], ids=repr)
def test_units_are_alike_everywhere(spec: Any) -> None:
    """In each function that reads a time for an argument."""
    five = dt.timedelta(seconds=5)
    assert when("x", spec).delay == delay_of("x", spec) == positive_delay("x", spec) == five
    assert patience("x", spec) == wait_of(spec) == 5


@pytest.mark.parametrize("delay", [dt.timedelta(), SECOND / 1_000_000, -SECOND, LIMIT, -LIMIT], ids=str)
def test_a_timedelta_is_relative(delay: dt.timedelta) -> None:
    assert when("x", delay) == When(delay=delay)


@pytest.mark.parametrize("delay", [LIMIT + SECOND / 1_000_000, -LIMIT - SECOND / 1_000_000], ids=str)
def test_a_timedelta_beyond_the_limit_is_out_of_range(delay: dt.timedelta) -> None:
    with pytest.raises(ValueError, match="x is out of range"):
        when("x", delay)


@given(st.datetimes())
def test_a_naive_datetime_is_utc(moment: dt.datetime) -> None:
    assert when("x", moment).at == moment.replace(tzinfo=UTC)


@given(
    st.datetimes(min_value=dt.datetime(1, 1, 2), max_value=dt.datetime(9999, 12, 30)),
    st.integers(-23 * 60 - 59, 23 * 60 + 59),
)
def test_an_aware_datetime_stays_the_same_moment(moment: dt.datetime, minutes: int) -> None:
    aware = moment.replace(tzinfo=dt.timezone(dt.timedelta(minutes=minutes)))
    at = when("x", aware).at
    assert at == aware
    assert at is not None
    assert at.tzinfo is UTC


def test_a_tzinfo_without_offset_counts_as_naive() -> None:
    class Nowhere(dt.tzinfo):
        def utcoffset(self, when: dt.datetime | None) -> None:
            return None

    assert when("x", dt.datetime(2030, 1, 1, tzinfo=Nowhere())).at == dt.datetime(2030, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    "moment",
    [
        dt.datetime.min.replace(tzinfo=dt.timezone(SECOND * 3600)),
        dt.datetime.max.replace(tzinfo=dt.timezone(-SECOND * 3600)),
    ],
)
def test_a_datetime_that_leaves_the_years_in_utc_is_out_of_range(moment: dt.datetime) -> None:
    with pytest.raises(ValueError, match="x is out of range"):
        when("x", moment)


def test_nothing_is_nothing() -> None:
    assert when("x", None) == When(at=None, delay=None)


def test_a_long_text_is_cut_in_the_message() -> None:
    with pytest.raises(ValueError, match="out of range") as caught:
        when("x", "9" * 100_000 + "s")
    assert len(str(caught.value)) < 200


# -- 1.9.1's helpers


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        (dt.datetime(2014, 2, 21, 16, 22, 6), "2014-02-21T16:22:06.000000Z"),
        (dt.datetime(2014, 2, 21, 16, 22, 6, 5, tzinfo=dt.timezone(SECOND * 3600)), "2014-02-21T15:22:06.000005Z"),
        (dt.datetime.min, "0001-01-01T00:00:00.000000Z"),
        (dt.datetime.max, "9999-12-31T23:59:59.999999Z"),
    ],
)
def test_utc_format(moment: dt.datetime, text: str) -> None:
    assert utc_format(moment) == text


def test_convert_time_spec() -> None:
    def now() -> dt.datetime:
        return dt.datetime.now(UTC).replace(tzinfo=None)

    hour: list[Any] = ["1h", dt.timedelta(hours=1)]
    for spec in hour:
        before = now()
        moment = convert_time_spec(spec)
        assert moment is not None
        assert before <= moment - 3600 * SECOND <= now()
    assert convert_time_spec(None) is None
    assert convert_time_spec(dt.datetime(2030, 1, 1)) == dt.datetime(2030, 1, 1)
    with pytest.raises(ValueError, match="5months"):
        convert_time_spec("5months")
