"""The class `LeasedEvent`: an event that is a batch of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .._times import Delay
from .batch import Batch
from .event import Event

if TYPE_CHECKING:
    from typing_extensions import Self


class LeasedEvent(Event):
    """An event as `Subscription.events` yields it, which no other consumer gets until its lease expires.

    :ivar settled: whether it has ended.
    """

    __slots__ = ("_its_batch",)

    def __init__(self, batch: Batch) -> None:
        (event,) = batch
        super().__init__(event.id, event.at, event.type, event.key, event.data, event.headers, event.attempts)
        self._aside = event._aside
        self._text = event._text
        self._its_batch = batch

    @property
    def settled(self) -> bool:
        return self._its_batch.settled

    def done(self, *, conn: Any = None) -> None:
        """Finish the event; see `Batch.done`. One that was set aside is put as a job."""
        self._its_batch.done(conn=conn)

    def release(self, *, conn: Any = None) -> None:
        """Give the event back as if it had not been delivered; see `Batch.release`."""
        self._its_batch.release(conn=conn)

    def failed(self, error: BaseException | str, pause: Delay | None = None, *, conn: Any = None) -> None:
        """Have the event delivered again, after a pause; see `Batch.failed`."""
        self._its_batch.failed(error, pause, conn=conn)

    def extend(self, by: Delay | None = None, *, conn: Any = None) -> None:
        """Let the lease end this much later than now; see `Batch.extend`."""
        self._its_batch.extend(by, conn=conn)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        """End the event as ``with batch:`` does a batch."""
        self._its_batch.__exit__(kind, error, traceback)
