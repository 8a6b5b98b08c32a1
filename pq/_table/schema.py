"""Creating, upgrading, emptying and dropping the table. A new table and an upgraded one go through the same steps.

The comment of the column due_at holds the version, as ``(pq schema 6)``. A table without it that has the columns of pq
1.9.1 is version 1.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from .._db import Database
from ..errors import JobsLeft, SchemaError
from ..sql import TableName, bound, quote, statements
from .migrations import LOCK_TIMEOUT, VERSION, WITH_BESIDE, for_table, steps
from .retention import Change
from .table import Table

#: How often create() waits for a lock, each time for `LOCK_TIMEOUT`.
LOCK_ATTEMPTS = 5

#: Stands in the comment of the log of a stream, in front of JSON.
STREAM_PREFIX = "pq stream "

_SQL = statements("schema.sql")
_MARK = re.compile(r"\(pq schema ([0-9]+)\)")
_COLUMNS = ("id", "enqueued_at", "dequeued_at", "expected_at", "schedule_at", "q_name", "data")


def create(table: Table, change: Change) -> None:
    """Bring the table to `VERSION`. A newer table is left as it is, because steps only add.

    :param change: the change of its retention.
    :raises SchemaError: the table is not a queue table, was in use for too long, or would have to be upgraded in a
        transaction whose snapshot may be too old for that.
    """
    if version(table) >= VERSION and not change.wanted(table.database):
        return  # looking was enough: this needs no lock, and no right to change anything
    in_turn(table, lambda inside: _migrate(table.database, table.name, change, inside))


def drop(table: Table, force: bool) -> None:
    """Drop the table and its functions, if there is a table.

    :raises JobsLeft: the table has jobs, and `force` is false.
    :raises SchemaError: the table is not a queue table, or was in use for too long.
    """
    if version(table):
        in_turn(table, lambda inside: _end(table.database, table.name, "drop", force, inside))


def reset(table: Table, force: bool) -> None:
    """Delete all rows.

    :raises JobsLeft: the table has jobs, and `force` is false.
    :raises SchemaError: the table is not a queue table, or was in use for too long.
    """
    version(table)
    in_turn(table, lambda inside: _end(table.database, table.name, "empty", force, inside))


def _end(database: Database, table: TableName, statement: str, force: bool, inside: bool) -> None:
    run = database.execute
    with lock(database, inside) as isolation:
        schema, version = _find(database, table)
        if schema is None and statement == "drop":
            return  # another process has dropped it meanwhile
        target = TableName(table.name, schema)
        run(for_table(_SQL["lock_table"], target))
        if statement == "drop":
            _refuse_streams(database, target)
        if not force:
            _refuse(database, target, isolation)
        run(for_table(_SQL[statement], target))
        if version >= WITH_BESIDE:
            run(for_table(_SQL[f"{statement}_beside"], target))
            if statement == "empty":
                run(bound("limits.sql", target.quoted)["mark"], {})


def _refuse_streams(database: Database, table: TableName) -> None:
    """Check that no stream stands beside the table, which it needs.

    :raises SchemaError: there is one.
    """
    if found := streams(database, table):
        names = ", ".join(repr(stored["name"]) for stored in found)
        raise SchemaError(f"table {table.quoted} has streams, drop these first: {names}")


def streams(database: Database, table: TableName) -> list[dict[str, Any]]:
    """Return what is stored of the streams beside a table, sorted by their names; `pq._streams.schema` writes it."""
    rows = database.execute(_SQL["streams"], {"table": table.quoted})
    stored = [json.loads(comment.removeprefix(STREAM_PREFIX)) for (comment,) in rows]
    return sorted((each for each in stored if each["table"] == table.name), key=lambda each: each["name"])


def _refuse(database: Database, table: TableName, isolation: str) -> None:
    """Check that the table has no jobs.

    :raises JobsLeft: it has jobs.
    """
    if isolation != "read committed":
        raise SchemaError(
            f"a transaction at {isolation.upper()} might not see all rows of table {table.quoted}, and can't tell"
            " whether it has jobs: call this outside of it"
        )
    (counts,) = database.execute(bound("queue.sql", table.quoted)["jobs_left"], {})
    if any(counts):
        ready, scheduled, running, dead = counts
        raise JobsLeft(table=table.quoted, ready=ready, scheduled=scheduled, running=running, dead=dead)


def in_turn(table: Table, work: Callable[[bool], None]) -> None:
    """Run `work` in a transaction; if it does not get a lock, try a few times more.

    :param work: gets True if the transaction was open before, and False otherwise.
    :raises SchemaError: the table was in use for too long.
    """
    database = table.database
    inside = database.in_transaction
    attempts = 1 if inside else LOCK_ATTEMPTS
    for attempt in range(1, attempts + 1):
        try:
            with database.transaction():
                work(inside)
            table.forget_retention()
            return
        except database.driver.Error as error:
            timed_out = database.driver.lock_timed_out(error)
            if attempt < attempts and (timed_out or database.driver.may_be_repeated(error)):
                time.sleep(0.2)  # lets the transactions that wait behind the lock go on
            elif database.driver.name_is_taken(error):
                raise SchemaError(str(error).partition("\n")[0]) from error
            elif timed_out:
                raise SchemaError(
                    f"table {table.quoted} is in use by a long transaction: tried {attempts} times for {LOCK_TIMEOUT}"
                ) from error
            else:
                raise


def _migrate(database: Database, table: TableName, change: Change, inside: bool) -> None:
    with lock(database, inside) as isolation:
        _upgrade(database, table, isolation)
        change.make(database)


@contextmanager
def lock(database: Database, inside: bool) -> Iterator[str]:
    """Let only one process at a time change tables, and wait for locks no longer than `LOCK_TIMEOUT`.

    :returns: a context manager, whose value is the isolation level of the transaction.
    """
    run = database.execute
    if not inside:
        run("set transaction isolation level read committed")  # whatever the default is
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
    run(for_table(_SQL["announce"], target))
    for step in steps():
        if step.version > version:
            run(for_table(step.sql, target))


def version(table: Table) -> int:
    """Return the version of the table; 0 if there is no table.

    :raises SchemaError: the table is not a queue table.
    """
    return _find(table.database, table.name)[1]


def _find(database: Database, table: TableName) -> tuple[str | None, int]:
    """Return the schema and the version of the table; None and 0 if there is no table."""
    rows = database.execute(_SQL["find"], {"table": table.quoted})
    if not rows:
        return None, 0
    ((schema, columns, comment),) = rows
    missing = [name for name in _COLUMNS if name not in columns]
    if missing:
        raise SchemaError(f"table {table.quoted} is not a queue table: it has no column {', '.join(missing)}")
    mark = _MARK.search(comment or "")
    return schema, int(mark.group(1)) if mark else 1
