"""The table: created and upgraded by the same steps.

Its version stands in the comment of its column due_at, as ``(pq schema 5)``. A table without it that has the columns of
pq 1.9.1 is version 1.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.resources import files
from typing import NamedTuple

from .._db import Database
from ..errors import JobsLeft, SchemaError
from ..sql import TableName, bind, bound, object_name, quote, read, statements
from .retention import Change
from .table import Table

#: How long create() waits for a lock, and how often: while it waits for the table's, puts and gets queue up behind it.
LOCK_TIMEOUT = "3s"
ATTEMPTS = 5

_SQL = statements("schema.sql")
_MARK = re.compile(r"\(pq schema ([0-9]+)\)")
_COLUMNS = ("id", "enqueued_at", "dequeued_at", "expected_at", "schedule_at", "q_name", "data")
_OBJECTS = (
    "due_function",
    "due_insert_trigger",
    "due_update_trigger",
    "dead_index",
    "due_index",
    "ready_index",
    "taken_function",
    "taken_trigger",
    "notify_function",
    "notify_trigger",
)


class Step(NamedTuple):
    """A migration: brings the table to `version`."""

    version: int
    name: str
    sql: str


def steps() -> list[Step]:
    """All migrations, in order."""
    names = sorted(
        entry.name for entry in files("pq").joinpath("sql", "migrations").iterdir() if entry.name.endswith(".sql")
    )
    return [Step(int(name[:4]), name[5:-4], read(f"migrations/{name}")) for name in names]


#: The version that this library works with.
VERSION = len(steps())


def create(table: Table, change: Change) -> None:
    """Bring the table to `VERSION`. A newer one is left as it is: steps only add.

    :param change: of its retention.
    :raises SchemaError: the table is something else, or was in use for too long, or is to be upgraded in a transaction
        whose snapshot may be too old for that.
    """
    if version(table) >= VERSION and not change.wanted(table.database):
        return  # for that it was enough to look: no lock, and no right to change anything
    _in_turn(table, lambda inside: _migrate(table.database, table.name, change, inside))


def drop(table: Table, force: bool) -> None:
    """Drop the table and its functions, if there is one.

    :raises JobsLeft: there are jobs in it.
    :raises SchemaError: the table is something else, or was in use for too long.
    """
    if version(table):
        _in_turn(table, lambda inside: _end(table.database, table.name, "drop", force, inside))


def reset(table: Table, force: bool) -> None:
    """Delete all rows.

    :raises JobsLeft: there are jobs in it.
    :raises SchemaError: the table is something else, or was in use for too long.
    """
    version(table)
    _in_turn(table, lambda inside: _end(table.database, table.name, "empty", force, inside))


def _end(database: Database, table: TableName, statement: str, force: bool, inside: bool) -> None:
    run = database.execute
    with _lock(database, inside) as isolation:
        schema, _ = _find(database, table)
        if schema is None and statement == "drop":
            return  # somebody else was faster
        target = TableName(table.name, schema)
        run(_bind(_SQL["lock_table"], target))
        if not force:
            _refuse(database, target, isolation)
        run(_bind(_SQL[statement], target))


def _refuse(database: Database, table: TableName, isolation: str) -> None:
    """:raises JobsLeft: there are jobs in it."""
    if isolation != "read committed":
        raise SchemaError(
            f"whether table {table.quoted} has jobs can't be told in a transaction at {isolation.upper()}, which might"
            " not see all of its rows: do it outside of that"
        )
    (counts,) = database.execute(bound("queue.sql", table.quoted)["jobs_left"])
    if any(counts):
        ready, scheduled, running, dead = counts
        raise JobsLeft(table=table.quoted, ready=ready, scheduled=scheduled, running=running, dead=dead)


def _in_turn(table: Table, work: Callable[[bool], None]) -> None:
    """Do it in a transaction, again if it does not get a lock; not for ever.

    :param work: is told whether the transaction is one that was open.

    :raises SchemaError: the table was in use for too long.
    """
    database = table.database
    inside = database.in_transaction
    attempts = 1 if inside else ATTEMPTS
    for attempt in range(1, attempts + 1):
        try:
            with database.transaction():
                work(inside)
            table.forget_retention()
            return
        except database.driver.Error as error:
            timed_out = database.driver.lock_timed_out(error)
            if attempt < attempts and (timed_out or database.driver.may_be_repeated(error)):
                time.sleep(0.2)  # what queued up behind the lock goes on
            elif timed_out:
                raise SchemaError(
                    f"table {table.quoted} is in use by a long transaction: tried {attempts} times for {LOCK_TIMEOUT}"
                ) from error
            else:
                raise


def _migrate(database: Database, table: TableName, change: Change, inside: bool) -> None:
    with _lock(database, inside) as isolation:
        _upgrade(database, table, isolation)
        change.make(database)


@contextmanager
def _lock(database: Database, inside: bool) -> Iterator[str]:
    """Only one at a time changes tables; it waits for locks no longer than `LOCK_TIMEOUT`.

    :returns: a context manager, whose value is the isolation level.
    """
    run = database.execute
    if not inside:
        run("set transaction isolation level read committed")  # whatever the default
    ((isolation,),) = run("show transaction_isolation")
    ((timeout,),) = run("show lock_timeout")
    run(f"set local lock_timeout = '{LOCK_TIMEOUT}'")
    run(_SQL["lock"])
    yield isolation
    run("select set_config('lock_timeout', %(timeout)s, true)", {"timeout": timeout})


def _upgrade(database: Database, table: TableName, isolation: str) -> None:
    run = database.execute
    schema, version = _find(database, table)
    if 0 < version < VERSION and isolation != "read committed":
        raise SchemaError(
            f"table {table.quoted} can't be upgraded in a transaction at {isolation.upper()}, which might not see"
            " all of its rows: call create() outside of it"
        )
    if schema is None:
        ((schema, exists),) = run(_SQL["place"], {"schema": table.schema})
        if schema is None:
            raise SchemaError(f"table {table.quoted}: no schema of the search path exists")
        if not exists:
            run(f"create schema {quote(schema)}")
    target = TableName(table.name, schema)
    run(_bind(_SQL["announce"], target))
    for step in steps():
        if step.version > version:
            run(_bind(step.sql, target))


def version(table: Table) -> int:
    """The table's version; 0 if there is none.

    :raises SchemaError: it is something else.
    """
    return _find(table.database, table.name)[1]


def _find(database: Database, table: TableName) -> tuple[str | None, int]:
    """The table's schema and version; None and 0 if there is no such table."""
    rows = database.execute(_SQL["find"], {"table": table.quoted})
    if not rows:
        return None, 0
    ((schema, columns, comment),) = rows
    missing = [name for name in _COLUMNS if name not in columns]
    if missing:
        raise SchemaError(f"table {table.quoted} is no queue table: it has no column {', '.join(missing)}")
    mark = _MARK.search(comment or "")
    return schema, int(mark.group(1)) if mark else 1


def script(table: TableName, since: int = 0) -> str:
    """The SQL that `create` executes, for somebody else to run: from version `since` on, in one transaction."""
    parts = ["begin;", f"set local lock_timeout = '{LOCK_TIMEOUT}';"]
    if table.schema is not None:
        parts.append(f"create schema if not exists {quote(table.schema)};")
    parts.append(_bind(_SQL["announce"], table) + ";")
    parts += [_bind(step.sql, table).strip() for step in steps() if step.version > since]
    return "\n\n".join([*parts, "commit;"]) + "\n"


def _bind(sql: str, table: TableName) -> str:
    """Objects carry the table's name, so that two tables in one schema don't meet, and functions lie in its schema."""
    words = {"table": table.quoted, "table_text": _literal(table.quoted)}
    for kind in _OBJECTS:
        name = quote(object_name(table.name, kind))
        in_schema = kind.endswith("function") and table.schema is not None
        words[kind] = f"{quote(table.schema or '')}.{name}" if in_schema else name
    return bind(sql, words)


def _literal(text: str) -> str:
    """A text as it stands in SQL, however the server reads backslashes."""
    return "E'" + text.replace("\\", "\\\\").replace("'", "''") + "'"
