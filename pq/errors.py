"""The errors of pq: one tree under `PQError`.

Where the driver has an error of the same meaning, what is raised is a subclass of both, so that code which
already catches ``psycopg2.OperationalError`` or ``psycopg.ProgrammingError`` goes on catching it.
"""

from __future__ import annotations

from datetime import timedelta
from inspect import cleandoc


class PQError(Exception):
    """Something went wrong in pq."""

    def __init__(self, message: str | None = None, /, **data: object) -> None:
        if message is None:
            message = cleandoc(type(self).__doc__ or "").partition("\n\n")[0].replace("\n", " ").format(**data)
        super().__init__(message)
        self.__dict__.update(data)


class ConnectionFailed(PQError):
    """The database cannot be reached."""


class ConnectionLost(PQError):
    """The connection to the database is gone; nothing was changed."""


class CommitUnknown(PQError):
    """The connection was lost while a commit was under way: it may or may not have happened."""


class ForkedConnection(PQError):
    """This process was forked from the one that opened the connection or pool given to PQ, and must not use it.
    Open one of its own here, or give PQ a DSN: then pq reconnects by itself."""


class BlockError(PQError):
    """A block of pq was used or left in another thread, context or order than it was entered.

    What was done in it was rolled back, unless it is part of a transaction of the application's: roll that back.
    """


class TableMissing(PQError):
    """The queue table {table} is missing, or of an older version, in database "{database}": call create()."""

    table: str
    database: str


class SchemaError(PQError):
    """The table cannot be created or upgraded."""


class JobsLeft(PQError):
    """The queue table {table} has jobs: {ready} ready, {scheduled} scheduled, {running} running, {dead} dead.
    Nothing was changed; force=True deletes them."""

    table: str
    ready: int
    scheduled: int
    running: int
    dead: int


class JobNotFound(PQError, LookupError):
    """There is no job {job_id} in queue {queue!r}."""

    job_id: int
    queue: str


class LeaseLost(PQError):
    """Job {job_id} in queue {queue!r} is not ours any more (attempt {attempt}): it was settled or cancelled,
    or its lease expired and it was delivered again. Nothing was changed."""

    job_id: int
    queue: str
    attempt: int


class LeasesLost(LeaseLost):
    """{count} of the jobs are not ours any more, the first of them job {job_id} in queue {queue!r} (attempt {attempt}).
    The others were settled; in a transaction, if that is committed."""

    count: int
    job_ids: list[int]


class LeaseExpired(PQError):
    """Given up before attempt {attempt}: too often the lease expired, since who ran it died or hung."""


class TaskNotFound(PQError, LookupError):
    """There is no task for this job.

    :ivar task: the name of the task that the job calls; None if the job is no call of a task.
    """

    task: str | None = None


class TaskTimeout(PQError, TimeoutError):
    """The task ran for longer than its timeout of {timeout}.

    :ivar stack: where it was then, as text; or None.
    """

    timeout: timedelta
    stack: str | None = None


class LoopLeft(PQError):
    """The loop over `Queue.items` was left before the job was done."""


class Retry(PQError):
    """Raised by whoever handles a job: try it again.

    :param in_: after this time, as ``'30s'`` or a timedelta; None: as the retry policy says, at once if it says
        nothing. It is tried again however often it was before.
    """

    def __init__(self, in_: str | timedelta | None = None) -> None:
        super().__init__("to be tried again")
        self.in_ = in_


class Discard(PQError):
    """Raised by whoever handles a job: give it up. It becomes a dead job with this reason."""

    def __init__(self, reason: str = "discarded") -> None:
        super().__init__(reason)
        self.reason = reason


class DecodeError(PQError, ValueError):
    """Job {job_id} in queue {queue!r} cannot be decoded ({reason}); {fate}."""

    job_id: int
    queue: str
    reason: str
    fate: str


class EmbeddedError(PQError):
    """The embedded PostgreSQL cannot be run."""
