"""An event, and the events of a batch that are to come again. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from operator import itemgetter
from typing import Any

from .checks import seconds


class Retries(dict[Any, Any]):
    """Which events come again, and after how many seconds; in the order in which they were tagged.

    Iterating gives pairs, as of pgqueue's `Batch.failed`.
    """

    def __iter__(self) -> Iterator[Any]:
        return iter(self.items())


class Event(tuple[Any, ...]):
    """An event, as its consumer gets it. It counts as done when its batch is finished, unless it is tagged for a retry.

    :ivar failed: whether it is tagged for a retry.
    :ivar retry: how many times it has been tried before.
    """

    __slots__ = ()
    _fields = (
        "id", "txid", "time", "type", "data", "extra1", "extra2", "extra3", "extra4", "retry", "_failed",
    )  # fmt: skip

    id: int = property(itemgetter(0))  # type: ignore[assignment]
    txid: int = property(itemgetter(1))  # type: ignore[assignment]
    time: datetime = property(itemgetter(2))  # type: ignore[assignment]
    type: str | None = property(itemgetter(3))  # type: ignore[assignment]
    data: str | None = property(itemgetter(4))  # type: ignore[assignment]
    extra1: str | None = property(itemgetter(5))  # type: ignore[assignment]
    extra2: str | None = property(itemgetter(6))  # type: ignore[assignment]
    extra3: str | None = property(itemgetter(7))  # type: ignore[assignment]
    extra4: str | None = property(itemgetter(8))  # type: ignore[assignment]
    retry: int = property(itemgetter(9))  # type: ignore[assignment]
    _failed: Retries = property(itemgetter(10))  # type: ignore[assignment]

    def __hash__(self) -> int:
        return hash(tuple(self[:4]))

    @property
    def __dict__(self) -> dict[str, Any]:  # type: ignore[override]
        return dict(zip(self._fields, self, strict=True))

    @property
    def failed(self) -> bool:
        return self in self._failed

    @property
    def retry_time(self) -> float | None:
        """The seconds after which it comes again; None: it does not."""
        return self._failed.get(self)

    def tag_done(self) -> None:
        """Do not have it come again. This is so from the start."""
        self._failed.pop(self, None)

    def tag_retry(self, retry_time: float = 60) -> None:
        """Have it come again, in a later batch of this consumer.

        :param retry_time: seconds until then, at least.
        :raises TypeError: this is no number.
        :raises ValueError: it is NaN, or too large.
        """
        seconds("retry_time", retry_time)
        self._failed[self] = retry_time

    def __repr__(self) -> str:
        return (
            f"<id={self.id} type={self.type} data={self.data}"
            f" e1={self.extra1} e2={self.extra2} e3={self.extra3} e4={self.extra4}>"
        )

    __str__ = __repr__
