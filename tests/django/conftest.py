"""Databases with the tables of the project in ``site``."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import psycopg2.extensions
import pytest
from django_site import REPORTS, Site
from support import execute


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Without Django there is nothing to test."""
    if find_spec("django") is None:
        for item in items:
            if item.path.is_relative_to(Path(__file__).parent):
                item.add_marker(pytest.mark.skip(reason="Django is not installed"))


@pytest.fixture(scope="module")
def migrated(server: str) -> Iterator[str]:
    """The name of a database that is migrated, to be copied."""
    name = f"pq_site_{os.getpid()}"
    execute(server, f"create database {name} template template0")
    Site(psycopg2.extensions.make_dsn(server, dbname=name), pq=REPORTS).manage("migrate", "-v", "0")
    yield name
    execute(server, f"drop database {name} with (force)")


@pytest.fixture
def site(server: str, migrated: str, request: pytest.FixtureRequest) -> Iterator[Site]:
    """The project on a fresh database with all its tables."""
    name = f"pq_site_{os.getpid()}_{abs(hash(request.node.nodeid)) % 10**8}"
    execute(server, f"create database {name} template {migrated}")
    yield Site(psycopg2.extensions.make_dsn(server, dbname=name), pq=REPORTS)
    execute(server, f"drop database {name} with (force)")


@pytest.fixture
def empty_site(empty_dsn: str) -> Callable[..., Site]:
    """Makes the project on an empty database."""
    return lambda **settings: Site(empty_dsn, **settings)
