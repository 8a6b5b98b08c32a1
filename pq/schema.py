"""The table: created and upgraded by the same steps.

Its version stands at the end of its comment, as ``(pq schema 2)``, behind whatever the owner wrote there. A table
without it that has the columns of pq 1.9.1 is version 1.
"""

from __future__ import annotations

import re
import time
from importlib.resources import files
from typing import Any, NamedTuple

from . import _sql
from ._db import Database
from .errors import SchemaError

#: How long create() waits for the table's lock, and how often: while it waits, puts and gets queue up behind it.
LOCK_TIMEOUT = "3s"
ATTEMPTS = 5

_MARK = re.compile(r"\s*\(pq schema ([0-9]+)\)\s*$")
_COLUMNS = ("id", "enqueued_at", "dequeued_at", "expected_at", "schedule_at", "q_name", "data")
_OBJECTS = (
    "due_function",
    "due_insert_trigger",
    "due_update_trigger",
    "due_index",
    "ready_index",
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
    return [Step(int(name[:4]), name[5:-4], _sql.read(f"migrations/{name}")) for name in names]


#: The version that this library works with.
VERSION = len(steps())


def create(database: Database, table: _sql.Table) -> None:
    """Bring the table to `VERSION`. A newer one is left as it is: steps only add.

    :raises SchemaError: the table is something else, or was in use for too long.
    """
    driver = database.driver
    for attempt in range(1, ATTEMPTS + 1):
        try:
            with database.transaction() as cursor:
                _migrate(database, table, cursor)
            return
        except driver.Error as error:
            if not driver.lock_timed_out(error) or database.in_transaction:
                raise
            if attempt == ATTEMPTS:
                raise SchemaError(
                    f"table {table.quoted} is in use by a long transaction: tried {ATTEMPTS} times for {LOCK_TIMEOUT}"
                ) from error
        time.sleep(0.2)  # what queued up behind the lock goes on


def _migrate(database: Database, table: _sql.Table, cursor: Any) -> None:
    run = database.execute
    run("select pg_advisory_xact_lock(hashtextextended(%(key)s, 0))", {"key": f"pq create {table.quoted}"})
    found = run(_FIND, {"table": table.quoted, "schema": table.schema})
    schema, exists, schema_exists, comment = found[0]
    if schema is None:
        raise SchemaError(f"table {table.quoted}: no schema of the search path exists")
    placed = _sql.Table(table.name, schema)
    version = _version(placed, run(_COLUMNS_OF, {"table": placed.quoted}), comment) if exists else 0
    if version >= VERSION:
        return
    if not schema_exists:
        run(f"create schema {_sql.quote(schema)}")
    run(f"set local lock_timeout = '{LOCK_TIMEOUT}'")
    for step in steps():
        if step.version > version:
            run(_bind(step.sql, placed))
    run(_mark(placed, comment))


def version(database: Database, table: _sql.Table) -> int:
    """The table's version; 0 if there is none.

    :raises SchemaError: it is something else.
    """
    ((schema, exists, _, comment),) = database.execute(_FIND, {"table": table.quoted, "schema": table.schema})
    if not exists:
        return 0
    placed = _sql.Table(table.name, schema)
    return _version(placed, database.execute(_COLUMNS_OF, {"table": placed.quoted}), comment)


def script(table: _sql.Table, since: int = 0) -> str:
    """The SQL that `create` executes, for somebody else to run: from version `since` on, in one transaction."""
    parts = ["begin;", f"set local lock_timeout = '{LOCK_TIMEOUT}';"]
    if table.schema is not None:
        parts.append(f"create schema if not exists {_sql.quote(table.schema)};")
    parts += [_bind(step.sql, table).strip() for step in steps() if step.version > since]
    parts += [_mark(table, None) + ";", "commit;"]
    return "\n\n".join(parts) + "\n"


_FIND = """
select
  coalesce(nspname, %(schema)s, current_schema()), nspname is not null,
  to_regnamespace(quote_ident(coalesce(nspname, %(schema)s, current_schema()))) is not null,
  obj_description(pg_class.oid, 'pg_class')
from (select to_regclass(%(table)s) as oid) as given
left join pg_class on pg_class.oid = given.oid
left join pg_namespace on pg_namespace.oid = relnamespace
"""

_COLUMNS_OF = """
select attname::text from pg_attribute where attrelid = to_regclass(%(table)s) and attnum > 0 and not attisdropped
"""


def _version(table: _sql.Table, columns: list[tuple[Any, ...]], comment: str | None) -> int:
    missing = [name for name in _COLUMNS if (name,) not in columns]
    if missing:
        raise SchemaError(f"table {table.quoted} is no queue table: it has no column {', '.join(missing)}")
    mark = _MARK.search(comment or "")
    return int(mark.group(1)) if mark else 1


def _mark(table: _sql.Table, comment: str | None) -> str:
    text = f"{_MARK.sub('', comment or '')} (pq schema {VERSION})".strip().replace("'", "''")
    return f"comment on table {table.quoted} is '{text}'"


def _bind(sql: str, table: _sql.Table) -> str:
    """Objects carry the table's name, so that two tables in one schema don't meet, and functions lie in its schema."""
    words = {"table": table.quoted}
    for kind in _OBJECTS:
        name = _sql.quote(_sql.object_name(table.name, kind))
        in_schema = kind.endswith("function") and table.schema is not None
        words[kind] = f"{_sql.quote(table.schema or '')}.{name}" if in_schema else name
    return _sql.bind(sql, words)
