"""Programs that run on pgqueue 0.6 and on pq.pgqueue."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent
from typing import Any

PRELUDE = """
import json, sys, time
import psycopg2, psycopg2.extras
import PACKAGE as pgqueue

conn = psycopg2.connect(sys.argv[1])
conn.autocommit = True
curs = conn.cursor()
ticker = pgqueue.Ticker(sys.argv[1])

def sql(statement, *params):
    curs.execute(statement, params)
    return curs.fetchall() if curs.description else []

def tick():
    # ends a batch now, whatever the periods of the queue
    sql(TICK)

def say(value):
    print(json.dumps(value, sort_keys=True, default=str), flush=True)

def error(function, *args, **kwargs):
    # whether it raises
    try:
        function(*args, **kwargs)
    except Exception as found:
        conn.rollback()
        return isinstance(found, psycopg2.Error) or type(found).__name__
    return None

def fails(function, *args):
    # whatever it raises
    return error(function, *args) is not None

def parts(event):
    return event.type, event.data, event.extra1, event.extra2, event.extra3, event.extra4, event.retry
"""

#: With the extension; without it, there is nothing to be ended.
TICK = """ "select pgq.force_tick(queue_name), pgq.ticker(queue_name) from pgq.queue" """


class Package:
    """pgqueue, or its API on pq.

    :param folder: what is imported from there.
    """

    def __init__(self, name: str, folder: Path, home: Path, dsn: str, tick: str = TICK) -> None:
        """
        :param tick: a statement that ends batches.
        """
        self.name = name
        self.dsn = dsn
        self._home = home
        self._prelude = PRELUDE.replace("TICK)", f"{tick.strip()})")
        self._environment = {**os.environ, "PYTHONPATH": str(folder)}
        self._started: list[subprocess.Popen[str]] = []

    def start(self, code: str, *args: str, prelude: str | None = None) -> subprocess.Popen[str]:
        """A program with a prelude in front of it."""
        text = ((self._prelude if prelude is None else prelude) + dedent(code)).replace("PACKAGE", self.name)
        return self._start("-c", text, self.dsn, *args)

    def run(self, code: str, *args: str) -> list[Any]:
        """What such a program says."""
        process = self.start(code, *args)
        out, error = process.communicate(timeout=120)
        assert process.returncode == 0, error
        return [json.loads(line) for line in out.splitlines()]

    def command(self, *arguments: str) -> subprocess.Popen[str]:
        """``python -m PACKAGE``."""
        return self._start("-m", self.name, *arguments)

    def _start(self, *arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=self._home, env=self._environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        self._started.append(process)
        return process

    def kill(self) -> None:
        for process in self._started:
            with process:  # which closes its pipes
                if process.poll() is None:
                    process.kill()
