"""Programs that run on psycopg2_mq and on pq.contrib.mq."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent
from typing import Any

from psycopg2.extensions import parse_dsn

PRELUDE = """
import json, logging, os, signal, sys, threading, time
from datetime import datetime, timedelta, timezone
import sqlalchemy as sa
from sqlalchemy import orm
from PACKAGE import FailedJobError, MQSource, MQWorker, make_default_model

engine = sa.create_engine(sys.argv[1])
metadata = sa.MetaData()
model = make_default_model(metadata)
metadata.create_all(engine)
States = model.JobStates

def source(**options):
    # begins and commits; the source is its value
    class Block:
        def __enter__(self):
            self.db = orm.Session(engine)
            return MQSource(dbsession=self.db, model=model, **options)
        def __exit__(self, kind, *rest):
            self.db.rollback() if kind else self.db.commit()
            self.db.close()
    return Block()

def job(id):
    with source() as mq:
        found = mq.get_job(id)
        mq.dbsession.refresh(found)
        mq.dbsession.expunge(found)
        return found

def until(condition):
    deadline = time.time() + 60
    while not condition():
        assert time.time() < deadline
        time.sleep(0.01)

def ended(*ids):
    until(lambda: all(job(id).state not in ("pending", "running") for id in ids))
    return [job(id) for id in ids]

class Working:
    def __init__(self, queues, **options):
        self.worker = MQWorker(**{"engine": engine, "queues": queues, "model": model, "capture_signals": False,
                                  "threads": 4, "jitter": 0, **options})
        self.thread = threading.Thread(target=self.worker.run, daemon=True)
    def __enter__(self):
        self.thread.start()
        return self.worker
    def __exit__(self, *error):
        self.worker.shutdown_gracefully()
        self.thread.join()

def calls(function):
    # a queue
    return type("Queue", (), {"execute_job": staticmethod(function)})()

def say(value):
    print(json.dumps(value, sort_keys=True), flush=True)
"""


def url_of(dsn: str) -> str:
    parts = parse_dsn(dsn)
    return f"postgresql+psycopg2://{parts['user']}@{parts['host']}:{parts['port']}/{parts['dbname']}"


class Package:
    """psycopg2_mq, or its API on pq.

    :param folder: what is imported from there.
    """

    def __init__(self, name: str, folder: Path, home: Path, dsn: str) -> None:
        self.name = name
        self.dsn = dsn
        self.url = url_of(dsn)
        self._home = home
        self._environment = {**os.environ, "PYTHONPATH": str(folder)}
        self._started: list[subprocess.Popen[str]] = []

    def start(self, code: str, *args: str, prelude: str = PRELUDE) -> subprocess.Popen[str]:
        """A program with `prelude` in front of it."""
        text = (prelude + dedent(code)).replace("PACKAGE", self.name)
        process = subprocess.Popen(
            [sys.executable, "-c", text, self.url, *args],
            cwd=self._home, env=self._environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self._started.append(process)
        return process

    def run(self, code: str, *args: str, prelude: str = PRELUDE) -> Any:
        """What such a program says."""
        process = self.start(code, *args, prelude=prelude)
        out, error = process.communicate(timeout=120)
        assert process.returncode == 0, error
        return [json.loads(line) for line in out.splitlines()]

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A command of Python."""
        command = [sys.executable, *arguments]
        return subprocess.run(
            command, cwd=self._home, env=self._environment, capture_output=True, text=True, timeout=60
        )

    def use(self, other: Package) -> None:
        """Work on the database of another one."""
        self.dsn, self.url = other.dsn, other.url

    def add_path(self, folder: Path) -> None:
        """Import from there, too."""
        self._environment["PYTHONPATH"] += f"{os.pathsep}{folder}"

    def kill(self) -> None:
        for process in self._started:
            with process:  # which closes its pipes
                if process.poll() is None:
                    process.kill()
