"""testing.postgresql, made to work as root, with psycopg2, and from binaries that others can't reach."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import psycopg2
from testing.postgresql import Postgresql

NOBODY = os.environ.get("PQ_TEST_PG_USER", "nobody")

# PostgreSQL refuses to run as root: become somebody else, then exec
AS_USER = (
    "import os, pwd, sys; user = pwd.getpwnam(sys.argv[1]); os.setgroups([]); os.setgid(user.pw_gid);"
    "os.setuid(user.pw_uid); os.environ['HOME'] = '/'; os.chdir('/'); os.execv(sys.argv[2], sys.argv[2:])"
)


class Server(Postgresql):
    """testing.postgresql, made to work as root, with psycopg2, and from binaries that others can't reach."""

    DEFAULT_SETTINGS = dict(
        Postgresql.DEFAULT_SETTINGS,
        bin=None,
        initdb_args="-U postgres -A trust -E UTF8 --locale=C --no-sync",
        postgres_args=(
            "-h 127.0.0.1 -c fsync=off -c synchronous_commit=off "
            "-c full_page_writes=off -c max_connections=200 -c shared_buffers=64MB -c logging_collector=off"
        ),
    )

    def __init__(self, **settings: Any) -> None:
        # testing.postgresql removes only a folder that it has made
        usual, tempfile.tempdir = tempfile.tempdir, os.environ.get("PQ_TEST_FOLDER") or tempfile.tempdir
        try:
            super().__init__(**settings)
        finally:
            tempfile.tempdir = usual

    def initialize(self) -> None:
        binaries = Path(self.settings.pop("bin"))
        self.become: list[str] = []
        if os.geteuid() == 0:
            self.become = [sys.executable, "-S", "-c", AS_USER, NOBODY]
            if not all(path.stat().st_mode & 0o001 for path in [binaries, *binaries.parents]):
                binaries = self._copy(binaries)
        self.initdb, self.postgres = str(binaries / "initdb"), str(binaries / "postgres")

    def _copy(self, binaries: Path) -> Path:
        """Into a folder that everybody can enter; never change the modes of those on the way to the original."""
        home = Path(self.base_dir) / "package" / "install"
        shutil.copytree(binaries.parent, home, symlinks=True, ignore=shutil.ignore_patterns("include", "*.a"))
        libraries = binaries.parent.parent.with_name(binaries.parent.parent.name + ".libs")
        if libraries.exists():  # auditwheel's, which the binaries look for in ../../../NAME.libs
            shutil.copytree(libraries, home.parent.with_name(libraries.name))
        return home / "bin"

    def initialize_database(self) -> None:
        if self.become:
            os.chmod(self.base_dir, 0o711)
            for folder in ("data", "tmp"):
                shutil.chown(os.path.join(self.base_dir, folder), NOBODY)
        args = self.settings["initdb_args"].split()
        command = [*self.become, self.initdb, "-D", self.get_data_directory(), *args]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

    def get_server_commandline(self) -> list[str]:
        return [*self.become, *super().get_server_commandline()]

    def is_server_available(self) -> bool:
        try:
            psycopg2.connect(**self.dsn(database="template1")).close()
        except psycopg2.OperationalError:
            return False
        return True

    def poststart(self) -> None:
        pass
