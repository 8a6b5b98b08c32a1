"""The class `Job`: a job that was taken without a lease."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

from .._table.instruments import headers_of
from .._table.rows import QueueRows


class Job:
    """A job as `Queue.get` returns it. All times are naive datetimes in UTC.

    :ivar id: the primary key of the row.
    :ivar enqueued_at: when the job was put.
    :ivar schedule_at: the time before which it was not to be taken, or None.
    :ivar expected_at: its priority, or None.
    :ivar key: the jobs of a queue with one key run one after the other; or None.
    """

    __slots__ = (
        "__weakref__", "_data", "_headers", "_queue", "_size", "enqueued_at", "expected_at", "id", "key", "schedule_at",
    )  # fmt: skip

    def __init__(
        self,
        queue: QueueRows,
        id: int,
        data: Any,
        size: int,
        enqueued_at: datetime,
        schedule_at: datetime | None,
        expected_at: datetime | None,
        key: str | None = None,
        headers: str | None = None,
    ) -> None:
        self._queue = queue
        self.id: int = id
        self._data = data
        self._size = size
        self.enqueued_at: datetime = enqueued_at
        self.schedule_at: datetime | None = schedule_at
        self.expected_at: datetime | None = expected_at
        self.key: str | None = key
        self._headers = headers

    @property
    def data(self) -> Any:
        """The decoded data. Assigning to it writes the row at once, and updates `size`.

        :raises JobNotFound: on assignment, if the row is gone.
        :raises RowsDropped: on assignment, if a trigger of yours dropped the change.
        """
        return self._data

    @data.setter
    def data(self, data: Any) -> None:
        text = self._queue._text(data)
        self._write(text)
        self._size = len(text)
        self._data = data

    def _write(self, text: str) -> None:
        self._queue._update(self.id, text)

    @property
    def size(self) -> int:
        """The length of the encoded data, in characters."""
        return self._size

    @property
    def queue(self) -> Any:
        """The `Queue` that the job is in."""
        return self._queue

    @property
    def headers(self) -> dict[str, str] | None:
        """What instruments have put beside the data, such as a ``traceparent``; see `PQ.instrument`. None if there is
        nothing, or if the job was taken without a lease: then it is not read."""
        return headers_of(self._headers)

    def __repr__(self) -> str:
        times = " ".join(
            f"{name}={_quoted(getattr(self, name))}" for name in ("enqueued_at", "schedule_at", "expected_at")
        )
        return f"<pq.{type(self).__name__} id={self.id} size={self.size} {times}>"


def decode(job: Job) -> None:
    """Replace the text that a claim has found by the data.

    :raises DecodeError: it can't be decoded.
    """
    job._data = job._queue._decoded(job.id, job._data)


def utc_format(moment: datetime) -> str:
    """Format a time as ISO 8601 in UTC with microseconds, such as ``2014-02-21T16:22:06.000000Z``.

    :param moment: an aware datetime, or a naive one in UTC.
    """
    if moment.tzinfo is not None:
        moment = moment.astimezone(timezone.utc).replace(tzinfo=None)
    return moment.isoformat(timespec="microseconds") + "Z"


def _quoted(moment: datetime | None) -> str:
    return "None" if moment is None else f'"{utc_format(moment)}"'
