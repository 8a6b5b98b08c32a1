"""Streams: one log of events, which any number of subscriptions read, each all of it.

Nobody ticks. Each subscription has a *position*: the snapshot up to which it has read. A take ends at its own snapshot,
and what lies between the two is a *window*: the events of transactions that the first does not see and the second does.
They are read in the order of their ids, in batches of any size; a position inside of a window is an id. So no event is
skipped, and none comes twice, in whatever order transactions commit; docs/explanation/streams.rst proves it.

    stream        publishing, looking
    subscribing   making subscriptions
    streams       the streams of a PQ, by name
    subscription  reading: batches in a transaction, or under a lease
    taker         what a consumer takes next: of which partition, and whether it is an event that was set aside
    taking        the statements that take, and what their answers mean
    batch         events that were taken together, and how they end
    leased        an event that is a batch of its own
    hold          what a delivery holds: a batch of the log, or the job of an event that was set aside
    aside         events that are set aside
    retries       the queue of these
    event         an event, and how it is written and read
    start         where a subscription begins
    position      where it is: lag, seek, pause, drop
    upkeep        old events are removed
    info          a stream as a person looks at it
    (tasks/streams and worker/intake: functions that a worker calls with events)
    log           the base of a stream: its statements
    schema        the tables of a stream
"""

from .batch import Batch
from .event import Event, NewEvent
from .info import StreamInfo
from .leased import LeasedEvent
from .position import Lag, SubscriptionInfo
from .schema import script
from .stream import Stream
from .streams import Streams
from .subscription import Subscription

__all__ = [
    "Batch", "Event", "Lag", "LeasedEvent", "NewEvent", "Stream", "StreamInfo", "Streams", "Subscription",
    "SubscriptionInfo", "script",
]  # fmt: skip
