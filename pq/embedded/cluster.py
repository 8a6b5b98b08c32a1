"""The database cluster in a folder: its data, and the folder of its socket."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path

from ..errors import EmbeddedError
from .account import Account
from .keeper import Postmaster, held

PORT = 5432  # part of the socket's name; no port is opened
SOCKET_BYTES = 103  # the longest path of a socket: 103 on macOS, 107 on Linux


class Cluster:
    """The files that PostgreSQL keeps in a folder.

    :param path: the folder; the data is in its subfolder ``data``.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.data: Path = path / "data"

    def initialise(self, binaries: Path, account: Account, timeout: float) -> None:
        """Make the database cluster, complete and on disk, or not at all.

        :param timeout: seconds that initdb may take.
        :raises EmbeddedError: initdb failed.
        """
        for rest in self.path.glob("data.new.*"):  # left by an interrupted initdb
            shutil.rmtree(rest, ignore_errors=True)
        # a new name each time: an initdb whose parent was killed may still write to its own folder
        new = Path(tempfile.mkdtemp(prefix="data.new.", dir=self.path))
        account.give(new)
        made = account.run(
            binaries / "initdb", "-D", new, "-U", "postgres", "-A", "trust", "-E", "UTF8",
            "--locale=C", seconds=timeout,
        )  # fmt: skip
        if not (new / "PG_VERSION").exists() or made.returncode:
            shutil.rmtree(new, ignore_errors=True)
            raise EmbeddedError(f"initdb in {self.path} failed:\n{tail(made.stdout)}")
        new.rename(self.data)
        folder = os.open(self.path, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def require_version(self, binaries: Path) -> None:
        try:
            there = (self.data / "PG_VERSION").read_text().strip()
        except FileNotFoundError:
            raise EmbeddedError(f"{self.data} is not a data folder of PostgreSQL") from None
        asked = [str(binaries / "postgres"), "-V"]
        told = subprocess.run(asked, check=False, capture_output=True, text=True).stdout
        ours = re.search(r"\d+", told)
        if ours and ours[0] != there:
            raise EmbeddedError(
                f"{self.data} was made by PostgreSQL {there}, and {binaries} is PostgreSQL "
                f"{ours[0]}: set PQ_PG_BIN to the programs of PostgreSQL {there}, and move the data "
                "by pg_dump"
            )

    def make_socket_folder(self, account: Account) -> Path:
        digest = hashlib.sha256(os.fsencode(self.path)).hexdigest()[:16]
        name = f"pq-{os.geteuid()}-{digest}"
        for folder in (self.path / "run", Path(tempfile.gettempdir(), name), Path("/tmp", name)):
            # libpq takes a comma as the end of a host
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

    def clear_stale(self, sockets: Path) -> None:
        """Remove the files that a server has left that no longer runs.

        PostgreSQL does this itself, but not if another process has the pid in the file by now.
        """
        if held(self.path / "server.lock") or Postmaster(self.data).answers():
            return
        for path in (self.data / "postmaster.pid", sockets / f".s.PGSQL.{PORT}.lock"):
            path.unlink(missing_ok=True)


def tail(text: str) -> str:
    return "\n".join(text.strip().splitlines()[-15:])
