"""The command try: run the task of a job, and roll all of it back."""

from __future__ import annotations

import argparse
import json
from typing import Any

from .._jobs.info import JobInfo
from .._text import fields_of
from .._times import duration_text
from ..errors import PQError
from ..tasks.names import normal
from ..tasks.queue import PQ, Queue
from ..worker.trial import Trial
from .app import UsageError, connected, find, find_task
from .output import one_line, print_json, print_table, print_text, value_of
from .parser import Commands, database_options, opened, table_options


def add(commands: Any) -> None:
    """Declare the command."""
    command = Commands(commands, [database_options(), table_options()])
    parser = command.add(_try, "try", "run the task of a job here, and roll all of it back", "queue", "id", "--json")
    parser.add_argument(
        "--app",
        metavar="MODULE:ATTRIBUTE",
        help="the application's PQ, or the queue (default: the task is imported by the path that the job has)",
    )
    parser.add_argument("--yes", action="store_true", help="try a task that is not transactional, too")


def _try(args: argparse.Namespace) -> None:
    queue, job = _queue(args)
    with connected(queue):
        if job is not None and not _same(queue.find(args.id), job):
            raise UsageError(f"the PQ of the task has another table, without this job {args.id}: name one by --app")
        try:
            trial = queue.try_(args.id, force=args.yes)
        except ValueError as error:
            raise UsageError(str(error).replace("force=True", "--yes")) from None
    if args.json:
        print_json(_document(trial))
    else:
        _print(trial)
    if trial.error is not None:
        raise PQError(f"job {args.id} has failed; nothing of it was kept")


def _queue(args: argparse.Namespace) -> tuple[Queue, JobInfo | None]:
    """Return the queue of the application that has the task; and the job, if the options name its table."""
    job = None
    if args.app is not None:
        found = find(args.app)
        queue: Any = found[args.queue] if isinstance(found, PQ) else found
    else:
        with opened(args) as pq:
            job = pq[args.queue][args.id]
        name = fields_of(value_of(job.text)).get("function")
        if not isinstance(name, str):
            raise UsageError(f"job {args.id} is no call of a task")
        queue = find_task(normal(name))._queue
    if not isinstance(queue, Queue):
        raise UsageError(f"{args.app} must be a PQ or one of its queues, and is a {type(queue).__name__}")
    if queue.name != args.queue:
        where = f"the task is of queue {queue.name!r}, and the job in queue {args.queue!r}"
        raise UsageError(f"{where}: name the application's PQ by --app")
    return queue, job


def _same(found: JobInfo | None, job: JobInfo) -> bool:
    """Whether a job that was found in the application's table is the one of the table that the options name."""
    return found is not None and (found.text, found.enqueued_at) == (job.text, job.enqueued_at)


def _document(trial: Trial) -> dict[str, Any]:
    found = dict(vars(trial))
    found["delay"] = None if trial.delay is None else trial.delay.total_seconds()
    found["error"] = None if trial.error is None else trial.error._asdict()
    found["result"] = _shown(trial.result)
    found["writes"] = [vars(each) for each in trial.writes]
    found["puts"] = [
        {"queue": each.queue, "data": value_of(each.text), "key": each.key, "due_at": each.due_at}
        for each in trial.puts
    ]
    return found


def _shown(result: Any) -> Any:
    """Return a result as JSON has it, or else as Python shows it."""
    try:
        json.dumps(result, allow_nan=False)
        return result
    except (TypeError, ValueError, RecursionError):
        return repr(result)


def _print(trial: Trial) -> None:
    after = "" if trial.delay is None else f", after {duration_text(trial.delay)}"
    print_table([("task", trial.task), ("outcome", f"{trial.outcome}{after}"), ("seconds", f"{trial.seconds:.3f}")])
    if trial.error is None:
        print_text(f"result   {one_line(json.dumps(_shown(trial.result)))}")
    if trial.writes:
        print_text("\nrows that it has written:")
        heading = ("table", "inserted", "updated", "deleted")
        print_table([heading, *((each.table, each.inserted, each.updated, each.deleted) for each in trial.writes)])
    if trial.puts:
        print_text("\njobs that it has put:")
        rows = [(each.queue, each.key, each.due_at, one_line(each.text)) for each in trial.puts]
        print_table([("queue", "key", "due", "data"), *rows])
    if trial.error is not None:
        print_text(f"\n{trial.error.traceback or trial.error}".rstrip())
    print_text("\nAll of it was rolled back.")
