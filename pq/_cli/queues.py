"""The commands for whole queues: queues, pause, resume, clear, prune."""

from __future__ import annotations

import argparse
from typing import Any

from .._looks.overview import COUNTED
from .._looks.times import naive
from .bar import Bar
from .output import confirm, print_json, print_table, print_text
from .parser import Commands, database_options, opened, table_options, warn_unknown

_NAMES = ("name", *COUNTED, "ready_since", "next_due", "paused", "limited", "waiting")


def add(commands: Any) -> None:
    """Declare the commands."""
    command = Commands(commands, [database_options(), table_options()]).add
    command(_pause, "pause", "stop handing out jobs of a queue", "queue")
    command(_resume, "resume", "hand out jobs of a paused queue again", "queue")
    command(_clear, "clear", "delete all jobs of a queue", "queue", "--yes")
    queues = command(_queues, "queues", "show the queues and how many jobs they have", "--json")
    queues.add_argument("--exact", action="store_true", help="count all jobs (default: up to 1,000 of each state)")
    command(_prune, "prune", "delete the jobs whose retention is over")


def _pause(args: argparse.Namespace) -> None:
    with opened(args) as pq:
        warn_unknown(pq, args.queue)
        pq[args.queue].pause()
    print_text(f"queue {args.queue!r} paused")


def _resume(args: argparse.Namespace) -> None:
    with opened(args) as pq:
        warn_unknown(pq, args.queue)
        pq[args.queue].resume()
    print_text(f"queue {args.queue!r} resumed")


def _clear(args: argparse.Namespace) -> None:
    confirm(args, f"Delete all jobs of queue {args.queue!r}, including finished ones?")
    with opened(args) as pq:
        warn_unknown(pq, args.queue)
        pq[args.queue].clear()
    print_text(f"queue {args.queue!r} cleared")


def _queues(args: argparse.Namespace) -> None:
    with opened(args) as pq:
        overview = pq.overview(exact=args.exact)
    queues = [
        {name: getattr(each, name) for name in _NAMES}
        | {"ready_since": naive(each.ready_since), "next_due": naive(each.next_due)}
        for each in overview.queues
    ]
    if args.json:
        print_json([queue | {"cut": [name for name in COUNTED if queue[name].is_cut]} for queue in queues])
    else:
        heading = [name.replace("_", " ") for name in _NAMES]
        print_table([heading, *(queue.values() for queue in queues)])


def _prune(args: argparse.Namespace) -> None:
    count = 0
    with opened(args) as pq, Bar("pruning") as bar:
        while deleted := pq.prune():
            count += deleted
            bar.add(deleted, deleted)
    print(f"{count} deleted")
