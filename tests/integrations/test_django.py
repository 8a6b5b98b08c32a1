"""In Django's transactions: real projects, one for each driver, in a process of its own as settings are for ever."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from psycopg2.extensions import parse_dsn

import pq as package

pytest.importorskip("django")

#: Django takes psycopg 3 if it can be imported.
DRIVERS = [name for name in ("psycopg2", "psycopg") if find_spec(name)]


@pytest.mark.parametrize("use_tz", [True, False], ids=["aware", "naive"])
@pytest.mark.parametrize("driver", DRIVERS)
def test_a_project(dsn: str, driver: str, use_tz: bool) -> None:
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("django_project.py")), dsn, driver,
         json.dumps(parse_dsn(dsn)), json.dumps(use_tz)],
        env={**os.environ, "PYTHONPATH": str(Path(package.__file__).parents[1])},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "all is well\n"
