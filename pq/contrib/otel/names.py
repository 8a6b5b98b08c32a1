"""The names of attributes and metrics.

Those that begin with ``pq.`` are pq's own, and stay. The conventions for messaging (version 1.45 here) are still in
development, and so are names that begin with ``messaging.``: they are used by those who ask for them, by
``OTEL_SEMCONV_STABILITY_OPT_IN=messaging``, in place of pq's own; ``messaging/dup`` has both.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

OPT_IN = "OTEL_SEMCONV_STABILITY_OPT_IN"

#: What has a name by the general conventions, or by no others.
ERROR_TYPE = "error.type"
TASK = "pq.task"
ATTEMPT = "pq.attempt"


class Names(NamedTuple):
    """One set of names.

    :ivar constant: attributes of all spans and metrics.
    :ivar operation: those that hold which operation it is, ``send`` or ``process``.
    :ivar sent: the metrics: a counter, likewise `taken`, and a histogram of seconds, `duration`.
    """

    constant: Mapping[str, str]
    operation: tuple[str, ...]
    queue: str
    job_id: str
    batch: str
    sent: str
    taken: str
    duration: str


OWN = Names({}, (), "pq.queue", "pq.job.id", "pq.job.count", "pq.jobs.sent", "pq.jobs.taken", "pq.job.duration")
MESSAGING = Names(
    {"messaging.system": "pq"},
    ("messaging.operation.name", "messaging.operation.type"),
    "messaging.destination.name",
    "messaging.message.id",
    "messaging.batch.message_count",
    "messaging.client.sent.messages",
    "messaging.client.consumed.messages",
    "messaging.process.duration",
)


def chosen() -> tuple[Names, ...]:
    """Return the sets that the environment asks for."""
    words = {word.strip() for word in os.environ.get(OPT_IN, "").split(",")}
    if "messaging/dup" in words:
        return OWN, MESSAGING
    return (MESSAGING,) if "messaging" in words else (OWN,)


def attributes(
    names: Iterable[Names], operation: str, queue: str, count: int | None = None, job_id: int | None = None
) -> dict[str, Any]:
    """Return the attributes of an operation, of those values that are known. Ids of messages are texts."""
    found: dict[str, Any] = {}
    for each in names:
        found |= {**each.constant, **dict.fromkeys(each.operation, operation), each.queue: queue}
        if count is not None:
            found[each.batch] = count
        if job_id is not None:
            found[each.job_id] = str(job_id) if each is MESSAGING else job_id
    return found
