"""A PostgreSQL server in a folder, without a service to install, a port or a password.

    with Embedded("var/queue") as server:
        queue = PQ(server.dsn)["mail"]

All processes that open the folder share one server, which stops with its last user, however that
one ends. The server does not listen on the network: the only way in is a socket in a folder that
only its owner can enter. Unix only.
"""

from __future__ import annotations

import atexit
import fcntl
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from ..errors import EmbeddedError
from . import keeper
from .account import Account, environment
from .binaries import find_binaries
from .cluster import PORT, Cluster, tail
from .keeper import Lock, Postmaster, held

if TYPE_CHECKING:
    from typing_extensions import Self

LOG_BYTES = 10_000_000  # a longer log is renamed to log.old when a server is started
STOPPING = 15.0  # seconds that close() waits; the keeper waits for longer


class Embedded:
    """A PostgreSQL server whose data is in a folder.

    The server runs from start() until close(), the end of a `with` block, or the end of the
    process. Other processes, and other objects of this process, may open the same folder at any
    time: they share the server, and the last of them stops it. A child made by fork is a user
    of its own. Committed data is durable as in any PostgreSQL.

    :param path: the folder; made if it is missing. pq uses only the names ``data``, ``data.new.*``, ``run``, ``log``,
        ``log.old`` and ``*.lock`` in it.
    :param timeout: seconds that start() may take, including recovery after a crash.
    """

    def __init__(self, path: str | os.PathLike[str], *, timeout: float = 60.0) -> None:
        self.path: Path = Path(os.path.realpath(path))
        self.timeout = timeout
        self._cluster = Cluster(self.path)
        self._data = self._cluster.data
        self._log = self.path / "log"
        self._log_start = 0
        self._dsn = ""
        self._users: Lock | None = None
        self._spare: Lock | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.path)!r})"

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def dsn(self) -> str:
        """The URI of the database ``postgres``, as the superuser ``postgres``.

        :raises EmbeddedError: the server is not started, or is closed.
        """
        if self._users is None:
            raise EmbeddedError(f"{self!r} is not started: call start(), or use it in a with block")
        return self._dsn

    def start(self) -> Self:
        """Start the server, or join a running one; return self when it accepts connections.

        A folder without data gets a new database cluster. A second call is harmless, and restarts
        a server that has crashed.

        :raises EmbeddedError: there is no PostgreSQL; the folder can't be used, or holds data of
            another major version; the server does not start within `timeout` (the message
            ends with the last lines of its log).
        """
        end = time.monotonic() + self.timeout
        if "\n" in str(self.path):
            raise EmbeddedError(f"PostgreSQL can't use {str(self.path)!r}: the path has a newline")
        with _mutex:
            try:
                self._make_folder()
                with self._alone(end):
                    users = self._users or self._join(end)
                    try:
                        self._dsn = self._serve(end)
                    except BaseException:
                        if self._users is None:
                            users.close()
                        raise
                    self._users = users
                    _started.add(self)
            except (OSError, subprocess.TimeoutExpired) as error:
                raise EmbeddedError(f"cannot run PostgreSQL in {self.path}: {error}") from error
        return self

    def close(self) -> None:
        """Stop using the server. The last user waits up to 15 seconds until it has stopped.

        This does nothing if the server is not started, or is closed already. The state of the
        folder or the server never makes it raise.
        """
        with _mutex:
            users, self._users = self._users, None
            _started.discard(self)
            if users is None:
                return
            end = time.monotonic() + STOPPING
            try:
                with self._alone(end):
                    # If neither kind of lock is granted, the keeper holds it: this is the last user.
                    last = users.take(fcntl.LOCK_EX) or not users.take(fcntl.LOCK_SH)
                    if not last:
                        return
                    users.release()
                    while time.monotonic() < end:
                        # Check in this order, because a keeper outlives its server. And each time, because a keeper
                        # that is killed may still hold its lock at first.
                        kept = self._held("keeper")
                        if not self._held("server"):
                            break
                        if not kept:
                            self._launch()
                        time.sleep(0.005)
            except (OSError, EmbeddedError, subprocess.SubprocessError):
                pass  # the folder is gone, or another process takes long to start: just let go
            finally:
                users.close()

    def _lock(self, name: str) -> Lock:
        return Lock(self.path / f"{name}.lock")

    def _held(self, name: str) -> bool:
        return held(self.path / f"{name}.lock")

    @contextmanager
    def _alone(self, end: float) -> Iterator[None]:
        lock = self._lock("start")
        try:
            if not lock.take(fcntl.LOCK_EX, end):
                raise EmbeddedError(f"another process takes too long to start or stop {self!r}")
            yield
        finally:
            lock.release()  # closing is not enough: a child forked meanwhile would keep it locked

    def _join(self, end: float) -> Lock:
        users = self._lock("users")
        if not users.take(fcntl.LOCK_SH, end):
            users.close()
            raise EmbeddedError(f"the former server in {self.path} takes too long to stop")
        return users

    def _make_folder(self) -> None:
        try:
            self.path.mkdir(mode=0o700, parents=True)
        except FileExistsError:
            if not self.path.is_dir():
                raise EmbeddedError(f"{self.path} is a file, not a folder") from None
        else:
            if os.geteuid() == 0:  # an unprivileged server must be able to reach its data
                self.path.chmod(0o711)

    def _serve(self, end: float) -> str:
        """Wait until a keeper and a server are ready, start them if needed, and return the DSN."""
        launches = 0
        while True:
            if self._held("keeper"):
                server = Postmaster(self._data)
                if server.ready and server.answers():
                    # The DSN leaves nothing to PGHOST and the like; the empty hostaddr overrides PGHOSTADDR.
                    host = quote(os.fsencode(server.sockets), safe="/")
                    return f"postgresql://postgres@/postgres?host={host}&port={PORT}&hostaddr="
            # twice, because the first keeper may have found a server that was about to end
            elif launches < 2:
                self._launch()
                launches += 1
            else:
                raise EmbeddedError(f"PostgreSQL in {self.path} ended:\n{self._last_words()}")
            if time.monotonic() > end:
                raise EmbeddedError(
                    f"PostgreSQL in {self.path} is not ready after {self.timeout:g} seconds:\n"
                    + self._last_words()
                )
            time.sleep(0.002)

    def _launch(self) -> None:
        """Launch a keeper, which starts the server unless one runs already."""
        binaries = find_binaries()
        account = Account.choose(self._data)
        account.require_way_to(binaries, self.path)
        if not self._data.exists():
            self._cluster.initialise(binaries, account, self.timeout)
        self._cluster.require_version(binaries)
        sockets = self._cluster.make_socket_folder(account)
        self._cluster.clear_stale(sockets)
        quoted = str(sockets).replace('"', '""')  # the setting is a list, with commas
        command = [
            *account.prefix, str(binaries / "postgres"), "-D", str(self._data), "-p", str(PORT),
            "-c", "listen_addresses=", "-c", f'unix_socket_directories="{quoted}"',
        ]  # fmt: skip
        if self._log.exists() and self._log.stat().st_size > LOG_BYTES:
            self._log.replace(self.path / "log.old")
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW
        with open(os.open(self._log, flags, 0o600), "ab") as log:
            self._log_start = log.seek(0, os.SEEK_END)
            subprocess.run(
                [sys.executable, "-I", "-S", keeper.__file__, str(self.path), str(sockets),
                 str(account.uid), str(account.gid), *command],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                cwd="/", env=environment(), start_new_session=True, check=False,
            )  # fmt: skip

    def _last_words(self) -> str:
        try:
            with self._log.open("rb") as log:
                log.seek(self._log_start)
                return tail(log.read().decode(errors="replace"))
        except OSError as error:
            return str(error)


# One lock for all objects: forks, starts and stops happen one after the other, so a child never
# begins with a half-started server.
_mutex = threading.RLock()
_started: set[Embedded] = set()


def _before_fork() -> None:
    """Take a lock for the child before the fork; an flock belongs to the open file, which parent and child share.

    If the child took its own lock after the fork, a parent that closes right after the fork would
    see itself as the last user.
    """
    _mutex.acquire()
    for server in _started:
        try:
            server._spare = server._lock("users")
            server._spare.take(fcntl.LOCK_SH)
        except OSError:
            pass  # the child then shares its parent's lock


def _after_fork_in_parent() -> None:
    for server in _started:
        if server._spare:
            server._spare.close()
            server._spare = None
    _mutex.release()


def _after_fork_in_child() -> None:
    global _mutex
    for server in _started:
        if server._spare and server._users:
            server._users.close()
            server._users, server._spare = server._spare, None
    _mutex = threading.RLock()


def _close_all() -> None:
    for server in list(_started):
        server.close()


atexit.register(_close_all)
os.register_at_fork(
    before=_before_fork,
    after_in_parent=_after_fork_in_parent,
    after_in_child=_after_fork_in_child,
)
