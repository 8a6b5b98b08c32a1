"""How the command line shows jobs and queues, as JSON, and as text for people, and asks these."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from dataclasses import fields
from datetime import datetime
from typing import Any

from .._jobs.job import utc_format
from .._queue.browse import JobInfo, QueueInfo
from ..errors import PQError

#: Characters of a job's data that a table shows.
WIDTH = 60


def members(info: JobInfo | QueueInfo) -> dict[str, Any]:
    """What it says, by name."""
    found = {each.name: getattr(info, each.name) for each in fields(info)}
    return {name: value for name, value in found.items() if not name.startswith("_")}


def as_json(job: JobInfo) -> dict[str, Any]:
    """For JSON. The data is what stands in the table, not decoded by the queue: a pickle could run code."""
    found = members(job)
    error, text = found.pop("error"), found.pop("text")
    return found | {"error": error and error._asdict(), "data": value_of(text)}


def value_of(text: str) -> Any:
    """As JSON; the text itself if it holds a number that Python can't read or write, or is nested too deeply for it."""
    try:
        value = json.loads(text)
        json.dumps([[value]], allow_nan=False)  # as deep as it will be in the document
        return value
    except (ValueError, RecursionError):
        return text


def print_json(document: Any) -> None:
    """In one line; times as ISO 8601."""
    print(json.dumps(document, default=utc_format))


def print_table(rows: Iterable[Iterable[Any]]) -> None:
    """Columns below each other."""
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
    return printable(str(value)).replace("\n", "\\n")


def cut(text: str) -> str:
    """As much of it as a table shows, in one line."""
    text = text[: WIDTH + 1].replace("\n", " ")
    return text if len(text) <= WIDTH else f"{text[: WIDTH - 3]}..."


def print_text(text: str) -> None:
    """Lines, in which what can't be shown is escaped."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    print(printable(text).encode(encoding, "backslashreplace").decode(encoding))


def printable(text: str) -> str:
    """What others wrote must not command the terminal."""
    if text.isprintable():
        return text  # which may be long
    escaped = (each if each.isprintable() or each == "\n" else each.encode("unicode_escape").decode() for each in text)
    return "".join(escaped)


def confirm(args: argparse.Namespace, question: str) -> None:
    """Before anything is connected: a person may take long to answer.

    :raises ValueError: nobody can be asked.
    :raises PQError: the answer is no.
    """
    if args.yes:
        return
    if sys.stdin is None or not sys.stdin.isatty():
        raise ValueError("without a terminal to ask on, --yes is needed")
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise PQError("nothing was changed")
