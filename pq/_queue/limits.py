"""`PQ.limits`: how many jobs of a queue, or of several, may run at a time, or begin in a period."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Iterator, MutableMapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NamedTuple

from .._args import check_text, check_word, integer, queue_name
from .._db import Rows
from .._table import Table
from .._times import UNITS, duration
from ..sql import array

#: The largest number of places, and of tokens: each of them is a row.
MAX_PLACES = 10_000

#: What a job does to the others of its key while it waits for its retry, and when it is dead.
ON_RETRY = ("hold", "pass")
ON_DEAD = ("next", "stop")

_RATE = re.compile(r"([0-9]+)/([0-9]*)(ms|[smhd])")


@dataclass(frozen=True, kw_only=True)
class Limit:
    """What `PQ.limits` maps names to.

    :param running: how many jobs may run at a time, under a lease or in a block; from 1 to 10,000. A job that is got
        without either has left the queue, and does not count.
    :param rate: how many jobs may begin in a period: ``'100/m'``, ``'5/s'``, ``'1/30s'``, with the units ``ms``, ``s``,
        ``m``, ``h`` and ``d``. In no period of that length, whenever it begins, are there more. More than 10,000 are
        spread over the period, as ``'10000/s'`` for ``'600000/m'``.
    :param per_key: how many jobs of one key may run at a time; default: 1.
    :param on_retry: what a job that waits for its retry does to the others of its key: ``'hold'``, the default, or
        ``'pass'``.
    :param on_dead: what a dead job does to the others of its key: ``'next'``, the default, or ``'stop'``.
    :param queues: the names of the queues that share `running` and `rate`; default: the queue of the limit's name.
    :raises TypeError: an argument of another type; or one that is about keys together with `queues`.
    :raises ValueError: a number is out of range, or another word or form; no queues; nothing is limited.
    """

    running: int | None = None
    rate: str | None = None
    per_key: int | None = None
    on_retry: str | None = None
    on_dead: str | None = None
    queues: Sequence[str] | None = None

    def __post_init__(self) -> None:
        if self.running is not None and integer("running", self.running, 1) > MAX_PLACES:
            raise ValueError(f"running must be at most {MAX_PLACES:,}: {self.running}")
        if self.rate is not None:
            rate_of(self.rate)
        if self.per_key is not None and integer("per_key", self.per_key, 1) > MAX_PLACES:
            raise ValueError(f"per_key must be at most {MAX_PLACES:,}: {self.per_key}")
        if self.on_retry is not None:
            check_word("on_retry", self.on_retry, ON_RETRY)
        if self.on_dead is not None:
            check_word("on_dead", self.on_dead, ON_DEAD)
        about_keys = [name for name in ("per_key", "on_retry", "on_dead") if getattr(self, name) is not None]
        if self.queues is not None:
            if about_keys:
                raise TypeError(f"{about_keys[0]} is for the jobs of one queue: it can't go with queues")
            object.__setattr__(self, "queues", _names(self.queues))
        if self.running is None and self.rate is None and not about_keys:
            raise ValueError("a limit needs running, rate, per_key, on_retry or on_dead; or remove it")


class Rate(NamedTuple):
    number: int
    period: float  # seconds


def rate_of(rate: object) -> Rate:
    """Read a number and a period, such as ``'100/m'``; the errors are those of `Limit`."""
    if not isinstance(rate, str):
        raise TypeError(f"rate must be a str such as '100/m', not {type(rate).__name__}: {reprlib.repr(rate)}")
    match = _RATE.fullmatch(rate)
    number = int(match[1]) if match is not None and len(match[1]) <= 12 else 0
    if match is None or number < 1:
        raise ValueError(
            f"rate must be a number of at least 1 and a period, such as '100/m', '5/s' or '1/30s', not {rate!r}"
        )
    period = duration("the period of rate", f"{match[2] or 1}{match[3]}") // timedelta(milliseconds=1)
    if not 0 < period <= timedelta(days=366) // timedelta(milliseconds=1):
        raise ValueError(f"the period of rate must be from 1ms to 366d, not {rate!r}")
    parts = -(-number // MAX_PLACES)
    if parts > period:
        raise ValueError(f"rate must be at most {MAX_PLACES:,} in a millisecond, not {rate!r}")
    return Rate(number // parts, -(-period // parts) / 1000)


def _text(rate: Rate) -> str:
    milliseconds = round(rate.period * 1000)
    unit, length = next(each for each in UNITS.items() if milliseconds % each[1] == 0)
    count = milliseconds // length
    return f"{rate.number}/{'' if count == 1 else count}{unit}"


def _names(queues: object) -> tuple[str, ...]:
    if isinstance(queues, str) or not isinstance(queues, Sequence):
        raise TypeError(f"queues must be a list of names, not {type(queues).__name__}: {reprlib.repr(queues)}")
    names = tuple(dict.fromkeys(queue_name(check_text("a queue's name", name)) for name in queues))
    if not names:
        raise ValueError("queues must name at least one queue")
    return names


class Limits(MutableMapping[str, Limit]):
    """The limits of a table, as `PQ.limits`: a mapping of names to `Limit`, stored for all programs that use it."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._sql = table.statements("limits.sql")

    def __getitem__(self, name: str) -> Limit:
        """Return the limit of that name.

        :raises KeyError: there is none.
        """
        rows = self._run("list", name=name) if _can_be_there(name) else []
        if not rows:
            raise KeyError(name)
        return _limit(rows[0])

    def __setitem__(self, name: str, limit: Limit) -> None:
        """Set a limit, or change it. It is in force for each claim after that; jobs that run already count.

        :raises TypeError: `limit` is not a `Limit`; the name is not a str.
        :raises ValueError: PostgreSQL can't hold the name.
        """
        if not isinstance(limit, Limit):
            raise TypeError(f"a limit must be a Limit, not {type(limit).__name__}: {reprlib.repr(limit)}")
        queue_name(check_text("the name of a limit", name))
        number, period = (None, None) if limit.rate is None else rate_of(limit.rate)
        with self._table.database.grouped():
            self._run("lock")
            before = self._run("list", name=name)
            values = {key: getattr(limit, key) for key in ("running", "per_key", "on_retry", "on_dead")}
            queues = None if limit.queues is None else array(limit.queues)
            self._run("set", name=name, queues=queues, rate=number, period=period, **values)
            self._changed(name, [*_queues(before), *(limit.queues or [name])])

    def __delitem__(self, name: str) -> None:
        """Remove a limit.

        :raises KeyError: there is none of that name.
        """
        if not _can_be_there(name):
            raise KeyError(name)
        with self._table.database.grouped():
            self._run("lock")
            before = self._run("list", name=name)
            if before:
                self._run("remove", name=name)
                self._changed(name, _queues(before))
        if not before:
            raise KeyError(name)

    def taken(self) -> dict[str, int]:
        """Return how many jobs run now under each limit of running jobs, by its name."""
        return dict(self._run("taken"))

    def __iter__(self) -> Iterator[str]:
        """Iterate the names, sorted."""
        return iter([row[0] for row in self._run("list", name=None)])

    def __len__(self) -> int:
        return len(self._run("list", name=None))

    def __repr__(self) -> str:
        return f"<limits of {self._table.quoted}>"

    def _changed(self, name: str, queues: Sequence[str]) -> None:
        names = array([name])
        self._run("forget_places")
        self._run("add_places", names=names)
        trim(self._table, names)
        self._run("mark")
        self._run("unmark", queues=array(queues))
        self._run("check_keys", name=name)
        self._run("wake", queues=array(queues), table=self._table.quoted)

    def _run(self, statement: str, **params: Any) -> Rows:
        return self._table.execute(self._sql[statement], params)


def _can_be_there(name: object) -> bool:
    try:
        check_text("the name of a limit", name)
    except (TypeError, ValueError):
        return False
    return True


def trim(table: Table, names: str) -> None:
    """Take away the places that limits have too many, as far as they are free.

    :param names: an array of the names of the limits, which the transaction has locked.
    """
    sql = table.statements("limits.sql")
    table.execute(sql["remove_places"], {"names": names})
    table.execute(sql["number_places"], {"names": names})


def _limit(row: tuple[Any, ...]) -> Limit:
    _, queues, running, number, period, per_key, on_retry, on_dead = row
    rate = None if number is None else _text(Rate(number, period))
    return Limit(running=running, rate=rate, per_key=per_key, on_retry=on_retry, on_dead=on_dead, queues=queues)


def _queues(rows: Rows) -> list[str]:
    return [queue for name, queues, *_ in rows for queue in (queues or [name])]
