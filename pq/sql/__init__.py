"""The SQL statements of the ``*.sql`` files in this folder, bound to one table. Pure.

A file holds statements, each after a line ``-- name: NAME``. ``:word`` stands for an identifier or a fragment, and is
replaced here. Values are parameters of the driver, ``%(name)s``, and are never touched.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache, lru_cache
from pkgutil import get_data

from .names import BESIDE, CALLED, NAME_BYTES, STREAM_KINDS, TableName, beside, object_name, quote, stream_object

__all__ = [
    "BESIDE", "CALLED", "NAME_BYTES", "STREAM_KINDS", "TableName", "array", "beside", "bind", "bodies", "bound",
    "literal", "numbers", "object_name", "quote", "read", "statements", "stream_object",
]  # fmt: skip

_NAME_LINE = re.compile(r"^-- name: (\w+)\n", re.MULTILINE)
_COMMENT = re.compile(r"\s*-- .*$", re.MULTILINE)
_WORD = re.compile(r"(?<!:):([a-z_]+)\b")
_PART = re.compile(r"\bpq_(?=\w)")


def array(values: Iterable[object]) -> str:
    """Return the text of a PostgreSQL array, which the server reads much faster than ``ARRAY[…]``.

    None becomes an empty text, for which statements write ``nullif(…, '')``: with ``array_nulls = off`` the server
    would read a null as the text ``NULL``.
    """
    texts = ["" if value is None else str(value).replace("\\", "\\\\").replace('"', '\\"') for value in values]
    return '{"' + '","'.join(texts) + '"}' if texts else "{}"


def numbers(values: Iterable[int]) -> str:
    """Return the text of an array of integers, as `array` does, in a third of the time."""
    return "{" + ",".join(map(str, values)) + "}"


def literal(text: str) -> str:
    """Return a text as an SQL literal that means the same whatever the server's setting for backslashes."""
    return "E'" + text.replace("\\", "\\\\").replace("'", "''") + "'"


def bodies(sql: str, *names: str) -> str:
    """Return SQL in which the bodies of functions, which stand between ``$pq$``, can have these names in them."""
    tag = "pq"
    while any(f"${tag}$" in name for name in names):
        tag += "q"
    return sql.replace("$pq$", f"${tag}$")


def bind(sql: str, words: Mapping[str, str]) -> str:
    """Replace each ``:word``.

    :raises KeyError: a word is unknown.
    """
    return _WORD.sub(lambda match: words[match.group(1)], sql)


def read(path: str) -> str:
    """Return the text of a file below ``pq/sql``."""
    data = get_data(__name__, path)  # importlib.resources would import some twenty modules
    assert data is not None
    return data.decode().replace("\r\n", "\n")


@cache
def statements(path: str) -> Mapping[str, str]:
    """Return the named statements of a file below ``pq/sql``."""
    parts = _NAME_LINE.split(read(path))
    return {name: _COMMENT.sub("", text).strip() for name, text in zip(parts[1::2], parts[2::2], strict=True)}


@lru_cache(maxsize=256)
def bound(path: str, table: str, stream: str | None = None, **instead: str) -> Mapping[str, str]:
    """Return the statements of a file for one table, or for one stream beside it.

    A statement can contain another one of its file, or one of ``common.sql``, as ``:name``. ``:limits_table`` and the
    like are tables beside that of the jobs. A ``%`` in a table's name is doubled, because the driver searches these
    texts for ``%(name)s``. A part of a "with" hides a table of the same name: so the names of these parts begin with
    ``pq_`` or, if the table's name does so, with ``with_``.

    :param table: the quoted name of the table.
    :param stream: the name of the stream; its files can contain statements of ``stream.sql`` and ``stream_take.sql``,
        too.
    :param instead: statements to replace: the name of each, and that of the statement to use in its place.
    """
    texts = statements(path)
    shared = {} if stream is None else {**statements("stream_take.sql"), **statements("stream.sql")}
    fragments = {**statements("common.sql"), **shared, **texts}
    fragments |= {name: fragments[other] for name, other in instead.items()}

    def expand(text: str) -> str:
        # the tables are replaced last, because a ":word" in a name is not a fragment
        return _WORD.sub(lambda match: match[0] if match[1] in words else expand(fragments[match[1]]), text)

    prefix = "with_" if table.startswith('"pq_') else "pq_"
    words = {"table": table, **{word: beside(table, word) for word in BESIDE + CALLED}}
    if stream is not None:
        words |= {kind: stream_object(table, kind, stream) for kind in STREAM_KINDS}
    words = {word: name.replace("%", "%%") for word, name in words.items()}
    return {name: bind(_PART.sub(prefix, expand(text)), words) for name, text in texts.items()}
