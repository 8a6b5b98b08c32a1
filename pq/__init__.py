"""pq: a transactional job queue for PostgreSQL.

    from pq import PQ

    pq = PQ("postgresql://localhost/app")
    pq.create()
    pq["mail"].put({"to": "ann@example.org"})

    with pq["mail"] as cursor:          # the job and what you write are committed together
        job = pq["mail"].get()
"""

from . import retry
from ._bulk import Item
from ._iterators import QueueIterator
from .browse import JobInfo, QueueInfo
from .dead import Dead, DeadJob
from .errors import (
    CommitUnknown,
    ConnectionFailed,
    ConnectionLost,
    DecodeError,
    Discard,
    EmbeddedError,
    ForkedConnection,
    JobNotFound,
    JobsLeft,
    LeaseExpired,
    LeaseLost,
    LeasesLost,
    LoopLeft,
    PQError,
    Retry,
    SchemaError,
    TableMissing,
    TaskNotFound,
    TaskTimeout,
)
from .failure import Failure
from .job import Job
from .lease import LeasedJob
from .manager import PQ
from .queue import Queue
from .worker import Worker

__title__ = "pq"
__version__ = "2.0.0"
__license__ = "BSD"

__all__ = [
    "PQ",
    "CommitUnknown",
    "ConnectionFailed",
    "ConnectionLost",
    "Dead",
    "DeadJob",
    "DecodeError",
    "Discard",
    "EmbeddedError",
    "Failure",
    "ForkedConnection",
    "Item",
    "Job",
    "JobInfo",
    "JobNotFound",
    "JobsLeft",
    "LeaseExpired",
    "LeaseLost",
    "LeasedJob",
    "LeasesLost",
    "LoopLeft",
    "PQError",
    "Queue",
    "QueueInfo",
    "QueueIterator",
    "Retry",
    "SchemaError",
    "TableMissing",
    "TaskNotFound",
    "TaskTimeout",
    "Worker",
    "retry",
]
