"""The table as SQL, for tools that run migrations, such as those of Django and Alembic."""

from __future__ import annotations

from ._args import integer
from ._table import migrations
from .sql import TableName

#: The version of the table that this library works with.
VERSION = migrations.VERSION

__all__ = ["VERSION", "migration"]


def migration(since: int = 0, until: int = VERSION, *, table: str = "queue", schema: str | None = None) -> str:
    """Return the SQL that brings the table from one version to a later one, for a transaction of yours.

    It has no parameters, and a ``%`` stands for itself. It waits for a lock no longer than 3 seconds, because puts and
    gets wait behind it meanwhile: repeat the migration if that fails.

    :param since: the version that the table has; 0: there is no table.
    :param until: the version that it is to have; default: the newest.
    :param table: the name of the table, as for `PQ`.
    :param schema: the schema of the table, as for `PQ`; made if it is missing.
    :raises TypeError: a version is not an int, or a name not a str.
    :raises ValueError: a version is out of range, or `until` is not later than `since`; PostgreSQL can't hold a name.
    """
    integer("since", since, 0)
    if integer("until", until, 1) > VERSION or until <= since:
        raise ValueError(f"until must be from {since + 1} to {VERSION}, not {until}")
    return migrations.statements_of(TableName(table, schema), since, until)
