"""One put of one job, by the statement that writes no more than was given; and of those that are made of events."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .._after import after_of
from .._times import NOW, When
from .._unique import key_of, unique_of
from . import bulk as _bulk
from .after import AfterRows
from .instruments import HEADERS_OF_EVENTS
from .lines import chunks


class PutRows(AfterRows):
    """The rows of one queue, and how one more is put."""

    def _put_one(
        self, data: Any, schedule: When, expected: When, key: str | None, unique: Any, after: Any,
        headers: str | None = None,
    ) -> int:  # fmt: skip
        """Put a job, and return its id; the arguments and errors are those of `Queue.put`.

        :param headers: as JSON.
        """
        others = None if after is None else after_of(after)
        if unique is not None or (others is not None and others.ids):
            tags = key_of(key, self.name), unique_of(unique, self.name)
            row = _bulk.Row(self._text(data), schedule, expected, *tags, headers)
            return self._put_after(row, others) if others is not None and others.ids else self._put_unique(row)
        if self.max_ready is not None:
            row = _bulk.Row(self._text(data), schedule, expected, key_of(key, self.name), None, headers)
            return self._put_chunk([row])[0]
        if key is not None:
            times = _bulk.times(schedule, expected)
            return self._put("put_keyed", data, headers, key=key_of(key, self.name), **times)
        if schedule is expected is NOW:
            return self._put("put", data, headers)
        return self._put("put_timed", data, headers, **_bulk.times(schedule, expected))

    def _put_events(self, jobs: Iterable[_bulk.NewJob]) -> None:
        """Put jobs that were made of events. They have the events' headers, so that the traces go on; instruments are
        not told, as they were when the events were published."""
        for part in chunks(self._encoded_rows(jobs, None, None)):
            self._put_chunk(part, HEADERS_OF_EVENTS)
