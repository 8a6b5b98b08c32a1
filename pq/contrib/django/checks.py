"""System checks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from django.core.checks import CheckMessage, Error, Warning
from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError, connections

from pq import PQError
from pq.schema import VERSION

from . import conf
from .queues import pqs


def check_settings(**kwargs: Any) -> list[CheckMessage]:
    """Check the setting ``PQ``; connects to nothing."""
    try:
        return list(_of_settings())
    except ImproperlyConfigured as error:
        return [Error(str(error), id="pq.E001")]


def _of_settings() -> Iterator[CheckMessage]:
    places: dict[tuple[str, str], str] = {}
    for alias, setting in conf.read().items():
        wrapper = connections[setting.database]
        if wrapper.vendor != "postgresql":
            hint = f"Name another database: PQ[{alias!r}][\"database\"]."
            text = f"pq needs PostgreSQL, and database {setting.database!r} is {wrapper.vendor}."
            yield Error(text, hint, id="pq.E002")
            continue
        other = places.setdefault((setting.database, setting.name.quoted), alias)
        if other != alias:
            yield Error(f"PQ[{alias!r}] and PQ[{other!r}] have the same table.", id="pq.E003")
        _ = pqs[alias]  # which checks its options


def check_tables(databases: Sequence[str] | None = None, **kwargs: Any) -> list[CheckMessage]:
    """Check that the tables are there, and not older than this library."""
    found: list[CheckMessage] = []
    for alias, setting in conf.read().items():
        if setting.database not in (databases or ()) or connections[setting.database].vendor != "postgresql":
            continue
        try:
            version = pqs[alias].version()
        except (DatabaseError, PQError) as error:
            found.append(Warning(f"Table {setting.name.quoted} can't be checked: {error}", id="pq.W001"))
            continue
        if version < VERSION:
            state = f"has version {version}, and pq needs {VERSION}" if version else "is missing"
            hint = f"Run manage.py migrate --database={setting.database}."
            found.append(Warning(f"Table {setting.name.quoted} {state}.", hint, id="pq.W002"))
    return found
