"""The doctor: what is wrong with the table, or with the server where that affects the table, and the remedies.

The doctor reads catalogs, statistics and the ends of indexes, in short transactions of its own. ``findings.py`` has the
texts, and ``sql/doctor.sql`` the statements.
"""

from __future__ import annotations

import json
import re
import shlex
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import timedelta
from functools import partial
from typing import Any

from .._table import Table, migrations, retention, schema
from ..errors import ConnectionLost, SchemaError
from ..sql import BESIDE, TableName, beside, object_name
from . import findings as _findings
from . import jobs as _jobs
from . import streams as _streams
from .findings import Check, Finding

__all__ = ["LIMITS", "Finding", "examine"]

#: The time limit of each statement, and that of its locks. The doctor is to find out why a server is slow, and must not
#: add to that.
TIMEOUT = "3s"
LOCK_TIMEOUT = "1s"

#: The limits beyond which something is wrong; they are parameters of the statements.
LIMITS: dict[str, Any] = {
    # at 1,000 jobs a second this leaves more than half a million dead index entries
    "transaction_age": timedelta(minutes=10),
    # a limit for what has no time, only a number of transactions: a job takes two or three
    "xmin_age": 1_000_000,
    # a job in a "with" block may wait for another service; one that waits for longer has probably hung
    "idle_age": timedelta(minutes=5),
    # autovacuum runs once a minute; a busy queue leaves half as many dead rows in that time
    "dead_rows": 1_000_000,
    # normally the queue is empty; the server itself warns from a half on, and at 1 every commit with a NOTIFY fails
    "notify_queue": 0.1,
    # twenty times the default lease; waiting consumers look every second
    "overdue_age": timedelta(minutes=10),
    # longer than for due jobs, because a backlog may be normal
    "waiting_age": timedelta(hours=1),
    # whoever changes a table, or makes an index, is mostly done by then
    "lock_age": timedelta(seconds=10),
    # a limit is for jobs that end; many are shorter than this
    "full_age": timedelta(minutes=10),
    # the rest is used up quickly when every process opens one more
    "connections": 0.9,
    # changing the column's type rewrites the table, so it must begin in time
    "ids": 0.8,
    # workers delete within ten minutes, but nobody may have worked over night
    "prune_age": timedelta(days=1),
    # half a gigabyte of small jobs
    "many_rows": 1_000_000,
    # seconds; NTP keeps clocks far closer, and times that an application computes rarely need more
    "clock_skew": 2.0,
    # more findings of one kind would say nothing more
    "at_most": 10,
    # jobs are counted up to this number; of the oldest rows so many are looked at
    "counted": 1000,
    # the doctor looks at the first queues only, to stay within the time limit
    "queues": 10_000,
}

#: Findings without whose cure the jobs can't be looked at.
_NEEDED = ("beside_missing", "index_missing", "index_invalid")

_PART = re.compile(
    r"^(create|drop) (?:unique )?(index|trigger) (?:if (?:not )?exists )?(:?\w+)(?:[^;]*? on (:\w+))?[^;]*;",
    re.MULTILINE,
)


def examine(table: Table) -> list[Finding]:
    """Return the findings, errors first; empty if nothing is wrong.

    :raises ConnectionFailed: the database can't be reached.
    :raises ConnectionLost: the connection broke meanwhile.
    """
    order = ("error", "warning", "note")
    return sorted(_Examination(table).findings(), key=lambda finding: order.index(finding.severity))


class _Examination:
    def __init__(self, table: Table) -> None:
        self._database = table.database
        self._table = table
        self._sql = table.statements("doctor.sql")
        self._words = {"table": table.quoted, "arguments": _arguments(table.name)}
        self._params: dict[str, Any] = {**LIMITS, "table": table.quoted}
        self._version = 0
        self._is_hidden = False  # nobody can look at the jobs now

    def findings(self) -> Iterator[Finding]:
        yield from self._carefully("the table", self._look_for_table)
        found: list[Finding] = []
        if 0 < self._version <= migrations.VERSION:
            self._params |= parts(self._table.name, self._version)
            found = list(self._all(_findings.PARTS))
            yield from found
        if self._version:
            self._params |= {"beside": [beside(self._table.quoted, word) for word in BESIDE]}
            yield from self._look_for_locks(LIMITS["lock_age"])
        # without an index these would read the whole table, and without a table beside it fail
        if self._version >= migrations.VERSION and not any(each.name in _NEEDED for each in found):
            for what, look in self._looks_at_jobs():
                if not self._is_hidden:
                    yield from self._carefully(what, look)
        yield from self._all(_findings.SERVER)
        yield from self._carefully(_findings.CLOCK_SKEW.name, self._look_at_clocks)
        yield from self._carefully(_findings.POOLER.name, self._look_for_pooler)

    def _all(self, checks: Iterable[Check]) -> Iterator[Finding]:
        for check in checks:
            yield from self._carefully(check.name, partial(self._look, check))

    def _carefully(self, what: str, look: Callable[[], Iterable[Finding]]) -> list[Finding]:
        """Run one look in a short transaction.

        This may be part of the application's transaction. So an error undoes only a savepoint, and the settings are
        restored.
        """
        run = self._database.execute
        with self._database.transaction():
            try:
                with self._database.transaction():
                    ((timeout, lock_timeout),) = run(self._sql["timeouts"])
                    run(
                        f"set local statement_timeout = '{TIMEOUT}'; set local lock_timeout = '{LOCK_TIMEOUT}';"
                        " set local transaction_read_only = on"
                    )
                    found = list(look())
                    run(self._sql["restore"], {"timeout": timeout, "lock_timeout": lock_timeout})
                    return found
            except self._database.driver.Error as error:
                if isinstance(error, ConnectionLost):
                    raise
                not_seen = self._say(_findings.NOT_SEEN, finding=what, error=str(error).partition("\n")[0])
                if not self._database.driver.lock_timed_out(error) or what == _findings.TABLE_LOCKED.name:
                    return [not_seen]
        return self._look_for_locks(timedelta(0)) or [not_seen]  # by now the transaction is back before the error

    def _say(self, check: Check, **data: Any) -> Finding:
        return check.finding(data, self._words)

    def _look(
        self, check: Check, sql: Mapping[str, str] | None = None, *, params: dict[str, Any] | None = None
    ) -> Iterator[Finding]:
        statement = (sql or self._sql)[check.name]
        rows = self._database.execute(
            f"select row_to_json(found)::text from ({statement}) as found", params or self._params
        )
        return (self._say(check, **json.loads(row)) for (row,) in rows)

    def _look_for_table(self) -> Iterator[Finding]:
        try:
            self._version = schema.version(self._table)
        except SchemaError as error:
            yield self._say(_findings.TABLE_UNKNOWN, error=str(error))
            return
        if not self._version:
            yield self._say(_findings.TABLE_MISSING)
        elif self._version != migrations.VERSION:
            which = _findings.TABLE_OUTDATED if self._version < migrations.VERSION else _findings.TABLE_NEWER
            yield self._say(which, version=self._version, expected=migrations.VERSION)

    def _look_for_locks(self, age: timedelta) -> list[Finding]:
        """Return the locks that are this old. If one of them hides the jobs, no look at these is of use."""
        params = {**self._params, "lock_age": age}
        found = self._carefully(
            _findings.TABLE_LOCKED.name, lambda: self._look(_findings.TABLE_LOCKED, params=params)
        )
        self._is_hidden |= any(finding.data.get("hides") for finding in found)
        return found

    def _looks_at_jobs(self) -> Iterator[tuple[str, Callable[[], Iterable[Finding]]]]:
        for check in _jobs.JOBS:
            yield check.name, partial(self._look, check)
        yield "retention", self._look_at_retention
        yield "streams", self._look_at_streams

    def _look_at_retention(self) -> Iterator[Finding]:
        comment = retention.comment(self._database)
        if retention.is_garbled(comment):
            yield self._say(_jobs.RETENTION_UNREADABLE, comment=comment)
            return
        kept = retention.Retention.of(comment)
        if kept.finished is None:
            yield from self._look(_jobs.RETENTION_UNLIMITED)
        spans = {"finished_kept": kept.finished, "dead_kept": kept.dead}
        seconds = {name: None if span is None else span.total_seconds() for name, span in spans.items()}
        yield from self._look(_jobs.RETENTION_OVERDUE, params={**self._params, **seconds})

    def _look_at_clocks(self) -> Iterator[Finding]:
        before = time.time()
        ((now,),) = self._database.execute(self._sql["clock"])
        after = time.time()
        skew = now - (before + after) / 2
        if abs(skew) - (after - before) / 2 > LIMITS["clock_skew"]:  # the round trip leaves this much open
            yield self._say(_findings.CLOCK_SKEW, seconds=round(skew, 1))

    def _look_at_streams(self) -> Iterator[Finding]:
        for params, sql in _streams.streams(self._table, LIMITS["at_most"]):
            self._words["event_id"] = params["event_id"]
            for check in _streams.CHECKS:
                yield from self._look(check, sql, params=params)

    def _look_for_pooler(self) -> Iterator[Finding]:
        with self._database.transaction() as cursor:
            if self._database.driver.backend_is_hidden(cursor.connection):
                yield self._say(_findings.POOLER)


def parts(table: TableName, version: int) -> dict[str, list[str]]:
    """Return what a table of that version must have: the names of its indexes and triggers, the definitions of the
    indexes, and the names of triggers that it must not have. All are read from the steps that create and drop them."""
    there: dict[str, tuple[str, str, str]] = {}
    obsolete = set()
    for step in migrations.steps():
        for match in _PART.finditer(step.sql if step.version <= version else ""):
            action, kind, word, place = match.groups()
            name = object_name(table.name, word[1:]) if word.startswith(":") else word
            there.pop(name, None)
            obsolete.discard(name)
            if action == "create":
                there[name] = kind, migrations.for_table(place, table), migrations.for_table(match[0], table)
            elif kind == "trigger":
                obsolete.add(name)
    indexes = {name: (place, sql) for name, (kind, place, sql) in there.items() if kind == "index"}
    return {
        "indexes": list(indexes),
        "places": [place for place, _ in indexes.values()],
        "definitions": [sql.replace(" index ", " index concurrently ", 1) for _, sql in indexes.values()],
        "triggers": [name for name, (kind, _, _) in there.items() if kind == "trigger"],
        "obsolete": list(obsolete),
        "beside": [beside(table.quoted, word) for word in BESIDE] if version >= migrations.WITH_BESIDE else [],
    }


def _arguments(table: TableName) -> str:
    """Return the arguments of the command line that name this table."""
    given = {"--table": None if table.name == "queue" else table.name, "--schema": table.schema}
    return "".join(f" {option} {shlex.quote(value)}" for option, value in given.items() if value is not None)
