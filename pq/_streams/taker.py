"""What a consumer of a subscription takes next: of which partition, and what becomes of it before anybody sees it."""

from __future__ import annotations

import random
from datetime import timedelta

from .. import _codec
from .._logs import queue_log as logger
from ..errors import LeaseExpired
from ..retry import Policy, RetryIn
from .aside import Aside, Entry
from .batch import Batch
from .hold import BatchHold, JobHold, Owner
from .log import Log
from .retries import Retries, retries_of
from .taking import BUSY, HERE, Taken, Want, take

#: Seconds: the longest pause between two looks at a batch that is in other hands.
BUSY_MOST = 1.0


def empty(log: Log, subscription: str) -> Batch:
    """Return a batch without events, which has ended."""
    batch = Batch(Owner(log, subscription, Policy()), [], Aside(lambda attempt: None))
    batch.settled = True
    return batch


class Taker:
    """Takes batches of a subscription.

    :param retry_in: the pauses after which an event that has failed is tried again, as for `Policy`.
    :ivar due_in: seconds until there is something to take, as the last take has told; None: nobody knows.
    """

    def __init__(self, name: str, retry_in: RetryIn) -> None:
        self.due_in: float | None = None
        self._name = name
        self._retry_in = retry_in
        self._partitions: int | None = None
        self._last: int | None = None  # the partition of the last batch
        self._was_retry = False
        self._busy = BUSY

    def take(self, log: Log, want: Want) -> Batch | None:
        """Take the next batch; the errors are those of `taking.take`.

        Partitions that have something take turns, and so do events that were set aside, with the others.
        """
        want = want._replace(past_retries=self._was_retry)
        self._was_retry = False
        due: list[float] = []
        taken: Taken | None = None
        asked = False  # for an event that was set aside
        for partition in self._in_turn(log, want, due):
            while True:
                taken = take(log, self._name, partition, want)
                self._partitions = taken.told.partitions
                if taken.told.has_retries and not taken.found and not want.past_retries and not taken.told.paused:
                    if (batch := self._retry(log, taken, want)) is not None:
                        return batch
                    asked, want = True, want._replace(past_retries=True)  # others have them, or their queue is paused
                elif taken.found:
                    self._busy = BUSY
                    if (batch := self._batch(log, taken, want)) is not None:
                        self._last = partition
                        return batch
                else:
                    break
            if taken.due_in is not None:
                due.append(self._pause() if taken.due_in == BUSY else taken.due_in)
        if (
            taken is not None and taken.told.has_retries and not asked and not taken.told.paused
            and (batch := self._retry(log, taken, want)) is not None
        ):  # fmt: skip
            return batch  # though it is not their turn
        self.due_in = min(due, default=None)
        return None

    def _in_turn(self, log: Log, want: Want, due: list[float]) -> list[int]:
        """Return the partitions where a take is worth its while, the one behind that of the last batch first.

        :param due: to which is added when the batches of others are due.
        """
        if self._partitions is None:  # the statement below is dear, and most have but one
            found = log._execute(log._sql["subscription"], {"subscription": self._name}, timeout=want.timeout)
            self._partitions = found[0][2] if found else None
        if self._partitions == 1:
            return [0]
        sql = log._table.statements("stream_take.sql", log.name)["ready_partitions"]
        params = {"subscription": self._name, "queue": retries_of(log.name, self._name)}
        rows = log._execute(sql, params, prepare=True, timeout=want.timeout)
        if not rows:
            raise log._unknown(self._name)
        self._partitions = rows[0][1]
        if self._last is None:
            self._last = random.randrange(self._partitions or 1)
        due += [due_in for _, _, is_ready, due_in in rows if due_in is not None and not is_ready]
        ready = [partition for partition, _, is_ready, _ in rows if is_ready]
        return sorted(ready, key=lambda partition: (partition <= self._last, partition))

    def _pause(self) -> float:
        pause, self._busy = self._busy, min(2 * self._busy, BUSY_MOST)
        return pause

    def _owner(self, log: Log, taken: Taken) -> Owner:
        return Owner(log, self._name, Policy(taken.told.max_retries, self._retry_in), taken.told.stops)

    def _batch(self, log: Log, taken: Taken, want: Want) -> Batch | None:
        """Make a batch of what was taken; None if it has ended: nothing in it can be delivered."""
        owner = self._owner(log, taken)
        aside = Aside(owner.policy.usual)
        events, lease, hold = taken.events, taken.lease, None
        attempts = 1 if lease is None else lease.attempts
        if lease is not None:
            ids = [event.id for event in events] + [error.job_id for error in taken.refused]
            hold = BatchHold(owner, *lease, only=ids[0] if len(ids) == 1 else None)
        for error in taken.refused:
            logger.error("subscription %r of stream %r: %s", self._name, log.name, error)
            if owner.stops:
                if hold is None or want.lease is None:
                    raise error
                hold.failed(error, None, None)
                return None
            aside.add(Entry(error.job_id, attempts, None, error))
        if len(events) == 1 and not taken.refused and not owner.stops and attempts > taken.told.max_retries + 1:
            expired = LeaseExpired(attempt=attempts)
            logger.error("event %d of stream %r is dead: %s", events[0].id, log.name, expired)
            aside.add(Entry(events[0].id, attempts - 1, None, expired))
            events = []
        batch = Batch(owner, events, aside, hold, want.lease or timedelta())
        if want.lease is None:
            batch._begin()
        elif not events:
            batch.done()
        return batch if events else None

    def _retry(self, log: Log, taken: Taken, want: Want) -> Batch | None:
        """Take an event that was set aside, and is due."""
        owner = self._owner(log, taken)
        found = Retries(log._table, retries_of(log.name, self._name), owner.policy).next(
            want.lease or timedelta(seconds=HERE)
        )
        if found is None:
            return None
        self._was_retry = True
        job, event = found
        event._text = _codec.encode(job.data)
        batch = Batch(owner, [event], Aside(owner.policy.usual), JobHold(owner, job), want.lease or timedelta())
        if want.lease is None:
            batch._begin()
        return batch
