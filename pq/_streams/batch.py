"""Events that were taken together, and the ways to end them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, overload

from .._args import check_error
from .._db import Rows, Statement
from .._logs import queue_log as logger
from .._text import is_a
from .._times import Delay, delay_of, positive_delay
from ..errors import BatchLost
from .aside import Aside, Entry, parameters
from .event import Event
from .hold import BatchHold, Hold, Owner
from .retries import retries_of

if TYPE_CHECKING:
    from typing_extensions import Self


class Batch(Sequence[Event]):
    """Events of a subscription, in order; empty if there were none in time.

    A batch that was taken under a lease is ended by `done`, `failed` or `release`, or by ``with batch:``. Each call is
    one statement, which takes effect only while this delivery holds the batch; an expired lease is still held until the
    batch is delivered again. One that was taken in a transaction ends with that.

    :param hold: None: the position has moved in the transaction that is open.
    :param length: of the lease.
    :ivar cursor: in `Subscription.batch`, a cursor of the transaction; otherwise None.
    :ivar attempts: the number of this delivery; a part of a batch that has failed counts anew.
    :ivar settled: whether it has ended, or will end with its transaction.
    """

    def __init__(
        self, owner: Owner, events: list[Event], aside: Aside, hold: Hold | None = None, length: timedelta = timedelta()
    ) -> None:
        self._owner = owner
        self._events = events
        self._aside = aside
        self._hold = hold
        self._length = length
        self.cursor: Any = None
        self.settled: bool = False
        self._in_transaction = False
        for event in events:
            event._aside = aside

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
        return f"<pq.Batch of {len(self)} events of {self._owner.subscription!r}>"

    @property
    def attempts(self) -> int:
        return 1 if self._hold is None else self._hold.attempts

    def done(self, *, conn: Any = None) -> None:
        """Finish the batch, and put the events that were set aside as jobs, in one statement.

        :param conn: finish it in the transaction that is open there: a connection, cursor or session; see `PQ.using`.
        :raises BatchLost: this delivery no longer holds the batch; nothing was changed.
        """
        if self._hold is not None and not self._in_transaction:
            self._hold.done(self._aside.entries.values(), conn)
            self._ended()

    def release(self, *, conn: Any = None) -> None:
        """Give the batch back as if it had not been delivered: the next consumer gets it at once.

        :param conn: as for `done`.
        :raises BatchLost: as for `done`.
        :raises ValueError: the batch is part of a transaction, which can be rolled back.
        """
        self._leased("release").release(conn)
        self._ended()

    def failed(self, error: BaseException | str, pause: Delay | None = None, *, conn: Any = None) -> None:
        """Have the batch delivered again: by halves, until the event that fails is alone.

        An event that is alone is tried again after the pause of the subscription's `retry_in`. After `max_retries`
        retries it becomes a dead job of the queue ``orders:billing``, or stops its partition: see `Stream.subscribe`.

        :param error: why: an exception, or a reason in words.
        :param pause: as ``'30s'``, a timedelta or seconds: try it again after that, however often it was tried before.
        :param conn: as for `done`.
        :raises BatchLost: as for `done`.
        :raises ValueError: as for `release`; the pause has another form or is out of range.
        :raises TypeError: an argument has another type.
        """
        check_error(error)
        wait = None if pause is None else delay_of("pause", pause)
        self._leased("failed").failed(error, wait, conn)
        self._ended()

    def extend(self, by: Delay | None = None, *, conn: Any = None) -> None:
        """Let the lease end this much later than now, also where more time is left.

        :param by: as ``'30s'``, a timedelta or seconds; None: the length that the lease had at first.
        :param conn: as for `done`.
        :raises BatchLost: as for `done`.
        :raises ValueError: `by` has another form, is not positive or out of range.
        :raises TypeError: `by` has another type.
        """
        length = self._length if by is None else positive_delay("by", by)
        if self._hold is not None and not self._in_transaction:
            self._hold.extend(length, conn)

    def _leased(self, what: str) -> Hold:
        if self._hold is None or self._in_transaction:
            raise ValueError(f"{what} needs a lease, but the batch is part of a transaction: roll that back")
        return self._hold

    def _ended(self) -> None:
        self.settled = True
        self._aside.closed = True

    # -- inside of pq

    def _first(self) -> Statement | None:
        """Return the statement that finishes the batch, for a transaction to begin with; None if it is another one."""
        hold = self._hold
        return hold.statement("done") if isinstance(hold, BatchHold) and not self._aside.entries else None

    def _begin(self, rows: Rows | None = None) -> None:
        """Finish the batch in the transaction that is open, in which events may be set aside from now on.

        :param rows: of `_first`, with which the transaction began.
        :raises BatchLost: as for `done`.
        """
        entries = list(self._aside.entries.values())
        if rows is not None and isinstance(self._hold, BatchHold):
            self._hold.check(rows)
        elif self._hold is not None:
            self._hold.done(entries, None)
        elif entries:
            _put_aside(self._owner, *entries)
        self._aside.put = partial(_put_aside, self._owner)  # not of this: its events would lead back to it
        self._in_transaction = self.settled = True

    def _rolled_back(self, error: BaseException) -> None:
        """End the batch as ``with batch:`` does after an error: the transaction is over, and nothing was done."""
        self._in_transaction = self.settled = False
        self._aside.put = None
        self.__exit__(type(error), error, None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        """Finish the batch; after an error, have it delivered again.

        An exception that is not an `Exception`, such as `KeyboardInterrupt`, releases it.
        """
        if self.settled:
            return
        if error is None:
            self.done()
            return
        try:
            if is_a(error, Exception):
                self.failed(error)
            else:
                self.release()
        except BatchLost:
            logger.warning("%r is no longer held: another consumer may have its events", self)
        except Exception:  # raise the application's error, not this one
            logger.exception("could not settle %r; its lease will expire", self)


def _put_aside(owner: Owner, *entries: Entry) -> None:
    """Put events as jobs, in the transaction that is open."""
    sql = owner.log._table.statements("stream_take.sql", owner.log.name)["put_aside"]
    owner.log._execute(sql, parameters(retries_of(owner.log.name, owner.subscription), entries))
