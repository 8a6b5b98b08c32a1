"""When a job that failed is tried again. Pure."""

from __future__ import annotations

import random
import reprlib
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass
from datetime import timedelta

from ._args import integer
from ._times import LIMIT, Delay, delay_of

__all__ = ["Exponential", "Policy", "RetryIn", "exponential"]

#: Called with the number of the attempt that failed (1, 2, …) and its exception; None: do not try again.
Chooser = Callable[[int, BaseException], "Delay | None"]

RetryIn = Delay | None | Sequence[Delay] | Chooser


@dataclass(frozen=True)
class Exponential:
    """See `exponential`."""

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
    """Pauses that grow: `first`, then `factor` times as long each time, at most `most`.

    :param jitter: each pause is made longer or shorter by chance, by up to this fraction of it, so that jobs that
        failed together do not come back together.
    :raises TypeError: an argument of another type.
    :raises ValueError: negative or out of range; a factor below 1, a jitter not from 0 to 1.
    """
    for name, number in (("factor", factor), ("jitter", jitter)):
        if isinstance(number, bool) or not isinstance(number, (int, float)):
            raise TypeError(f"{name} must be a number, not {type(number).__name__}: {reprlib.repr(number)}")
    if not 1 <= factor < float("inf"):
        raise ValueError(f"factor must be a finite number of at least 1, not {factor!r}")
    if not 0 <= jitter <= 1:
        raise ValueError(f"jitter must be a number from 0 to 1, not {jitter!r}")
    return Exponential(delay_of("first", first), factor, delay_of("most", most), jitter)


class Policy:
    """How often a job is tried again, and after what pause.

    :param max_retries: attempts after the first.
    :param retry_in: the pause, as ``'30s'`` or a timedelta; None: none. A list: one for each retry, the last of them
        for all further ones. A function of the number of the failed attempt and its exception, which returns the pause,
        or None to give up.
    :raises TypeError: an argument of another type.
    :raises ValueError: a time of another form or out of range; negative `max_retries`.
    """

    def __init__(self, max_retries: int = 0, retry_in: RetryIn = "30s") -> None:
        self.max_retries = integer("max_retries", max_retries)
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
        """The same for a job that was tried again so often already."""
        policy = copy(self)
        policy.max_retries = max(0, self.max_retries - retried)
        return policy

    def usual(self, attempt: int) -> timedelta | None:
        """The pause after this attempt, whether or not it was the last; None if a function chooses it."""
        if isinstance(self._choose, Exponential):
            return self._choose(attempt, Exception())
        return self._delays[min(attempt, len(self._delays)) - 1] if self._delays else None

    def pause(self, attempt: int, error: BaseException) -> timedelta | None:
        """How long to wait after this attempt (1, 2, …) has failed; None: it was the last.

        :raises Exception: what a function given as `retry_in` raises, or `seconds` of what it returns.
        """
        if attempt > self.max_retries:
            return None
        if self._choose is None:
            return self._delays[min(attempt, len(self._delays)) - 1]
        chosen = self._choose(attempt, error)
        return None if chosen is None else delay_of("retry_in", chosen)
