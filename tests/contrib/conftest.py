"""psycopg2_mq itself, in a folder of its own, and its API on pq."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.downloads import download
from support.mq import Package

import pq as this_library

pytest.importorskip("sqlalchemy", minversion="1.4")
pytest.importorskip("dateutil")

#: What psycopg2_mq needs beside what the tests need.
PACKAGES = ["psycopg2_mq==0.13.6", "zope.sqlalchemy", "zope.interface", "transaction", "packaging"]


@pytest.fixture(scope="session")
def real_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with psycopg2_mq in it."""
    return download(tmp_path_factory, *PACKAGES)


@pytest.fixture
def real(real_folder: Path, tmp_path: Path, make_database: Callable[..., str]) -> Iterator[Package]:
    """psycopg2_mq, on a database of its own."""
    package = Package("psycopg2_mq", real_folder, tmp_path, make_database(table=False))
    yield package
    package.kill()


@pytest.fixture
def ours(tmp_path: Path, empty_dsn: str) -> Iterator[Package]:
    """pq.contrib.mq."""
    package = Package("pq.contrib.mq", Path(this_library.__file__).parents[1], tmp_path, empty_dsn)
    yield package
    package.kill()
