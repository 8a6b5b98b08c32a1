"""The user that the server runs as."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from ..errors import EmbeddedError


@dataclass(frozen=True)
class Account:
    """The user that the server runs as: the current one or, because PostgreSQL refuses root, another one."""

    prefix: tuple[str, ...] = ()
    uid: int = -1
    gid: int = -1

    @classmethod
    def choose(cls, data: Path) -> Account:
        """Return the owner of the existing data, or the best account for new data.

        :raises EmbeddedError: the program runs as root, and there is no other account.
        """
        if os.geteuid():
            return cls()
        owner = data.stat() if data.exists() else None
        if owner and owner.st_uid:
            return cls(uid=owner.st_uid, gid=owner.st_gid)
        if cls._user_namespaces():  # root for the files, but not when PostgreSQL asks
            return cls(prefix=("unshare", "-U"))
        if owner:
            raise EmbeddedError(
                f"{data} belongs to root, and PostgreSQL refuses to run as root (this machine has no "
                f"user namespaces): chown -R {data} to an unprivileged user"
            )
        for name in ("postgres", "nobody"):
            try:
                user = pwd.getpwnam(name)
            except KeyError:
                continue
            return cls(uid=user.pw_uid, gid=user.pw_gid)
        raise EmbeddedError(
            "PostgreSQL refuses to run as root, and this machine has no user named postgres or nobody "
            "that could run it: run this program as an unprivileged user"
        )

    @staticmethod
    def _user_namespaces() -> bool:
        if os.environ.get("PQ_NO_USERNS") or not shutil.which("unshare"):
            return False
        # check the output, because the exit status is lost where SIGCHLD is ignored
        asked = subprocess.run(["unshare", "-U", "id", "-u"], check=False, capture_output=True)
        return asked.stdout.strip() not in (b"", b"0")

    @property
    def owner(self) -> int:
        """The uid that owns the files."""
        return os.geteuid() if self.uid < 0 else self.uid

    def give(self, path: Path) -> None:
        """Make the account the owner of `path`, which this process has just made."""
        if self.uid >= 0:
            os.chown(path, self.uid, self.gid, follow_symlinks=False)

    def run(self, *command: str | Path, seconds: float = 60) -> subprocess.CompletedProcess[str]:
        """Run a program as this account; its standard error is part of its standard output."""
        other = self.uid >= 0
        return subprocess.run(
            [*self.prefix, *map(str, command)], cwd="/", env=environment(), timeout=seconds,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            encoding="utf-8", errors="replace", user=self.uid if other else None,
            group=self.gid if other else None, extra_groups=() if other else None, check=False,
        )  # fmt: skip

    def require_way_to(self, *folders: Path) -> None:
        """Check that this account can enter each of the folders.

        :raises EmbeddedError: it can't.
        """
        if os.geteuid():
            return
        steps = [step for folder in folders for step in (*reversed(folder.parents), folder)]
        walk = 'for d; do cd -- "$d" 2>/dev/null || { printf %s "$d"; exit; }; done'
        if stuck := self.run("/bin/sh", "-c", walk, "sh", *steps).stdout:
            who = f"user {self.uid}" if self.uid >= 0 else "root without its privileges"
            raise EmbeddedError(
                f"PostgreSQL refuses to run as root, so it would run as {who}, who cannot enter "
                f"{stuck}: allow that (chmod o+x), or use another folder"
            )


def environment() -> dict[str, str]:
    """Return this process's environment without variables that would change PostgreSQL, or let it notify systemd."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("PG") and k != "NOTIFY_SOCKET"}
    return {**kept, "LC_ALL": "C"}
