"""The commands for jobs: put, load, list, count, show, cancel, reschedule, move."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from .._args import UNSET
from .._jobs.info import JobInfo
from .._queue import Queue
from .._unique import UNTIL_TIMES, JobId, Unique
from ..errors import PQError
from .app import UsageError
from .bar import Bar
from .choice import change, check_which, described, listed, which_jobs
from .follow import follow
from .output import as_json, confirm, members, one_line, print_json, print_table, print_text, tell, value_of
from .parser import (
    TIME,
    Commands,
    database_options,
    json_value,
    looks,
    opened,
    parsed,
    positive,
    table_options,
    time,
    time_or_none,
    warn_unknown,
)


def add(commands: Any) -> None:
    """Declare the commands."""
    command = Commands(commands, [database_options(), table_options()]).add

    put = command(_put, "put", "put a job, and print its id", "queue")
    put.add_argument("data", metavar="DATA", help="JSON, or - to read JSON from the standard input")
    put.add_argument("--at", type=time, metavar="TIME", help=f"when the job may start: {TIME}")
    put.add_argument("--expected", type=time, metavar="TIME", help="its priority, the earliest first: such a TIME")
    put.add_argument("--key", help="the jobs of a queue with the same key run one after the other")
    put.add_argument("--unique", metavar="TOKEN", help="put no second job with this token")
    put.add_argument(
        "--until", metavar="WHEN", help="how long the job has the token: started (default), done, or a time such as 1h"
    )
    put.add_argument(
        "--on-duplicate", metavar="HOW",
        help="what becomes of a job that has the token: keep (default), replace, merge, error",
    )  # fmt: skip

    load = command(_load, "load", "put many jobs, all of them or none, and print how many", "queue")
    load.add_argument(
        "file", nargs="?", default="-", metavar="FILE", help="JSON, a job on each line; default: the standard input"
    )

    listing = command(_list, "list", "show jobs, in the order in which they are taken", "queue", "--state", "--json")
    listing.add_argument("--limit", type=positive, default=100, metavar="N", help="at most N (default: 100)")
    listing.add_argument("--after", type=int, metavar="ID", help="only jobs behind this one")
    which_jobs(listing, all="without a limit")

    command(_count, "count", "count the jobs in each state", "queue", "--state", "--json")
    show = command(_show, "show", "show everything about a job", "queue", "id", "--json")
    show.add_argument("--follow", action="store_true", help="first wait until it has ended, and show how far it is")

    command(_why, "why", "say why a job does not run", "queue", "id", "--json")

    cancel = command(_cancel, "cancel", "end jobs without running them", "queue", "--yes")
    which_jobs(cancel)

    again = command(_reschedule, "reschedule", "change the times of jobs", "queue")
    which_jobs(again)
    again.add_argument(
        "--at", type=time_or_none, default=UNSET, metavar="TIME", help=f"{TIME}; none: the job may start now"
    )
    again.add_argument(
        "--expected", type=time_or_none, default=UNSET, metavar="TIME", help="its priority; none: no priority"
    )

    move = command(_move, "move", "move jobs to another queue", "queue")
    which_jobs(move)
    move.add_argument("target", metavar="TARGET", help="name of the other queue")


@contextmanager
def _queue(args: argparse.Namespace, open: Callable[..., Any] = opened) -> Iterator[Queue]:
    with open(args) as pq:
        yield pq[args.queue]


def _put(args: argparse.Namespace) -> None:
    data = json_value(args.data, "the data")
    unique = _unique(args)
    with _queue(args) as queue:
        id = queue.put(data, schedule_at=args.at, expected_at=args.expected, key=args.key, unique=unique)
    print(id)
    if isinstance(id, JobId) and not id.created:
        tell(f"job {id} has that token already")


def _load(args: argparse.Namespace) -> None:
    with opened(args) as pq, Bar("loading") as bar:
        count = pq[args.queue].load(_lines(args.file, bar))
    print(f"{count} put")


def _lines(file: str, bar: Bar) -> Iterator[Any]:
    """Read the data of jobs.

    :raises ValueError: a line is not JSON.
    :raises UsageError: there is no such file.
    """
    try:
        with open(file, encoding="utf-8") if file != "-" else nullcontext(sys.stdin or ()) as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield parsed(line.rstrip(), f"line {number}")
                    bar.add(1)
    except OSError as error:
        raise UsageError(str(error)) from None


def _unique(args: argparse.Namespace) -> Unique | None:
    if args.unique is None:
        if args.until is not None or args.on_duplicate is not None:
            raise ValueError("--until and --on-duplicate need --unique")
        return None
    until, window = (args.until, None) if args.until in (None, *UNTIL_TIMES) else (None, args.until)
    return Unique(args.unique, until, window, args.on_duplicate or "keep")


def _list(args: argparse.Namespace) -> None:
    check_which(args)
    with looks(args) as pq:
        queue = pq[args.queue]
        jobs = listed(args, queue)
        if not jobs:
            warn_unknown(pq, args.queue)
    if args.json:
        print_json([as_json(job) for job in jobs])
        return
    heading = ("id", "state", "key", "put", "due", "expected", "attempts", "data")
    rows = [
        (job.id, job.state, job.key, job.enqueued_at, job.due_at, job.expected_at, job.attempts, one_line(job.text))
        for job in jobs
    ]
    print_table([heading, *rows])


def _count(args: argparse.Namespace) -> None:
    with looks(args) as pq:
        queue = pq[args.queue]
        counts = queue.counts() if args.state is None else {args.state: queue.count(args.state)}
        if not any(counts.values()):
            warn_unknown(pq, args.queue)
    if args.json:
        print_json(counts)
    elif args.state is not None:
        print(counts[args.state])
    else:
        print_table(counts.items())


def _show(args: argparse.Namespace) -> None:
    with _queue(args, opened if args.follow else looks) as queue:
        job = follow(queue, args.id) if args.follow else queue[args.id]
        # not by Queue.result, which would load a pickle
        rows = queue._run(queue._sql["result"], id=job.id)
    kept = rows[0][0] if rows else None
    # one column has both
    noted = {"result": None, "progress": kept} if job.state == "running" else {"result": kept, "progress": None}
    if args.json:
        print_json(as_json(job) | {name: text and value_of(text) for name, text in noted.items()})
    else:
        _print(job, noted)
    if args.follow and (job.state == "dead" or job.cancelled):
        raise PQError(f"job {job.id} {'was cancelled' if job.cancelled else 'is dead'}")


def _why(args: argparse.Namespace) -> None:
    with _queue(args) as queue:
        why = queue.why(args.id)
    if args.json:
        reasons = [reason._asdict() for reason in why.reasons]
        print_json({"id": why.id, "queue": why.queue, "state": why.state, "reasons": reasons})
    else:
        print_text(str(why))


def _print(job: JobInfo, noted: dict[str, str | None]) -> None:
    shown = members(job) | noted
    if job.waits_for is not None:
        shown["waits_for"] = f"{shown.pop('waits_for')} of {shown.pop('parents')} jobs"
    print_table([(name, value) for name, value in shown.items() if name != "text"])
    if job.error is not None and job.error.traceback:  # which need not say what the error was: it may be a stack alone
        print_text(f"\n{job.error.traceback}".rstrip())
    print_text(f"\n{job.text}")


def _cancel(args: argparse.Namespace) -> None:
    confirm(args, f"Cancel {described(args)} of queue {args.queue!r}?")
    with opened(args) as pq:
        queue = pq[args.queue]
        changed = change(args, pq, queue.cancel, "unfinished")
    changed.tell("cancelled", "missing, finished, or locked by another transaction")


def _reschedule(args: argparse.Namespace) -> None:
    if args.at is UNSET and args.expected is UNSET:
        raise ValueError("give --at or --expected, or both")
    with opened(args) as pq:
        queue = pq[args.queue]
        changed = change(args, pq, lambda ids: queue.reschedule(ids, args.at, args.expected), "which")
    changed.tell("rescheduled", f"not in queue {args.queue!r}, or neither ready nor scheduled")


def _move(args: argparse.Namespace) -> None:
    with opened(args) as pq:
        queue = pq[args.queue]
        changed = change(args, pq, lambda ids: queue.move(ids, args.target), "which")
    changed.tell(f"moved to queue {args.target!r}", f"not in queue {args.queue!r}, or neither ready nor scheduled")
