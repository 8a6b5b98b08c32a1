"""The command work: run a worker, or several processes of it."""

from __future__ import annotations

import argparse
import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

from ..errors import TableMissing
from ..tasks.queue import PQ, Queue
from ..worker import Worker
from ..worker.health import Health
from ..worker.supervisor import OPTION, Supervisor, command, supervised
from . import logs
from .app import UsageError, connected, find
from .parser import Commands, positive, seconds

#: Options that say how a worker is to be made, with their defaults.
DEFAULTS: dict[str, Any] = {
    "queues": None,
    "threads": 1,
    "batch": 500,
    "burst": False,
    "max_jobs": None,
    "max_idle": None,
    "shutdown_timeout": 30,
}

#: The worker that `run` runs now, for who stops it other than by a signal.
running: list[Worker] = []

LEVELS = ("debug", "info", "warning", "error")


def add(commands: Any) -> None:
    """Declare the command."""
    work = Commands(commands).add(run, "work", "perform tasks")
    option = work.add_argument
    option("target", metavar="MODULE:ATTRIBUTE", help="a PQ, one of its queues, or a Worker")
    option("-Q", "--queues", metavar="A,B", help="names of queues (default: all that have tasks)")
    option("-c", "--threads", type=positive, metavar="N", help="how many jobs run at the same time (default: 1)")
    option("-p", "--processes", type=positive, default=1, metavar="N", help="how many such workers (default: 1)")
    option("--batch", type=positive, metavar="N", help="how many jobs are taken together at most (default: 500)")
    option("--burst", action="store_true", help="stop when there are no jobs")
    option("--max-jobs", type=positive, metavar="N", help="stop after N jobs")
    option("--max-idle", type=seconds, metavar="S", help="stop after S seconds without a job")
    option(
        "--shutdown-timeout",
        type=seconds,
        metavar="S",
        help="seconds that running jobs have to end when the worker stops (default: 30)",
    )
    option(
        "--allow",
        action="append",
        metavar="PACKAGE",
        help="import modules of this package for tasks; repeatable (default: the package of MODULE)",
    )
    option("--log-level", choices=LEVELS, default="info", metavar="LEVEL", help=f"one of {', '.join(LEVELS)}")
    option("-q", "--quiet", dest="log_level", action="store_const", const="warning", help="log only what goes wrong")
    option("-v", "--verbose", dest="log_level", action="store_const", const="debug", help="log the start of jobs, too")
    option(
        "--health",
        type=address,
        metavar="[HOST:]PORT",
        help="answer probes by HTTP: /live, /ready, /status, /metrics; with -p each process has a port, from PORT on",
    )
    option("--health-file", metavar="PATH", help="touch this file while the worker is live; with -p PATH.0, PATH.1 ...")
    option("--log-json", action="store_true", help="log lines of JSON")
    option(OPTION, type=int, help=argparse.SUPPRESS)
    work.set_defaults(**DEFAULTS)


def run(args: argparse.Namespace) -> int:
    """Run it until it is told to stop."""
    logs.set_up(args.log_level, args.log_json)
    if args.processes > 1:
        return Supervisor(command(arguments(args)), args.processes, partial(own_arguments, args)).run()
    if args.supervised is not None:
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # until the worker handles it
    worker = worker_of(args)
    with connected(worker.queues[0]), health_of(args, worker):
        if args.supervised is not None:
            supervised(args.supervised, worker.stop)
        driver = worker.queues[0]._table.database.source.driver
        try:
            _ = worker.queues[0].paused  # any statement on the table
            running.append(worker)
            worker.run()  # raises these only before the database has served it for the first time
        except (TableMissing, driver.Error) as error:
            forbidden = driver.is_refused(error) and not driver.is_read_only(error)  # a standby may be promoted
            if not forbidden and not isinstance(error, TableMissing):
                raise
            raise UsageError(str(error).partition("\n")[0]) from error  # which a supervisor does not try again
        finally:
            running.clear()
    return 0


def worker_of(args: argparse.Namespace) -> Worker:
    """Return the worker that is meant, made if need be."""
    found = find(args.target)
    if isinstance(found, Worker):
        if _options(args) != DEFAULTS:
            raise UsageError(f"{args.target} is a Worker, and its options are set where it is made, not here")
        worker = found
    elif isinstance(found, (PQ, Queue)):
        worker = Worker(
            found,
            args.queues.split(",") if args.queues else None,
            args.threads,
            burst=args.burst,
            max_jobs=args.max_jobs,
            max_idle=args.max_idle,
            batch=args.batch,
            shutdown_timeout=args.shutdown_timeout,
        )
    else:
        kind = type(found).__name__
        raise UsageError(f"{args.target} must be a PQ, one of its queues, or a Worker, and is a {kind}")
    module = args.target.partition(":")[0]
    for queue in worker.queues:
        queue._packages = args.allow or [module.partition(".")[0]]
    return worker


@contextmanager
def health_of(args: argparse.Namespace, worker: Worker) -> Iterator[None]:
    """Answer the probes inside."""
    with ExitStack() as stack:
        if args.health or args.health_file or os.environ.get("NOTIFY_SOCKET"):
            health = stack.enter_context(Health(worker, args.health_file))
            if args.health:
                from ..worker.endpoint import Endpoint  # its http.server is not for the other commands

                stack.enter_context(Endpoint(health, *args.health))
        yield


def address(text: str) -> tuple[str, int]:
    """Read a port, with or without a host in front of it."""
    host, _, port = text.rpartition(":")
    if not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise argparse.ArgumentTypeError(f"must be PORT or HOST:PORT, with a port from 1 to 65535, not {text!r}")
    return host.strip("[]"), int(port)


def own_arguments(args: argparse.Namespace, number: int) -> list[str]:
    """Return the arguments that only one of the processes gets."""
    given = []
    if args.health:
        host, port = args.health
        given += ["--health", f"{host}:{port + number}"]
    if args.health_file:
        given += ["--health-file", f"{args.health_file}.{number}"]
    return given


def arguments(args: argparse.Namespace) -> list[str]:
    """Return the arguments for one of the processes."""
    given = ["work", args.target, "--log-level", args.log_level]
    for name, value in {**_options(args), "log_json": args.log_json}.items():
        option = f"--{name.replace('_', '-')}"
        if value is True:
            given.append(option)
        elif value is not None and value is not False:
            given += [option, str(value)]
    for package in args.allow or ():
        given += ["--allow", package]
    return given


def _options(args: argparse.Namespace) -> dict[str, Any]:
    return {name: getattr(args, name) for name in DEFAULTS}
