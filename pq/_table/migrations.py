"""The steps that make the table, as SQL: for `create` to execute, or for a person. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from ..sql import BESIDE, CALLED, TableName, array, beside, bind, bodies, literal, object_name, quote, read, statements

#: How long a step waits for a lock. While it waits for that of the table, puts and gets wait, too.
LOCK_TIMEOUT = "3s"

_LIMIT = f"set local lock_timeout = '{LOCK_TIMEOUT}';"

_OBJECTS = (
    "due_function",
    "due_insert_trigger",
    "due_update_trigger",
    "dead_index",
    "due_index",
    "ready_index",
    "running_index",
    "taken_function",
    "taken_trigger",
    "notify_function",
    "notify_trigger",
    "change_function",
    "change_trigger",
    "arrive_function",
    "arrive_trigger",
    "line_function",
    "line_trigger",
    "leave_function",
    "left_trigger",
    "gone_trigger",
    "check_function",
    "wake_function",
    "behind_function",
    "guard_function",
    "next_function",
    "end_function",
    "follow_function",
    "key_index",
    "unique_index",
    "checks_index",
    "schedules_index",
)


class Step(NamedTuple):
    """A migration, which brings the table to `version`."""

    version: int
    name: str
    sql: str


def steps(folder: str = "migrations") -> list[Step]:
    """Return all migrations, in order.

    :param folder: below ``pq/sql``.
    """
    from importlib.resources import files  # which imports some twenty modules

    names = sorted(entry.name for entry in files("pq").joinpath("sql", folder).iterdir() if entry.name.endswith(".sql"))
    return [Step(int(name[:4]), name[5:-4], read(f"{folder}/{name}")) for name in names]


#: The version that this library works with, the first one that has tables beside that of the jobs, and the oldest one
#: to which there is a way back.
VERSION = 6
WITH_BESIDE = 6
OLDEST = WITH_BESIDE - 1


_ANNOUNCE = statements("schema.sql")["announce"] + ";"


def script(table: TableName, since: int = 0) -> str:
    """Return the SQL that `create` executes, as one transaction, for someone else to run.

    :param since: leave out the steps up to this version.
    """
    return in_transaction(_parts(table, since, VERSION))


def _parts(table: TableName, since: int, until: int) -> list[str]:
    parts = [] if table.schema is None else [f"create schema if not exists {quote(table.schema)};"]
    parts += [_ANNOUNCE, *(step.sql for step in steps() if since < step.version <= until)]
    return [for_table(part, table).strip() for part in parts]


def statements_of(table: TableName, since: int, until: int) -> str:
    """Return the SQL of some steps, for a transaction that somebody else begins and ends.

    :param since: leave out the steps up to this version.
    :param until: leave out the steps after this version.
    """
    return "\n\n".join([_LIMIT, *_parts(table, since, until)]) + "\n"


def way_back(table: TableName, version: int) -> str:
    """Return the SQL that makes the table one of an older version, likewise. What a later step has replaced is put back
    by the steps up to that version, which are run again.

    :param version: at least `OLDEST`.
    """
    back = [read(f"migrations/down/{later:04}.sql") for later in range(VERSION, version, -1)]
    parts = [_ANNOUNCE, *back, *(step.sql for step in steps()[1:version])]
    return in_transaction(for_table(part, table) for part in parts)


def in_transaction(parts: Iterable[str]) -> str:
    """Return statements as a script: one transaction, which waits for a lock no longer than `LOCK_TIMEOUT`."""
    lines = ["begin;", _LIMIT]
    return "\n\n".join([*lines, *(part.strip() for part in parts), "commit;"]) + "\n"


def without_transaction(script: str) -> str:
    """Return what `in_transaction` returned without its ``begin`` and ``commit``."""
    return script.removeprefix("begin;\n\n").removesuffix("\n\ncommit;\n") + "\n"


def for_table(sql: str, table: TableName) -> str:
    """Return a step with the names of this table and its objects in it.

    The names of objects contain the table's name, so two tables in one schema share none. Functions are in the table's
    schema.
    """
    words = {"table": table.quoted, "table_text": literal(table.quoted)}
    words["beside_text"] = literal(array(beside(table.quoted, word) for word in BESIDE))
    words["functions_text"] = literal(array(object_name(table.name, kind) for kind in (*_OBJECTS, *CALLED)))
    words["called_text"] = literal(array(object_name(table.name, kind) for kind in CALLED))
    words |= {word: beside(table.quoted, word) for word in BESIDE + CALLED}
    words["stand"] = statements("common.sql")["stand"]
    words |= {name: bind(text, words) for name, text in statements("line.sql").items()}
    for kind in _OBJECTS:
        name = quote(object_name(table.name, kind))
        there = name if table.schema is None else f"{quote(table.schema)}.{name}"
        words[kind] = there if kind.endswith("function") else name
        words[f"{kind}_there"] = there  # an index is created by its name alone, and dropped by this
    words["functions"] = ", ".join(words[kind] for kind in (*_OBJECTS, *CALLED) if kind.endswith("function"))
    return bind(bodies(sql, table.quoted), words)
