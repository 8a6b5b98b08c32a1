"""Events that were taken together, and the ways to end them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, overload

from .._logs import queue_log as logger
from .._text import is_a
from .._times import Delay, delay_of, positive_delay
from ..errors import BatchLost
from .event import Event
from .log import Log
from .taking import Lease

if TYPE_CHECKING:
    from typing_extensions import Self


class Batch(Sequence[Event]):
    """Events of a subscription, in order; empty if there were none in time.

    A batch that was taken under a lease is ended by `done`, `release`, or by ``with batch:``. Each call is one
    statement, which takes effect only while this delivery holds the batch.

    :ivar cursor: in `Subscription.batch`, a cursor of the transaction; otherwise None.
    :ivar attempts: the number of this delivery; a part of a batch that has failed counts anew.
    :ivar settled: whether it has ended.
    """

    def __init__(
        self, log: Log, subscription: str, events: list[Event], lease: Lease | None, length: timedelta
    ) -> None:
        self._log = log
        self._subscription = subscription
        self._events = events
        self._lease = lease
        self._length = length
        self.cursor: Any = None
        self.settled: bool = lease is None

    @overload
    def __getitem__(self, index: int) -> Event: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Event]: ...
    def __getitem__(self, index: Any) -> Any:
        return self._events[index]

    def __len__(self) -> int:
        return len(self._events)

    def __iter__(self) -> Iterator[Event]:
        return iter(self._events)

    def __repr__(self) -> str:
        return f"<pq.Batch of {len(self)} events of {self._subscription!r}>"

    @property
    def attempts(self) -> int:
        return self._events[0].attempts if self._events else 1

    def done(self, *, conn: Any = None) -> None:
        """Finish the batch. One that was taken in a transaction is finished with that.

        :param conn: finish it in the transaction that is open there: a connection, cursor or session; see `PQ.using`.
        :raises BatchLost: this delivery no longer holds the batch; nothing was changed.
        """
        self._end("done", conn)

    def release(self, *, conn: Any = None) -> None:
        """Give the batch back as if it had not been delivered: the next consumer gets it at once."""
        self._end("release", conn)

    def extend(self, by: Delay | None = None, *, conn: Any = None) -> None:
        """Extend the lease.

        :param by: from now on, as ``'30s'`` or a timedelta; None: by its own length.
        :raises BatchLost: as for `done`.
        """
        length = self._length if by is None else positive_delay("by", by)
        self._change("extend", conn, lease=length.total_seconds())

    def failed(self, error: BaseException | None = None, *, pause: Delay | None = None, conn: Any = None) -> None:
        """Have the batch delivered again, by halves, until the event that fails is alone.

        :param error: why.
        :param pause: as ``'30s'`` or a timedelta; None: none for several events, else that of the retry policy.
        :raises BatchLost: as for `done`.
        """
        wait = timedelta() if pause is None else delay_of("pause", pause)
        self._end("failed", conn, pause=wait.total_seconds())

    def _end(self, statement: str, conn: Any, **params: Any) -> None:
        if self._lease is None:
            return
        self._change(statement, conn, **params)
        self.settled = True

    def _change(self, statement: str, conn: Any, **params: Any) -> None:
        if self._lease is None:
            return
        table = self._log._table if conn is None else self._log._table.bind(conn)
        sql = table.statements("stream_take.sql", self._log.name)[statement]
        number, delivery, _ = self._lease
        if not table.execute(sql, {"number": number, "delivery": delivery, **params}):
            raise BatchLost(number=number, subscription=self._subscription)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        """Finish the batch; after an error, have it delivered again."""
        if self.settled or not self._events:
            return
        if error is None:
            self.done()
        else:
            try:
                if is_a(error, Exception):
                    self.failed(error)
                else:
                    self.release()
            except Exception:  # raise the application's error, not this one
                logger.exception("could not settle %r", self)
