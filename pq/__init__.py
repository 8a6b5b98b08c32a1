"""pq: a transactional job queue for PostgreSQL.

    from pq import PQ

    pq = PQ("postgresql://localhost/app")
    pq.create()
    pq["mail"].put({"to": "ann@example.org"})

    with pq["mail"] as cursor:          # the job and what you write are committed together
        job = pq["mail"].get()
"""

from .errors import (
    CommitUnknown,
    ConnectionFailed,
    ConnectionLost,
    DecodeError,
    EmbeddedError,
    ForkedConnection,
    JobNotFound,
    PQError,
    SchemaError,
    TableMissing,
)
from .job import Job
from .manager import PQ
from .queue import Queue, QueueIterator

__title__ = "pq"
__version__ = "2.0.0"
__license__ = "BSD"

__all__ = [
    "PQ",
    "CommitUnknown",
    "ConnectionFailed",
    "ConnectionLost",
    "DecodeError",
    "EmbeddedError",
    "ForkedConnection",
    "Job",
    "JobNotFound",
    "PQError",
    "Queue",
    "QueueIterator",
    "SchemaError",
    "TableMissing",
]
