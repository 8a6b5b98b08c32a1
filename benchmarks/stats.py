"""Medians and percentiles. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest of the values that so many percent of them do not exceed.

    :raises ValueError: there are no values, or no such percent.
    """
    if not values or not 0 <= percent <= 100:
        raise ValueError(f"no {percent}th percentile of {len(values)} values")
    return sorted(values)[max(0, math.ceil(len(values) * percent / 100) - 1)]


def interval(values: Sequence[float]) -> str:
    """The median of independent values, and the ranks around it that contain it with 95 % confidence, by the normal
    approximation of the binomial distribution."""
    ordered = sorted(values)
    aside = max(0, math.floor(len(ordered) / 2 - 0.98 * math.sqrt(len(ordered))))
    return f"{median(ordered):.3f} [{ordered[aside]:.3f} {ordered[-1 - aside]:.3f}]"


def shown(value: float) -> str:
    """Three significant digits, at least."""
    if value == 0:
        return "0"
    digits = 2 - math.floor(math.log10(abs(value)))
    return f"{round(value, max(digits, 0)):,.{max(digits, 0)}f}" if digits > 0 else f"{value:,.0f}"


def spread(values: Sequence[float]) -> str:
    """The median, and the least and the most where there are several."""
    if len(values) == 1:
        return shown(values[0])
    return f"{shown(median(values))} ({shown(min(values))}–{shown(max(values))})"
