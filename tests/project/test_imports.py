"""What ``import pq`` and ``pq --help`` load: the time for that is paid at each start of a program."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from support import PATIENCE

import pq
from pq._streams import schema
from pq._table import migrations

ROOT = Path(pq.__file__).parents[1]

#: What neither needs, however it comes: packages with all that is in them.
NEEDLESS = [
    "asyncio", "bz2", "concurrent", "configparser", "ctypes", "curses", "django", "email", "flask", "http", "lzma",
    "importlib.resources", "locale", "multiprocessing", "pickle", "pkg_resources", "platform", "pq.contrib",
    "pq.embedded.server", "pq.pgqueue", "pq.testing", "pq.web", "pq.worker.endpoint", "psycopg_pool", "socketserver",
    "sqlalchemy", "ssl", "subprocess", "sysconfig", "tempfile", "unittest", "xml", "zipfile", "zoneinfo",
]  # fmt: skip

STARTS = {
    "import pq": "import pq",
    "pq --help": "from pq._cli.main import main; main([])",
}
#: What argparse needs to translate its messages, and to look how wide the terminal is.
ALLOWED: dict[str, set[str]] = {"import pq": set(), "pq --help": {"bz2", "locale", "lzma"}}


@pytest.mark.parametrize("start", STARTS)
def test_no_more_is_loaded_than_is_needed(start: str) -> None:
    code = f"import sys; before = set(sys.modules); {STARTS[start]}"
    code += "; print(*(set(sys.modules) - before), file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=True
    )
    loaded = set(done.stderr.split())
    assert {"pq", "pq.tasks.queue"} <= loaded
    found = {name for name in loaded for each in NEEDLESS if name == each or name.startswith(f"{each}.")}
    assert found <= ALLOWED[start]


def test_the_versions_that_are_written_down_are_those_of_the_last_steps() -> None:
    """Reading the folders would load some twenty modules."""
    assert migrations.steps()[-1].version == len(migrations.steps()) == migrations.VERSION
    assert schema.steps(schema.STEPS)[-1].version == len(schema.steps(schema.STEPS)) == schema.VERSION
