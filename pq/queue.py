"""A named queue: put, get, and the transaction around them."""

from __future__ import annotations

import math
import reprlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from logging import getLogger
from numbers import Real
from typing import Any, ClassVar

from . import _codec, _sql
from ._claim import Claim
from ._db import Database
from ._when import TimeSpec, when
from .errors import DecodeError, JobNotFound
from .job import Job


class Queue:
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

    #: Conversions before encoding and after decoding, by the suffix of the queue's name: ``(dumps, loads)``.
    converters: ClassVar[Mapping[str, tuple[_codec.Convert, _codec.Convert]]] = {
        "pickle": (_codec.dump_pickle, _codec.load_pickle),
    }

    #: Data to JSON text, and back.
    encode: Callable[..., str] = staticmethod(_codec.encode)
    decode: Callable[..., Any] = staticmethod(_codec.decode)

    #: The conversion of this queue.
    dumps: Callable[..., Any] = staticmethod(lambda data: data)
    loads: Callable[..., Any] = staticmethod(lambda data: data)

    logger = getLogger("pq")

    def __init__(
        self,
        name: str,
        conn: Any = None,
        pool: Any = None,
        table: str = "queue",
        schema: str | None = None,
        *,
        pickle_key: bytes | Sequence[bytes] | None = None,
        **options: Any,
    ) -> None:
        name = _sql.check_text("queue name", name)
        for option, value in options.items():
            # a misspelt one must not go unnoticed; but in 1.9.1 a subclass could be given any
            if not hasattr(type(self), option) and type(self).__module__.startswith("pq."):
                raise TypeError(f"{type(self).__name__} has no option {option!r}")
            self.__dict__[option] = value
        stem, _, suffix = name.rpartition("/")
        if stem and suffix in self.converters:
            self.dumps, self.loads = self.converters[suffix]
            if suffix == "pickle" and pickle_key is not None:
                signed = _codec.SignedPickle(stem, pickle_key)
                self.dumps, self.loads = signed.dumps, signed.loads
            name = stem
        self.name = name
        quoted = _sql.Table(table, schema).quoted
        self._db = Database(conn, pool, quoted)
        self._sql = _sql.bound("queue.sql", quoted)
        self._claims = Claim(name, quoted)
        self._blocks = threading.local()
        #: The table's name for SQL of your own, as a query parameter: ``cursor.execute("… from %s", (queue.table,))``.
        self.table = self._db.driver.literal(quoted)

    def __repr__(self) -> str:
        return f"<pq.{type(self).__name__} {self.name!r}>"

    @property
    def conn(self) -> Any:
        """The connection given, or None."""
        return None if isinstance(self._db.conn, str) else self._db.conn  # a DSN may hold a password

    @property
    def pool(self) -> Any:
        """The pool given, or None."""
        return self._db.pool

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

    def get(self, block: bool = True, timeout: float | None = None) -> Job | None:
        """Take the next job: the one with the earliest `expected_at`, those without last, then the lowest id.

        **Outside of a transaction the job is off the queue when you get it**: if you crash, it is lost. Use
        ``with queue`` to keep it until your work is committed.

        :param block: wait for a job if there is none.
        :param timeout: seconds to wait at most; 0 does not wait; None: the queue's `timeout`.
        :returns: None if there is no job (in time).
        :raises ValueError: a negative timeout or NaN.
        :raises TypeError: a timeout that is no number.
        :raises DecodeError: the job can't be decoded; it stays where it is.
        :raises CommitUnknown: the connection broke when a job was being taken: it may be off the queue. The other
            errors of the connection are those of `put`; no job was taken.
        """
        seconds = self._seconds(timeout)
        if not block:
            seconds = 0.0
        deadline = time.monotonic() + seconds
        job = self._claim(seconds)
        if job is not None or seconds == 0:
            return job
        with self._db.waiter(self.name) as waiter:
            while job is None and waiter.wait(deadline):
                job = self._claim(max(0.0, deadline - time.monotonic()))
        return job

    def update(self, job_id: int, data: Any) -> int:
        """Replace a job's data, and return the size of the new.

        :raises JobNotFound: there is no such job in this queue.
        """
        rows = self._write("update", data, id=int(job_id))
        if not rows:
            raise JobNotFound(job_id=job_id, queue=self.name)
        return int(rows[0][0])

    def clear(self) -> None:
        """Delete all rows of this queue, those of finished jobs, too."""
        self._db.execute(self._sql["clear"], {"queue": self.name})

    def __len__(self) -> int:
        """How many jobs could be got now, if nobody else took any: ready or due."""
        ((count,),) = self._db.execute(self._sql["count"], {"queue": self.name})
        return int(count)

    def __iter__(self) -> QueueIterator:
        """Iterate jobs without end; None whenever there was none for `timeout` seconds."""
        return QueueIterator(self)

    def _claim(self, timeout: float) -> Job | None:
        row = self._claims.take(self._db, timeout)
        if row is None:
            return None
        id, text, size, enqueued_at, schedule_at, expected_at, dequeued_at, _ = row
        try:
            data = self.loads(self.decode(text))
        except BaseException as error:  # Ctrl-C, too: nobody has seen the job
            self._db.execute(self._sql["give_back"], {"id": id, "dequeued_at": dequeued_at})
            if not isinstance(error, Exception):
                raise
            reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            raise DecodeError(job_id=id, queue=self.name, reason=reason) from error
        return Job(self, id, data, size, enqueued_at, schedule_at, expected_at)

    def _write(self, statement: str, data: Any, **params: Any) -> list[tuple[Any, ...]]:
        text = self.encode(self.dumps(data))
        try:
            return self._db.execute(self._sql[statement], {"queue": self.name, "data": text, **params})
        except self._db.driver.Error as error:
            if self._db.driver.text_is_invalid(error):  # the server's message quotes the data
                raise ValueError("the queue's encoder did not return valid JSON") from None
            raise

    def _seconds(self, timeout: float | None) -> float:
        if timeout is None:
            timeout = self.timeout
        if timeout is None:
            return math.inf
        if isinstance(timeout, bool) or not isinstance(timeout, Real):
            raise TypeError(
                f"timeout must be a number of seconds, not {type(timeout).__name__}: {reprlib.repr(timeout)}"
            )
        if not timeout >= 0:
            raise ValueError(f"timeout must be a non-negative number of seconds, not {timeout!r}")
        return float(timeout)

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


class QueueIterator(Iterator["Job | None"]):
    """Iterates the jobs of a queue.

    :ivar timeout: seconds until None is returned when there is no job; None: the queue's `timeout`.
    """

    timeout: float | None = None

    def __init__(self, queue: Queue) -> None:
        self.queue = queue

    def __next__(self) -> Job | None:
        return self.queue.get(timeout=self.timeout)
