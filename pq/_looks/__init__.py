"""Looks at all queues of a table, for people and for monitoring: read only, within a second, and bounded.

    looks       what `PQ` has of it
    overview    the queues and their numbers of jobs
    running     the jobs that run, and who runs or waits for jobs
    groups      dead jobs, grouped by what they died of
    history     what has ended lately
    rate        how many jobs a second are put
    times       times as the statements return them

The statements are in ``sql/looks.sql``, and ``_table/look.py`` executes them.
"""

from .groups import DeadGroup
from .history import History, Minute
from .looks import Looks
from .overview import Count, Overview, QueueOverview, TableOverview
from .running import RunningJob, WorkerOverview

__all__ = [
    "Count",
    "DeadGroup",
    "History",
    "Looks",
    "Minute",
    "Overview",
    "QueueOverview",
    "RunningJob",
    "TableOverview",
    "WorkerOverview",
]
