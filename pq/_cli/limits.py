"""The command for limits: limit."""

from __future__ import annotations

import argparse
from dataclasses import fields, replace
from typing import Any

from .._args import UNSET
from .._queue.limits import ON_DEAD, ON_RETRY, Limit
from .output import print_json, print_table, print_text
from .parser import Commands, database_options, looks, opened, positive, table_options

_NAMES = tuple(each.name for each in fields(Limit))


def add(commands: Any) -> None:
    """Declare the command."""
    command = Commands(commands, [database_options(), table_options()]).add
    parser = command(_limit, "limit", "show the limits, change one, or remove it", "--json")
    parser.add_argument("name", nargs="?", metavar="NAME", help="a queue, or another name for what --queues share")
    parser.add_argument("--running", type=_or_none(positive), metavar="N", help="how many jobs may run at a time")
    parser.add_argument("--rate", type=_or_none(str), metavar="N/PERIOD", help="how many may begin in a period: 100/m")
    parser.add_argument("--per-key", type=_or_none(positive), metavar="N", help="how many of one key may run at a time")
    parser.add_argument("--on-retry", choices=ON_RETRY, help="what a job that waits for its retry does to its key")
    parser.add_argument("--on-dead", choices=ON_DEAD, help="what a dead job does to its key")
    parser.add_argument("--queues", type=_names, metavar="A,B", help="which queues share it (default: NAME)")
    parser.add_argument("--remove", action="store_true", help="remove the limit")
    parser.set_defaults(**dict.fromkeys(_NAMES, UNSET))


def _or_none(read: Any) -> Any:
    def value(text: str) -> Any:
        return None if text == "none" else read(text)

    value.__name__ = read.__name__  # argparse names it in "invalid … value"
    return value


def _names(text: str) -> list[str]:
    return text.split(",")


def _limit(args: argparse.Namespace) -> int:
    given = {name: value for name in _NAMES if (value := getattr(args, name)) is not UNSET}
    if args.name is None and (given or args.remove):
        raise ValueError("which limit? Give its name")
    if args.remove and given:
        raise ValueError("a limit that is removed can't be changed, too")
    with opened(args) if given or args.remove else looks(args) as pq:
        if given:
            before = pq.limits.get(args.name)
            pq.limits[args.name] = Limit(**given) if before is None else replace(before, **given)
        elif args.remove:
            if pq.limits.pop(args.name, None) is None:
                print_text(f"there is no limit {args.name!r}")
                return 1
            print_text(f"limit {args.name!r} removed")
            return 0
        found = [(name, limit) for name, limit in pq.limits.items() if args.name in (None, name)]
        taken = pq.limits.taken()
    rows = [
        {"name": name, "taken": taken.get(name)} | {each: getattr(limit, each) for each in _NAMES}
        for name, limit in found
    ]
    if args.json:
        print_json(rows)
    else:
        heading = ["name", "taken", *(name.replace("_", " ") for name in _NAMES)]
        print_table([heading, *([_text(value) for value in row.values()] for row in rows)])
    return int(args.name is not None and not found)


def _text(value: Any) -> Any:
    return ", ".join(value) if isinstance(value, tuple) else value
