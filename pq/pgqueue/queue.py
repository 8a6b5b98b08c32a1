"""Queues, and what puts events."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .behind import behind
from .checks import columns as checked_columns
from .checks import count, given, setting, text


def insert_event(
    curs: Any,
    queue_name: str,
    ev_type: str | None,
    ev_data: str | None,
    extra1: str | None = None,
    extra2: str | None = None,
    extra3: str | None = None,
    extra4: str | None = None,
) -> int:
    """Put an event, in the transaction of a cursor, and return its id.

    :param curs: a cursor or a connection of psycopg2 or psycopg 3, a session of SQLAlchemy, a connection of Django.
    :raises TypeError: a part of the event is no text.
    """
    parts = {"type": ev_type, "data": ev_data, "extra1": extra1, "extra2": extra2, "extra3": extra3, "extra4": extra4}
    event = {name: text(name, value) for name, value in parts.items()}
    return behind(curs).insert(given("queue_name", queue_name), event)


def bulk_insert_events(curs: Any, queue_name: str, rows: Iterable[Iterable[Any]], columns: Iterable[str]) -> None:
    """Put many events by COPY, all or none, in the transaction of a cursor.

    :param rows: read as they are sent. A value is None, or made into text by ``str``.
    :param columns: what the values of each row are: ``type``, ``data``, ``extra1`` to ``extra4``; also ``id``,
        ``time``, ``txid``, ``owner`` and ``retry``.
    :raises ValueError: a column is unknown, a row has more or fewer values, or a text can't be held.
    """
    names = checked_columns(columns)
    behind(curs).insert_many(given("queue_name", queue_name), rows, names)


class Queue:
    """A queue by its name, which a subclass may have as `queue_name`. All is done in the transaction of the cursor that
    is passed: of psycopg2 or psycopg 3, or a connection, a session of SQLAlchemy, a connection of Django.

    :raises ValueError: there is no name.
    """

    queue_name: str = None  # type: ignore[assignment]

    def __init__(self, queue_name: str | None = None) -> None:
        self.queue_name = given("queue_name", queue_name or self.queue_name)

    def create(self, curs: Any, **params: Any) -> int:
        """Make the queue, and configure it; see `set_config`. Return 1, or 0 if there was one.

        :raises ValueError: there is no such setting; nothing was made.
        """
        settings = dict(setting(name, value) for name, value in params.items())
        return behind(curs, again=True).create(self.queue_name, settings)

    def drop(self, curs: Any, force: bool = False) -> int:
        """Drop the queue with its events.

        :param force: its consumers, too; otherwise it must have none.
        """
        return behind(curs).drop(self.queue_name, bool(force))

    def set_config(self, curs: Any, name: str, value: Any) -> int:
        """Configure the queue.

        :param name: ``ticker_max_count`` (500 events), ``ticker_max_lag`` (3 seconds), ``ticker_idle_period`` (1
            minute), ``ticker_paused`` (False), ``rotation_period`` (2 hours), ``external_ticker`` (False).
        :raises ValueError: it is none of these.
        """
        return behind(curs).configure(self.queue_name, *setting(name, value))

    def get_info(self, curs: Any) -> Any:
        """Return what is known of the queue, as a row of the cursor's own kind; None: there is no such queue."""
        return next(iter(behind(curs).queue_info(self.queue_name)), None)

    def register_consumer(self, curs: Any, consumer: Any, tick_id: int | None = None) -> int:
        """Register a consumer: it gets what is put from now on. Return 1, or 0 if there was one of that name.

        :param consumer: a name, or a `Consumer`.
        :param tick_id: where it begins, or goes on if there was one; None: after the last tick.
        """
        name = given("consumer", str(consumer))
        return behind(curs).register(self.queue_name, name, count("tick_id", tick_id))

    def unregister_consumer(self, curs: Any, consumer: Any) -> int:
        """Forget a consumer. Return how many there were, with its subconsumers."""
        return behind(curs).unregister(self.queue_name, given("consumer", str(consumer)))

    def get_consumer_info(self, curs: Any, consumer: Any = None) -> Any:
        """Return what is known of a consumer, as a row of the cursor's own kind, or None if there is none.

        :param consumer: a name, or a `Consumer`; None: return a list of all.
        """
        name = str(consumer) if consumer else None
        found = behind(curs).consumer_info(self.queue_name, name)
        return next(iter(found), None) if name else found

    def insert_event(
        self,
        curs: Any,
        ev_type: str | None,
        ev_data: str | None,
        extra1: str | None = None,
        extra2: str | None = None,
        extra3: str | None = None,
        extra4: str | None = None,
    ) -> int:
        """Put an event, and return its id; see `pq.pgqueue.insert_event`."""
        return insert_event(curs, self.queue_name, ev_type, ev_data, extra1, extra2, extra3, extra4)

    def insert_events(self, curs: Any, rows: Iterable[Iterable[Any]], columns: Iterable[str]) -> None:
        """Put many events by COPY; see `bulk_insert_events`."""
        bulk_insert_events(curs, self.queue_name, rows, columns)

    def external_tick(self, curs: Any, tick_id: int, timestamp: Any, event_seq: int) -> int:
        """Put a tick of another database, for a queue with ``external_ticker``; return its id.

        :param timestamp: a datetime, or its text.
        :param event_seq: the last number of an event before the tick.
        """
        return behind(curs).external_tick(
            self.queue_name, int(count("tick_id", tick_id) or 0), timestamp, int(count("event_seq", event_seq) or 0)
        )

    @classmethod
    def version(cls, curs: Any) -> str:
        """Return the version of PgQ."""
        return behind(curs, again=True).version()

    @classmethod
    def get_all_queues_info(cls, curs: Any) -> list[Any]:
        """Return what is known of all queues, as rows of the cursor's own kind."""
        return behind(curs).queue_info(None)

    @classmethod
    def get_all_consumers_info(cls, curs: Any) -> list[Any]:
        """Return what is known of all consumers of all queues, as rows of the cursor's own kind."""
        return behind(curs).consumer_info(None, None)
