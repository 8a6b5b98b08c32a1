"""What there must be behind the API of pgqueue."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from .._db.given import Given
from .rows import RowLines

#: What is known of a batch, as PgQ names it.
BATCH = (
    "batch_id", "cur_tick_id", "prev_tick_id", "cur_tick_time", "prev_tick_time", "cur_tick_event_seq",
    "prev_tick_event_seq",
)  # fmt: skip

#: The parts of an event, in the order of its fields: id, txid, time, type, data, four extras, retry.
Fields = tuple[Any, ...]


def copy(given: Given, sql: str, lines: RowLines) -> None:
    """COPY lines; raise what reading them has raised, if that is the cause."""
    try:
        given.copy(sql, lines)
    except given.driver.Error:
        if lines.error is not None:
            raise lines.error from None
        raise


class Backend(ABC):
    """What queues are made of. All is done in the transaction of what was passed; errors are the driver's.

    :param given: the cursor or connection of the application.
    """

    def __init__(self, given: Given) -> None:
        self.given = given

    # -- queues

    @abstractmethod
    def version(self) -> str:
        """Return the version of PgQ that this is, or is like."""

    @abstractmethod
    def create(self, queue: str, settings: Mapping[str, str]) -> int:
        """Make a queue, and configure it; return 1, or 0 if there is one."""

    @abstractmethod
    def configure(self, queue: str, name: str, value: str) -> int:
        """Configure a queue; return 1."""

    @abstractmethod
    def drop(self, queue: str, force: bool) -> int:
        """Drop a queue, and with `force` its consumers; return 1."""

    @abstractmethod
    def queue_info(self, queue: str | None) -> list[Any]:
        """Return rows of what is known of a queue or, for None, of all."""

    # -- events

    @abstractmethod
    def insert(self, queue: str, event: Mapping[str, Any]) -> int:
        """Put an event, with ``type``, ``data`` and ``extra1`` to ``extra4``; return its id."""

    @abstractmethod
    def insert_many(self, queue: str, rows: Iterable[Iterable[Any]], columns: list[str]) -> None:
        """Put many events, all or none."""

    @abstractmethod
    def external_tick(self, queue: str, tick: int, time: Any, seq: int) -> int:
        """Put a tick; return its id."""

    # -- consumers

    @abstractmethod
    def register(self, queue: str, consumer: str, tick: int | None, subconsumer: str | None = None) -> int:
        """Register a consumer, as of a tick; return 1, or 0 if there is one of that name."""

    @abstractmethod
    def unregister(self, queue: str, consumer: str, subconsumer: str | None = None) -> int:
        """Forget a consumer; return how many there were, with those that share its batches."""

    @abstractmethod
    def consumer_info(self, queue: str | None, consumer: str | None) -> list[Any]:
        """Return rows of what is known of one consumer, or of all."""

    @abstractmethod
    def next(self, queue: str, consumer: str, wants: Mapping[str, Any]) -> dict[str, Any]:
        """Return the batch that is open or, if none is, of a new one; all values are None if there is none yet.

        :param wants: ``lag``, ``count`` and ``interval``; ``subconsumer`` and, for that, ``dead``.
        """

    @abstractmethod
    def events(self, batch: int, queue: str, size: int | None, predicate: str | None) -> Iterator[list[Fields]]:
        """Return the events of a batch, `size` at a time; None: all at once."""

    @abstractmethod
    def finish(self, batch: int, queue: str, consumer: str, retries: list[tuple[float, Fields]], shared: bool) -> int:
        """Finish a batch, and have some of its events come again; return 1, or 0 if it is not open.

        :param retries: events, each after the seconds until it comes again.
        :param shared: whether it was the batch of a subconsumer.
        """

    # -- the ticker

    @abstractmethod
    def lock(self) -> bool:
        """Take the lock of the one ticker of this database; return whether this session has it now."""

    @abstractmethod
    def tick(self) -> Any:
        """End batches where it is time."""

    @abstractmethod
    def maintenance(self) -> list[tuple[str, Any]]:
        """Return what is to be done now and then: a name for the log, and what `maintain` takes."""

    @abstractmethod
    def maintain(self, operation: Any) -> None:
        """Do one of these."""

    @abstractmethod
    def retry(self) -> int:
        """Put back events whose time has come; return how many. There may be more."""
