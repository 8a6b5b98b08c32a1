"""The API of psycopg2_mq on pq: change the import, and the program runs.

The records stay where they were: the tables ``mq_job``, ``mq_job_cursor``, ``mq_job_schedule`` and ``mq_job_listener``
say what there is to do, and what became of it. pq's table has *deliveries*: jobs that tell a worker to look at a
record. A delivery too many changes nothing, because whoever gets it first looks at the record, in the transaction that
changes it; one that is missing is put again by the upkeep.

    model        the tables, as classes of SQLAlchemy
    delivery     puts deliveries; the times of schedules
    source       `MQSource`: calls, and what asks for jobs or changes them
    emitters     its part that deals with schedules and listeners
    records      what a worker does to a record: begin, finish, lose; the cursors
    upkeep       what is put again
    safe         exceptions as JSON
    signals      SIGTERM, SIGINT and SIGUSR1, as psycopg2_mq takes them
    worker       `MQWorker`
    __main__     ``python -m pq.contrib.mq``: takes over the tables of psycopg2_mq
"""

from .model import JobStates, make_default_model
from .records import FailedJobError
from .source import MQSource
from .worker import MQWorker

__all__ = ["FailedJobError", "JobStates", "MQSource", "MQWorker", "make_default_model"]
