"""What the server and the processes have complained of."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

#: Where an entry of the server's log begins: its details, hints and statement are lines that follow.
ENTRY = re.compile(r"^(?=\d{4}-\S+ \S+ .*(?:LOG|WARNING|ERROR|FATAL|PANIC):  )", re.MULTILINE)
ERROR = re.compile(r"\b(?:ERROR|FATAL|PANIC):  (.*)")

#: Errors of the server that belong to how pq works: what stands in the statement, and why.
EXPECTED = {
    "canceling statement due to lock timeout": ("_slot", "the rotation of a stream waits 100 ms for those who read"),
    "the database system is starting up": ("", "so the soak asks whether it has begun"),
}

#: What workers say of jobs whose failures belong to the soak: task and event.
PLANNED = {("poison", "retry"), ("poison", "dead"), ("keyed", "retry")}

#: What the page says when it begins, and its server, waitress, when a request waits for a thread.
SERVING = re.compile(r"Serving on |.* Task queue depth is \d+$")


def of_server(path: Path) -> tuple[list[str], Counter[str]]:
    """Return the errors that are not expected, and the numbers of those that are, and of warnings."""
    wrong, others = [], Counter[str]()
    for entry in ENTRY.split(path.read_text(errors="replace")):
        if found := ERROR.search(entry):
            if found[1] in EXPECTED and EXPECTED[found[1]][0] in entry:
                others[found[1]] += 1
            else:
                wrong.append(entry[:1000])
        elif "WARNING:  " in entry:
            others[entry.split("WARNING:  ")[1].strip()] += 1
    return wrong, others


def of_processes(folder: Path) -> list[str]:
    """Return what processes have written that is not planned: they are to be silent."""
    wrong = []
    for path in sorted(folder.glob("*.err")):
        for line in path.read_text(errors="replace").splitlines():
            try:
                told = json.loads(line)
                is_planned = (told["task"], told["event"]) in PLANNED
            except (ValueError, KeyError, TypeError):
                is_planned = False
            if line.strip() and not is_planned and not SERVING.match(line):
                wrong.append(f"{path.stem}: {line}"[:1000])
    return wrong
