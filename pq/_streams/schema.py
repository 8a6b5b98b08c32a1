"""Creating, upgrading and dropping the tables of a stream.

The comment of the log holds what there is to know without reading a table: the version, the name, and how long events
are kept, as JSON behind ``pq stream``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, NamedTuple

from .._args import UNSET
from .._db import Database
from .._table import Table
from .._table.migrations import in_transaction, steps
from .._table.schema import STREAM_PREFIX, in_turn, lock, streams
from .._table.schema import version as version_of_table
from .._times import delay_of
from ..errors import SchemaError, TableMissing
from ..sql import STREAM_KINDS, TableName, bind, bodies, bound, literal, object_name, quote, statements, stream_object

#: How long events are kept once all have read them, unless somebody says otherwise.
RETAIN = timedelta(days=1)

_SQL = statements("stream_schema.sql")


class Settings(NamedTuple):
    """What the comment of a log says.

    :ivar version: of the tables.
    :ivar retain: how long an event is kept at least; it is removed within twice that time.
    :ivar retain_unread: how long one is kept that a subscription has not read; None: for ever.
    """

    name: str
    version: int
    retain: timedelta
    retain_unread: timedelta | None


def settings_of(comment: str | None) -> Settings | None:
    """Read a comment; None if it is not one of a stream."""
    try:
        return _settings(json.loads((comment or "").removeprefix(STREAM_PREFIX)))
    except (ValueError, TypeError, KeyError, OverflowError):
        return None


def _settings(found: Mapping[str, Any]) -> Settings:
    unread = found["retain_unread"]
    return Settings(
        str(found["name"]),
        int(found["version"]),
        timedelta(seconds=int(found["retain"])),
        None if unread is None else timedelta(seconds=int(unread)),
    )


def gate_of(stream: str) -> str:
    """Return the name that the waiting room has for a stream: it is waited for as if it were a queue."""
    return f"stream:{stream}"


#: The folder of the migrations of a stream, and the version that these lead to.
STEPS = "streams"
VERSION = 1


def find(table: Table, stream: str) -> Settings | None:
    """Return what is stored of a stream; None if there is no such stream.

    :raises SchemaError: there is a table of its name that is not a stream.
    """
    log = stream_object(table.quoted, "log", stream)
    sql = bound("stream.sql", table.quoted, stream)["find"]
    ((comment, is_there),) = table.execute(sql, {"log": log})
    settings = settings_of(comment)
    if is_there and settings is None:
        raise SchemaError(f"table {log} is not the log of a stream")
    return settings


def create(table: Table, stream: str, retain: Any = UNSET, retain_unread: Any = UNSET) -> None:
    """Create the tables of a stream, upgrade them, or change how long events are kept."""
    changed = _changes(retain, retain_unread)
    found = find(table, stream)
    if found is not None and found.version >= VERSION and found == found._replace(**changed):
        return
    if not version_of_table(table):
        ((database,),) = table.execute(bound("stream.sql", table.quoted, stream)["database"])
        raise TableMissing(table=table.quoted, database=database)
    in_turn(table, lambda inside: _create(table, stream, changed, inside))


def _create(table: Table, stream: str, changed: dict[str, Any], inside: bool) -> None:
    database = table.database
    with lock(database, inside):
        found = find(table, stream)
        settings = (found or Settings(stream, 0, RETAIN, None))._replace(**changed, version=VERSION)
        target = _target(database, table)
        for step in steps(STEPS):
            if found is None or step.version > found.version:
                database.execute(for_stream(step.sql, target, settings))
        if found is not None and found.retain != settings.retain:
            database.execute(for_stream(_SQL["set_slot"], target, settings))
        database.execute(for_stream(_SQL["set_comment"], target, settings))


def _target(database: Database, table: Table) -> TableName:
    """Return the table with its schema: what belongs to the stream stands in that one."""
    rows = database.execute(statements("schema.sql")["find"], {"table": table.quoted})
    return TableName(table.name.name, rows[0][0])


def _changes(retain: Any, retain_unread: Any) -> dict[str, Any]:
    changed: dict[str, Any] = {}
    if retain is not UNSET:
        changed["retain"] = whole_seconds("retain", retain)
    if retain_unread is not UNSET:
        changed["retain_unread"] = None if retain_unread is None else whole_seconds("retain_unread", retain_unread)
    return changed


def whole_seconds(name: str, spec: Any) -> timedelta:
    """Read a duration of whole seconds, at least one.

    :raises TypeError: it is neither a str nor a timedelta.
    :raises ValueError: it has another form, is out of range, or has fractions of a second.
    """
    span = delay_of(name, spec)
    if span < timedelta(seconds=1) or span.microseconds:
        raise ValueError(f"{name} must be whole seconds, at least one, not {spec!r}")
    return span


def script(table: TableName, stream: str, retain: Any = UNSET, retain_unread: Any = UNSET) -> str:
    """Return the SQL that `create` executes for a new stream, as one transaction."""
    changed = _changes(retain, retain_unread)
    settings = Settings(stream, VERSION, RETAIN, None)._replace(**changed)
    parts = [*(step.sql for step in steps(STEPS)), _SQL["set_comment"] + ";"]
    return in_transaction(for_stream(part, table, settings) for part in parts)


def for_stream(sql: str, table: TableName, settings: Settings) -> str:
    """Return SQL with the names of a stream's objects in it.

    :param table: with its schema, unless the search path is to decide.
    """
    stream = settings.name
    words = {kind: stream_object(table.quoted, kind, stream) for kind in STREAM_KINDS}
    unread = settings.retain_unread
    stored = {
        "version": settings.version, "table": table.name, "name": stream,
        "retain": int(settings.retain.total_seconds()),
        "retain_unread": None if unread is None else int(unread.total_seconds()),
    }  # fmt: skip
    words |= {
        "event_id_text": literal(words["event_id"]),
        "stream_text": literal(stream),
        "table_name_text": literal(table.name),
        "gate_text": literal(gate_of(stream)),
        "comment_text": literal(STREAM_PREFIX + json.dumps(stored)),
        "publish_trigger": quote(object_name(table.name, "publish_trigger")),
        "period": str(stored["retain"]),
    }
    words["slot_now"] = bind(_SQL["slot_now"], words)
    return bind(bodies(sql, table.quoted, stream), words)


def drop(table: Table, stream: str, check: Callable[[], None] | None) -> None:
    """Drop the tables of a stream.

    :param check: called when nobody can publish or read any more; raises if they are not to be dropped.
    """
    in_turn(table, lambda inside: _drop(table, stream, check, inside))


def _drop(table: Table, stream: str, check: Callable[[], None] | None, inside: bool) -> None:
    database = table.database
    with lock(database, inside):
        if find(table, stream) is None:
            return
        words = {kind: stream_object(table.quoted, kind, stream) for kind in STREAM_KINDS}
        database.execute(bind(_SQL["lock"], words))
        if check is not None:
            check()
        database.execute(bind(_SQL["drop"], words))


def names_of(table: Table) -> list[str]:
    """Return the names of the streams beside a table, sorted."""
    return [stored["name"] for stored in streams(table.database, table.name)]
