"""Retries: how often a failed job is tried again, and after what pause. Pure."""

from __future__ import annotations

import random
import reprlib
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass
from datetime import timedelta

from ._args import integer, is_number
from ._times import LIMIT, Delay, delay_of

__all__ = ["Exponential", "Policy", "RetryIn", "exponential"]

#: A function that gets the number of the failed attempt (1, 2, …) and its exception, and returns the pause before the
#: next attempt, or None to give up.
Chooser = Callable[[int, BaseException], "Delay | None"]

RetryIn = Delay | None | Sequence[Delay] | Chooser


def retries_from(max_retries: int, max_attempts: int | None) -> int:
    """Return how often a job is tried again.

    :param max_attempts: how often it is tried in all; unless it is None it replaces `max_retries`.
    :raises TypeError: it is not an int.
    :raises ValueError: it is below 1.
    """
    return max_retries if max_attempts is None else integer("max_attempts", max_attempts, 1) - 1


@dataclass(frozen=True)
class Exponential:
    """The pauses that `exponential` makes; the parameters are the same."""

    first: timedelta
    factor: float
    most: timedelta
    jitter: float

    def __call__(self, attempt: int, error: BaseException) -> timedelta:
        try:
            delay = self.first.total_seconds() * float(self.factor) ** (attempt - 1)
        except OverflowError:
            delay = float("inf")
        delay = min(delay, self.most.total_seconds()) * random.uniform(1 - self.jitter, 1 + self.jitter)
        return min(timedelta(seconds=delay), LIMIT)


def exponential(first: Delay = "5s", factor: float = 2, most: Delay = "1h", jitter: float = 0.1) -> Exponential:
    """Return pauses that grow exponentially, for `retry_in`.

    :param first: the pause after the first failure, as ``'5s'``, a timedelta or seconds.
    :param factor: how many times longer each pause is than the one before; at least 1.
    :param most: the longest pause, as ``'1h'``, a timedelta or seconds.
    :param jitter: a fraction from 0 to 1. Each pause is randomly made longer or shorter by up to this fraction, so that
        jobs that failed together do not come back together.
    :raises TypeError: an argument has another type.
    :raises ValueError: an argument is negative or out of range.
    """
    for name, number in (("factor", factor), ("jitter", jitter)):
        if not is_number(number):
            raise TypeError(f"{name} must be a number, not {type(number).__name__}: {reprlib.repr(number)}")
    if not 1 <= factor < float("inf"):
        raise ValueError(f"factor must be a finite number of at least 1, not {factor!r}")
    if not 0 <= jitter <= 1:
        raise ValueError(f"jitter must be a number from 0 to 1, not {jitter!r}")
    return Exponential(delay_of("first", first), factor, delay_of("most", most), jitter)


class Policy:
    """How often a job is tried again, and after what pause.

    :param max_retries: the number of attempts after the first.
    :param retry_in: the pause before each retry, as ``'30s'``, a timedelta or seconds; None means no pause. A list has
        one pause for each retry, the last of them for all further retries. A function gets the number of the failed
        attempt and its exception, and returns the pause, or None to give up.
    :raises TypeError: an argument has another type.
    :raises ValueError: a time has another form or is out of range; `max_retries` is negative.
    """

    def __init__(self, max_retries: int = 0, retry_in: RetryIn = "30s") -> None:
        self.max_retries: int = integer("max_retries", max_retries)
        self._choose: Chooser | None = None
        self._delays: list[timedelta] = []
        if retry_in is None:
            self._delays = [timedelta()]
        elif callable(retry_in):
            self._choose = retry_in
        elif isinstance(retry_in, Sequence) and not isinstance(retry_in, (str, bytes, bytearray)):
            if not retry_in:
                raise ValueError("retry_in must not be empty")
            self._delays = [delay_of("retry_in", item) for item in retry_in]
        else:
            self._delays = [delay_of("retry_in", retry_in)]

    def after(self, retried: int) -> Policy:
        """Return the policy for a job that was retried this often already."""
        policy = copy(self)
        policy.max_retries = max(0, self.max_retries - retried)
        return policy

    def usual(self, attempt: int) -> timedelta | None:
        """Return the pause after this attempt, even if it was the last one; None if a function chooses it."""
        if isinstance(self._choose, Exponential):
            return self._choose(attempt, Exception())
        return self._delays[min(attempt, len(self._delays)) - 1] if self._delays else None

    def pause(self, attempt: int, error: BaseException) -> timedelta | None:
        """Return the pause after this attempt (1, 2, …) has failed, or None if it was the last one.

        :raises Exception: what the function given as `retry_in` raises, or a TypeError or ValueError if it returns
            something else than a duration.
        """
        if attempt > self.max_retries:
            return None
        if self._choose is None:
            return self._delays[min(attempt, len(self._delays)) - 1]
        chosen = self._choose(attempt, error)
        return None if chosen is None else delay_of("retry_in", chosen)
