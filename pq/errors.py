"""The errors of pq, all of them subclasses of `PQError`.

Where the driver has an error with the same meaning, pq raises a subclass of both, so code that catches
``psycopg2.OperationalError`` or ``psycopg.ProgrammingError`` keeps working.
"""

from __future__ import annotations

from datetime import timedelta
from inspect import cleandoc
from typing import Any


class PQError(Exception):
    """The base class of all errors of pq."""

    def __init__(self, message: str | None = None, /, **data: object) -> None:
        if message is None:
            # the first paragraph of the docstring, in which words in braces stand for the error's attributes
            message = cleandoc(type(self).__doc__ or "").partition("\n\n")[0].replace("\n", " ").format(**data)
        super().__init__(message)
        self.__dict__.update(data)


class ConnectionFailed(PQError):
    """The database can't be reached; nothing has happened."""


class ConnectionLost(PQError):
    """The connection to the database is gone; nothing was changed."""


class CommitUnknown(PQError):
    """The connection was lost during a commit, which may or may not have happened."""


class StatementTimeout(PQError):
    """The server did not finish a statement within {seconds:g} seconds (statement_timeout); nothing was changed."""

    seconds: float


class ForkedConnection(PQError):
    """This process was forked from the one that opened the connection or pool given to PQ, and must not use it.
    Open a connection in this process, or give PQ a DSN: pq then connects by itself."""


class BlockError(PQError):
    """A block of pq was used or left in another thread, context or order than it was entered.

    What was done in it was rolled back, unless it is part of a transaction of the application's: roll that back.
    """


class TableMissing(PQError):
    """The queue table {table} is missing in database "{database}", or has an older version: call create()."""

    table: str
    database: str


class SchemaError(PQError):
    """The table can't be created or upgraded."""


class JobsLeft(PQError):
    """The queue table {table} has jobs: {ready} ready, {scheduled} scheduled, {running} running, {dead} dead.
    Nothing was changed; force=True deletes them."""

    table: str
    ready: int
    scheduled: int
    running: int
    dead: int


class JobNotFound(PQError, LookupError):
    """There is no job {job_id} in queue {queue!r}.

    :ivar queue: None where any queue would have done.
    """

    job_id: int
    queue: str | None


class ScheduleNotFound(PQError, LookupError):
    """There is no schedule {schedule!r}."""

    schedule: str


class StreamMissing(TableMissing):
    """There is no stream {stream!r} beside table {table}, or not that table: call create() of both."""

    stream: str


class SubscriptionNotFound(PQError, LookupError):
    """The stream {stream!r} has no subscription {subscription!r}; it has: {known}."""

    stream: str
    subscription: str
    known: str


class EventsLeft(PQError):
    """The stream {stream!r} has events that are unread by: {subscriptions}. Nothing was changed; force=True
    drops them."""

    stream: str
    subscriptions: str


class EventsLost(PQError):
    """The subscription {subscription!r} of stream {stream!r} has not read in time: {count} events were removed
    (retain_unread). It goes on behind them."""

    stream: str
    subscription: str
    count: int


class StreamRestored(PQError):
    """The stream {stream!r} was restored from a dump, where its positions mean nothing: call rebase() of the stream,
    which loses no event."""

    stream: str


class JobPending(PQError, TimeoutError):
    """Job {job_id} in queue {queue!r} has not ended in time: it is {state}.

    :ivar queue: None if the server did not answer in time.
    :ivar state: ``'ready'``, ``'scheduled'`` or ``'running'``; None if the server did not answer in time.
    """

    job_id: int
    queue: str | None
    state: str | None


class JobFailed(PQError):
    """Job {job_id} in queue {queue!r} is dead after attempt {attempts}: {error}

    :ivar attempts: how often it was delivered.
    :ivar error: the `Failure` of its last attempt: `type`, `message` and `traceback`.
    """

    job_id: int
    queue: str
    attempts: int
    error: Any


class JobCancelled(PQError):
    """Job {job_id} in queue {queue!r} was cancelled."""

    job_id: int
    queue: str


class RowsDropped(PQError):
    """A trigger on the table dropped {dropped} of {count} rows that were to be written for queue {queue!r}.

    :ivar ids: the ids of the jobs that the same statement did put; in a transaction, if that is committed.
    """

    queue: str
    dropped: int
    count: int
    ids: list[int]


class QueueFull(PQError):
    """Queue {queue!r} is full: it may have {max_ready} ready jobs. Nothing was put.

    :ivar max_ready: the queue's option.
    """

    queue: str
    max_ready: int


class Duplicate(PQError):
    """Job {job_id} in queue {queue!r} has the token {unique!r} already. Nothing was put."""

    job_id: int
    queue: str
    unique: str


class LeaseLost(PQError):
    """Job {job_id} in queue {queue!r} is no longer held by attempt {attempt}: the job was settled or cancelled,
    or its lease expired and it was delivered again. Nothing was changed."""

    job_id: int
    queue: str
    attempt: int


class BatchLost(LeaseLost):
    """Batch {number} of subscription {subscription!r} is no longer held: it was ended, or its lease expired and it was
    delivered again. Nothing was changed.

    :ivar number: of the batch; of an event that was set aside, the id of its job.
    :ivar queue: the queue of the events that the subscription has set aside; `job_id` is None.
    """

    number: int
    subscription: str


class LeasesLost(LeaseLost):
    """{count} of the jobs are no longer held, the first of them job {job_id} in queue {queue!r} (attempt {attempt}).
    The others were settled; inside a transaction this takes effect when it is committed."""

    count: int
    job_ids: list[int]


class LeaseExpired(PQError):
    """Given up before attempt {attempt}: its lease expired too many times in a row (the workers died or hung)."""


class TaskNotFound(PQError, LookupError):
    """There is no task for this job.

    :ivar task: the name of the task that the job calls; None if the job is no call of a task.
    :ivar waits: whether the job waits for a program that knows the task: see the documentation of tasks.
    """

    task: str | None = None
    waits: bool = False


class TaskTimeout(PQError, TimeoutError):
    """The task ran for longer than its timeout of {timeout}.

    :ivar stack: where the task was at that moment, as text; None if unknown.
    """

    timeout: timedelta
    stack: str | None = None


class LoopLeft(PQError):
    """The loop over `Queue.items` was left before the job was done."""


class Retry(PQError):
    """Raise this in a handler to try the job again, however often it was tried before.

    :param in_: the pause, as ``'30s'``, a timedelta or seconds; None: the pause of the retry policy, or none if it has
        none.
    :param save_state: save `LeasedJob.key_state` as if the job were done.
    """

    def __init__(self, in_: str | timedelta | float | None = None, *, save_state: bool = False) -> None:
        super().__init__("the handler asked for a retry")
        self.in_ = in_
        self.save_state = save_state


class Discard(PQError):
    """Raise this in a handler to give the job up: it becomes a dead job with this reason.

    :param save_state: as for `Retry`.
    """

    def __init__(self, reason: str = "discarded", *, save_state: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.save_state = save_state


class DecodeError(PQError, ValueError):
    """Job {job_id} in queue {queue!r} cannot be decoded ({reason}); {fate}."""

    job_id: int
    queue: str
    reason: str
    fate: str


class EmbeddedError(PQError):
    """The embedded PostgreSQL can't be run."""
