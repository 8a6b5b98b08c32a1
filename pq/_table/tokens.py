"""Puts with a token, of which one row of a queue has it at most."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from itertools import chain
from typing import Any

from .._db import Rows
from .._times import NOW
from .._unique import UNTIL_TIMES, JobId, Unique, digest, mergeable
from ..errors import Duplicate, QueueFull, RowsDropped
from . import bulk as _bulk
from .instruments import with_headers
from .rows import QueueRows

#: Of a row without a token, which stands among others that have one.
_NONE = Unique("none")

#: How often a put begins anew before it takes it that a trigger of the user's drops the row.
_MAX_ROUNDS = 20


class UniqueRows(QueueRows):
    """The rows of one queue, and the tokens that they have."""

    def _put_unique(self, row: _bulk.Row, new_id: int | None = None) -> int:
        """Put a job, or join the one that has its token; ``unique.sql`` tells how.

        :param new_id: the id of the job if it is new.
        :returns: a `JobId` if the job has a token.
        :raises Duplicate: there is one, and the put is not to join it.
        :raises ValueError: its data can't be merged.
        """
        unique = row.unique or _NONE
        open = self._db.stays_open
        token = self._token(row) or None
        is_plain = row.schedule is row.expected is NOW and row.key is None and unique.window is None and new_id is None
        if is_plain and not open and unique.on_duplicate == "keep" and unique.until == "started" and not self.max_ready:
            first = self._first
            if row.headers is not None:
                first = self._statements("unique.sql", **with_headers(row.headers))["put"]
            rows = self._run_with_rights(first, {"data": row.text, "unique": token, "headers": row.headers})
            if rows:
                return JobId(*rows[0])
        words = with_headers(row.headers)
        params: dict[str, Any] = {"data": row.text, "unique": token, "headers": row.headers}
        changes = unique.on_duplicate in ("replace", "merge")
        if changes:
            params |= {"time": unique.time, "kind": None, "part": "{}"}
        if unique.on_duplicate == "merge":
            params |= mergeable(row.text)
        if not is_plain or unique.until != "started":
            words["insert_row"] = "insert_full_row" if new_id is None else "insert_row_as"
            until = None if row.unique is None or unique.until is None else UNTIL_TIMES[unique.until]
            params |= {"key": row.key, "until": until, "window": _bulk.interval(unique.window), "id": new_id}
        if words or changes:
            params |= _bulk.times(row.schedule, row.expected)
        if self.max_ready is not None:
            words["has_room"] = "room"
            params["room"] = self.max_ready - 1
        statements = (self._changes if changes else self._joins)(unique, open, words)
        for turn in range(10**9):
            for sql in statements:
                rows = self._run_with_rights(sql, params)
                if rows:
                    id = self._outcome(rows[0], unique, token)
                    return int(id) if row.unique is None else id
            if self.max_ready is not None and not self._run(self._sql["has_room"], room=params["room"])[0][0]:
                raise QueueFull(queue=self.name, max_ready=self.max_ready)
            if turn >= _MAX_ROUNDS and not self._run(self._statements("unique.sql")["holder"], unique=token):
                break
        raise RowsDropped(queue=self.name, dropped=1, count=1, ids=[])

    def _outcome(self, row: tuple[Any, ...], unique: Unique, token: Any) -> JobId:
        id, created = row[:2]
        if created is None:
            raise ValueError(
                f"the data of job {id} in queue {self.name!r} and the new data can't be merged: both must be arrays or "
                "both objects, without \\u0000 and lone surrogates; of a task, the arguments must have names"
            )
        if not created and unique.on_duplicate == "error":
            raise Duplicate(job_id=id, queue=self.name, unique=token)
        return JobId(id, created)

    @cached_property
    def _first(self) -> str:
        return self._statements("unique.sql")["put"]

    def _joins(self, unique: Unique, open: bool, words: Mapping[str, str]) -> list[str]:
        """The statements of a put that leaves the other job as it is."""
        if open and unique.on_duplicate == "keep":
            sql = self._statements("unique.sql", **words, gives_up="gives_up_in_transaction")
            return [sql["put_in_transaction"], sql["join_in_transaction"], sql["put_instead"]]
        sql = self._statements("unique.sql", **words)
        return [sql["put"], sql["find" if unique.on_duplicate == "error" else "join"], sql["put_instead"]]

    def _changes(self, unique: Unique, open: bool, words: Mapping[str, str]) -> list[str]:
        """The statements of a put that changes the other job."""
        if open:
            words = {**words, "may_join": "not_due"}
        if unique.on_duplicate == "merge":
            words = {**words, "fits": "fits_merge", "merged": "do_merge"}
        first = self._statements("unique.sql", **words)
        words = {**words, "may_change": "may_wait_too", "skips": "waits", "gives_up": "gives_up_change"}
        second = self._statements("unique.sql", **words)
        return [first["put_over"], second["put_over"], second["put_instead"]]

    def _run_with_rights(self, sql: str, params: Mapping[str, Any]) -> Rows:
        try:
            return self._run(sql, prepare=True, **params)
        except self._db.driver.Error as error:
            self._db.driver.explain_refusal(
                error,
                "a put with a token needs the rights INSERT and SELECT; and UPDATE to change the job that has it, or "
                "to lock that: in a transaction that stays open, or if another may have it locked",
            )
            raise

    # -- many

    def _put_chunks(self, chunks: Iterator[list[_bulk.Row]]) -> Iterator[int]:
        """Put jobs by several statements, in the transaction that is open."""
        for chunk in chunks:
            if any(row.unique for row in chunk):
                yield from self._put_sorted([*chunk, *chain.from_iterable(chunks)])
            else:
                yield from self._put_chunk(chunk)

    def _put_sorted(self, rows: list[_bulk.Row]) -> list[int]:
        """Put jobs with tokens in the order of these: two that put the same ones can't wait for each other.

        The ids of the new jobs are in the order of the rows nevertheless.
        """
        new_ids = self._run(self._statements("unique.sql")["ids"], table=self._table.quoted, count=len(rows))
        tokens = [self._token(row) for row in rows]
        ids: dict[int, int] = {}
        for place in sorted(range(len(rows)), key=tokens.__getitem__):
            ids[place] = self._put_unique(rows[place], new_ids[place][0])
        return [ids[place] for place in range(len(rows))]

    def _token(self, row: _bulk.Row) -> str:
        if row.unique is None:
            return ""
        return digest(self.name, row.text) if row.unique.token is True else row.unique.token
