"""The commands for schedules: schedules list, run, pause, resume, fire, remove."""

from __future__ import annotations

import argparse
import signal
import threading
from typing import Any

from .._schedules import ScheduleInfo
from . import logs
from .output import one_line, print_json, print_table, print_text, value_of
from .parser import Commands, database_options, looks, opened, table_options

COLUMNS = ("name", "queue", "rule", "zone", "paused", "declared", "next_at", "last_at", "last_job", "error")


def add(commands: Any) -> None:
    """Declare the commands."""
    parser = commands.add_parser("schedules", help="look at schedules, fire, pause and remove them")
    actions = parser.add_subparsers(metavar="ACTION", required=True, dest="action")
    command = Commands(actions, [database_options(), table_options()]).add
    command(_list, "list", "show the schedules", "--json")
    command(_run, "run", "put the jobs of schedules, as each worker does, until it is stopped")
    command(_pause, "pause", "put nothing at the times of a schedule", "schedule")
    command(_resume, "resume", "put jobs at the times of a paused schedule again", "schedule")
    command(_fire, "fire", "put the job of a schedule now, and print its id", "schedule")
    command(_remove, "remove", "delete a schedule; the jobs that it has put stay", "schedule")


def _list(args: argparse.Namespace) -> None:
    with looks(args) as pq:
        found = pq.schedules.list()
    if args.json:
        print_json([_as_json(schedule) for schedule in found])
    else:
        heading = [name.replace("_", " ") for name in COLUMNS]
        print_table([heading, *(_row(schedule) for schedule in found)])


def _row(schedule: ScheduleInfo) -> list[Any]:
    return [one_line(value) if isinstance(value := getattr(schedule, name), str) else value for name in COLUMNS]


def _as_json(schedule: ScheduleInfo) -> dict[str, Any]:
    found = {name: getattr(schedule, name) for name in (*COLUMNS, "missed", "key")}
    unique = schedule.unique
    return found | {
        "unique": unique and {"token": unique.token, "until": unique.until},
        "jitter": schedule.jitter and schedule.jitter.total_seconds(),
        "data": value_of(schedule.text),
    }


def _run(args: argparse.Namespace) -> None:
    logs.set_up("info", False)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    with opened(args) as pq:
        pq.schedules.run(stop)


def _pause(args: argparse.Namespace) -> None:
    with opened(args) as pq:
        pq.schedules[args.schedule].pause()
    print_text(f"schedule {args.schedule!r} paused")


def _resume(args: argparse.Namespace) -> None:
    with opened(args) as pq:
        pq.schedules[args.schedule].resume()
    print_text(f"schedule {args.schedule!r} resumed")


def _fire(args: argparse.Namespace) -> None:
    with opened(args) as pq:
        id = pq.schedules[args.schedule].fire()
    print_text("nothing was put: a job with its token waits already" if id is None else str(id))


def _remove(args: argparse.Namespace) -> None:
    with opened(args) as pq:
        del pq.schedules[args.schedule]
    print_text(f"schedule {args.schedule!r} removed")
