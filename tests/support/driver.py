"""The driver under test: ``driver`` has the names of its package, and what differs between the two under one name.

psycopg2; with ``PQ_TEST_DRIVER=psycopg`` psycopg 3, which pq then takes for connections of its own, too.
"""

from __future__ import annotations

import os
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import pytest

from pq._db.drivers import detect as drivers


class Psycopg2:
    package = "psycopg2"

    def __getattr__(self, name: str) -> Any:
        import_module(self.package + ".errors")
        return getattr(import_module(self.package), name)

    @property
    def PoolError(self) -> Any:
        return import_module("psycopg2.pool").PoolError

    def connect(self, dsn: str, autocommit: bool = False, **options: Any) -> Any:
        conn = import_module("psycopg2").connect(dsn, **options)
        conn.autocommit = autocommit
        return conn

    def pool(self, least: int, most: int, dsn: str, session: dict[str, Any] | None = None, **options: Any) -> Any:
        """:param session: of its connections, as for `set_session`."""
        if session is not None:
            options["connection_factory"] = _with(session)
        return import_module("psycopg2.pool").ThreadedConnectionPool(least, most, dsn, **options)

    def status(self, conn: Any) -> int:
        return int(conn.get_transaction_status())

    def parameters(self, conn: Any) -> dict[str, str]:
        return dict(conn.get_dsn_parameters())

    def limit(self, pool: Any, most: int) -> None:
        pool.maxconn = most

    def lent(self, pool: Any) -> int:
        """How many connections of a pool are out."""
        return len(pool._used)

    @property
    def dict_rows(self) -> dict[str, Any]:
        """Arguments of `cursor()`, for rows that are read by column."""
        return {"cursor_factory": import_module("psycopg2.extras").DictCursor}

    def pid(self, conn: Any) -> int:
        return int(conn.get_backend_pid())

    def poll(self, conn: Any) -> None:
        """Read what has arrived."""
        conn.poll()

    def kept(self, conn: Any) -> list[str]:
        """The channels of the notifications that a connection has for its owner."""
        return [notify.channel for notify in conn.notifies]

    def forget(self, conn: Any) -> None:
        conn.notifies.clear()

    def set_session(self, conn: Any, **settings: Any) -> None:
        """
        :param settings: `isolation_level` (a str), `readonly`, `deferrable`, `autocommit`.
        """
        conn.set_session(**settings)

    def session(self, conn: Any) -> tuple[Any, ...]:
        return conn.isolation_level, conn.readonly, conn.deferrable, conn.autocommit


def _with(session: dict[str, Any]) -> Any:
    class Connection(import_module("psycopg2.extensions").connection):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.set_session(**session)

    return Connection


class Psycopg3(Psycopg2):
    """Its connections have cursors that bind parameters as psycopg2's do, since the tests' own SQL is written for them.
    (pq does not depend on it: see `test_psycopg3`.)"""

    package = "psycopg"

    @property
    def _options(self) -> dict[str, Any]:
        return {"cursor_factory": import_module("psycopg").ClientCursor}

    @property
    def PoolError(self) -> Any:
        return import_module("psycopg").OperationalError

    def connect(self, dsn: str, autocommit: bool = False, **options: Any) -> Any:
        return import_module("psycopg").connect(dsn, autocommit=autocommit, **{**self._options, **options})

    def pool(self, least: int, most: int, dsn: str, session: dict[str, Any] | None = None, **options: Any) -> Any:
        class Pool(import_module("psycopg_pool").ConnectionPool):  # type: ignore[misc]
            def closeall(self) -> None:
                self.close()

        def configure(conn: Any) -> None:
            self.set_session(conn, **(session or {}))

        options = {**self._options, **options}
        made = Pool(dsn, min_size=least, max_size=most, open=True, configure=configure, kwargs=options)
        made.wait()  # lest it open a second one for who comes too early
        return made

    def status(self, conn: Any) -> int:
        return int(conn.info.transaction_status)

    def parameters(self, conn: Any) -> dict[str, str]:
        return dict(conn.info.get_parameters())

    def limit(self, pool: Any, most: int) -> None:
        pool.resize(1, most)

    def lent(self, pool: Any) -> int:
        stats = pool.get_stats()
        return int(stats["pool_size"] - stats["pool_available"])

    @property
    def dict_rows(self) -> dict[str, Any]:
        return {"row_factory": import_module("psycopg.rows").dict_row}

    def pid(self, conn: Any) -> int:
        return int(conn.info.backend_pid)

    def poll(self, conn: Any) -> None:
        with suppress(self.OperationalError):
            conn.pgconn.consume_input()
        while (notify := conn.pgconn.notifies()) is not None:
            conn.pgconn.notify_handler(notify)

    def kept(self, conn: Any) -> list[str]:
        return [notify.channel for notify in conn._notifies_backlog]

    def forget(self, conn: Any) -> None:
        conn._notifies_backlog.clear()

    def set_session(self, conn: Any, **settings: Any) -> None:
        for name, value in settings.items():
            if name == "isolation_level":
                value = self.IsolationLevel[value.upper().replace(" ", "_")]
            setattr(conn, "read_only" if name == "readonly" else name, value)

    def session(self, conn: Any) -> tuple[Any, ...]:
        return conn.isolation_level, conn.read_only, conn.deferrable, conn.autocommit


BOTH: dict[str, Psycopg2] = {"psycopg2": Psycopg2(), "psycopg": Psycopg3()}
NAME = os.environ.get("PQ_TEST_DRIVER", "psycopg2")

driver = BOTH[NAME]


def either(name: str) -> tuple[type[Exception], ...]:
    """An error, such as ``UniqueViolation``, of either driver: where kinds of both are tested."""
    return tuple(getattr(kit.errors, name) for kit in BOTH.values() if find_spec(kit.package))


drivers.PREFERRED = (NAME,)

only_psycopg2 = pytest.mark.skipif(NAME != "psycopg2", reason="of psycopg2 alone")
