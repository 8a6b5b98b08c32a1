"""The end of a program whose daemon threads are at work with pq: at once, and without a word."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import sys, threading, time
from pq import PQ
from pq.tasks import PQ as TaskPQ, Worker

pq = (TaskPQ if sys.argv[2] == "worker" else PQ)(sys.argv[1])
queue, nested = pq["a"], pq["b"]
if sys.argv[2] == "worker":
    queue.task(name="task")(print)
begun = threading.Semaphore(0)

def block():
    while True:
        with queue:
            with nested:
                queue.get(timeout=0)
                begun.release()

def get():
    while True:
        begun.release()
        queue.get(timeout=None)

def iterate():
    for job in queue.jobs(timeout=0.01):
        begun.release()

def work():
    worker = Worker(pq, ["a"], threads=2)
    begun.release()
    worker.run()

for _ in range(2):
    threading.Thread(target={"worker": work}.get(sys.argv[2]) or globals()[sys.argv[2]], daemon=True).start()
for _ in range(2):
    begun.acquire()
time.sleep(float(sys.argv[3]))
"""


@pytest.mark.parametrize("what", ["block", "get", "iterate", "worker"])
@pytest.mark.parametrize("delay", [0, 0.01, 0.05, 0.1])
def test_the_end_of_a_program(dsn: str, what: str, delay: float) -> None:
    command = [sys.executable, "-c", PROGRAM, dsn, what, str(delay)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
