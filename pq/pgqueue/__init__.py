"""The API of pgqueue 0.6: on a server with the extension ``pgq`` by its functions, else by pq's own streams.

    events     pure: an event, and those of a batch that are to come again
    rows       pure: events as lines of COPY
    checks     pure: arguments
    backend    what there must be behind this API
    behind     which of the two it is
    extension  the functions of the extension
    streams    streams in place of them
    settings   how a queue is configured, where it is a stream
    queue      queues, and what puts events
    consumer   consumers and their batches
    ticker     the ticker
"""

from .consumer import Batch, Consumer
from .events import Event
from .queue import Queue, bulk_insert_events, insert_event
from .ticker import Ticker

__all__ = ["Batch", "Consumer", "Event", "Queue", "Ticker", "bulk_insert_events", "insert_event"]
