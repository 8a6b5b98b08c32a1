"""Puts with a token, of which one row of a queue has it at most."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

from .._unique import JobId, digest
from . import bulk as _bulk
from .rows import QueueRows

#: What `Unique.until` is as a time in the row.
_UNTIL = {"started": "-infinity", "done": "infinity", None: None}


class UniqueRows(QueueRows):
    """The rows of one queue, and the tokens that they have."""

    def _put_chunks(self, chunks: Iterator[list[_bulk.Row]]) -> Iterator[int]:
        """Put jobs by several statements, in the transaction that is open."""
        for chunk in chunks:
            if any(row.unique for row in chunk):
                yield from self._put_sorted([*chunk, *chain.from_iterable(chunks)])
            else:
                yield from self._put_chunk(chunk)

    def _put_sorted(self, rows: list[_bulk.Row]) -> list[int]:
        """Put jobs with tokens in the order of these: two that put the same ones can't wait for each other."""
        ids: dict[int, int] = {}
        for place, row in sorted(enumerate(rows), key=lambda each: self._token(each[1])):
            ids[place] = self._put_chunk([row])[0] if row.unique is None else self._put_unique(row)
        return [ids[place] for place in range(len(rows))]

    def _token(self, row: _bulk.Row) -> str:
        if row.unique is None:
            return ""
        return digest(self.name, row.text) if row.unique.token is True else row.unique.token

    def _put_unique(self, row: _bulk.Row) -> JobId:
        """Put a job, or join the one that has its token."""
        unique = row.unique
        assert unique is not None
        params = {
            **_bulk.times(row.schedule, row.expected),
            "data": row.text,
            "key": row.key,
            "unique": self._token(row),
            "until": _UNTIL[unique.until],
            "window": _bulk.interval(unique.window),
        }
        sql = self._statements("unique.sql")
        while True:
            rows = self._run(sql["put"], prepare=True, **params)
            if rows:
                ((id, created),) = rows
                return JobId(id, created)
