"""A transactional job queue in PostgreSQL.

    from pq import PQ

    pq = PQ("postgresql://localhost/app")
    pq.create()
    pq["mail"].put({"to": "ann@example.org"})

    with pq["mail"] as cursor:          # the job and what you write are committed together
        job = pq["mail"].get()
"""

from . import retry
from ._after import After
from ._jobs.dead import DeadJob
from ._jobs.failure import Failure
from ._jobs.info import JobInfo, QueueInfo
from ._jobs.job import Job
from ._jobs.lease import LeasedJob
from ._queue.dead import Dead
from ._queue.group import Group
from ._queue.iterators import QueueIterator
from ._queue.limits import Limit
from ._schedules import Schedule, ScheduleInfo
from ._table.bulk import NewJob
from ._unique import JobId, Unique
from ._version import __version__ as __version__
from .errors import (
    BlockError,
    CommitUnknown,
    ConnectionFailed,
    ConnectionLost,
    DecodeError,
    Discard,
    Duplicate,
    EmbeddedError,
    ForkedConnection,
    JobCancelled,
    JobFailed,
    JobNotFound,
    JobPending,
    JobsLeft,
    LeaseExpired,
    LeaseLost,
    LeasesLost,
    LoopLeft,
    PQError,
    QueueFull,
    Retry,
    RowsDropped,
    ScheduleNotFound,
    SchemaError,
    StatementTimeout,
    TableMissing,
    TaskNotFound,
    TaskTimeout,
)
from .tasks.queue import PQ, Queue
from .worker import Worker

__title__ = "pq"
__license__ = "BSD"

__all__ = [
    "PQ",
    "After",
    "BlockError",
    "CommitUnknown",
    "ConnectionFailed",
    "ConnectionLost",
    "Dead",
    "DeadJob",
    "DecodeError",
    "Discard",
    "Duplicate",
    "EmbeddedError",
    "Failure",
    "ForkedConnection",
    "Group",
    "Job",
    "JobCancelled",
    "JobFailed",
    "JobId",
    "JobInfo",
    "JobNotFound",
    "JobPending",
    "JobsLeft",
    "LeaseExpired",
    "LeaseLost",
    "LeasedJob",
    "LeasesLost",
    "Limit",
    "LoopLeft",
    "NewJob",
    "PQError",
    "Queue",
    "QueueFull",
    "QueueInfo",
    "QueueIterator",
    "Retry",
    "RowsDropped",
    "Schedule",
    "ScheduleInfo",
    "ScheduleNotFound",
    "SchemaError",
    "StatementTimeout",
    "TableMissing",
    "TaskNotFound",
    "TaskTimeout",
    "Unique",
    "Worker",
    "retry",
]
