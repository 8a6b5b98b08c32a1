"""Performing tasks.

    outage       the database cannot be reached: log once, pause longer and longer
    run          a job that the worker holds
    heartbeat    extends the leases of these; gives up those past their timeout
    intake       which jobs are taken next, and how many
    consumer     a thread that handles one job after the other
    settler      settles those that have ended, several at once
    janitor      deletes what need not be kept
    events       what it tells of its jobs: log, counters, functions of the application's
    signals      SIGTERM, SIGINT and SIGUSR1 for the main thread
    worker       all of these together
    supervisor   several processes, each with a worker
"""

from .events import Event
from .worker import Worker

__all__ = ["Event", "Worker"]
