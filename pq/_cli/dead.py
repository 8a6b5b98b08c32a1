"""The command dead, for jobs that were given up."""

from __future__ import annotations

import argparse
from functools import partial
from typing import Any

from .._jobs.failure import Failure
from .._looks import DeadGroup
from .._looks.times import naive
from .._manager import PQ
from .._queue.chosen import chosen
from .._text import cut
from ..errors import PQError
from .choice import in_pages
from .output import call_of, confirm, print_json, print_table, value_of
from .parser import database_options, opened, positive, span, table_options, warn_unknown

#: The actions, and whether they are for groups of jobs.
ACTIONS = {
    "list": "show them",
    "retry": "have them tried again",
    "discard": "delete them",
    "groups": "show them in groups, by task and error",
    "retry-group": "have the jobs of a group tried again",
    "discard-group": "delete the jobs of a group",
}


def add(commands: Any) -> None:
    """Declare the command."""
    dead = commands.add_parser("dead", help="show, retry or delete jobs that were given up")
    actions = dead.add_subparsers(metavar="ACTION", required=True, dest="action")
    for name, text in ACTIONS.items():
        action = actions.add_parser(name, parents=[database_options(), table_options()], help=text)
        if name.endswith("-group"):
            action.add_argument("group", metavar="GROUP", help="what `dead groups` shows in its first column")
            action.add_argument("--queue", metavar="QUEUE", help="look in this queue alone")
        elif name in ("list", "groups"):
            action.add_argument("queue", nargs="?", metavar="QUEUE", help="name of the queue (default: all queues)")
            action.add_argument("--json", action="store_true", help="print a JSON document")
        else:
            action.add_argument("queue", metavar="QUEUE", help="name of the queue")
            action.add_argument("ids", nargs="*", type=int, metavar="ID", help="ids of the jobs")
            action.add_argument("--all", action="store_true", help="all dead jobs of the queue")
        if name == "list":
            action.add_argument("--limit", type=positive, default=100, metavar="N", help="at most N (default: 100)")
        if name == "retry":
            action.add_argument("--in", dest="within", type=span, metavar="TIME", help="after this time, such as 30s")
        if name == "retry-group":
            action.add_argument("--rate", metavar="N/PERIOD", help="so many in a period, as 100/m; the others later")
        if name.startswith("discard"):
            action.add_argument("--yes", action="store_true", help="do not ask")
    dead.set_defaults(run=_dead)


def _dead(args: argparse.Namespace) -> None:
    if args.action == "list":
        _list(args)
    elif args.action == "groups":
        _groups(args)
    elif args.action.endswith("-group"):
        _change_group(args)
    else:
        _change(args)


def _change(args: argparse.Namespace) -> None:
    if bool(args.ids) is args.all:
        raise ValueError("give either ids or --all")
    if args.action == "discard":
        which_jobs = "all" if args.all else len(set(args.ids))
        confirm(args, f"Delete {which_jobs} of the dead jobs of queue {args.queue!r}?")
    with opened(args) as pq:
        queue = pq[args.queue]
        jobs = queue.dead
        total = len(jobs) if args.all else len(set(args.ids))
        pages = chosen(queue, "listed", state="dead") if args.all else [args.ids]
        work = partial(jobs.retry, in_=args.within) if args.action == "retry" else jobs.discard
        count = in_pages(args, pq, pages, work, total)
    print(f"{count} will be tried again" if args.action == "retry" else f"{count} deleted")
    missing = len(set(args.ids)) - count
    if missing > 0:
        raise PQError(f"{missing} of the ids are no dead jobs of queue {args.queue!r}")


def _change_group(args: argparse.Namespace) -> None:
    if args.action == "discard-group":
        confirm(args, f"Delete the dead jobs of group {args.group}?")
    with opened(args) as pq:
        group = _group(pq, args)
        count = group.retry(args.rate) if args.action == "retry-group" else group.discard()
    print(f"{count} will be tried again" if args.action == "retry-group" else f"{count} deleted")


def _group(pq: PQ, args: argparse.Namespace) -> DeadGroup:
    """
    :raises PQError: there is none of that name.
    """
    for group in pq.dead_groups(args.queue):
        if group.key == args.group:
            return group
    raise PQError(f"there is no group {args.group!r} of dead jobs: see python -m pq dead groups")


def _groups(args: argparse.Namespace) -> None:
    with opened(args) as pq:
        groups = pq.dead_groups(args.queue)
        if args.queue is not None and not groups:
            warn_unknown(pq, args.queue)
    if args.json:
        print_json([_as_json(group) for group in groups])
        return
    rows = [
        (
            group.key, group.queue, group.count, naive(group.first), naive(group.last), group.sample, group.task,
            _error(Failure(group.error, group.message)),
        )
        for group in groups
    ]
    print_table([("group", "queue", "count", "first", "last", "sample", "task", "error"), *rows])


def _as_json(group: DeadGroup) -> dict[str, Any]:
    names = ("queue", "task", "error", "message", "count", "first", "last", "sample")
    return {"group": group.key} | {name: getattr(group, name) for name in names} | {"cut": group.count.is_cut}


def _list(args: argparse.Namespace) -> None:
    with opened(args) as pq:
        names = [each.name for each in pq.overview().queues if each.dead] if args.queue is None else [args.queue]
        jobs = [(name, job) for name in names for job in pq[name].dead.list(args.limit, newest=True)]
        if args.queue is not None and not jobs:
            warn_unknown(pq, args.queue)
    if args.queue is None:
        jobs = sorted(jobs, key=lambda pair: (pair[1].died_at, pair[1].id), reverse=True)[: args.limit]
    if args.json:
        names = ["id", "attempts", "first_failed_at", "died_at"]
        print_json(
            [
                {"queue": queue}
                | {name: getattr(job, name) for name in names}
                | {"error": job.error._asdict(), "data": value_of(job.text)}
                for queue, job in jobs
            ]
        )
        return
    rows = [
        (job.id, queue, job.died_at, job.attempts, *call_of(job.text), _error(job.error))
        for queue, job in jobs
    ]
    print_table([("id", "queue", "died", "attempts", "task", "arguments", "error"), *rows])


def _error(error: Failure) -> str:
    return cut(" ".join(str(error).split()), 200)
