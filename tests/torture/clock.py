"""An actor whose wall clock jumps: ``python -m tests.torture.clock``, with the arguments of `actor`.

At SIGUSR2 it is wrong by some hours, at the next one right again.
"""

from __future__ import annotations

import datetime
import random
import signal
import sys
import time
from typing import Any

#: What the clock says in truth.
now = time.time

_Datetime = datetime.datetime
_HOURS = 12

_skew = 0.0


class _Kind(type):
    """psycopg2 makes datetimes in C, past the class below; they are to be instances of it all the same."""

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, _Datetime)


class _Skewed(_Datetime, metaclass=_Kind):
    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> Any:
        return _Datetime.fromtimestamp(time.time(), tz)

    @classmethod
    def utcnow(cls) -> Any:
        return cls.now(datetime.timezone.utc).replace(tzinfo=None)


def jump(*signal: object) -> None:
    global _skew
    _skew = 0.0 if _skew else 3600 * random.choice([-1, 1]) * random.uniform(1, _HOURS)


def install() -> None:
    """Before anything is imported that would keep the true ones."""
    time.time = lambda: now() + _skew
    time.time_ns = lambda: int(time.time() * 1e9)
    datetime.datetime = _Skewed  # type: ignore[misc]
    signal.signal(signal.SIGUSR2, jump)


if __name__ == "__main__":
    # under its own name, not as __main__: else the actor would import a second one
    from tests.torture import clock

    clock.install()
    from tests.torture.streamed import main

    main(*sys.argv[1:])
