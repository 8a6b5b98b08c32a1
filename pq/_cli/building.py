"""A bar for the indexes that an upgrade makes of a large table. Other sessions than the one that makes them see it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from .._loop import Loop
from .._manager import PQ
from ..sql import statements
from .bar import Bar

_SQL = statements("schema.sql")

#: Seconds from one look to the next.
PAUSE = 0.2


@contextmanager
def shown_indexes(pq: PQ) -> Iterator[None]:
    """Show on the terminal, if there is one, how far the index is that is made inside."""
    with Bar("creating an index") as bar:
        loop = Loop(partial(look, pq, bar), "pq progress", on_error=lambda error: None)  # then there is no bar
        if bar.is_shown:
            loop.start()
        try:
            yield
        finally:
            loop.stop()


def look(pq: PQ, bar: Bar) -> float:
    """Look once; return the seconds until the next look."""
    for done, total, unit in pq._table.execute(_SQL["building"], {"table": pq._table.quoted}):
        bar.show(done, total, unit)
    return PAUSE
