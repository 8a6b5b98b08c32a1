"""The commands ``work`` and ``dead``."""

from __future__ import annotations

import argparse
import importlib
import json
import logging
import os
import sys
from datetime import datetime, timezone
from typing import Any

from .. import tasks
from .._manager import PQ
from .._queue.dead import DeadJob
from ..errors import PQError
from ..worker import Worker
from ..worker.supervisor import Supervisor, command, supervised
from .output import confirm, print_json, print_text, value_of

#: Options that say how a worker is to be made.
DEFAULTS: dict[str, Any] = {
    "queues": None,
    "threads": 1,
    "batch": 500,
    "burst": False,
    "max_jobs": None,
    "max_idle": None,
    "shutdown_timeout": 30,
}


class UsageError(Exception):
    """What was to be worked on can't be had."""


def work(args: argparse.Namespace) -> int:
    """``pq work module:attr``."""
    logging.basicConfig(level=logging.DEBUG if args.verbose else logging.INFO, handlers=[_log_handler(args.log_json)])
    if args.processes > 1:
        return Supervisor(command(_arguments(args)), args.processes).run()
    worker = _worker(args)
    worker.queues[0]._db.execute("select 1")  # that there is a database is told now, and not in the log
    if args.supervised is not None:
        supervised(args.supervised, worker.stop)
    worker.run()
    return 0


def _worker(args: argparse.Namespace) -> Worker:
    found = _find(args.target)
    if isinstance(found, Worker):
        if _arguments(args) != _arguments(argparse.Namespace(**{**vars(args), **DEFAULTS})):
            raise UsageError(f"{args.target} is a Worker, which has its options from where it was made")
        return found
    if not isinstance(found, (tasks.PQ, tasks.Queue)):
        raise UsageError(f"{args.target} is no PQ or Queue of pq.tasks, and no Worker, but a {type(found).__name__}")
    return Worker(
        found,
        args.queues.split(",") if args.queues else None,
        args.threads,
        burst=args.burst,
        max_jobs=args.max_jobs,
        max_idle=args.max_idle,
        batch=args.batch,
        shutdown_timeout=f"{args.shutdown_timeout}s",
    )


def _find(target: str) -> Any:
    module, _, path = target.partition(":")
    if not module or not path:
        raise UsageError(f"{target!r} is not of the form module:attribute")
    sys.path.insert(0, os.getcwd())
    try:
        found = importlib.import_module(module)
        for name in path.split("."):
            found = getattr(found, name)
    except Exception as error:
        raise UsageError(f"cannot import {target}: {type(error).__name__}: {error}") from error
    return found


def _arguments(args: argparse.Namespace) -> list[str]:
    """For one of the processes."""
    given = ["work", args.target, "-c", str(args.threads), "--shutdown-timeout", str(args.shutdown_timeout)]
    for name in ("batch", "queues", "max_jobs", "max_idle"):
        value = getattr(args, name)
        if value is not None:
            given += [f"--{name.replace('_', '-')}", str(value)]
    return given + [f"--{name.replace('_', '-')}" for name in ("burst", "verbose", "log_json") if getattr(args, name)]


class _JSON(logging.Formatter):
    """A line of JSON for each record, with what the worker says of a job."""

    FIELDS = ("queue", "job_id", "task", "attempt", "seconds")

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "thread": record.threadName,
            "message": record.getMessage(),
        }
        line |= {name: getattr(record, name) for name in self.FIELDS if hasattr(record, name)}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def _log_handler(as_json: bool) -> logging.Handler:
    handler = logging.StreamHandler()
    text = logging.Formatter("%(asctime)s %(levelname)s %(process)s %(threadName)s: %(message)s")
    handler.setFormatter(_JSON() if as_json else text)
    return handler


def opened(args: argparse.Namespace) -> PQ:
    """The table that a command is for."""
    return PQ(args.dsn, table=args.table, schema=args.schema)


def dead(args: argparse.Namespace) -> int:
    """``pq dead list|retry|discard``."""
    if args.action != "list" and bool(args.ids) is args.all:
        raise ValueError("name ids, or --all, and not both")
    if args.action == "discard":
        confirm(args, f"Delete {'all' if args.all else len(set(args.ids))} of the dead jobs of queue {args.queue!r}?")
    with opened(args) as pq:
        jobs = pq[args.queue].dead
        if args.action == "list":
            _list(jobs.list(args.limit, newest=True), args.json)
            return 0
        which: dict[str, Any] = {"all": True} if args.all else {"ids": args.ids}
        count = jobs.retry(**which, in_=args.within) if args.action == "retry" else jobs.discard(**which)
    print(f"{count} to be tried again" if args.action == "retry" else f"{count} deleted")
    missing = len(set(args.ids)) - count
    if missing > 0:
        raise PQError(f"{missing} are no dead jobs of queue {args.queue!r}")
    return 0


def _list(jobs: list[DeadJob], as_json: bool) -> None:
    if as_json:
        names = ("id", "attempts", "first_failed_at", "died_at")
        print_json(
            [
                {name: getattr(job, name) for name in names}
                | {"error": job.error._asdict(), "data": value_of(job.text)}
                for job in jobs
            ]
        )
        return
    for job in jobs:
        error = " ".join(str(job.error).split())
        print_text(f"{job.id}  {job.died_at:%Y-%m-%d %H:%M:%S}Z  {job.attempts} attempts  {error[:200]}")
