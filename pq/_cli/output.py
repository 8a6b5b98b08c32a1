"""How the command line prints jobs and queues, as JSON and as text, and how it asks people."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import fields
from datetime import datetime
from functools import partial
from typing import Any, TextIO

from .._jobs.info import JobInfo
from .._jobs.job import utc_format
from .._text import cut, printable
from ..errors import PQError
from .exact import dumps, loads

#: Characters of a job's data that a table shows.
WIDTH = 60


def members(info: JobInfo) -> dict[str, Any]:
    """Return the fields of a job, by name."""
    found = {each.name: getattr(info, each.name) for each in fields(info)}
    return {name: value for name, value in found.items() if not name.startswith("_")}


def as_json(job: JobInfo) -> dict[str, Any]:
    """Return a job for JSON. Its data is what the table holds, not decoded by the queue: a pickle could run code."""
    found = members(job)
    error, text = found.pop("error"), found.pop("text")
    return found | {"error": error and error._asdict(), "data": value_of(text)}


def value_of(text: str) -> Any:
    """Parse JSON; return the text itself where Python can't read a number in it, or it is nested too deeply."""
    try:
        value = loads(text)
        dumps([[value]])  # as deep as it will be in the document
        return value
    except (ValueError, RecursionError):
        return text


def print_json(document: Any) -> None:
    """Print a document in one line, with times in ISO 8601."""
    print(dumps(document, partial(json.dumps, default=utc_format)))


def print_table(rows: Iterable[Iterable[Any]]) -> None:
    """Print rows of values, in columns."""
    cells = [[_cell(value) for value in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        print_text("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return f"{value.isoformat(' ', 'seconds')}Z"
    return printable(str(value))


def call_of(text: str) -> tuple[str | None, str]:
    """Return what a table shows of a job's data: the task that it calls and the arguments; or None, and the data."""
    data = value_of(text)
    if not isinstance(data, dict) or not isinstance(data.get("function"), str):
        return None, one_line(text)
    args, kwargs = data.get("args"), data.get("kwargs")
    shown = [dumps(each) for each in args] if isinstance(args, list) else []
    shown += [f"{name}={dumps(each)}" for name, each in kwargs.items()] if isinstance(kwargs, dict) else []
    return data["function"], one_line(", ".join(shown))


def one_line(text: str) -> str:
    """Return as much of a text as a table shows, in one line."""
    return cut(text[: WIDTH + 1].replace("\n", " "), WIDTH)


def print_text(text: str) -> None:
    """Print lines; what can't be shown, or would command the terminal, is escaped."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    print(printable(text, newlines=True).encode(encoding, "backslashreplace").decode(encoding))


def tell(text: str, end: str = "\n") -> None:
    """Print on the standard error output. That nobody can read it must not end the command, or change its exit code."""
    try:
        print(text, end=end, file=sys.stderr, flush=True)
    except OSError:
        silence(sys.stderr)


def silence(stream: TextIO) -> None:
    """Let nothing more be written to a stream: Python flushes it once more at the end, and would fail again."""
    with suppress(OSError), open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), stream.fileno())


def confirm(args: argparse.Namespace, question: str) -> None:
    """Ask a person, unless ``--yes`` is given. Call it before anything is connected: a person may take long to answer.

    :raises ValueError: nobody can be asked.
    :raises PQError: the answer is no.
    """
    if args.yes:
        return
    if sys.stdin is None or not sys.stdin.isatty():
        raise ValueError("there is no terminal to ask on: add --yes")
    tell(f"{question} [y/N] ", end="")
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise PQError("nothing was changed")
