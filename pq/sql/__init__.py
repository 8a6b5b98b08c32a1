"""SQL from ``sql/*.sql``, bound to one table. Pure.

A file holds statements, each after a line ``-- name: NAME``. ``:word`` stands for an identifier or a fragment and is
replaced here; values are the driver's ``%(name)s`` parameters and never touched.
"""

from __future__ import annotations

import hashlib
import re
import reprlib
from collections.abc import Iterable, Mapping
from functools import cache, lru_cache
from importlib.resources import files

#: PostgreSQL cuts longer identifiers in silence (NAMEDATALEN - 1), so that two names could mean one object.
NAME_BYTES = 63

_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_DOTTED = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)\.([A-Za-z_][A-Za-z0-9_]*)")
_NAME_LINE = re.compile(r"^-- name: (\w+)\n", re.MULTILINE)
_COMMENT = re.compile(r"\s*-- .*$", re.MULTILINE)
_WORD = re.compile(r"(?<!:):([a-z_]+)\b")
_PART = re.compile(r"\bpq_(?=\w)")


class Table:
    """The name of the queue table.

    A plain identifier means its lower-case form, as it did unquoted in 1.9.1; ``app.queue`` without a schema is
    schema and table; any other name is taken verbatim.

    :raises TypeError: a name is not a str.
    :raises ValueError: a name is empty, has a NUL character or is longer than 63 bytes.
    """

    def __init__(self, name: str, schema: str | None = None) -> None:
        if schema is None and isinstance(name, str) and (dotted := _DOTTED.fullmatch(name)):
            schema, name = dotted.groups()
        self.name = _identifier("table", name)
        self.schema = None if schema is None else _identifier("schema", schema)

    @property
    def quoted(self) -> str:
        """The name as it stands in SQL, with its schema if one was given."""
        prefix = "" if self.schema is None else quote(self.schema) + "."
        return prefix + quote(self.name)

    def __repr__(self) -> str:
        return f"<Table {self.quoted}>"


def _identifier(kind: str, name: str) -> str:
    check_text(kind, name)
    if len(name.encode()) > NAME_BYTES:
        raise ValueError(f"{kind} {name!r} is too long: PostgreSQL allows {NAME_BYTES} bytes")
    return name.lower() if _PLAIN.fullmatch(name) else name


def check_text(kind: str, text: object) -> str:
    """The text, if PostgreSQL can hold it as a non-empty name.

    :raises TypeError: not a str.
    :raises ValueError: empty, or with a NUL character or a lone surrogate.
    """
    if not isinstance(text, str):
        raise TypeError(f"{kind} must be a str, not {type(text).__name__}: {reprlib.repr(text)}")
    if not text:
        raise ValueError(f"{kind} must not be empty")
    if "\0" in text:
        raise ValueError(f"{kind} must not have a NUL character: {text!r}")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{kind} must not have a lone surrogate: {text!r}") from None
    return text


def quote(identifier: str) -> str:
    """The identifier in double quotes."""
    return '"' + identifier.replace('"', '""') + '"'


def object_name(table: str, suffix: str) -> str:
    """The name of an object that belongs to `table`: ``table_suffix``, shortened by a hash where it is too long."""
    name = f"{table}_{suffix}"
    if len(name.encode()) <= NAME_BYTES:
        return name
    digest = hashlib.sha256(table.encode()).hexdigest()[:8]
    room = NAME_BYTES - len(f"_{digest}_{suffix}")
    return f"{table.encode()[:room].decode('utf-8', 'ignore')}_{digest}_{suffix}"


def array(values: Iterable[object]) -> str:
    """An array as PostgreSQL reads it from a text, which takes a fraction of the time of ``ARRAY[…]``."""
    return "{" + ",".join("NULL" if value is None else _element(str(value)) for value in values) + "}"


def _element(text: str) -> str:
    if "\\" in text:
        text = text.replace("\\", "\\\\")
    return '"' + text.replace('"', '\\"') + '"'


def bind(sql: str, words: Mapping[str, str]) -> str:
    """Replace each ``:word``; an unknown one is a `KeyError`."""
    return _WORD.sub(lambda match: words[match.group(1)], sql)


def read(path: str) -> str:
    """A file below ``pq/sql``."""
    return files("pq").joinpath("sql", *path.split("/")).read_text("utf-8")


@cache
def statements(path: str) -> Mapping[str, str]:
    """The named statements of a file below ``pq/sql``."""
    parts = _NAME_LINE.split(read(path))
    return {name: _COMMENT.sub("", text).strip() for name, text in zip(parts[1::2], parts[2::2], strict=True)}


@lru_cache(maxsize=256)
def bound(path: str, table: str, **instead: str) -> Mapping[str, str]:
    """The statements of a file for one table (its quoted name). One, or one of ``common.sql``, can stand in another as
    ``:name``.

    :param instead: names of statements whose place another is to take.

    A ``%`` in the name is doubled, since the driver reads these texts for ``%(name)s``. A part of a "with" hides a
    table of its name: these begin with ``pq_`` or, for a table whose name does so, with ``with_``.
    """
    texts = statements(path)
    fragments = {**statements("common.sql"), **texts}
    fragments |= {name: texts[other] for name, other in instead.items()}

    def expand(text: str) -> str:
        # the table comes last: a ":word" in its name is no fragment
        return _WORD.sub(lambda match: match[0] if match[1] == "table" else expand(fragments[match[1]]), text)

    prefix = "with_" if table.startswith('"pq_') else "pq_"
    words = {"table": table.replace("%", "%%")}
    return {name: bind(_PART.sub(prefix, expand(text)), words) for name, text in texts.items()}
