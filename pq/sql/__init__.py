"""SQL from ``*.sql`` in this folder, bound to one table. Pure.

A file holds statements, each after a line ``-- name: NAME``. ``:word`` stands for an identifier or a fragment and is
replaced here; values are the driver's ``%(name)s`` parameters and never touched.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache, lru_cache
from importlib.resources import files

from .names import NAME_BYTES, TableName, object_name, quote

__all__ = ["NAME_BYTES", "TableName", "array", "bind", "bound", "object_name", "quote", "read", "statements"]

_NAME_LINE = re.compile(r"^-- name: (\w+)\n", re.MULTILINE)
_COMMENT = re.compile(r"\s*-- .*$", re.MULTILINE)
_WORD = re.compile(r"(?<!:):([a-z_]+)\b")
_PART = re.compile(r"\bpq_(?=\w)")


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
