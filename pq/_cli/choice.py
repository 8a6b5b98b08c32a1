"""The jobs that a command is for: ids, or options that choose among the jobs of its queue."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from itertools import chain, islice
from typing import Any, NamedTuple

from .._jobs.info import JobInfo
from .._manager import PQ
from .._queue import Queue
from .._queue.chosen import chosen, these
from .._unique import key_of
from ..errors import PQError
from .bar import Bar
from .output import print_text
from .parser import MOST, warn_unknown

#: The options that choose, beside ``--all``, and what of a job they are for.
OPTIONS = {"key": "this key", "task": "this task", "where_error": "an error with this text"}


def which_jobs(parser: argparse.ArgumentParser, all: str = "all of them, instead of ids") -> None:
    """Declare the arguments.

    :param all: what ``--all`` does.
    """
    parser.add_argument("ids", nargs="*", type=int, metavar="ID", help="ids of the jobs")
    parser.add_argument("--all", action="store_true", help=all)
    parser.add_argument("--key", metavar="KEY", help="the jobs of this key")
    parser.add_argument("--task", metavar="TASK", help="the jobs that call this task")
    parser.add_argument("--where-error", metavar="TEXT", help="the jobs whose last error has this text")


def check_which(args: argparse.Namespace, needed: bool = False) -> None:
    """
    :param needed: False for a list: it may have neither, and shows with ``--all`` more of what it is to show.
    :raises ValueError: both ids and options are given; or neither, or ``--all`` and others, where they are needed; or
        no job can have that key.
    """
    options = [f"--{name.replace('_', '-')}" for name in ("all", *OPTIONS) if getattr(args, name) not in (None, False)]
    key_of(args.key)
    if args.ids and options:
        raise ValueError(f"give either ids or {' and '.join(options)}")
    if needed and args.all and len(options) > 1:
        raise ValueError(f"give either --all or {' and '.join(options[1:])}")
    if needed and not args.ids and not options:
        raise ValueError("give ids, --all, --key, --task or --where-error")


def described(args: argparse.Namespace) -> str:
    """Return in words which jobs these are.

    :raises ValueError: as for `check_which`.
    """
    check_which(args, needed=True)
    if args.ids:
        return f"{len(set(args.ids))} of the jobs"
    found = [f"{text} {getattr(args, name)!r}" for name, text in OPTIONS.items() if getattr(args, name) is not None]
    return f"the jobs with {' and '.join(found)}" if found else "all jobs"


class Changed(NamedTuple):
    """How many jobs were changed, and how many of those that were to be were not."""

    done: int
    missing: int

    def tell(self, what: str, reasons: str) -> None:
        """Print it.

        :param reasons: why jobs were not changed.
        :raises PQError: some were not.
        """
        print_text(f"{self.done} {what}")
        if self.missing:
            raise PQError(f"{self.missing} not {what}: {reasons}")


def change(args: argparse.Namespace, pq: PQ, work: Callable[[list[int]], int], which: str) -> Changed:
    """Change the jobs.

    :param work: changes some, and returns how many.
    :param which: the jobs that it is for, as for `chosen`.
    :raises ValueError: as for `check_which`.
    """
    check_which(args, needed=True)
    pages = [list(set(args.ids))] if args.ids else chosen(pq[args.queue], which, **_filters(args))
    count = in_pages(args, pq, pages, work)
    # those that options choose may have been taken since, as if they had been a moment before
    return Changed(count, len(set(args.ids)) - count if args.ids else 0)


def in_pages(
    args: argparse.Namespace, pq: PQ, pages: Iterable[list[int]], work: Callable[[list[int]], int],
    total: int | None = None,
) -> int:  # fmt: skip
    """Change jobs, and return how many these were. If there was none, the queue's name may be misspelt, which is told.

    :param work: changes those of a page, and returns how many.
    :param total: how many there are, if that is known.
    """
    count = 0
    with Bar("working", total) as bar:
        for ids in pages:
            done = work(ids)
            count += done
            bar.add(len(ids), done)
    if not count:
        warn_unknown(pq, args.queue)
    return count


def listed(args: argparse.Namespace, queue: Queue) -> list[JobInfo]:
    """Return the jobs to list.

    :raises ValueError: options exclude each other.
    :raises PQError: a job is not there, or is in another state.
    """
    limit = MOST if args.all else args.limit
    if args.ids:
        if args.state is not None or args.after is not None:
            raise ValueError("give either ids or --state and --after")
        return _these(queue, args.ids)
    by_key = args.key is not None and (args.state is not None or args.after is not None)
    if args.task is None and args.where_error is None and not by_key:
        try:
            return queue.list(args.state, limit, args.after, key=args.key)
        except (TypeError, ValueError) as error:  # the job of --after is in another state by now
            raise PQError(str(error)) from None
    pages = chosen(queue, "listed", state=args.state, after=args.after, **_filters(args))
    return _these(queue, list(islice(chain.from_iterable(pages), limit)), all_there=False)


def _filters(args: argparse.Namespace) -> dict[str, Any]:
    return {"key": args.key, "task": args.task, "error": args.where_error}


def _these(queue: Queue, ids: list[int], all_there: bool = True) -> list[JobInfo]:
    jobs = these(queue, ids)
    if all_there and (missing := set(ids) - {job.id for job in jobs}):
        raise PQError(f"not in queue {queue.name!r}: {', '.join(map(str, sorted(missing)))}")
    return jobs
