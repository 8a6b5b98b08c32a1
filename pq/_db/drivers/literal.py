"""Values in the text of a statement, for all drivers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any


class Literal:
    """Unquoted text as a parameter, where parameters are bound by the client: on psycopg2 always, on psycopg 3 with its
    ``ClientCursor`` or ``sql.SQL("… {}").format(…)``."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __str__(self) -> str:
        return self._text

    def __bytes__(self) -> bytes:
        return self._text.encode()

    def __repr__(self) -> str:
        return f"<Literal {self._text}>"

    # what psycopg2 asks of a parameter

    def __conform__(self, protocol: object) -> Literal:
        return self

    def getquoted(self) -> bytes:
        return bytes(self)


def rendered(sql: str, params: Mapping[str, Any] | None) -> str:
    """Return a statement with its parameters in it. Without any it is left as it is, as drivers do."""
    if params is None:
        return sql
    return sql % {name: quoted(value) for name, value in params.items()}


def quoted(value: object) -> str:
    """Return a value as SQL.

    :raises TypeError: its type is none of those that pq passes.
    :raises ValueError: a str with a NUL character.
    """
    if isinstance(value, str):
        if "\0" in value:
            raise ValueError("a string must not have a NUL character")
        text = value.replace("'", "''")
        return f" E'{text.replace(chr(92), chr(92) * 2)}'" if "\\" in text else f"'{text}'"
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) or (isinstance(value, float) and math.isfinite(value)):
        return f" {value!r}"  # "- -1", not a comment
    if isinstance(value, float):
        return f"'{value}'::float8"
    if isinstance(value, Literal):
        return str(value)
    if isinstance(value, datetime):
        return f"'{value.isoformat()}'::{'timestamp' if value.tzinfo is None else 'timestamptz'}"
    if isinstance(value, timedelta):
        return f"'{value.days} days {value.seconds}.{value.microseconds:06} seconds'::interval"
    if isinstance(value, (list, tuple)):
        return f"array[{', '.join(map(quoted, value))}]" if value else "'{}'"
    raise TypeError(f"{type(value).__name__} is no type of a parameter")


#: For ``str.encode`` on a connection as in `Encoded`.
ENCODING = ("utf-8", "surrogateescape")


class Encoded:
    """What pq sends and receives on a connection whose ``client_encoding`` is SQL_ASCII.

    Both drivers refuse text there that is not ASCII, or give bytes in place of text. UTF-8 is what a database of that
    encoding most probably holds; other bytes become lone surrogates.
    """

    def __init__(self, file: Any = None) -> None:
        self._file = file

    @staticmethod
    def statement(sql: str, params: Mapping[str, Any] | None) -> bytes:
        return rendered(sql, params).encode(*ENCODING)

    @staticmethod
    def rows(rows: Iterable[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
        return [tuple(map(_decoded, row)) for row in rows]

    def read(self, size: int = -1) -> bytes:
        """For COPY."""
        text: str = self._file.read(size)
        return text.encode(*ENCODING)


def _decoded(value: object) -> object:
    """Text of the server, also in arrays."""
    if isinstance(value, list):
        return [_decoded(each) for each in value]
    return value.decode(*ENCODING) if isinstance(value, bytes) else value
