"""The class `Subscription`: reading a stream."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import Any

from .._args import integer
from .._times import Delay, positive_delay, wait_of
from ..errors import BatchLost
from ..retry import Policy, RetryIn
from .batch import Batch
from .leased import LeasedEvent
from .log import Log
from .position import Position
from .retries import retries_of
from .schema import gate_of
from .taker import Taker, empty
from .taking import Want
from .upkeep import Upkeep

#: The lease under which `Subscription.batch` takes: its transaction then has the batch locked. If the program is
#: killed, the batch is delivered again after so long.
BLOCK_LEASE = timedelta(seconds=2)

#: Seconds of the first pause and of the longest one between two looks in a transaction.
FIRST_PAUSE, POLL = 0.005, 1.0


class Subscription(Position):
    """Reads a stream: ``stream.subscription("billing")``."""

    def __init__(self, stream: Log, name: str, retry_in: RetryIn) -> None:
        self.stream: Log = stream
        self.name: str = name
        self._upkeep = Upkeep()
        Policy(0, retry_in)  # which checks it
        self.retry_in: RetryIn = retry_in
        self._taker = Taker(name, retry_in)

    def __repr__(self) -> str:
        return f"<pq.Subscription {self.name!r} of {self.stream.name!r}>"

    def batch(self, n: int = 1000, timeout: Delay | None = 1) -> AbstractContextManager[Batch]:
        """Return a context manager for one transaction around the next events::

            with billing.batch() as batch:
                for event in batch:
                    batch.cursor.execute(...)

        The end of the block commits what it has done with ``batch.cursor`` or with this PQ, and that the events are
        read: each event takes effect exactly once. An exception undoes all of that, and the events are delivered again,
        by halves, until the one that fails is alone.

        :param n: the largest number of events; at least 1.
        :param timeout: how long to wait for an event, as ``'5s'``, a timedelta or seconds; 0 does not wait; None waits
            without end.
        :returns: a context manager, whose value is empty if there was no event in time.
        """
        return BatchBlock(self, integer("n", n, 1), wait_of(timeout))

    def take(self, n: int = 1000, *, conn: Any = None) -> Batch:
        """Read events, and move the position behind them, in the transaction that is open; this never waits.

        :param n: the largest number of events; at least 1.
        :param conn: a connection, cursor or session of yours; see `PQ.using`. Default: the transaction of `PQ.using` or
            ``with queue``.
        :raises ValueError: no transaction is open.
        """
        integer("n", n, 1)
        stream = self.stream if conn is None else self.stream._bind(conn)
        database = stream._table.database
        database.require_transaction("take")
        if not database.in_transaction:
            raise ValueError("take needs a transaction: use batch(), batches() or pq.using(…)")
        return self._taker.take(stream, Want(n, None)) or empty(stream, self.name)

    def batches(self, n: int = 1000, lease: Delay = "30s", timeout: Delay | None = 1) -> Iterator[Batch]:
        """Iterate batches under a lease, without end; yield an empty one whenever there was no event in time::

            for batch in billing.batches():
                with batch:
                    for event in batch: ...

        :param n: the largest number of events in a batch; at least 1.
        :param lease: as ``'30s'``, a timedelta or seconds: a batch that has not ended in time is delivered again.
        :param timeout: as for `batch`.
        """
        integer("n", n, 1)
        length = positive_delay("lease", lease)
        wait = wait_of(timeout)
        return iter(lambda: self._next(n, length, wait), None)

    def events(self, lease: Delay = "30s", timeout: Delay | None = 1) -> Iterator[LeasedEvent | None]:
        """Iterate events under a lease, one by one and without end; yield None whenever there was none in time::

            for event in billing.events():
                if event is not None:
                    with event:
                        ...

        ``with event:`` ends the event as ``with batch:`` does a batch. Without it, an event is done when the loop goes
        on; one with which the loop was left comes again when its lease has expired.

        The arguments are those of `batches`.
        """
        return _one_by_one(self.batches(1, lease, timeout))

    # -- inside of pq

    def _next(self, n: int, lease: timedelta, patience: float) -> Batch:
        """Take the next batch, and wait for one if there is none."""
        deadline = time.monotonic() + patience
        if not self.stream._table.database.in_transaction:
            self._upkeep.run_if_due(self.stream)
        batch = self._take(Want(n, lease, patience))
        if batch is None and patience:
            batch = self._wait(n, lease, deadline)
        return empty(self.stream, self.name) if batch is None else batch

    def _wait(self, n: int, lease: timedelta, deadline: float) -> Batch | None:
        table, name = self.stream._table, self.stream.name
        if table.database.current is not None:
            return self._poll(n, lease, deadline)
        waiter = table.waiter_for_log(gate_of(name), retries_of(name, self.name))
        with waiter:
            while True:
                due_in = self._taker.due_in
                due_at = math.inf if due_in is None else time.monotonic() + max(0.0, due_in)
                if not waiter.wait(min(deadline, due_at)) and due_at > deadline:
                    return None
                called = list(waiter.called)
                batch = self._take(Want(n, lease, max(0.0, deadline - time.monotonic())))
                if batch is not None:
                    return batch
                for queue in called:
                    waiter.empty(queue)

    def _poll(self, n: int, lease: timedelta, deadline: float) -> Batch | None:
        """Wait in a transaction, on whose connection nobody hears of anything: by looking again and again."""
        driver = self.stream._table.database.driver
        if not driver.can_wait:
            raise TypeError("a wait inside of run_sync would stop the event loop: pass timeout=0")
        pause = FIRST_PAUSE
        while (remaining := deadline - time.monotonic()) > 0:
            time.sleep(min(pause, remaining))
            pause = min(2 * pause, POLL)
            if (batch := self._take(Want(n, lease, remaining))) is not None:
                return batch
        return None

    def _take(self, want: Want) -> Batch | None:
        try:
            return self._taker.take(self.stream, want)
        except TimeoutError:
            return None


def _one_by_one(batches: Iterator[Batch]) -> Iterator[LeasedEvent | None]:
    for batch in batches:
        event = LeasedEvent(batch) if batch else None
        yield event
        if event is not None and not event.settled:
            event.done()


class BatchBlock:
    """A context manager for the transaction around the next events; its value is a `Batch`.

    The batch is taken under a short lease, and counts as delivered from then on. The transaction begins by deleting it,
    which keeps it locked: so nobody else gets it while the transaction is open, and all of it is done once or not at
    all.
    """

    def __init__(self, subscription: Subscription, n: int, patience: float) -> None:
        self._subscription = subscription
        self._n = n
        self._patience = patience
        self._block: Any = None
        self._batch: Batch | None = None

    def __enter__(self) -> Batch:
        deadline = time.monotonic() + self._patience
        self._subscription.stream._table.database.require_transaction("batch")
        while True:
            batch = self._subscription._next(self._n, BLOCK_LEASE, max(0.0, deadline - time.monotonic()))
            if not batch:
                return batch
            first = batch._first()
            self._block = self._subscription.stream._table.database.transaction(first=first)
            try:
                batch.cursor = self._block.__enter__()
                batch._begin(None if first is None else self._block.rows)
                self._batch = batch
                return batch
            except BatchLost as error:  # this process has stood still
                self._block.end(error)
            except BaseException as error:
                self._block.end(error)
                raise

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if self._batch is None:
            return
        try:
            self._block.end(error)
        except BaseException as problem:  # one of the commit, say
            self._block.end(problem)
            error = problem if error is None else error
            raise
        finally:
            if error is not None:
                self._batch._rolled_back(error)
