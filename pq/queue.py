"""A named queue: put, get, and the transaction around them."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from datetime import timedelta
from logging import getLogger
from typing import Any

from ._claim import Claim
from ._numbers import timeout_seconds
from ._rows import QueueRows
from ._when import TimeSpec, when
from .dead import Dead
from .errors import DecodeError, JobNotFound
from .job import Job
from .lease import LeasedJob
from .retry import Delay, Policy, RetryIn, exponential, span


class Queue(QueueRows):
    """A queue in the table; ``pq["name"]`` makes one.

    It can be used by several threads at once. `get` outside of a transaction takes a job *at most once*: it is off the
    queue before you see it. Inside ``with queue as cursor:`` the job and what you write with the cursor are committed
    together, or the job stays.

    :param name: any text without NUL characters. A name that ends in ``/`` and a key of `converters`, such as
        ``jobs/pickle``, means the queue ``jobs`` with that conversion.
    :param conn: a psycopg2 connection or a DSN, as for `PQ`.
    :param pool: a psycopg2 pool, as for `PQ`.
    :param table: name of the table.
    :param schema: schema of the table; default: the server's search path decides.
    :param pickle_key: key or keys (newest first) to sign pickles with; unsigned ones are refused then.
    :param options: class attributes to set on this queue alone: `timeout`, `encode`, `decode`, `converters`, …
    :raises ValueError: a name that PostgreSQL can't hold.
    :raises TypeError: a name is not a str; `conn`, `pool` or `pickle_key` is something else; an unknown option.
    """

    #: Seconds that `get` and iteration wait for a job; None waits without end.
    timeout: float | None = 1

    #: Keyword arguments for the cursor that ``with queue as cursor`` gives.
    cursor_kwargs: Mapping[str, Any] = {}

    #: How often a job under a lease is tried again, and after what pause; see `pq.retry.Policy`.
    max_retries: int = 3
    retry_in: RetryIn = exponential()

    #: Whether the errors that are kept of failed attempts have tracebacks: these show lines of code, not data, but the
    #: messages of exceptions that led to the last one, too.
    keep_traceback: bool = True

    logger = getLogger("pq")

    def __init__(self, name: str, *args: Any, **options: Any) -> None:
        super().__init__(name, *args, **options)
        self._policy = Policy(self.max_retries, self.retry_in)
        self._claims = Claim(self.name, self._quoted)
        self._blocks = threading.local()

    # -- jobs in and out

    def put(self, data: Any, schedule_at: TimeSpec = None, expected_at: TimeSpec = None) -> int:
        """Put a job and return its id.

        :param data: what the queue's encoder takes; JSON by default.
        :param schedule_at: not to be got before: ``'30s'``, ``'5m'``, ``'1h30m'``, ``'2d'`` or a timedelta from now, by
            the server's clock, or a datetime (a naive one is UTC).
        :param expected_at: priority: the earliest is got first, jobs without one last. Same forms.
        :raises TypeError: times of another type; data that the encoder refuses.
        :raises ValueError: times of another form or out of range; NaN or Infinity in the data.
        :raises ConnectionFailed: the database can't be reached; nothing was put. As for all that follow here.
        :raises ConnectionLost: the connection broke, and no other could take its place; nothing was put.
        :raises CommitUnknown: it broke when the job was being committed, which may or may not have been done.
        :raises TableMissing: call `PQ.create` first.
        """
        schedule, expected = when("schedule_at", schedule_at), when("expected_at", expected_at)
        ((id,),) = self._write(
            "put",
            data,
            schedule_at=schedule.at,
            schedule_in=schedule.delay,
            expected_at=expected.at,
            expected_in=expected.delay,
        )
        self._db.changed()
        return int(id)

    def get(
        self, block: bool = True, timeout: float | None = None, lease: Delay | None = None
    ) -> Job | LeasedJob | None:
        """Take the next job: the one with the earliest `expected_at`, those without last, then the lowest id.

        **Outside of a transaction the job is off the queue when you get it**: if you crash, it is lost. Use
        ``with queue`` to keep it until your work is committed, or a lease.

        :param block: wait for a job if there is none.
        :param timeout: seconds to wait at most; 0 does not wait; None: the queue's `timeout`.
        :param lease: take it for this time, as ``'30s'`` or a timedelta: it is a `LeasedJob`, and if nobody settles it
            in time it is ready again.
        :returns: None if there is no job (in time).
        :raises ValueError: a negative timeout or NaN; a lease of another form, out of range or of no length.
        :raises TypeError: a timeout that is no number; a lease that is neither str nor timedelta.
        :raises DecodeError: the job can't be decoded; it stays where it is. Under a lease that is a failed attempt.
        :raises CommitUnknown: the connection broke when a job was being taken: it may be off the queue. The other
            errors of the connection are those of `put`; no job was taken.
        """
        wait = timeout_seconds(self.timeout if timeout is None else timeout)
        held = None if lease is None else span("lease", lease)
        if not block:
            wait = 0.0
        deadline = time.monotonic() + wait
        job = self._claim(wait, held)
        if job is not None or wait == 0:
            return job
        with self._db.waiter(self.name) as waiter:
            while job is None and waiter.wait(deadline):
                job = self._claim(max(0.0, deadline - time.monotonic()), held)
        return job

    def jobs(self, lease: Delay = "30s", timeout: float | None = None) -> Iterator[LeasedJob | None]:
        """Iterate jobs under a lease, without end; None whenever there was none for `timeout` seconds.

            for job in queue.jobs(lease="5m"):
                if job is not None:
                    with job:
                        ...

        :param lease: as for `get`.
        :param timeout: as for `get`.
        """
        span("lease", lease)
        found: Iterator[Any] = QueueIterator(self, timeout, lease)
        return found

    def update(self, job_id: int, data: Any) -> int:
        """Replace a job's data, and return the size of the new.

        :raises JobNotFound: there is no such job in this queue.
        """
        rows = self._write("update", data, id=int(job_id))
        if not rows:
            raise JobNotFound(job_id=job_id, queue=self.name)
        return int(rows[0][0])

    def result(self, job_id: int) -> Any:
        """What a finished job left as its result, or a running one as its progress; None if it left nothing.

        :raises JobNotFound: there is no such job in this queue.
        """
        rows = self._run(self._sql["result"], id=int(job_id))
        if not rows:
            raise JobNotFound(job_id=job_id, queue=self.name)
        ((text,),) = rows
        return None if text is None else self._decoded(job_id, text)

    @property
    def dead(self) -> Dead:
        """The dead jobs of this queue."""
        return Dead(self)

    def clear(self) -> None:
        """Delete all rows of this queue, those of finished jobs, too."""
        self._run(self._sql["clear"])

    def __len__(self) -> int:
        """How many jobs could be got now, if nobody else took any: ready or due."""
        ((count,),) = self._run(self._sql["count"])
        return int(count)

    def __iter__(self) -> QueueIterator:
        """Iterate jobs without end; None whenever there was none for `timeout` seconds."""
        return QueueIterator(self)

    # -- transactions

    def __enter__(self) -> Any:
        """Begin a transaction for all that this thread does with this PQ, and return a cursor."""
        if not hasattr(self._blocks, "open"):
            self._blocks.open = []
        block = self._transaction()
        cursor = block.__enter__()
        self._blocks.open.append(block)
        return cursor

    def __exit__(self, *exc: Any) -> bool | None:
        """Commit, or roll back on an exception."""
        block: AbstractContextManager[Any] = self._blocks.open.pop()
        return block.__exit__(*exc)

    def _transaction(self) -> AbstractContextManager[Any]:
        return self._db.transaction(**self.cursor_kwargs)

    def close(self) -> None:
        """Close the connections, those given to `PQ`, too."""
        self._db.close()

    # -- inside

    def _claim(self, timeout: float, lease: timedelta | None = None) -> Job | LeasedJob | None:
        row = self._claims.take(self._db, timeout, lease)
        return None if row is None else self._received(row, lease)

    def _received(self, row: tuple[Any, ...], lease: timedelta | None) -> Job | LeasedJob:
        *columns, dequeued_at, attempts = row
        if lease is None:
            job = Job(self, *columns)
        else:
            held = {"attempts": attempts, "dequeued_at": dequeued_at, "lease": lease, "policy": self._policy}
            job = LeasedJob(self, *columns, **held)
        try:
            job._data = self._decoded(job.id, job._data)
        except BaseException as error:
            fate = "it was left where it is"
            if not isinstance(job, LeasedJob):
                self._run(self._sql["give_back"], id=job.id, dequeued_at=dequeued_at)
            elif isinstance(error, DecodeError):
                fate = {"retry": "it will be tried again", "dead": "it is dead"}[job.failed(error)]
            else:  # Ctrl-C: nobody has seen the job
                job.release()
            if isinstance(error, DecodeError):
                raise DecodeError(job_id=job.id, queue=self.name, reason=error.reason, fate=fate) from error.__cause__
            raise
        return job


class QueueIterator(Iterator["Job | None"]):
    """Iterates the jobs of a queue, also after an error.

    :ivar timeout: seconds until None is returned when there is no job; None: the queue's `timeout`.
    :ivar lease: under which jobs are taken; None: under none.
    """

    timeout: float | None = None

    def __init__(self, queue: Queue, timeout: float | None = None, lease: Delay | None = None) -> None:
        self.queue = queue
        self.timeout = timeout
        self.lease = lease

    def __next__(self) -> Job | None:
        if self.lease is None:
            return self.queue.get(timeout=self.timeout)
        return self.queue.get(timeout=self.timeout, lease=self.lease)
