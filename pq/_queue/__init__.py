"""One queue.

    queue       class Queue: put and get, and what the other parts add
    base        its options, and ``with queue``
    claim       taking jobs
    refusal     those of them that can't be decoded
    limited     taking jobs of a queue that has limits; rates: those of how many begin in a period
    limits      `PQ.limits`
    marks       where a claim begins to look
    item        one transaction around each job
    group       jobs that are put together, and one after them
    iterators   jobs one after the other, or in batches
    browse      looking at jobs
    control     cancelling, rescheduling, moving, pausing
    dead        dead jobs
    why         why a job does not run
    kept        the queue objects that a PQ has handed out
"""

from .queue import Queue

__all__ = ["Queue"]
