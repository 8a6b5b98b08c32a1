"""A PostgreSQL of its own, on a port of the loopback, which can be crashed."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg2

from pq.embedded import find_binaries
from pq.embedded.account import Account, environment

#: A crash of the server, not of the machine: what was written to the system's cache stays, so that fsync may be off.
#: But synchronous_commit must be on, else a commit may still be in the server's own memory.
SETTINGS = (
    "fsync=off", "synchronous_commit=on", "max_connections=80", "shared_buffers=64MB", "logging_collector=off",
    "unix_socket_directories=", "listen_addresses=127.0.0.1", "restart_after_crash=on",
)  # fmt: skip

#: Seconds that it may take to start, recovery included.
PATIENCE = 60.0


class Server:
    """A context manager.

    :ivar dsn: for a superuser.
    """

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="pq-torture-"))
        self._data = self._folder / "data"
        self._binaries = find_binaries()
        self._account = Account.choose(self._data)
        with closing(socket.create_server(("127.0.0.1", 0))) as free:
            self.port = free.getsockname()[1]
        self.dsn = f"host=127.0.0.1 port={self.port} user=postgres dbname=postgres"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Server:
        self._account.give(self._folder)
        self._account.require_way_to(self._binaries, self._folder)
        made = self._account.run(
            self._binaries / "initdb", "-D", self._data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C",
            "--no-sync", seconds=PATIENCE,
        )  # fmt: skip
        if made.returncode:
            raise RuntimeError(f"initdb failed:\n{made.stdout}")
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.crash()
        shutil.rmtree(self._folder, ignore_errors=True)

    def start(self) -> None:
        """Returns when it takes connections."""
        other = self._account.uid >= 0
        with open(self._folder / "log", "ab") as log:
            self._process = subprocess.Popen(
                [
                    *self._account.prefix, str(self._binaries / "postgres"), "-D", str(self._data),
                    "-p", str(self.port), *(part for setting in SETTINGS for part in ("-c", setting)),
                ],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/", env=environment(),
                user=self._account.uid if other else None, group=self._account.gid if other else None,
                extra_groups=() if other else None,
                start_new_session=True,  # Ctrl-C is for us
            )  # fmt: skip
        end = time.monotonic() + PATIENCE
        while not self._answers():
            if time.monotonic() > end or self._process.poll() is not None:
                raise RuntimeError(f"PostgreSQL does not start:\n{(self._folder / 'log').read_text()[-3000:]}")
            time.sleep(0.02)

    def crash(self) -> None:
        """Immediate shutdown: no checkpoint; the next start recovers from the log."""
        process, self._process = self._process, None
        if process is not None:
            os.kill(process.pid, signal.SIGQUIT)
            process.wait()

    def execute(self, sql: str, params: Any = None) -> list[tuple[Any, ...]]:
        """One statement, on a connection of its own that no fault of the network hits."""
        with closing(psycopg2.connect(self.dsn)) as conn:
            conn.autocommit = True
            with conn.cursor() as cursor:
                cursor.execute(sql, params)
                return cursor.fetchall() if cursor.description is not None else []

    def _answers(self) -> bool:
        try:
            psycopg2.connect(self.dsn, connect_timeout=5).close()
        except psycopg2.OperationalError:
            return False
        return True
