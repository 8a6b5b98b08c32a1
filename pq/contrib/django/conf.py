"""The setting ``PQ``: which tables there are, and in which databases."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from pq.sql import TableName


class Setting(NamedTuple):
    """One entry of the setting.

    :ivar alias: its name.
    :ivar database: the alias of the database.
    :ivar name: the name of the table.
    :ivar options: further arguments of `pq.PQ`.
    """

    alias: str
    database: str
    name: TableName
    options: dict[str, Any]


def read() -> dict[str, Setting]:
    """Return the entries by their names. Without the setting there is one: ``{"default": {}}``.

    :raises ImproperlyConfigured: the setting has another form, or PostgreSQL can't hold a name.
    """
    given = getattr(settings, "PQ", {"default": {}})
    if not isinstance(given, Mapping) or not all(isinstance(entry, Mapping) for entry in given.values()):
        raise ImproperlyConfigured(f'PQ must be a dict of dicts, such as {{"default": {{"table": "jobs"}}}}: {given!r}')
    if "default" not in given:
        raise ImproperlyConfigured(f'PQ must have an entry "default", and has {", ".join(map(repr, given)) or "none"}')
    return {alias: _entry(alias, dict(entry)) for alias, entry in given.items()}


def _entry(alias: str, options: dict[str, Any]) -> Setting:
    database = options.pop("database", "default")
    if database not in settings.DATABASES:
        known = ", ".join(map(repr, settings.DATABASES))
        raise ImproperlyConfigured(f'PQ[{alias!r}]["database"] must be one of {known}, not {database!r}')
    if refused := options.keys() & {"conn", "pool"}:
        raise ImproperlyConfigured(f"PQ[{alias!r}] has {refused.pop()!r}: connections are Django's, name its database")
    try:
        name = TableName(options.pop("table", "queue"), options.pop("schema", None))
    except (TypeError, ValueError) as error:
        raise ImproperlyConfigured(f"PQ[{alias!r}]: {error}") from None
    return Setting(alias, database, name, options)


def of_database(database: str) -> list[Setting]:
    """Return the entries whose tables are in this database."""
    return [setting for setting in read().values() if setting.database == database]
