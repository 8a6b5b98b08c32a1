"""A server with the extension pgq, pgqueue 0.6 in a folder of its own, and pq.pgqueue."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg2
import psycopg2.extensions
import pytest
from support import execute
from support.downloads import download
from support.driver import driver
from support.pgqueue import Package
from support.server import Server

import pq as this_library

#: Where Debian's package postgresql-15-pgq3 has what it needs.
BINARIES = Path("/usr/lib/postgresql/15/bin")
CONTROL = Path("/usr/share/postgresql/15/extension/pgq.control")


@pytest.fixture(scope="session")
def pgq_server() -> Iterator[str]:
    """The DSN of a superuser on a server that has the extension."""
    if not (CONTROL.exists() and (BINARIES / "initdb").exists()):
        pytest.skip("the extension pgq is not here: apt-get install postgresql-15-pgq3")
    with Server(bin=BINARIES) as running:
        yield f"host=127.0.0.1 port={running.settings['port']} user=postgres dbname=postgres"


@pytest.fixture
def make_pgq(pgq_server: str) -> Iterator[Callable[[], str]]:
    """Make a database with the extension, and return its DSN."""
    names = []

    def make() -> str:
        names.append(f"pgq_{uuid.uuid4().hex[:8]}")
        execute(pgq_server, f"create database {names[-1]}")
        dsn = psycopg2.extensions.make_dsn(pgq_server, dbname=names[-1])
        execute(dsn, "create extension pgq")
        return dsn

    yield make
    for name in names:
        execute(pgq_server, f"drop database {name} with (force)")


@pytest.fixture
def pgq(make_pgq: Callable[[], str]) -> str:
    """The DSN of a database with the extension."""
    return make_pgq()


@pytest.fixture
def conn(pgq: str) -> Iterator[Any]:
    """A connection of the driver under test to a database with the extension."""
    made = driver.connect(pgq)
    yield made
    made.close()


@pytest.fixture(scope="session")
def real_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pgqueue in it."""
    return download(tmp_path_factory, "pgqueue==0.6")


@pytest.fixture
def real(real_folder: Path, tmp_path: Path, make_pgq: Callable[[], str]) -> Iterator[Package]:
    """pgqueue 0.6."""
    package = Package("pgqueue", real_folder, tmp_path, make_pgq())
    yield package
    package.kill()


@pytest.fixture
def ours(tmp_path: Path, make_pgq: Callable[[], str]) -> Iterator[Package]:
    """pq.pgqueue on a server with the extension."""
    package = Package("pq.pgqueue", Path(this_library.__file__).parents[1], tmp_path, make_pgq())
    yield package
    package.kill()


@pytest.fixture
def without(tmp_path: Path, empty_dsn: str) -> Iterator[Package]:
    """pq.pgqueue on a server without the extension."""
    package = Package("pq.pgqueue", Path(this_library.__file__).parents[1], tmp_path, empty_dsn, '"select 1"')
    yield package
    package.kill()
