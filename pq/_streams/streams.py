"""The streams of a PQ, by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

from .._args import check_text
from .._queue import Queue
from .._table import Table
from . import schema
from .stream import Stream

S_co = TypeVar("S_co", bound=Stream, covariant=True)


class Streams(Mapping[str, S_co]):
    """The streams beside a table: ``pq.streams["orders"]``. Iteration names those that there are, sorted.

    :param stream_class: the class of the streams.
    """

    def __init__(self, table: Table, queue_of: Callable[[str], Queue], stream_class: type[S_co]) -> None:
        self._table = table
        self._queue_of = queue_of
        self._class = stream_class

    def __getitem__(self, name: str) -> S_co:
        """Return the stream of that name, without looking whether there is one.

        :raises TypeError: the name is not a str.
        :raises ValueError: it is empty, or has a NUL character or a lone surrogate.
        """
        return self._class(self._table, name, self._queue_of)

    def __iter__(self) -> Iterator[str]:
        return iter(schema.names_of(self._table))

    def __len__(self) -> int:
        return len(schema.names_of(self._table))

    def __contains__(self, name: object) -> bool:
        """Whether there is a stream of that name."""
        try:
            return schema.find(self._table, check_text("stream name", name)) is not None
        except (TypeError, ValueError):
            return False
