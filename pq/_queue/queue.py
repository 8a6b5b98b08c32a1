"""The class `Queue`: put, get, and the transaction around them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any, overload

from .._after import After
from .._args import integer
from .._jobs.job import Job
from .._jobs.lease import LeasedJob
from .._jobs.outcome import settle_all
from .._table import bulk as _bulk
from .._table.lines import chunks
from .._times import Delay, TimeSpec, delay_of, positive_delay, wait_of, when
from .._unique import JobId, Unique
from ..errors import JobNotFound
from .ahead import AheadIterator
from .claim import Claim
from .dead import Dead
from .group import Groups
from .item import Items
from .iterators import BatchIterator, QueueIterator
from .results import Results, number_of
from .why import Whys


class Queue(Whys, Groups, Items, Results):
    """A queue in the table; ``pq["name"]`` makes one.

    Several threads can use a queue at once. `get` outside of a transaction takes a job *at most once*: the job has left
    the queue before you see it. Inside ``with queue as cursor:`` the job and what you write with the cursor are
    committed together, or the job stays.

    :param name: any text without NUL characters. A name that ends in ``/`` and a key of `converters`, such as
        ``jobs/pickle`` or ``jobs/text``, means the queue ``jobs`` with that conversion.
    :param conn: a connection or a DSN, as for `PQ`.
    :param pool: a pool, as for `PQ`.
    :param table: the name of the table.
    :param schema: the schema of the table; default: the server's search path decides.
    :param pickle_key: the key that signs pickles, or several, newest first. With a key, unsigned pickles are refused.
    :param options: class attributes to set on this queue alone: `timeout`, `max_size`, `encode`, `converters`, …
    :raises ValueError: PostgreSQL can't hold a name.
    :raises TypeError: a name is not a str; `conn`, `pool` or `pickle_key` has another type; there is no such option.
    """

    def __init__(self, name: str, *args: Any, **options: Any) -> None:
        super().__init__(name, *args, **options)
        self._claims = Claim()

    # -- jobs in and out

    @overload
    def put(
        self, data: Any, schedule_at: TimeSpec = None, expected_at: TimeSpec = None, *, key: str | None = None,
        unique: None = None, after: After | int | Iterable[int] | None = None, conn: Any = None,
    ) -> int: ...  # fmt: skip
    @overload
    def put(
        self, data: Any, schedule_at: TimeSpec = None, expected_at: TimeSpec = None, *, key: str | None = None,
        unique: str | bool | Unique, after: After | int | Iterable[int] | None = None, conn: Any = None,
    ) -> JobId: ...  # fmt: skip

    def put(
        self, data: Any, schedule_at: TimeSpec = None, expected_at: TimeSpec = None, *, key: str | None = None,
        unique: str | bool | Unique | None = None, after: After | int | Iterable[int] | None = None, conn: Any = None,
    ) -> int:  # fmt: skip
        """Put a job and return its id.

        :param data: what the queue's encoder accepts; by default what JSON can hold.
        :param schedule_at: the job is not taken before this time: ``'30s'``, ``'5m'``, ``'1h30m'``, ``'2d'``, a
            timedelta or seconds from now, by the server's clock, or a datetime (a naive one is UTC).
        :param expected_at: the priority, in the same forms: the earliest job is taken first, jobs without a time last.
        :param key: the jobs of a queue with one key run one after the other; 1 to 500 bytes of UTF-8.
        :param unique: a token, or a `Unique`: put no second job while a job of this queue has the token, and return a
            `JobId`, which tells whether the job is new. True: the token is a digest of the data.
        :param after: the ids of jobs, or an `After`: the job is held until all of them are done. Such a job has neither
            a `schedule_at` nor a token, and does not count for `max_ready`.
        :param conn: put the job in the transaction that is open there: a connection, cursor or session; see `PQ.using`.
        :raises TypeError: a time, key, token or id has another type; the encoder refuses the data.
        :raises ValueError: a time has another form or is out of range; a key or token is empty or too long, alone or
            together with the queue's name; the data has NaN or Infinity, is larger than `max_size`, or can't be merged;
            a job of `after` has a follower already.
        :raises JobNotFound: there is no job with an id of `after`.
        :raises Duplicate: a job has the token, and the `Unique` says ``on_duplicate='error'``.
        :raises ConnectionFailed: the database can't be reached; nothing was put.
        :raises ConnectionLost: the connection broke, and no other could take its place; nothing was put.
        :raises CommitUnknown: the connection broke during the commit, which may or may not have happened.
        :raises TableMissing: call `PQ.create` first.
        :raises RowsDropped: a trigger of yours dropped the row; nothing was put.
        :raises QueueFull: the queue has `max_ready` ready jobs; nothing was put, and your transaction may go on.
        """
        schedule, expected = when("schedule_at", schedule_at), when("expected_at", expected_at)
        queue = self if conn is None else self._bind(conn)
        if queue._table.instruments.puts:
            with queue._table.instruments.sending(self.name) as sending:
                id = queue._put_one(data, schedule, expected, key, unique, after, sending.headers)
                sending.sent([id], int(id))
            return id
        return queue._put_one(data, schedule, expected, key, unique, after)

    def put_many(
        self, items: Iterable[Any], schedule_at: TimeSpec = None, expected_at: TimeSpec = None, *, conn: Any = None
    ) -> list[int]:
        """Put jobs, all of them or none, and return their ids, in order.

        :param items: data as for `put`, or a `NewJob` for data with times or keys. The iterable is read while the
            jobs are put, and only the ids are kept: more than 1,000 jobs take several statements in one transaction.
        :param schedule_at: as for `put`, for all jobs.
        :param expected_at: as for `put`, for all jobs.
        :param conn: as for `put`. After an error, your rollback undoes what was put before.

        The errors are those of `put`, and those that the iterable raises. With `max_ready` all jobs must fit; more than
        that number never do. If a trigger of yours drops rows, `RowsDropped` says how many; up to 1,000 jobs are one
        statement, whose other rows were put.
        """
        queue = self if conn is None else self._bind(conn)
        with queue._table.instruments.sending(self.name) as sending:
            parts = chunks(self._encoded_rows(items, schedule_at, expected_at, sending.headers))
            first, second = next(parts, None), next(parts, None)
            if first is None:
                ids = []
            elif second is None and not any(row.unique for row in first):
                ids = queue._put_chunk(first)
            else:
                with queue._db.grouped():
                    ids = list(queue._put_chunks(chain([first, second or []], parts)))
            sending.sent(ids)
        return ids

    def load(self, items: Iterable[Any], schedule_at: TimeSpec = None, expected_at: TimeSpec = None) -> int:
        """Put jobs by COPY, all of them or none, and return their number. This is faster than `put_many`.

        The arguments and errors are those of `put_many`. The connection is busy meanwhile: `items` must not use this
        PQ. Relative times count from the start of the call.
        """
        with self._table.instruments.sending(self.name) as sending:
            rows = self._encoded_rows(items, schedule_at, expected_at, sending.headers)
            with self._db.grouped():
                ((now,),) = self._run(self._sql["now"])
                count = self._copy(_bulk.JobLines(self.name, rows, now, sending.headers))
            sending.sent(count)
        return count

    def get(
        self, block: bool = True, timeout: Delay | None = None, lease: Delay | None = None, *, conn: Any = None
    ) -> Job | LeasedJob | None:
        """Take the next job: the one with the earliest `expected_at`; jobs without one come last, by their ids.

        **Outside of a transaction the job has left the queue when you get it**: if your program crashes, it is lost.
        Use ``with queue`` to keep the job until your work is committed, or a lease.

        :param block: wait for a job if there is none.
        :param timeout: the longest time to wait, as ``'5s'``, a timedelta or seconds; 0 does not wait; None means the
            queue's `timeout`.
        :param lease: take the job for this time, as ``'30s'``, a timedelta or seconds. The job is a `LeasedJob`, and is
            ready again if it is not settled in time.
        :param conn: take the job in the transaction that is open there; see `PQ.using`.
        :returns: None if there is no job (in time).
        :raises ValueError: the timeout is negative or NaN; the lease has another form, is not positive or out of range;
            there is no lease and `conn` is in autocommit mode.
        :raises TypeError: the timeout is not a number; the lease is neither str nor timedelta.
        :raises DecodeError: the job can't be decoded and stays where it is; under a lease this is a failed attempt.
        :raises CommitUnknown: the connection broke while a job was taken: it may have left the queue. The other errors
            of the connection are those of `put`; no job was taken.
        """
        found = self._take(1, block, timeout, lease, conn)
        return found[0] if found else None

    def get_many(
        self, n: int, block: bool = True, timeout: Delay | None = None, lease: Delay | None = None, *, conn: Any = None
    ) -> list[Any]:
        """Take up to `n` jobs that are ready, in order; if there are none, wait for the first.

        :param n: the largest number of jobs; at least 1.
        :returns: a list of what `get` returns; empty if there is no job (in time). One lease is for all of them.
        :raises DecodeError: none of the jobs can be decoded. If only some can't, they are logged, and treated as by
            `get`.

        The other arguments and errors are those of `get`.
        """
        return self._take(integer("n", n, 1), block, timeout, lease, conn)

    def _take(self, n: int, block: bool, timeout: Delay | None, lease: Delay | None, conn: Any) -> list[Any]:
        wait = wait_of(self.timeout if timeout is None else timeout)
        length = None if lease is None else positive_delay("lease", lease)
        if not block:
            wait = 0.0
        queue = self if conn is None else self._bind(conn)
        if wait and queue._db.is_view and not queue._db.driver.can_wait:
            raise TypeError("get can't wait inside of run_sync, which would stop the event loop: pass timeout=0")
        if length is None:
            queue._db.require_transaction("a get without a lease")
        jobs = self._claims.wait_for(queue, n, wait, length)
        for job in jobs if queue is not self else ():
            job._queue = self  # what is done with it later has a `conn` of its own
        return jobs

    def jobs(
        self, lease: Delay = "30s", timeout: Delay | None = None, *, ahead: bool = False
    ) -> Iterator[LeasedJob | None]:
        """Iterate jobs under a lease, without end; yield None whenever there was none for `timeout` seconds::

            for job in queue.jobs(lease="5m"):
                if job is not None:
                    with job:
                        ...

        :param lease: as for `get`.
        :param timeout: as for `get`.
        :param ahead: the statement that ends a job as done takes the next one, too, whose lease begins then. One that
            was taken and not yielded is given back when the loop is left; after a crash its lease has to expire.
        """
        positive_delay("lease", lease)
        found: Any = (AheadIterator if ahead else QueueIterator)(self, timeout, lease)
        return iter(found)

    def batches(
        self, n: int, linger: Delay = "50ms", lease: Delay | None = None, timeout: Delay | None = None
    ) -> Iterator[list[Any]]:
        """Iterate lists of up to `n` jobs, without end; yield an empty one if there was no job for `timeout` seconds.

        An error while this waits for more jobs is logged, and the jobs that it has are returned.

        :param n: the largest number of jobs in a list; at least 1.
        :param linger: how long to wait for more jobs after the first one of a batch, as ``'50ms'``, a timedelta or
            seconds.
        :param lease: the lease of the jobs; see `done`. Without one they have left the queue, and are lost if the
            program ends before it has handled them.
        :param timeout: as for `get`.
        """
        if lease is not None:
            positive_delay("lease", lease)
        return BatchIterator(self, integer("n", n, 1), delay_of("linger", linger).total_seconds(), timeout, lease)

    def done(self, jobs: Iterable[LeasedJob], *, conn: Any = None) -> None:
        """Finish leased jobs, by one statement for each 1,000.

        :param jobs: jobs of this queue, or of other queues of its `PQ`.
        :param conn: finish them in the transaction that is open there; see `PQ.using`.
        :raises LeasesLost: some jobs are no longer held. The others were finished; inside a transaction this takes
            effect when it is committed.
        """
        self.settle(((job, None) for job in jobs), conn=conn)

    def settle(self, outcomes: Iterable[tuple[LeasedJob, BaseException | None]], *, conn: Any = None) -> None:
        """Settle leased jobs by their outcomes, by one statement for each 1,000.

        :param outcomes: pairs of a job and None, if it is done, or an exception, which ends the job as it does at the
            end of ``with job:``.
        :param conn: as for `done`.
        :raises LeasesLost: as for `done`.
        :raises ValueError: a job occurs twice, or belongs to another `PQ`; nothing was changed.
        """
        settle_all(self._table, outcomes, conn)

    def update(self, job_id: int, data: Any, *, conn: Any = None) -> int:
        """Replace the data of a job, whoever has it, and return the size of the new data in characters.

        :param conn: replace it in the transaction that is open there; see `PQ.using`.
        :raises JobNotFound: this queue has no such job.
        :raises RowsDropped: a trigger of yours dropped the change.
        :raises TypeError: the encoder refuses the data.
        """
        text, number = self._text(data), number_of(job_id)
        if number is None:
            raise JobNotFound(job_id=job_id, queue=self.name)
        (self if conn is None else self._bind(conn))._update(number, text)
        return len(text)

    @property
    def dead(self) -> Dead:
        """The dead jobs of this queue."""
        return Dead(self)

    def clear(self, *, conn: Any = None) -> None:
        """Delete all jobs of this queue, including finished ones. A paused queue stays paused.

        :param conn: delete them in the transaction that is open there; see `PQ.using`.
        """
        (self if conn is None else self._bind(conn))._run(self._sql["clear"], patient=True)

    def __len__(self) -> int:
        """The number of jobs that could be taken now: those that are ready or due, even if the queue is paused."""
        ((count,),) = self._browse("count_ready")
        return int(count)

    def __iter__(self) -> QueueIterator:
        """Iterate jobs without end; yield None whenever there was none for `timeout` seconds."""
        return QueueIterator(self)

    def close(self) -> None:
        """Close the connections, including those that the `PQ` was given."""
        self._table.close()
