"""What can be wrong with a stream."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from .._table import Table, schema
from ..sql import stream_object
from .findings import Check

CHECKS = (
    Check(
        "stream_restored",
        "error",
        "The stream {stream!r} is from a restored dump: nothing is delivered from it.",
        "python -m pq stream rebase {stream}{arguments}",
    ),
    Check(
        "stream_sequence_cache",
        "error",
        "The sequence of stream {stream!r} has a cache of {cache}: sessions take their ids in advance, so events are"
        " skipped or out of order.",
        "alter sequence {event_id} cache 1;",
    ),
    Check(
        "stream_unread",
        "warning",
        "Subscription {subscription!r} of stream {stream!r} has not read since {since} ({age}); about {events}"
        " events wait for it, and no older ones can be removed.",
        "Start its consumer; or drop it: python -m pq stream unsubscribe{arguments} {stream} {subscription} --force",
    ),
    Check(
        "stream_not_rotated",
        "warning",
        "The stream {stream!r} has events since {since} ({age}), longer than they are to be kept: {bytes}"
        " bytes. A subscription has not read them, or a transaction that has read the stream stays open, or no consumer"
        " has the right to remove them.",
        "As the owner: python -m pq stream rotate{arguments} {stream}",
    ),
)


def streams(table: Table, at_most: int) -> Iterator[tuple[dict[str, Any], Mapping[str, str]]]:
    """Return for each stream beside a table the parameters of its checks, and its statements."""
    for stored in schema.streams(table.database, table.name):
        name = stored["name"]
        objects = {kind: stream_object(table.quoted, kind, name) for kind in ("log", "event_id")}
        params = {"stream": name, "retain": stored["retain"], "at_most": at_most, **objects}
        yield params, table.statements("stream_doctor.sql", name)
