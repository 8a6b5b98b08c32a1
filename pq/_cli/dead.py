"""The command dead, for jobs that were given up."""

from __future__ import annotations

import argparse
from typing import Any

from .._jobs.dead import DeadJob
from .._text import cut
from ..errors import PQError
from .output import confirm, print_json, print_text, value_of
from .parser import database_options, opened, positive, table_options


def add(commands: Any) -> None:
    """Declare the command."""
    dead = commands.add_parser("dead", help="show, retry or delete jobs that were given up")
    actions = dead.add_subparsers(metavar="ACTION", required=True, dest="action")
    for name, text in (("list", "show them"), ("retry", "have them tried again"), ("discard", "delete them")):
        action = actions.add_parser(name, parents=[database_options(), table_options()], help=text)
        action.add_argument("queue", metavar="QUEUE", help="name of the queue")
        if name == "list":
            action.add_argument("--limit", type=positive, default=100, metavar="N", help="at most N (default: 100)")
            action.add_argument("--json", action="store_true", help="print a JSON document, with the data of the jobs")
        else:
            action.add_argument("ids", nargs="*", type=int, metavar="ID", help="ids of the jobs")
            action.add_argument("--all", action="store_true", help="all dead jobs of the queue")
        if name == "retry":
            action.add_argument("--in", dest="within", metavar="TIME", help="after this time, such as 30s or 1h30m")
        if name == "discard":
            action.add_argument("--yes", action="store_true", help="do not ask")
    dead.set_defaults(run=_dead)


def _dead(args: argparse.Namespace) -> None:
    if args.action != "list" and bool(args.ids) is args.all:
        raise ValueError("give either ids or --all")
    if args.action == "discard":
        which_jobs = "all" if args.all else len(set(args.ids))
        confirm(args, f"Delete {which_jobs} of the dead jobs of queue {args.queue!r}?")
    with opened(args) as pq:
        jobs = pq[args.queue].dead
        if args.action == "list":
            _list(jobs.list(args.limit, newest=True), args.json)
            return
        which: dict[str, Any] = {"all": True} if args.all else {"ids": args.ids}
        count = jobs.retry(**which, in_=args.within) if args.action == "retry" else jobs.discard(**which)
    print(f"{count} will be tried again" if args.action == "retry" else f"{count} deleted")
    missing = len(set(args.ids)) - count
    if missing > 0:
        raise PQError(f"{missing} of the ids are no dead jobs of queue {args.queue!r}")


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
        error = cut(" ".join(str(job.error).split()), 200)
        print_text(f"{job.id}  {job.died_at:%Y-%m-%d %H:%M:%S}Z  {job.attempts} attempts  {error}")
