"""Performing tasks: begin with `worker`.

    worker       fetch, run, settle, and what keeps that honest
    fetcher      which jobs are fetched next, and how many
    execution    one delivery of a job, from its fetch to how it is to be settled
    call         what a job asks for
    handler      the call of a handler, fenced off from the worker
    thread       threads that perform one job after the other
    held         the jobs that the worker holds
    completer    settles those that have ended, several by one statement
    heartbeat    extends the leases of all that is held; notices handlers that hang
    backoff      growing pauses while the database does not serve the worker
    duties       pruning, which some process must do now and then
    events       what the worker tells of its jobs: log, counters, functions of the application's
    services     the threads of those, and the connection that they share
    stop         how a worker is told to stop
    signals      SIGTERM, SIGINT and SIGUSR1 for the main thread
    queues       which queues are meant, and whether their connections suffice
    health       whether the worker takes work, for probes
    endpoint     that by HTTP
    trial        a job's task is tried, and rolled back
    supervisor   several processes, each with a worker
"""

from .events import Event
from .health import Health
from .trial import Trial, TriedPut, TriedWrites
from .worker import Worker

__all__ = ["Event", "Health", "Trial", "TriedPut", "TriedWrites", "Worker"]
