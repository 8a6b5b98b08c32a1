"""What a PQ has by name, beside its queues."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._queue import Queue
from .._queue.limits import Limits
from .._schedules import Schedules
from .._streams import Stream, Streams
from .._table import Table


class Mappings:
    """A part of `PQ`."""

    _table: Table

    if TYPE_CHECKING:

        def __getitem__(self, name: str) -> Queue: ...

    @property
    def schedules(self) -> Schedules:
        """Jobs that are put again and again, by the clock: ``pq.schedules["nightly"] = Schedule(…)``."""
        return Schedules(self._table, self.__getitem__)

    @property
    def limits(self) -> Limits:
        """The limits of the queues, as a mapping of names to `Limit`; see :doc:`/howto/limiting`."""
        return Limits(self._table)

    @property
    def streams(self) -> Streams[Stream]:
        """Logs of events that any number of subscriptions read: ``pq.streams["orders"]``."""
        return Streams(self._table, self.__getitem__, Stream)
