"""The project in ``site``, run by ``manage.py``: settings are for the whole process, so the tests have none."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psycopg2.extensions

import pq as package

SITE = Path(__file__).with_name("site")
ROOT = Path(package.__file__).parents[1]

#: Django takes psycopg 3 if it can be imported.
DRIVERS = [name for name in ("psycopg2", "psycopg") if find_spec(name)]

#: Django has tasks from version 6 on.
HAS_TASKS = find_spec("django_tasks") is not None or (
    find_spec("django") is not None and find_spec("django.tasks") is not None
)

REPORTS = {"default": {}, "reports": {"table": "reports", "max_connections": 3}}


class Site:
    """The project on one database.

    :param settings: what its settings read.
    """

    def __init__(self, dsn: str, **settings: Any) -> None:
        self.dsn = dsn
        given = psycopg2.extensions.parse_dsn(dsn)
        names = {"NAME": "dbname", "USER": "user", "HOST": "host", "PORT": "port"}
        self.settings = {"database": {name: given.get(key, "") for name, key in names.items()}, **settings}

    def environment(self, **settings: Any) -> dict[str, str]:
        return {
            **os.environ,
            "SITE": json.dumps(self.settings | settings),
            "PYTHONPATH": str(ROOT),
            "DJANGO_SETTINGS_MODULE": "project.settings",
        }

    def start(self, *args: str, **settings: Any) -> subprocess.Popen[str]:
        """Begin ``manage.py``; a warning of a resource that is left open is an error."""
        return subprocess.Popen(
            [sys.executable, "-W", "error::ResourceWarning", "manage.py", *args],
            cwd=SITE, env=self.environment(**settings), text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip

    def manage(self, *args: str, code: int = 0, **settings: Any) -> str:
        """Run ``manage.py`` and return what it prints."""
        process = self.start(*args, **settings)
        try:
            printed, _ = process.communicate(timeout=120)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
        assert process.returncode == code, printed
        return printed

    def run(self, program: str, **settings: Any) -> Any:
        """Run a program inside of the project; return what it assigns to ``found``, by JSON."""
        lines = ["import json", program, "print(json.dumps(found))"]
        printed = self.manage("shell", "--no-imports", "-c", "\n".join(lines), **settings)
        return json.loads(printed.splitlines()[-1])

    @contextmanager
    def connect(self) -> Iterator[Any]:
        """Return a context manager for a cursor, whose statements are committed at once."""
        conn = psycopg2.connect(self.dsn)
        conn.autocommit = True
        try:
            with conn.cursor() as cursor:
                yield cursor
        finally:
            conn.close()
