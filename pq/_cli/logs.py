"""The log of ``pq work``: lines of text, or of JSON."""

from __future__ import annotations

import json
import logging
from datetime import datetime, timezone
from typing import Any

from .._traceback import traceback_of

#: What the worker says of a job, as fields of the record.
FIELDS = ("event", "queue", "job_id", "task", "attempt", "seconds", "worker", "trace_id")


class JSONFormatter(logging.Formatter):
    """A line of JSON for each record. What is a field is not repeated in the message."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "process": record.process,
        }
        if hasattr(record, "job_id"):
            line["message"] = getattr(record, "event", "")
            line |= {name: getattr(record, name) for name in FIELDS if hasattr(record, name)}
        else:
            line["thread"] = record.threadName
            line["message"] = record.getMessage()
        if record.exc_info and record.exc_info[1] is not None:
            line["traceback"] = traceback_of(record.exc_info[1])
        return json.dumps(line, default=repr)


def set_up(level: str, as_json: bool) -> None:
    """Write the log to stderr, unless the application has set up the root logger.

    :param level: name of the lowest level that is written.
    """
    handler = logging.StreamHandler()
    text = logging.Formatter("%(asctime)s %(levelname)s %(process)s %(message)s")
    handler.setFormatter(JSONFormatter() if as_json else text)
    logging.basicConfig(level=level.upper(), handlers=[handler])
