"""Retry policies."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from pq import PQ
from pq.retry import Exponential, Policy, exponential

ERROR = ValueError("x")


def pauses(policy: Policy, attempts: int = 5) -> list[float | None]:
    found = [policy.pause(attempt, ERROR) for attempt in range(1, attempts + 1)]
    return [None if pause is None else pause.total_seconds() for pause in found]


@pytest.mark.parametrize(
    ("max_retries", "retry_in", "expected"),
    [
        (0, "30s", [None] * 5),
        (2, "30s", [30, 30, None, None, None]),
        (2, None, [0, 0, None, None, None]),
        (3, dt.timedelta(milliseconds=5), [0.005] * 3 + [None] * 2),
        (4, ["5s", dt.timedelta(minutes=1)], [5, 60, 60, 60, None]),
        (9, ("1h",), [3600] * 5),
        (9, lambda attempt, error: None if attempt > 2 else f"{attempt}m", [60, 120, None, None, None]),
        (1, lambda attempt, error: dt.timedelta(0), [0, None, None, None, None]),
        (9, exponential("1s", 3, "10s", jitter=0), [1, 3, 9, 10, 10]),
    ],
)
def test_the_pause_after_each_attempt(max_retries: int, retry_in: Any, expected: list[float | None]) -> None:
    assert pauses(Policy(max_retries, retry_in)) == expected


def test_a_function_is_given_the_attempt_and_the_error() -> None:
    seen: list[Any] = []
    Policy(3, lambda *args: seen.append(args)).pause(2, ERROR)
    assert seen == [(2, ERROR)]


def test_exponential_is_longer_or_shorter_by_chance_within_bounds() -> None:
    pause = exponential("100s", 2, "1d", jitter=0.25)
    found = {pause(1, ERROR).total_seconds() for _ in range(200)}
    assert len(found) > 100
    assert 75 <= min(found) < 90
    assert 110 < max(found) <= 125


def test_exponential_stays_at_the_longest_however_many_attempts() -> None:
    assert exponential("1s", 10, "1h", jitter=0)(100_000, ERROR) == dt.timedelta(hours=1)


def test_exponential_has_defaults() -> None:
    assert exponential() == Exponential(dt.timedelta(seconds=5), 2, dt.timedelta(hours=1), 0.1)


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"max_retries": -1}, ValueError, "max_retries must not be negative: -1"),
        ({"max_retries": True}, TypeError, "max_retries must be an int, not bool"),
        ({"max_retries": 1.5}, TypeError, "max_retries must be an int, not float"),
        ({"retry_in": "5months"}, ValueError, "retry_in must be of the form"),
        ({"retry_in": True}, TypeError, "retry_in must be a number of seconds, a str or timedelta"),
        ({"retry_in": []}, ValueError, "retry_in must not be empty"),
        ({"retry_in": ["5s", True]}, TypeError, "retry_in must be a number of seconds, a str or timedelta"),
        ({"retry_in": b"5s"}, TypeError, "retry_in must be a number of seconds, a str or timedelta, not bytes"),
        ({"retry_in": dt.timedelta(seconds=-1)}, ValueError, "retry_in must not be negative"),
        ({"retry_in": "9999999999d"}, ValueError, "retry_in is out of range"),
    ],
)
def test_bad_policies(dsn: str, arguments: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        Policy(**arguments)
    with PQ(dsn, **arguments) as pq, pytest.raises(error, match=text):
        pq["a"]


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"first": True}, TypeError, "first must be a number of seconds, a str or timedelta"),
        ({"most": "x"}, ValueError, "most must be of the form"),
        ({"factor": 0.5}, ValueError, "factor must be a finite number of at least 1"),
        ({"factor": float("nan")}, ValueError, "factor must be a finite number"),
        ({"factor": "2"}, TypeError, "factor must be a number"),
        ({"jitter": 1.1}, ValueError, "jitter must be a number from 0 to 1"),
        ({"jitter": True}, TypeError, "jitter must be a number, not bool"),
    ],
)
def test_bad_arguments_of_exponential(arguments: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        exponential(**arguments)
