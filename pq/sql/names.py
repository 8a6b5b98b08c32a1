"""The names of the table and of the objects that belong to it. Pure."""

from __future__ import annotations

import hashlib
import re

from .._args import check_text

#: The largest length of an identifier (NAMEDATALEN - 1). PostgreSQL silently cuts longer ones, so that two names could
#: mean one object.
NAME_BYTES = 63

_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_QUOTED = re.compile(r'(?:("(?:[^"]|"")+")\.)?"((?:[^"]|"")+)"')
_DOTTED = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)\.([A-Za-z_][A-Za-z0-9_]*)")


class TableName:
    """The name of the queue table.

    A plain identifier means its lower-case form, because 1.9.1 did not quote it. ``app.queue`` without a schema means
    schema and table. Any other name is used as it is.

    :ivar quoted: the quoted name for SQL, with its schema if one was given.
    :raises TypeError: a name is not a str.
    :raises ValueError: a name is empty, has a NUL character, or is longer than 63 bytes.
    """

    def __init__(self, name: str, schema: str | None = None) -> None:
        if schema is None and isinstance(name, str) and (dotted := _DOTTED.fullmatch(name)):
            schema, name = dotted.groups()
        self.name: str = _identifier("table", name)
        self.schema: str | None = None if schema is None else _identifier("schema", schema)
        prefix = "" if self.schema is None else quote(self.schema) + "."
        self.quoted: str = prefix + quote(self.name)

    def __repr__(self) -> str:
        return f"<TableName {self.quoted}>"


def _identifier(kind: str, name: str) -> str:
    check_text(kind, name)
    if len(name.encode()) > NAME_BYTES:
        raise ValueError(f"{kind} {name!r} is too long: PostgreSQL allows {NAME_BYTES} bytes")
    return name.lower() if _PLAIN.fullmatch(name) else name


def quote(identifier: str) -> str:
    """Return the identifier in double quotes."""
    return '"' + identifier.replace('"', '""') + '"'


def object_name(table: str, suffix: str) -> str:
    """Return the name of an object that belongs to `table`: ``table_suffix``, shortened by a hash if it is too long."""
    name = f"{table}_{suffix}"
    if len(name.encode()) <= NAME_BYTES:
        return name
    digest = hashlib.sha256(table.encode()).hexdigest()[:8]
    room = NAME_BYTES - len(f"_{digest}_{suffix}")
    return f"{table.encode()[:room].decode('utf-8', 'ignore')}_{digest}_{suffix}"


#: The tables beside the one of the jobs, as SQL names them.
BESIDE = ("checks_table", "limits_table", "slots_table", "states_table", "schedules_table")

#: The functions that statements call.
CALLED = ("free_function", "heal_function", "heal_all_function")


#: What belongs to a stream, as SQL names it. No kind is the beginning of another one, up to an underscore, so the names
#: of two streams never meet, whatever the streams are called.
STREAM_KINDS = {
    "log": "stream",
    "slot_a": "slot0",
    "slot_b": "slot1",
    "slot_c": "slot2",
    "event_id": "event",
    "subscriptions": "subscriptions",
    "positions": "positions",
    "batches": "batches",
    "origin": "origin",
    "publish_function": "published",
}


def stream_object(quoted: str, kind: str, stream: str) -> str:
    """Return the quoted name of an object that belongs to a stream, in the schema of the table of the jobs.

    :param quoted: the quoted name of the table of the jobs.
    :param kind: one of `STREAM_KINDS`.
    :param stream: the name of the stream; a long one is cut, and a hash added.
    """
    schema, table = _parts(quoted)
    name = f"{table}_{STREAM_KINDS[kind]}_{stream}"
    if len(name.encode()) > NAME_BYTES:
        digest = hashlib.sha256(f"{table}\0{stream}".encode()).hexdigest()[:12]
        short = f"{table.encode()[:20].decode('utf-8', 'ignore')}_{STREAM_KINDS[kind]}_"
        room = NAME_BYTES - len(short.encode()) - len(digest) - 1
        name = f"{short}{stream.encode()[:room].decode('utf-8', 'ignore')}_{digest}"
    return quote(name) if schema is None else f"{schema}.{quote(name)}"


def _parts(quoted: str) -> tuple[str | None, str]:
    """Split the quoted name of a table: its schema, still quoted, and its name, not quoted."""
    match = _QUOTED.fullmatch(quoted)
    assert match is not None, quoted
    schema, table = match.groups()
    return schema, table.replace('""', '"')


def beside(quoted: str, word: str) -> str:
    """Return the quoted name of a table or function beside the table of the jobs, in the same schema.

    :param quoted: the quoted name of the table of the jobs.
    :param word: one of `BESIDE` or `CALLED`.
    """
    schema, table = _parts(quoted)
    name = quote(object_name(table, word.removesuffix("_table")))
    return name if schema is None else f"{schema}.{name}"
