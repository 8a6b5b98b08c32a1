"""One queue.

    queue       class Queue: put and get, and what the other parts add
    base        its options
    claim       taking jobs
    item        one transaction around each job
    iterators   jobs one after the other, or in batches
    browse      looking at jobs
    control     cancelling, rescheduling, moving, pausing
    dead        dead jobs
"""

from .queue import Queue

__all__ = ["Queue"]
