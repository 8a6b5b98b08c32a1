"""A PostgreSQL of its own, on a port of the loopback, which can be crashed; and a standby to take its place."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
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
    "track_commit_timestamp=on",
    "wal_keep_size=256MB", "wal_retrieve_retry_interval=100ms",  # a standby that was cut off catches up, and soon
)  # fmt: skip

#: Seconds that it may take to start, recovery included; and for a standby to be there.
PATIENCE = 60.0

STANDBY = "standby"


def free_port() -> int:
    """Of the loopback; nobody has it at the moment."""
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        port: int = free.getsockname()[1]
        return port


class Postgres:
    """A database cluster, and the server on it.

    :param settings: more of them, as ``name=value``; the last of a name counts.
    :ivar dsn: for a superuser.
    :ivar log: what the server has written.
    """

    def __init__(self, data: Path, binaries: Path, account: Account, settings: Sequence[str] = ()) -> None:
        self._data, self.log = data, data.with_suffix(".log")
        self._binaries, self._account = binaries, account
        self.port = free_port()
        self.dsn = f"host=127.0.0.1 port={self.port} user=postgres dbname=postgres"
        self._usual = [*SETTINGS, *settings]
        self._settings = self._usual
        self._process: subprocess.Popen[bytes] | None = None

    def initialise(self) -> None:
        self._run("initdb", "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")

    def copy(self, primary: Postgres) -> None:
        """Become a standby that follows another server; what was here before is removed."""
        self.crash()
        shutil.rmtree(self._data, ignore_errors=True)
        self._run("pg_basebackup", "-d", primary.dsn, "-X", "stream", "--checkpoint=fast", "--no-sync")
        (self._data / "standby.signal").touch()
        self._settings = [*self._usual, f"primary_conninfo={primary.dsn} application_name={STANDBY}"]

    def _run(self, program: str, *arguments: str) -> None:
        made = self._account.run(self._binaries / program, "-D", self._data, *arguments, seconds=PATIENCE)
        if made.returncode:
            raise RuntimeError(f"{program} failed:\n{made.stdout}")

    def start(self) -> None:
        """Returns when it takes connections."""
        other = self._account.uid >= 0
        with open(self.log, "ab") as log:
            self._process = subprocess.Popen(
                [
                    *self._account.prefix, str(self._binaries / "postgres"), "-D", str(self._data),
                    "-p", str(self.port), *(part for setting in self._settings for part in ("-c", setting)),
                ],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/", env=environment(),
                user=self._account.uid if other else None, group=self._account.gid if other else None,
                extra_groups=() if other else None,
                start_new_session=True,  # Ctrl-C is for us
            )  # fmt: skip
        end = time.monotonic() + PATIENCE
        while not self._answers():
            if time.monotonic() > end or self._process.poll() is not None:
                raise RuntimeError(f"PostgreSQL does not start:\n{self.log.read_text()[-3000:]}")
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


class Server:
    """The PostgreSQL that is tortured: a primary and, if wanted, a synchronous standby. A context manager.

    Nothing that was acknowledged is lost by a promotion:

    * While there is no standby, commits wait for nobody, and there is nothing to promote.
    * `add_standby` turns waiting on when the standby streams. Only then are there commits that are acknowledged and may
      not have got there: those before. `promote` waits until it has all that the primary has at that moment; those
      after wait for it.
    * Waiting is never turned off on a server that lives, since that would acknowledge those who wait. A standby does
      not know the setting, and so does not wait for one of its own when it is promoted.
    * A commit whose wait is cancelled is visible, and not on the standby: whoever has read that may have read what a
      promotion takes back. So nothing that ends sessions or cancels statements may happen during `promote`; what was
      cancelled before has got there when it crashes the primary. After a restart, it is the same with the commits that
      were waiting.

    :ivar primary: that takes the commits now.
    :ivar standby: None if there is none at the moment.
    """

    def __init__(self, standby: bool = False, binaries: Path | None = None, settings: Sequence[str] = ()) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="pq-torture-"))
        self._binaries = binaries or find_binaries()
        self._account = Account.choose(self._folder / "a")
        self.primary, self._spare = (
            Postgres(self._folder / name, self._binaries, self._account, settings) for name in ("a", "b")
        )
        self.standby: Postgres | None = None
        self._wanted = standby

    @staticmethod
    def has_standby(binaries: Path | None = None) -> bool:
        """Whether these binaries can make one."""
        return ((binaries or find_binaries()) / "pg_basebackup").exists()

    def __enter__(self) -> Server:
        self._account.give(self._folder)
        self._account.require_way_to(self._binaries, self._folder)
        try:
            self.primary.initialise()
            self.primary.start()
            if self._wanted:
                self.add_standby()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self._spare.crash()
        self.primary.crash()
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def dsn(self) -> str:
        return self.primary.dsn

    @property
    def address(self) -> tuple[str, int]:
        return "127.0.0.1", self.primary.port

    def execute(self, sql: str, params: Any = None) -> list[tuple[Any, ...]]:
        return self.primary.execute(sql, params)

    def insist(self, sql: str, params: Any = None) -> list[tuple[Any, ...]]:
        """Execute it as soon as it can be done: there may be no server at the moment, or no connection left."""
        end = time.monotonic() + PATIENCE
        while True:
            try:
                return self.execute(sql, params)
            except psycopg2.Error:
                if time.monotonic() > end:
                    raise
            time.sleep(0.05)

    def _until(self, sql: str, params: Any = None) -> None:
        """Wait for a row."""
        end = time.monotonic() + PATIENCE
        while not self.insist(sql, params):
            if time.monotonic() > end:
                raise RuntimeError(f"in vain: {sql}")
            time.sleep(0.02)

    def add_standby(self) -> None:
        """Returns when every commit waits for it."""
        self._spare.copy(self.primary)
        self._spare.start()
        self._until("select from pg_stat_replication where application_name = %s and state = 'streaming'", [STANDBY])
        self.insist(f"alter system set synchronous_standby_names = {STANDBY}")
        self.insist("select pg_reload_conf()")
        self._until("select where current_setting('synchronous_standby_names') = %s", [STANDBY])
        # A new session has it, so the checkpointer has been told. It is the checkpointer that makes all sessions wait,
        # before it begins with a checkpoint; the first one may have begun earlier.
        for _ in range(2):
            self.insist("checkpoint")
        self.standby = self._spare

    def promote(self) -> None:
        """Crash the primary, and have the standby take its place."""
        assert self.standby is not None
        ((flushed,),) = self.insist("select pg_current_wal_flush_lsn()")
        self._until(
            "select from pg_stat_replication where application_name = %s and sync_state = 'sync' and flush_lsn >= %s",
            [STANDBY, flushed],
        )
        self.primary.crash()
        self.primary, self._spare, self.standby = self.standby, self.primary, None
        self.insist("select pg_promote(wait_seconds => %s)", [int(PATIENCE)])
        self._until("select where not pg_is_in_recovery()")
