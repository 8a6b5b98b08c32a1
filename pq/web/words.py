"""How times, numbers and data are written. Pure."""

from __future__ import annotations

import json
import re
from datetime import datetime, timedelta, timezone
from typing import Any

from markupsafe import Markup

from .._jobs.track import ratio
from .._looks.times import aware, task_name
from .._text import cut, printable
from .._text import size as size

#: Characters of data that a line of a list has.
LINE = 160

#: Levels of JSON that are indented further than the one around them.
DEEPEST = 20

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"?|[\[\]{},:]|[^\s\[\]{},:"]+')

_CALL = re.compile(r'\s*\{\s*"function"\s*:\s*"((?:[^"\\]|\\.)*)"')


def span(value: float | timedelta | None) -> str:
    """Write a length of time: ``350 ms``, ``4.2 s``, ``3 min``, ``5 h 20 min``, ``30 h``, ``12 d``."""
    if value is None:
        return "–"
    seconds = value.total_seconds() if isinstance(value, timedelta) else float(value)
    if seconds < 0:
        return f"−{span(-seconds)}"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, rest = divmod(minutes, 60)
    if hours < 10 and rest:
        return f"{hours} h {rest} min"
    hours = round(minutes / 60)
    return f"{hours} h" if hours < 48 else f"{round(hours / 24)} d"


def when(moment: datetime | None, now: datetime) -> Markup:
    """Write a time as how far away it is, with the time itself for whoever points at it."""
    if moment is None:
        return Markup('<span class="none">–</span>')
    moment = aware(moment)
    away = (moment - now).total_seconds()
    text = "now" if abs(away) < 1 else f"in {span(away)}" if away > 0 else f"{span(-away)} ago"
    return Markup('<time datetime="{}" title="{}">{}</time>').format(
        moment.isoformat(), f"{moment.astimezone(timezone.utc):%Y-%m-%d %H:%M:%S} UTC", text
    )


def clock(moment: datetime | None) -> str:
    """Write a time in UTC, cut to seconds."""
    return "–" if moment is None else f"{aware(moment).astimezone(timezone.utc):%Y-%m-%d %H:%M:%S}"


def number(value: Any) -> str:
    """Write a whole number with commas; one that was cut, with a plus."""
    return f"{int(value):,}{'+' if getattr(value, 'is_cut', False) else ''}"


def rate(value: float | None) -> str:
    """Write how many there are in a second."""
    return "–" if value is None else f"{value:,.1f}" if value < 10 else f"{value:,.0f}"


def line(text: object, most: int = LINE) -> str:
    """Return the beginning of a text in one line."""
    return cut(printable(" ".join(str(text)[: most * 2].split())), most)


def pretty(text: str) -> str:
    """Return JSON with a line for each member, also if its end is missing. Numbers keep their digits."""
    lines = [""]
    depth = 0
    last = ""
    for token in _TOKEN.findall(text):
        if token in "]}":
            depth -= 1
            if last not in ("[", "{"):
                lines.append(_indent(depth))
        elif last in ("[", "{", ",") and last:
            lines.append(_indent(depth))
        lines[-1] += f"{token} " if token == ":" else _string(token) if token[0] == '"' else token
        depth += token in "[{"
        last = token
    return "\n".join(lines)


def _indent(depth: int) -> str:
    return "  " * min(depth, DEEPEST)


def _string(token: str) -> str:
    try:
        return printable(json.dumps(json.loads(token), ensure_ascii=False))
    except ValueError:  # it was cut
        return printable(token)


def progress_text(progress: Any) -> str:
    """Write what a running job has told of its progress, but for the part of it that is done, which is drawn."""
    text = progress.get("text") if isinstance(progress, dict) and "text" in progress else progress
    if text is None or (text is progress and ratio(progress) is not None):
        return ""
    return line(text if isinstance(text, str) else json.dumps(text, ensure_ascii=False))


def task_of(text: str) -> str | None:
    """Return the name of the task that a job calls, of which the beginning of the data is enough; else None."""
    match = _CALL.match(text)
    return None if match is None else task_name(match[1])


def arguments_of(text: str) -> str | None:
    """Return the arguments of the call of a task, as one would write them; None if it is none, or its end is cut."""
    if task_of(text) is None:
        return None
    try:
        data = json.loads(text)
        given = [json.dumps(value, ensure_ascii=False) for value in data["args"]]
        given += [f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in data["kwargs"].items()]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    return ", ".join(given)
