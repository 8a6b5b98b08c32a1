"""What a job asks for, and how it is to be run. Pure."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any, NamedTuple

from ..retry import RetryIn


class Options(NamedTuple):
    """How a task is to be run; see `pq.Queue.task`."""

    max_retries: int = 0
    retry_in: RetryIn = "30s"
    transactional: bool = False
    lease: timedelta | None = None
    timeout: timedelta | None = None
    result: bool = False


class Call(NamedTuple):
    """What a job asks for: a handler and its arguments."""

    name: str
    handler: Callable[..., Any]
    args: Any
    kwargs: Any
    options: Options
