"""The commands for whole queues: queues, pause, resume, clear, prune."""

from __future__ import annotations

import argparse
from dataclasses import fields
from typing import Any

from .._jobs.info import QueueInfo
from .output import confirm, members, print_json, print_table, print_text
from .parser import Commands, database_options, opened, table_options


def add(commands: Any) -> None:
    """Declare the commands."""
    command = Commands(commands, [database_options(), table_options()]).add
    command(_pause, "pause", "stop handing out jobs of a queue", "queue")
    command(_resume, "resume", "hand out jobs of a paused queue again", "queue")
    command(_clear, "clear", "delete all jobs of a queue", "queue", "--yes")
    command(_queues, "queues", "show the queues and how many jobs they have", "--json")
    command(_prune, "prune", "delete the jobs whose retention is over")


def _pause(args: argparse.Namespace) -> None:
    with opened(args) as pq:
        pq[args.queue].pause()
    print_text(f"queue {args.queue!r} paused")


def _resume(args: argparse.Namespace) -> None:
    with opened(args) as pq:
        pq[args.queue].resume()
    print_text(f"queue {args.queue!r} resumed")


def _clear(args: argparse.Namespace) -> None:
    confirm(args, f"Delete all jobs of queue {args.queue!r}, including finished ones?")
    with opened(args) as pq:
        pq[args.queue].clear()
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
