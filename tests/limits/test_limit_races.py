"""Many consumers in several processes, some of which are killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import datetime
from itertools import pairwise
from typing import Any

from support import PATIENCE, Background, wait_until

from pq import PQ, Limit

Sql = Callable[..., list[tuple[Any, ...]]]

LIMIT = 5

CONSUMER = """
import sys, threading, time
from pq import PQ
import psycopg2

def consume():
    conn = psycopg2.connect(sys.argv[1])
    conn.autocommit = True
    cursor = conn.cursor()
    while True:
        job = queue.get(timeout=1, lease="3s")
        if job is not None:
            cursor.execute("insert into log values (%s, true, clock_timestamp())", [job.id])
            time.sleep(0.003)
            cursor.execute("insert into log values (%s, false, clock_timestamp())", [job.id])
            job.done()

queue = PQ(sys.argv[1], max_connections=20)[sys.argv[2]]
for _ in range(8):
    threading.Thread(target=consume).start()
"""


def consumer(dsn: str, queue: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", CONSUMER, dsn, queue])


def test_never_more_and_no_place_is_lost(pq: PQ, dsn: str, sql: Sql) -> None:
    """Two queues share a limit, with a process each of 8 threads; one of them is killed again and again."""
    sql("create table log (id bigint, begins boolean, at timestamptz)")
    pq.limits["both"] = Limit(running=LIMIT, queues=["a", "b"])
    for name in "ab":
        pq[name].put_many(range(300))
    processes = {name: consumer(dsn, name) for name in "ab"}
    try:
        for kills in range(1, 3):
            wait_until(lambda kills=kills: sql("select count(*) from log where not begins")[0][0] > 100 * kills)
            os.kill(processes["a"].pid, signal.SIGKILL)
            processes["a"].wait()
            processes["a"] = consumer(dsn, "a")
        wait_until(lambda: all(pq[name].count() == 0 for name in "ab"), "the end of all jobs", 3 * PATIENCE)
    finally:
        for process in processes.values():
            process.kill()
            process.wait()

    # a job whose process was killed ends when its lease does
    running: dict[int, Any] = {}
    most = 0
    for id, begins, at in sql("select * from log order by at, begins"):
        running = {each: began for each, began in running.items() if (at - began).total_seconds() < 2.5}
        if begins:
            running[id] = at
            most = max(most, len(running))
        else:
            running.pop(id, None)
    assert most <= LIMIT
    assert most == LIMIT
    pq["a"].put_many(range(9))
    assert len(pq["a"].get_many(9, timeout=0, lease="1h")) == LIMIT


def test_two_claims_that_see_the_same_place(pq: PQ, sql: Sql, connect: Callable[..., Any]) -> None:
    """One may lock a place that another has taken since its snapshot, in which the place is free, its job ready."""
    pq["a"].put_many(range(50))
    pq.limits["a"] = Limit(running=2)
    stop = threading.Event()
    found: list[int] = []

    def consume() -> None:
        with PQ(pq._db.conn) as own:
            while not stop.is_set():
                jobs = own["a"].get_many(2, timeout=0, lease="1h")
                found.append(pq["a"].counts()["running"])
                for job in jobs:
                    job.retry("0s")

    threads = [threading.Thread(target=consume) for _ in range(6)]
    for thread in threads:
        thread.start()
    time.sleep(3)
    stop.set()
    for thread in threads:
        thread.join()
    assert max(found) == 2

def test_a_limit_that_changes_while_many_take(pq: PQ, sql: Sql) -> None:
    """Lowered, it holds for each claim that is sent after that; raised, more jobs run at once within a second."""
    changes: list[tuple[datetime, datetime, int]] = []  # before and after the change, and the limit
    jobs: list[tuple[datetime, datetime, datetime]] = []  # when the claim was sent, the job taken, its end sent
    stop = threading.Event()

    def now() -> datetime:
        ((at,),) = pq._db.execute("select clock_timestamp()", {})
        return at  # type: ignore[no-any-return]

    def change(running: int) -> None:
        before = now()
        pq.limits["a"] = Limit(running=running)
        changes.append((before, now(), running))

    def consume() -> None:
        while not stop.is_set():
            sent = now()
            for job in pq["a"].get_many(2, timeout=0, lease="1h"):
                time.sleep(0.002)
                end = now()
                job.done()
                jobs.append((sent, job.dequeued_at, end))

    pq["a"].load(range(20_000))
    change(2)
    threads = [Background(consume) for _ in range(8)]
    for turn in range(8):
        seen = len(jobs)
        wait_until(lambda seen=seen: len(jobs) > seen + 20)
        if turn % 2:
            change(2)
        else:
            change(6)
            raised = now()
            wait_until(lambda raised=raised: at_once(jobs, raised) > 2, "more at once")
    stop.set()
    for thread in threads:
        thread.result()

    # a limit is in force from some moment of its change to some moment of the next one
    pairs = pairwise([*changes, (now(), now(), 0)])
    forces = [(before, until, running) for (before, _, running), (_, until, _) in pairs]
    for sent, taken, _ in jobs:
        allowed = max(running for before, until, running in forces if before <= taken and sent <= until)
        assert sum(begin <= taken < end for _, begin, end in jobs) <= allowed


def at_once(jobs: list[tuple[datetime, datetime, datetime]], since: datetime) -> int:
    found = [job for job in list(jobs) if job[1] > since]
    return max((sum(begin <= taken < end for _, begin, end in found) for _, taken, _ in found), default=0)
