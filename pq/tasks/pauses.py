"""The pause before a retry, as the job of a task stores it. Pure."""

from __future__ import annotations

import math
from datetime import timedelta

from .._times import delay_of
from ..retry import RetryIn


def retry_in_text(retry_in: RetryIn) -> str | None:
    """Return a pause as a job stores it for any version of pq: of a list the first one, of a function none."""
    if isinstance(retry_in, (list, tuple)):
        return retry_in_text(retry_in[0])
    if (isinstance(retry_in, str) and "ms" in retry_in) or isinstance(retry_in, (int, float)):  # which 1.9.1 can't read
        retry_in = delay_of("retry_in", retry_in)
    if isinstance(retry_in, timedelta):
        return f"{math.ceil(retry_in.total_seconds())}s"
    return retry_in if isinstance(retry_in, str) else None
