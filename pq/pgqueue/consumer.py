"""Consumers, and their batches."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import TracebackType
from typing import Any

from .._args import integer
from .._db.given import Given
from .._logs import Log
from .behind import behind
from .checks import count, given, seconds
from .events import Event, Retries
from .queue import Queue

logger: Log = Log("pq.pgqueue")

#: How far a batch is.
_NEW, _READING, _READ, _FINISHED = range(4)


class Batch:
    """The events of a batch, to be iterated once. In a ``with`` block it is finished at the end, if it was read to its
    end and nothing was raised.

    :param fetch_size: how many events are fetched at once; 0 or None: all.
    :param predicate: see `Consumer`.
    :ivar failed: the events to come again, as pairs with the seconds.
    """

    #: Whether events can come again.
    _retriable = True
    _shared = False

    def __init__(
        self,
        curs: Any,
        batch_id: int,
        queue_name: str,
        consumer_name: str,
        fetch_size: int | None = 300,
        predicate: str | None = None,
    ) -> None:
        self.batch_id = batch_id
        self.queue_name = queue_name
        self.consumer_name = consumer_name
        self.fetch_size = fetch_size
        self.predicate = predicate
        self.length: int = 0
        self.failed: Retries = Retries()
        self.fetch_status: int = _NEW
        self._behind = behind(curs)
        self._raised = False

    def __iter__(self) -> Iterator[Event]:
        """
        :raises RuntimeError: it was iterated before.
        """
        if self.fetch_status != _NEW:
            raise RuntimeError(f"{self!r} can be iterated only once")
        self.fetch_status = _READING
        for rows in self._behind.events(self.batch_id, self.queue_name, self.fetch_size or None, self.predicate):
            self.length += len(rows)
            for row in rows:
                yield Event((*row, self.failed))
        self.fetch_status = _READ

    def finish(self) -> None:
        """Finish the batch: those of its events that are tagged for a retry come again, and the others do not. A second
        call does nothing.
        """
        if self.fetch_status == _FINISHED:
            return
        retries = [(seconds("retry_time", time), event[:-1]) for event, time in self.failed] if self._retriable else []
        won = self._behind.finish(self.batch_id, self.queue_name, self.consumer_name, retries, self._shared)
        if not won:
            logger.warning("%r is not open any more: another process has finished it, or the consumer was moved", self)
        self.fetch_status = _FINISHED

    def __enter__(self) -> Batch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._raised = error is not None
        if error is None and self.fetch_status == _READ:
            self.finish()

    def __len__(self) -> int:
        """How many events have been fetched."""
        return self.length

    def __bool__(self) -> bool:
        return self.batch_id is not None

    def __repr__(self) -> str:
        return f"<Batch {self.queue_name}:{self.batch_id}>"


class Consumer:
    """A consumer of a queue: it gets each event that is put after it was registered. A subclass may have the arguments
    as attributes.

    :param predicate: a condition in SQL, over ``ev_id``, ``ev_type``, ``ev_data``, ``ev_extra1`` and so on, for the
        events that it gets; the others are skipped.
    :param subconsumer_name: share the batches of the consumer with its other subconsumers. This needs the extension
        ``pgq_coop`` as well.
    :raises ValueError: there is no name.
    """

    queue_name: str = None  # type: ignore[assignment]
    consumer_name: str = None  # type: ignore[assignment]
    predicate: str | None = None
    subconsumer_name: str | None = None

    #: How many events are fetched at once, in a transaction; 0: the whole batch, which may be without one.
    pgq_lazy_fetch: int = 300

    #: A batch has at least so many events.
    pgq_min_count: int | None = None

    #: A batch is over at least so much time: an interval of PostgreSQL, or a timedelta.
    pgq_min_interval: Any = None

    #: A batch has only events that are older than this: an interval of PostgreSQL, or a timedelta.
    pgq_min_lag: Any = None

    #: Take the batch of a subconsumer that has done nothing for so long; None: never.
    pgq_dead_interval: Any = None

    _batch_class = Batch
    _queue_class = Queue

    def __init__(
        self,
        queue_name: str | None = None,
        consumer_name: str | None = None,
        predicate: str | None = None,
        subconsumer_name: str | None = None,
    ) -> None:
        self.queue_name = given("queue_name", queue_name or self.queue_name)
        self.consumer_name = given("consumer_name", consumer_name or self.consumer_name)
        self.predicate = predicate or self.predicate
        self.subconsumer_name = subconsumer_name or self.subconsumer_name
        for name in ("predicate", "subconsumer_name"):
            if getattr(self, name) is not None:
                given(name, getattr(self, name))
        #: What is known of the last batch: ``batch_id``, ``tick_id``, ``batch_start``, ``batch_end`` and so on.
        self.batch_info: dict[str, Any] | None = None
        self._queue: Queue | None = None

    def __str__(self) -> str:
        return self.consumer_name

    @property
    def queue(self) -> Queue:
        """The queue."""
        if self._queue is None:
            self._queue = self._queue_class(self.queue_name)
        return self._queue

    def next_batches(self, curs: Any, limit: int | None = None, commit: bool = False) -> Iterator[Batch]:
        """Return the batches that there are, one after the other. Each is finished when the next one is asked for; at
        the end of a loop that is left by ``break`` the last one is, if it was read to its end.

        :param limit: at most so many; None or 0: all.
        :param commit: commit when a batch was taken, and when it was finished. Without, that is up to the caller.
        :raises RuntimeError: no transaction is open in autocommit mode: set `pgq_lazy_fetch` to 0.
        """
        left = count("limit", limit) or None
        taken = Given(curs)
        if self.pgq_lazy_fetch and (taken.commits_at_once or (commit and taken.autocommit)):
            raise RuntimeError("in autocommit mode set pgq_lazy_fetch = 0: a cursor ends with its transaction")
        while left != 0:
            batch = self._load_next_batch(curs)
            if commit:
                taken.commit()
            if batch is None:
                break
            try:
                yield batch
            except GeneratorExit:
                if batch.fetch_status != _READ or batch._raised or sys.is_finalizing() or taken.failed:
                    return
                left = 1
            batch.finish()
            if commit:
                taken.commit()
            left = None if left is None else left - 1

    def next_events(self, curs: Any, limit: int | None = None, commit: bool = False) -> Iterator[Event]:
        """Return the events that there are, one after the other; see `next_batches`. If the loop is left before the end
        of a batch, all of its events come again.

        :param limit: of at most so many batches.
        """
        for batch in self.next_batches(curs, limit=limit, commit=commit):
            yield from batch

    def _load_next_batch(self, curs: Any) -> Batch | None:
        size = integer("pgq_lazy_fetch", self.pgq_lazy_fetch or 0)
        wants = {
            "lag": self.pgq_min_lag,
            "count": count("pgq_min_count", self.pgq_min_count),
            "interval": self.pgq_min_interval,
            "subconsumer": self.subconsumer_name,
            "dead": self.pgq_dead_interval,
        }
        source = behind(curs)
        info = source.next(self.queue_name, self.consumer_name, wants)
        self.batch_info = {
            **info,
            "tick_id": info["cur_tick_id"],
            "batch_end": info["cur_tick_time"],
            "batch_start": info["prev_tick_time"],
            "seq_start": info["prev_tick_event_seq"],
            "seq_end": info["cur_tick_event_seq"],
        }
        if info["batch_id"] is None:
            return None
        names = (self.queue_name, self.consumer_name)
        batch = self._batch_class(curs, info["batch_id"], *names, size, self.predicate)
        batch._behind = source
        batch._shared = self.subconsumer_name is not None
        return batch

    def register(self, curs: Any, tick_id: int | None = None) -> int:
        """Register it: it gets what is put from now on. Return 1, or 0 if it was registered before.

        :param tick_id: see `Queue.register_consumer`.
        """
        if self.subconsumer_name is None:
            return self.queue.register_consumer(curs, self.consumer_name, tick_id)
        tick = count("tick_id", tick_id)
        return behind(curs).register(self.queue_name, self.consumer_name, tick, self.subconsumer_name)

    def unregister(self, curs: Any) -> int:
        """Forget it. Return how many there were, with its subconsumers; for a subconsumer 1 or 0."""
        if self.subconsumer_name is None:
            return self.queue.unregister_consumer(curs, self.consumer_name)
        return behind(curs).unregister(self.queue_name, self.consumer_name, self.subconsumer_name)

    def get_info(self, curs: Any) -> Any:
        """Return what is known of it, as a row of the cursor's own kind; None: it is not registered."""
        return self.queue.get_consumer_info(curs, self.consumer_name)
