"""Consumers whose jobs take some time, and that write down when each began and ended."""

from __future__ import annotations

import os
import struct
import threading
import time
from typing import Any

#: Seconds that a job takes.
WORK = 0.005

EVENT = struct.Struct("dd")


def consume(queue: Any, worker: bool, threads: int, log: str) -> None:
    """Until killed.

    :param worker: perform tasks, instead of getting jobs.
    :param log: a folder.
    """
    from pq.worker import Worker

    file = os.open(f"{log}/{os.getpid()}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def work(job_id: int = 0) -> None:
        began = time.monotonic()
        time.sleep(WORK)
        os.write(file, EVENT.pack(began, time.monotonic()))

    def take() -> None:
        while True:
            job = queue.get(timeout=1, lease="30s")
            if job is not None:
                work()
                job.done()

    if worker:
        queue.task(name="work")(work)
        Worker(queue, threads=threads, capture_signals=False).run()
    else:
        running = [threading.Thread(target=take, daemon=True) for _ in range(threads)]
        for thread in running:
            thread.start()
        running[0].join()
