"""Tasks: functions whose calls are put on a queue, and performed by a worker.

from pq.tasks import PQ

pq = PQ("postgresql://localhost/app")
queue = pq["default"]

@queue.task(max_retries=2, retry_in="10s")
def eat(job_id, kind):
    print(f"umm, {kind} apples taste good.")

eat("Cox")
queue.work()
"""

from ..worker import Worker
from ..worker.execution import current
from .queue import PQ, Queue
from .task import Task

__all__ = ["PQ", "Queue", "Task", "Worker", "current"]
