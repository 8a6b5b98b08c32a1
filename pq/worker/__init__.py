"""Performing tasks.

    outage       the database cannot be reached: log once, pause longer and longer
    heartbeat    extends the leases of running jobs; gives up those past their timeout
    intake       which job is taken next
    consumer     a thread that takes one job after the other
    events       what it tells of its jobs: log, counters, functions of the application's
    signals      SIGTERM, SIGINT and SIGUSR1 for the main thread
    worker       all of these together
    supervisor   several processes, each with a worker
"""

from .events import Event
from .worker import Worker

__all__ = ["Event", "Worker"]
