"""Tasks with retries, a transactional task and a dead job, on a worker with four threads.

``python press.py`` starts a PostgreSQL of its own in the folder that ``PRESS_DATA`` names, ``pqdata`` by default.
``python -m pq work press:pq`` runs the worker as a process of its own, until Ctrl-C.
"""

import os

from pq import PQ, Discard, Worker
from pq.tasks import current

pq = PQ.embedded(os.environ.get("PRESS_DATA", "pqdata"))
queue = pq["press"]


@queue.task(name="press.press", max_retries=2, retry_in="0s")
def press(job_id: int, kind: str) -> None:
    """Press apples of one kind; the machine jams at the first attempt."""
    if kind == "stone":
        raise Discard("not a fruit")  # the job is dead at once
    if current().attempts == 1:
        raise RuntimeError("the press is jammed")  # the job is tried again
    bottle(kind)


@queue.task(name="press.bottle", transactional=True)
def bottle(job_id: int, kind: str) -> None:
    """Write what was pressed. The row and the end of the job are one transaction: exactly once."""
    current().cursor.execute("insert into bottle (kind) values (%s)", [kind])


def main() -> None:
    with queue as cursor:
        cursor.execute("create table if not exists bottle (kind text)")
    for kind in ["Cox", "Gala", "stone", "Fuji"]:
        press(kind)
    Worker(pq, threads=4, burst=True).run()

    with queue as cursor:
        cursor.execute("select kind from bottle order by kind")
        print("bottled:", ", ".join(kind for (kind,) in cursor.fetchall()))
    for job in queue.dead:
        print(f"dead: {job.data['args']}, {job.error.message}")
    pq.close()


if __name__ == "__main__":
    main()
