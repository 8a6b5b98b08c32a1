"""The errors of pq: one tree under `PQError`.

Where the driver has an error of the same meaning, what is raised is a subclass of both, so that code which
already catches ``psycopg2.OperationalError`` or ``psycopg2.ProgrammingError`` goes on catching it.
"""

from __future__ import annotations

from inspect import cleandoc


class PQError(Exception):
    """Something went wrong in pq."""

    def __init__(self, message: str | None = None, /, **data: object) -> None:
        if message is None:
            message = cleandoc(type(self).__doc__ or "").replace("\n", " ").format(**data)
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


class TableMissing(PQError):
    """The queue table {table} is missing, or of an older version, in database "{database}": call create()."""

    table: str
    database: str


class SchemaError(PQError):
    """The table cannot be created or upgraded."""


class JobNotFound(PQError, LookupError):
    """There is no job {job_id} in queue {queue!r}."""

    job_id: int
    queue: str


class DecodeError(PQError, ValueError):
    """Job {job_id} in queue {queue!r} cannot be decoded ({reason}); it was left where it is."""

    job_id: int
    queue: str
    reason: str


class EmbeddedError(PQError):
    """The embedded PostgreSQL cannot be run."""
