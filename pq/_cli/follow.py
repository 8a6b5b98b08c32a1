"""Following a job until it has ended: a bar on a terminal, else a line for each change."""

from __future__ import annotations

import sys

from .._jobs.info import JobInfo
from .._jobs.track import ratio
from .._queue import Queue
from .._text import printable
from .bar import drawn as bar_of
from .output import one_line, tell, value_of

#: Seconds from one line to the next; the end is noticed sooner.
PAUSE = 1.0


def follow(queue: Queue, id: int) -> JobInfo:
    """Show on the standard error output how far a job is, and return it when it has ended.

    :raises JobNotFound: there is no such job, or none any more.
    """
    table = queue._table
    progress = table.statements("browse.sql")["progress"]
    drawn = ""
    on_terminal = sys.stderr is not None and sys.stderr.isatty()
    try:
        while (job := queue[id]).state not in ("dead", "finished"):
            rows = table.execute(progress, {"id": id, "queue": queue.name})  # not decoded: it may be a pickle
            line = _line(job.state, rows[0][0] if rows else None)
            if line != drawn:
                shown = f"\r{line}\x1b[K" if on_terminal else f"{line}\n"
                tell(shown, end="")
                drawn = line
            table.ends([id], PAUSE, queue.name)
        return job
    finally:
        if on_terminal and drawn:
            tell("")


def _line(state: str, progress: str | None) -> str:
    """Return a line for the progress as it stands in the table."""
    if progress is None:
        return state
    data = value_of(progress)
    part = ratio(data)
    text = data.get("text", "") if isinstance(data, dict) and (part is not None or "text" in data) else progress
    shown = one_line(printable(str(text)))
    if part is None:
        return f"{state}  {shown}"
    bar = f"{state}  {bar_of(part)}"
    return bar if data == part else f"{bar}  {shown}"
