"""Reading and writing the rows of a queue, and encoding their data: the base of `Queue`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from .. import _codec
from .._args import check_text, integer, queue_name
from .._db import Database, Literal, Rows, check_source, is_dsn
from .._text import describe
from .._times import TimeSpec
from ..errors import DecodeError, JobNotFound, QueueFull, RowsDropped
from ..sql import TableName
from . import bulk as _bulk
from .instruments import with_headers
from .table import Table

if TYPE_CHECKING:
    from typing_extensions import Self


class QueueRows:
    """The rows of one queue in the table."""

    #: Conversions before encoding and after decoding, ``(dumps, loads)``, by the suffix of the queue's name.
    converters: ClassVar[Mapping[str, tuple[_codec.Convert, _codec.Convert]]] = {
        "pickle": (_codec.dump_pickle, _codec.load_pickle),
        "text": (_codec.check_str, _codec.check_str),
    }

    #: Convert data to JSON text, and JSON text to data.
    encode: Callable[..., str] = staticmethod(_codec.encode)
    decode: Callable[..., Any] = staticmethod(_codec.decode)

    #: Whether kept errors include tracebacks. These hold lines of code, and the messages of chained exceptions, which
    #: may contain data.
    keep_traceback: bool = True

    #: The largest size of a job's encoded data, in bytes of UTF-8; None: the limit of PostgreSQL, 1 GB.
    max_size: int | None = None

    #: The largest number of ready jobs: a put that would make them more raises `QueueFull`. None: no limit.
    max_ready: int | None = None

    #: The conversions of this queue, which its suffix chooses.
    dumps: Callable[..., Any] = staticmethod(lambda data: data)
    loads: Callable[..., Any] = staticmethod(lambda data: data)

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
        check_text("queue name", name)
        self._check_options(options)
        self.__dict__.update(options)
        if self.max_size is not None:
            integer("max_size", self.max_size, 1)
        if self.max_ready is not None:
            integer("max_ready", self.max_ready, 1)
        self.name: str
        self.name, suffix = self._split(name)  # after the options, which may include converters
        if suffix is not None:
            self.dumps, self.loads = self.converters[suffix]
            if suffix == "pickle" and pickle_key is not None:
                signed = _codec.SignedPickle(self.name, pickle_key)
                self.dumps, self.loads = signed.dumps, signed.loads
        check_source(conn, pool)
        self._origin = conn, pool, TableName(table, schema)
        #: The table's name for SQL of your own, as a query parameter: ``cursor.execute("… from %s", (queue.table,))``.
        self.table: Literal = Literal(self._origin[-1].quoted)

    def __repr__(self) -> str:
        return f"<pq.{type(self).__name__} {self.name!r}>"

    def __reduce__(self) -> Any:
        return self._db.source.__reduce__()  # which says why it can't be

    @classmethod
    def _check_options(cls, options: Iterable[str]) -> None:
        """
        :raises TypeError: an option is misspelt; but 1.9.1 accepted any option for a subclass.
        """
        for option in options:
            if not hasattr(cls, option) and cls.__module__.startswith("pq."):
                raise TypeError(f"{cls.__name__} has no option {option!r}")

    def _split(self, name: str) -> tuple[str, str | None]:
        """Split a name into the name of the queue and the suffix of a conversion, or None if it has no such suffix.

        :raises TypeError: the name is not a str.
        :raises ValueError: PostgreSQL can't hold the name: it is empty or longer than 2,676 bytes, or has a NUL
            character or a lone surrogate.
        """
        stem, _, suffix = check_text("queue name", name).rpartition("/")
        if not stem or suffix not in self.converters:
            return queue_name(name), None
        return queue_name(stem), suffix

    @cached_property
    def _table(self) -> Table:
        """The table, with connections of this queue's own; a `PQ` sets its own table in place of it."""
        conn, pool, name = self._origin
        return Table(name, Database(conn, pool, name.quoted))

    @cached_property
    def _db(self) -> Database:
        return self._table.database

    def _bind(self, conn: Any) -> Self:
        """Return a view of this queue that executes everything in a transaction of the application's.

        The errors are those of `Database.bind`.
        """
        return self._on(self._table.bind(conn))

    def _on(self, table: Table) -> Self:
        view = object.__new__(type(self))
        view.__dict__.update(self.__dict__, _table=table, _db=table.database, _entered=[])
        return view

    @property
    def conn(self) -> Any:
        """The connection that the PQ was given, or None."""
        return None if is_dsn(self._db.conn) else self._db.conn  # a DSN may hold a password

    @property
    def pool(self) -> Any:
        """The pool that the PQ was given, or None."""
        return self._db.pool

    def _decoded(self, job_id: int, text: str) -> Any:
        try:
            return self.loads(self.decode(text))
        except Exception as error:
            reason = describe(error)
            raise DecodeError(job_id=job_id, queue=self.name, reason=reason, fate="it was left unchanged") from error

    def _text(self, data: Any) -> str:
        """Encode data for a put.

        :raises ValueError: the encoded data is larger than `max_size`.
        """
        if type(data) is _bulk.NewJob:  # which JSON would take for a list
            raise TypeError("the data of a job can't be a NewJob: give that to put_many or load")
        text = self.encode(self.dumps(data))
        return text if self.max_size is None else _codec.check_size(text, self.max_size)

    def _encoded(self, data: Any) -> str | None:
        return None if data is None else self.encode(self.dumps(data))

    def _encoded_rows(
        self, items: Iterable[Any], schedule_at: TimeSpec, expected_at: TimeSpec, headers: str | None = None
    ) -> Iterator[_bulk.Row]:  # fmt: skip
        return _bulk.rows(self.name, items, self._text, schedule_at, expected_at, headers)

    def _put_chunk(self, chunk: list[_bulk.Row], instead: Mapping[str, str] | None = None) -> list[int]:
        """Put up to 1,000 jobs.

        :param instead: where the statement has their headers from; None: they are those of the first one.
        """
        parameters = _bulk.parameters(chunk)
        statement = "put_many" if "schedule_at" in parameters else "put_untimed"
        keyed = {"insert_given": "insert_keyed"} if "key" in parameters else {}
        instead = with_headers(chunk[0].headers) if instead is None else instead
        sql = self._statements("queue.sql", **keyed, **instead)
        if self.max_ready is not None:
            statement = "put_bounded"
            parameters = {**_bulk.NO_TIMES, **parameters, "room": max(self.max_ready - len(chunk), -1)}
        ids = [id for (id,) in self._run(sql[statement], prepare=True, **parameters)]
        if ids == [None]:
            raise QueueFull(queue=self.name, max_ready=self.max_ready)
        if len(ids) < len(chunk):
            raise RowsDropped(queue=self.name, dropped=len(chunk) - len(ids), count=len(chunk), ids=ids)
        return ids

    def _copy(self, lines: _bulk.JobLines) -> int:
        """Put rows by COPY; the caller has opened a transaction, and rolls it back after an error."""
        try:
            count = self._db.copy(self._statements("queue.sql", **with_headers(lines.headers))["load"], lines)
        except self._db.driver.Error as error:
            if lines.error is not None:
                raise lines.error from lines.error.__cause__
            self._table.check_encoding(error)
            raise
        if count < lines.count:
            raise RowsDropped(queue=self.name, dropped=lines.count - count, count=lines.count, ids=[])
        if self.max_ready is not None:
            ((has_room,),) = self._run(self._sql["has_room"], room=self.max_ready)
            if not has_room:
                raise QueueFull(queue=self.name, max_ready=self.max_ready)
        return count

    def _put(self, statement: str, data: Any, headers: str | None = None, **params: Any) -> int:
        sql = self._sql
        if headers is not None:
            sql = self._sql_with_headers
            params["headers"] = headers
        rows = self._run(sql[statement], prepare=True, data=self._text(data), **params)
        if not rows:
            raise RowsDropped(queue=self.name, dropped=1, count=1, ids=[])
        return int(rows[0][0])

    def _update(self, job_id: int, text: str) -> None:
        """Replace a job's data.

        :raises JobNotFound: this queue has no such job.
        :raises RowsDropped: a trigger of the user's dropped the change.
        """
        if not self._run(self._sql["update"], prepare=True, id=job_id, data=text):
            if self._run(self._sql["result"], id=job_id):
                raise RowsDropped(queue=self.name, dropped=1, count=1, ids=[])
            raise JobNotFound(job_id=job_id, queue=self.name)

    def _heal_at_the_end(self, key: str) -> None:
        """At the end of the transaction look for jobs of a key that were put since it has taken one: whoever put them
        could not see that this one ends."""
        params = {"queue": self.name, "key": key}
        self._db.current.before_commit((self.name, key), self._statements("keys.sql")["heal_key"], params)

    def _run(self, sql: str, *, prepare: bool = False, patient: bool = False, **params: Any) -> Rows:
        return self._table.execute(sql, {"queue": self.name, **params}, prepare=prepare, patient=patient)

    def _statements(self, path: str, **instead: str) -> Mapping[str, str]:
        return self._table.statements(path, **instead)

    @cached_property
    def _sql(self) -> Mapping[str, str]:
        return self._statements("queue.sql")

    @cached_property
    def _sql_with_headers(self) -> Mapping[str, str]:
        return self._statements("queue.sql", **with_headers("{}"))
