"""What the processes note of what they do: lines of JSON, each process in a file of its own.

An intent is noted before the act, its outcome after: a process that is killed in between leaves the outcome open.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

#: A line of a history: what happened (``event``), when (``at``, monotonic seconds of the machine), by whom, and more.
Event = dict[str, Any]


class History:
    """The file of a process.

    :param folder: where all histories are.
    :param who: the process.
    """

    def __init__(self, folder: Path, who: str) -> None:
        self._file = self.path(folder, who).open("ab", buffering=0)
        self._lock = threading.Lock()
        self._who = who

    @staticmethod
    def path(folder: Path, who: str) -> Path:
        return folder / f"{who}.jsonl"

    def note(self, event: str, **more: Any) -> None:
        """The line is with the operating system when this returns: a kill -9 does not take it back."""
        line = json.dumps({"event": event, "at": time.monotonic(), "who": self._who, **more})
        with self._lock:
            self._file.write(line.encode() + b"\n")

    def close(self) -> None:
        self._file.close()


def read(folder: Path) -> Iterator[Event]:
    """All events, each process's in order."""
    for path in sorted(folder.glob("*.jsonl")):
        for line in path.read_bytes().splitlines(keepends=True):
            if line.endswith(b"\n"):  # the last one may have been cut short by a kill
                yield json.loads(line)
