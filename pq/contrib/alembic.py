"""For Alembic: autogenerate leaves the tables of pq alone, and a revision makes or upgrades them.

``pq.schema.migration`` returns the SQL for a revision. See :ref:`alembic`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ..sql import BESIDE, NAME_BYTES, STREAM_KINDS, TableName, object_name, quote, stream_object

__all__ = ["include_name"]

#: How Alembic asks: the name, what it is of, and the names that it is within.
IncludeName = Callable[[Any, str, Mapping[str, Any]], bool]


def include_name(*tables: str, schema: str | None = None) -> IncludeName:
    """Return a function for ``context.configure(include_name=…)`` in ``env.py``.

    Without it autogenerate proposes to drop the tables of pq, which are in no metadata of yours.

    :param tables: the tables of jobs; default: ``queue``. With each go the tables beside it, and those of streams.
    :param schema: their schema; default: whichever one the server's search path finds, which Alembic calls None.
    :raises TypeError: a name is not a str.
    :raises ValueError: PostgreSQL can't hold a name.
    """
    names = [TableName(table, schema) for table in tables or ("queue",)]
    own = {(name.schema, each) for name in names for each in _tables_of(name.name)}
    prefixes = [(name.schema, prefix) for name in names for prefix in _prefixes_of(name.name)]

    def include(name: Any, type_: str, parent_names: Mapping[str, Any]) -> bool:
        if type_ != "table" or not isinstance(name, str):
            return True
        within = parent_names.get("schema_name")
        return (within, name) not in own and not any(
            within == its_schema and name.startswith(prefix) for its_schema, prefix in prefixes
        )

    return include


def _tables_of(table: str) -> list[str]:
    return [table, *(object_name(table, word.removesuffix("_table")) for word in BESIDE)]


def _prefixes_of(table: str) -> Iterator[str]:
    """Yield how the names of the tables of streams begin; in one that would be too long, the table is cut."""
    for kind, word in STREAM_KINDS.items():
        for stream in ("x", "x" * NAME_BYTES):
            name = stream_object(quote(table), kind, stream)[1:].replace('""', '"')
            yield name[: name.rindex(f"_{word}_") + len(word) + 2]
