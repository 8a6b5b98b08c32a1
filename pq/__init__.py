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
from ._looks import (
    Count,
    DeadGroup,
    History,
    Minute,
    Overview,
    QueueOverview,
    RunningJob,
    TableOverview,
    WorkerOverview,
)
from ._queue.dead import Dead
from ._queue.group import Group
from ._queue.iterators import QueueIterator
from ._queue.limits import Limit
from ._queue.why import Why
from ._schedules import Schedule, ScheduleInfo
from ._streams import Batch, Event, Lag, LeasedEvent, NewEvent, StreamInfo, Subscription, SubscriptionInfo
from ._table.bulk import NewJob
from ._unique import JobId, Unique
from ._version import __version__ as __version__
from .errors import (
    BatchLost,
    BlockError,
    CommitUnknown,
    ConnectionFailed,
    ConnectionLost,
    DecodeError,
    Discard,
    Duplicate,
    EmbeddedError,
    EventsLeft,
    EventsLost,
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
    StreamMissing,
    StreamRestored,
    SubscriptionNotFound,
    TableMissing,
    TaskNotFound,
    TaskTimeout,
)
from .tasks.queue import PQ, Queue
from .tasks.streams import Stream
from .worker import Worker

__title__ = "pq"
__license__ = "BSD"

__all__ = [
    "PQ",
    "After",
    "Batch",
    "BatchLost",
    "BlockError",
    "CommitUnknown",
    "ConnectionFailed",
    "ConnectionLost",
    "Count",
    "Dead",
    "DeadGroup",
    "DeadJob",
    "DecodeError",
    "Discard",
    "Duplicate",
    "EmbeddedError",
    "Event",
    "EventsLeft",
    "EventsLost",
    "Failure",
    "ForkedConnection",
    "Group",
    "History",
    "Job",
    "JobCancelled",
    "JobFailed",
    "JobId",
    "JobInfo",
    "JobNotFound",
    "JobPending",
    "JobsLeft",
    "Lag",
    "LeaseExpired",
    "LeaseLost",
    "LeasedEvent",
    "LeasedJob",
    "LeasesLost",
    "Limit",
    "LoopLeft",
    "Minute",
    "NewEvent",
    "NewJob",
    "Overview",
    "PQError",
    "Queue",
    "QueueFull",
    "QueueInfo",
    "QueueIterator",
    "QueueOverview",
    "Retry",
    "RowsDropped",
    "RunningJob",
    "Schedule",
    "ScheduleInfo",
    "ScheduleNotFound",
    "SchemaError",
    "StatementTimeout",
    "Stream",
    "StreamInfo",
    "StreamMissing",
    "StreamRestored",
    "Subscription",
    "SubscriptionInfo",
    "SubscriptionNotFound",
    "TableMissing",
    "TableOverview",
    "TaskNotFound",
    "TaskTimeout",
    "Unique",
    "Why",
    "Worker",
    "WorkerOverview",
    "retry",
]
