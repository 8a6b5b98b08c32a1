"""The names of attributes and metrics.

Those that begin with ``pq.`` are pq's own, and stay. The conventions for messaging (version 1.45 here) are still in
development, and so are names that begin with ``messaging.``: they are used by those who ask for them, by
``OTEL_SEMCONV_STABILITY_OPT_IN=messaging``, in place of pq's own; ``messaging/dup`` has both.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from functools import lru_cache
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

    constant: tuple[tuple[str, str], ...]
    operation: tuple[str, ...]
    queue: str
    job_id: str
    batch: str
    sent: str
    taken: str
    duration: str


OWN = Names((), (), "pq.queue", "pq.job.id", "pq.job.count", "pq.jobs.sent", "pq.jobs.taken", "pq.job.duration")
MESSAGING = Names(
    (("messaging.system", "pq"),),
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


@lru_cache(maxsize=1024)
def constant(names: tuple[Names, ...], operation: str, queue: str) -> Mapping[str, str]:
    """Return the attributes of all operations of a kind on a queue."""
    found: dict[str, str] = {}
    for each in names:
        found |= {**dict(each.constant), **dict.fromkeys(each.operation, operation), each.queue: queue}
    return found


def numbers(names: Iterable[Names], count: int | None, job_id: int | None) -> dict[str, Any]:
    """Return the attributes of one operation: of a single job its id, which is a text where messages have one."""
    if job_id is None:
        return {} if count is None else {each.batch: count for each in names}
    return {each.job_id: str(job_id) if each is MESSAGING else job_id for each in names}
