"""The command call: put a job that calls a task."""

from __future__ import annotations

import argparse
from typing import Any

from .._codec import encode
from .app import connected, find_task
from .exact import dumps
from .parser import TIME, Commands, json_value, time


def add(commands: Any) -> None:
    """Declare the command."""
    call = Commands(commands).add(_call, "call", "call a task: put its job, and print the id")
    call.add_argument("task", metavar="MODULE.TASK", help="import path of the task")
    call.add_argument(
        "arguments",
        metavar="ARGUMENTS",
        nargs="?",
        default="[]",
        help="JSON: an array of arguments or an object of keyword arguments, or - to read it from the standard input",
    )
    call.add_argument("--at", type=time, metavar="TIME", help=f"when the job may start: {TIME}")
    call.add_argument("--expected", type=time, metavar="TIME", help="its priority, the earliest first: such a TIME")


def _call(args: argparse.Namespace) -> None:
    arguments = json_value(args.arguments, "the arguments")
    if not isinstance(arguments, (list, dict)):
        raise ValueError("the arguments must be a JSON array or object")
    task = find_task(args.task)
    positional, keywords = (arguments, {}) if isinstance(arguments, list) else ([], arguments)
    task.new_job(*positional, **keywords)  # which checks them, before there is a connection
    with connected(task._queue):
        if task._queue.encode is encode:  # the application has no other one
            task._queue.encode = dumps
        print(task(*positional, **keywords, _schedule_at=args.at, _expected_at=args.expected))
