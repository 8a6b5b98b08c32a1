"""A stream as a person looks at it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from .position import SubscriptionInfo


@dataclass(frozen=True)
class StreamInfo:
    """A stream as it was when it was looked at.

    :ivar name: its name.
    :ivar version: of its tables.
    :ivar retain: how long an event is kept once all have read it.
    :ivar retain_unread: how long one is kept that a subscription has not read; None: for ever.
    :ivar events: the number of ids from the first event to the last; those that were rolled back count.
    :ivar size: of the log with its indexes, in bytes.
    :ivar oldest_at: when the first of the events was published, as an aware datetime; None if there is none.
    :ivar subscriptions: sorted by their names.
    """

    name: str
    version: int
    retain: timedelta
    retain_unread: timedelta | None
    events: int
    size: int
    oldest_at: datetime | None
    subscriptions: list[SubscriptionInfo]
