"""The PostgreSQL that is measured: pq.embedded's, in a folder that is thrown away."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg2

from pq.embedded import Embedded

#: Everything else is PostgreSQL's default: fsync and synchronous_commit are on, and autovacuum is.
SETTINGS = {"shared_buffers": "1GB", "log_line_prefix": "%d|%p|", "fsync": "on", "synchronous_commit": "on"}

#: Below this much free memory, in bytes, shared_buffers stay what they are.
ENOUGH = 3 << 30

#: A statement in the server's log, by the simple or the extended protocol.
STATEMENT = re.compile(r"^(?P<database>[^|\n]*)\|\d+\|LOG:  (?:statement|execute [^:]*): (?P<text>.*)$", re.MULTILINE)

#: Not counted as a statement, unless another one comes along in the same message.
CONTROL = re.compile(r"\s*(begin|commit|rollback)\b[^;]*;?\s*", re.IGNORECASE)


class Server:
    """A context manager.

    :ivar version: of PostgreSQL.
    :ivar settings: that matter, as the server has them.
    """

    def __enter__(self) -> Server:
        self._folder = Path(tempfile.mkdtemp(prefix="pq-benchmark-"))
        try:
            self._folder.chmod(0o711)  # to root's server, which is somebody else's process
            self._embedded = Embedded(self._folder / "server").start()
            for name, value in SETTINGS.items():
                if name != "shared_buffers" or free_memory() > ENOUGH:
                    self.execute(f"alter system set {name} = '{value}'")
            self.restart()
            ((self.version,),) = self.execute("show server_version")
            names = (*SETTINGS, "max_wal_size", "autovacuum", "autovacuum_naptime")
            self.settings = {name: self.execute(f"show {name}")[0][0] for name in names if name != "log_line_prefix"}
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        if hasattr(self, "_embedded"):
            self._embedded.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def restart(self) -> None:
        self._embedded.close()
        self._embedded.start()

    @contextmanager
    def using(self, name: str, value: str) -> Iterator[None]:
        """A setting, for new connections."""
        ((before,),) = self.execute(f"show {name}")
        self._set(name, value)
        try:
            yield
        finally:
            self._set(name, before)

    def _set(self, name: str, value: str) -> None:
        self.execute(f"alter system set {name} = '{value}'")
        if self.execute("select from pg_settings where name = %s and context = 'postmaster'", [name]):
            self.restart()
        else:
            self.execute("select pg_reload_conf()")
            while self.execute(f"show {name}") != [(value,)]:
                time.sleep(0.01)

    def dsn(self, database: str = "postgres") -> str:
        parts = psycopg2.extensions.parse_dsn(self._embedded.dsn)
        return f"host={parts['host']} port={parts['port']} user={parts['user']} dbname={database}"

    def execute(self, sql: str, params: Any = None, database: str = "postgres") -> list[tuple[Any, ...]]:
        with closing(psycopg2.connect(self.dsn(database))) as conn:
            conn.autocommit = True
            with conn.cursor() as cursor:
                cursor.execute(sql, params)
                return cursor.fetchall() if cursor.description is not None else []

    def log_size(self) -> int:
        return os.stat(self._embedded.path / "log").st_size

    def logged(self, database: str, since: int) -> list[str]:
        """The statements in a database whose log_statement is on; see `statements`."""
        with open(self._embedded.path / "log", encoding="utf-8", errors="replace") as log:
            log.seek(since)
            return statements(log.read(), database)


def statements(log: str, database: str) -> list[str]:
    """Those in a log, without the control of transactions."""
    found = (match for match in STATEMENT.finditer(log) if match["database"] == database)
    return [match["text"] for match in found if not CONTROL.fullmatch(match["text"])]


def free_memory() -> int:
    try:
        (kilobytes,) = re.findall(r"^MemAvailable: +(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
    except (OSError, ValueError):
        return 0
    return int(kilobytes) << 10
