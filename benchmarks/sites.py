"""A peer in a database of its own, with the processes that work there."""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg2

from .child import Child
from .peers import PEERS
from .server import Server


class Site:
    """
    :param folder: where the peer is installed.
    :param number: makes the name of the database.
    :param counted: the server logs the statements.
    """

    def __init__(self, server: Server, name: str, folder: Path, number: int, counted: bool = False) -> None:
        self._server = server
        self._type = PEERS[name]
        self._folder = folder
        self._children: list[Child] = []
        self._child: Child | None = None
        self.database = f"{re.sub('[^a-z0-9]+', '_', name)}_{number}"
        self.dsn = server.dsn(self.database)
        self.peer = self._type(self.dsn)
        server.execute(f"create database {self.database}")
        try:
            with closing(self.start()) as first:
                first.ask("create")
            if counted:
                server.execute(f"alter database {self.database} set log_statement = 'all'")
        except BaseException:
            self.close()
            raise

    @property
    def child(self) -> Child:
        """The one that is kept from round to round."""
        if self._child is None:
            self._child = self.start()
        return self._child

    def start(self) -> Child:
        """One more."""
        child = Child(self._type, self._folder, self.dsn)
        self._children.append(child)
        return child

    def close(self) -> None:
        for child in self._children:
            child.close()
        self._server.execute(f"drop database if exists {self.database} with (force)")

    # -- what is in the tables

    def execute(self, sql: str, params: Any = None) -> list[tuple[Any, ...]]:
        return self._server.execute(sql, params, self.database)

    def clear(self) -> None:
        self.execute(f"truncate {self.peer.tables}")

    def prepare(self, rows: Iterable[tuple[str, int]]) -> None:
        """Put rows of these kinds, so many, and have the server in order: no other work of its own is due."""
        with closing(psycopg2.connect(self.dsn)) as conn:
            conn.autocommit = True
            with conn.cursor() as cursor:
                if hasattr(self.peer, "ready"):  # a table of pq's: its triggers would only cost time
                    cursor.execute("set session_replication_role = replica")
                for kind, count in rows:
                    cursor.execute(getattr(self.peer, kind), {"n": count})
                for table in self.peer.tables.split(", "):
                    cursor.execute(f"vacuum (analyze) {table}")
                cursor.execute("checkpoint")

    def remaining(self) -> int:
        ((count,),) = self.execute(self.peer.remaining)
        return int(count)

    def megabytes(self) -> float:
        ((size,),) = self.execute("select pg_total_relation_size('queue')")
        return float(size) / 1e6

    # -- what the server has logged

    def mark(self) -> int:
        return self._server.log_size()

    def statements(self, since: int) -> list[str]:
        return self._server.logged(self.database, since)

    def backends(self) -> list[int]:
        """The ids of the server's processes for the connections."""
        rows = self._server.execute(
            "select pid from pg_stat_activity where datname = %s and backend_type = 'client backend'", [self.database]
        )
        return [pid for (pid,) in rows]

    def connections(self) -> int:
        return len(self.backends())
