"""The commands that look at queues, and change what is in them."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from datetime import datetime
from typing import Any

from .._args import UNSET
from .._queue import Queue
from .._queue.browse import STATES, QueueInfo
from .._times import TimeSpec, duration
from ..errors import PQError
from .output import as_json, confirm, cut, members, print_json, print_table, print_text, value_of
from .work import opened

TIME = "as 30s or 1h30m from now, or as 2030-01-31T08:00Z"


def add(commands: Any, parents: Sequence[argparse.ArgumentParser]) -> None:
    """Declare the commands.

    :param commands: the subparsers of `argparse`.
    :param parents: the options that say which table.
    """
    known: dict[str, dict[str, Any]] = {
        "queue": {"metavar": "QUEUE", "help": "its name"},
        "id": {"metavar": "ID", "type": int, "help": "of the job"},
        "--json": {"action": "store_true", "help": "a JSON document"},
        "--yes": {"action": "store_true", "help": "do not ask"},
        "--state": {"choices": STATES, "metavar": "STATE", "help": f"only these: {', '.join(STATES)}"},
    }

    def command(run: Any, name: str, help: str, *arguments: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = commands.add_parser(name, parents=parents, help=help)
        parser.set_defaults(run=run)
        for argument in arguments:
            parser.add_argument(argument, **known[argument])
        return parser

    put = command(_put, "put", "put a job, and print its id", "queue")
    put.add_argument("data", metavar="DATA", help="JSON; -: read it from the standard input")
    put.add_argument("--at", type=_time, metavar="TIME", help=f"not to be taken before: {TIME}")
    put.add_argument("--expected", type=_time, metavar="TIME", help="its priority, the earliest first: likewise")

    listing = command(_list, "list", "show jobs, in the order in which they are taken", "queue", "--state", "--json")
    listing.add_argument("--limit", type=positive, default=100, metavar="N", help="at most so many (default: 100)")
    listing.add_argument("--after", type=int, metavar="ID", help="only those behind this job")

    command(_count, "count", "count the jobs in each state", "queue", "--state", "--json")
    command(_show, "show", "show all about a job", "queue", "id", "--json")

    cancel = command(_cancel, "cancel", "end jobs without doing them", "queue", "--yes")
    cancel.add_argument("ids", nargs="+", type=int, metavar="ID", help="of the jobs")

    again = command(_reschedule, "reschedule", "change the times of a job", "queue", "id")
    again.add_argument("--at", type=_time_or_none, default=UNSET, metavar="TIME", help=f"{TIME}; none: now")
    again.add_argument(
        "--expected", type=_time_or_none, default=UNSET, metavar="TIME", help="likewise; none: no priority"
    )

    move = command(_move, "move", "put a job into another queue", "queue", "id")
    move.add_argument("target", metavar="TARGET", help="name of the other queue")

    command(_pause, "pause", "have nobody get jobs from a queue", "queue")
    command(_resume, "resume", "end the pause", "queue")
    command(_clear, "clear", "delete all jobs of a queue", "queue", "--yes")
    command(_queues, "queues", "show the queues and how many jobs they have", "--json")
    command(_prune, "prune", "delete the jobs whose retention is over")


# -- what is given


def positive(text: str) -> int:
    """A number of at least 1, for `argparse`."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1: {number}")
    return number


def _time(text: str) -> TimeSpec:
    try:
        duration("time", text)
        return text
    except ValueError:
        pass
    try:
        # before Python 3.11 "Z" is not understood
        return datetime.fromisoformat(f"{text[:-1]}+00:00" if text[-1:] in ("Z", "z") else text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"a time is given {TIME}, not as {text!r}") from None


def _time_or_none(text: str) -> TimeSpec:
    return None if text == "none" else _time(text)


def _data(text: str) -> Any:
    """:raises ValueError: it is no JSON."""
    try:
        if text == "-":
            text = sys.stdin.read() if sys.stdin is not None else ""
        text.encode()  # bytes of an argument that are no UTF-8 became lone surrogates
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the data is no JSON: {error}") from None


# -- what is done


@contextmanager
def _queue(args: argparse.Namespace) -> Iterator[Queue]:
    with opened(args) as pq:
        yield pq[args.queue]


def _put(args: argparse.Namespace) -> None:
    data = _data(args.data)
    with _queue(args) as queue:
        print(queue.put(data, schedule_at=args.at, expected_at=args.expected))


def _list(args: argparse.Namespace) -> None:
    with _queue(args) as queue:
        try:
            jobs = queue.list(args.state, args.limit, args.after)
        except ValueError as error:  # the job, after which to go on, is in another state by now
            raise PQError(str(error)) from None
    if args.json:
        print_json([as_json(job) for job in jobs])
        return
    heading = ("id", "state", "put", "due", "expected", "attempts", "data")
    rows = [
        (job.id, job.state, job.enqueued_at, job.due_at, job.expected_at, job.attempts, cut(job.text)) for job in jobs
    ]
    print_table([heading, *rows])


def _count(args: argparse.Namespace) -> None:
    with _queue(args) as queue:
        counts = queue.counts() if args.state is None else {args.state: queue.count(args.state)}
    if args.json:
        print_json(counts)
    elif args.state is not None:
        print(counts[args.state])
    else:
        print_table(counts.items())


def _show(args: argparse.Namespace) -> None:
    with _queue(args) as queue:
        job = queue[args.id]
        # as it stands in the table: Queue.result would load a pickle
        rows = queue._run(queue._sql["result"], id=job.id)
    result = rows[0][0] if rows else None
    if args.json:
        print_json(as_json(job) | {"result": result and value_of(result)})
        return
    shown = members(job) | {"result": result}
    left_out = ("error", "text")
    print_table([(name, value) for name, value in shown.items() if name not in left_out])
    if job.error is not None:
        print_text(f"\n{job.error.traceback or job.error}".rstrip())
    print_text(f"\n{job.text}")


def _cancel(args: argparse.Namespace) -> None:
    ids = set(args.ids)
    confirm(args, f"Cancel {len(ids)} of the jobs of queue {args.queue!r}?")
    with _queue(args) as queue:
        count = queue.cancel(ids)
    print(f"{count} cancelled")
    if count < len(ids):
        raise PQError(f"{len(ids) - count} not cancelled: not there, finished, or in somebody's transaction")


def _reschedule(args: argparse.Namespace) -> None:
    if args.at is UNSET and args.expected is UNSET:
        raise ValueError("--at or --expected is needed")
    with _queue(args) as queue:
        _check(queue.reschedule(args.id, args.at, args.expected), args)
    print(f"job {args.id} rescheduled")


def _move(args: argparse.Namespace) -> None:
    with _queue(args) as queue:
        _check(queue.move(args.id, args.target), args)
    print_text(f"job {args.id} moved to queue {args.target!r}")


def _check(changed: bool, args: argparse.Namespace) -> None:
    if not changed:
        raise PQError(f"job {args.id} is not in queue {args.queue!r}, or neither ready nor scheduled")


def _pause(args: argparse.Namespace) -> None:
    with _queue(args) as queue:
        queue.pause()
    print_text(f"queue {args.queue!r} paused")


def _resume(args: argparse.Namespace) -> None:
    with _queue(args) as queue:
        queue.resume()
    print_text(f"queue {args.queue!r} resumed")


def _clear(args: argparse.Namespace) -> None:
    confirm(args, f"Delete all jobs of queue {args.queue!r}, the finished ones, too?")
    with _queue(args) as queue:
        queue.clear()
    print_text(f"queue {args.queue!r} cleared")


def _queues(args: argparse.Namespace) -> None:
    with opened(args) as pq:
        queues = [members(queue) for queue in pq.queues()]
    if args.json:
        print_json(queues)
    else:
        heading = [each.name.replace("_", " ") for each in fields(QueueInfo)]
        print_table([heading, *(queue.values() for queue in queues)])


def _prune(args: argparse.Namespace) -> None:
    count = 0
    with opened(args) as pq:
        while deleted := pq.prune():
            count += deleted
    print(f"{count} deleted")
