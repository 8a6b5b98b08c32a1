"""The streams of a PQ, by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from .._args import check_text
from .._queue import Queue
from .._table import Table
from . import schema
from .stream import Stream


class Streams(Mapping[str, Stream]):
    """The streams beside a table: ``pq.streams["orders"]``. Iteration names those that there are, sorted."""

    def __init__(self, table: Table, queue_of: Callable[[str], Queue]) -> None:
        self._table = table
        self._queue_of = queue_of

    def __getitem__(self, name: str) -> Stream:
        """Return the stream of that name, without looking whether there is one.

        :raises TypeError: the name is not a str.
        :raises ValueError: it is empty, or has a NUL character or a lone surrogate.
        """
        return Stream(self._table, name, self._queue_of)

    def __iter__(self) -> Iterator[str]:
        return iter([settings.name for settings in schema.all_of(self._table)])

    def __len__(self) -> int:
        return len(schema.all_of(self._table))

    def __contains__(self, name: object) -> bool:
        """Whether there is a stream of that name."""
        try:
            return schema.find(self._table, check_text("stream name", name)) is not None
        except (TypeError, ValueError):
            return False
