"""A process of the torture: ROLE NAME DSN FOLDER SEED LEASE; `clock` runs it.

The data of every job has a key; how the job must end is what its first letter says:

    l   leased: its handler ends at least once
    e   effect: exactly one row in `effects`
    p   poison: its handler always fails, and it must end as a dead job
"""

from __future__ import annotations

import logging
import os
import random
import signal
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from datetime import datetime, timedelta, timezone
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import psycopg2

from pq import CommitUnknown, Job, LeasedJob, LeaseLost, Queue
from pq.errors import PQError
from pq.tasks import PQ, Worker, current

from . import clock
from .history import History

#: What a process must expect when the server goes away.
TROUBLE = (PQError, psycopg2.Error)

RETRIES = 50


class Abort(Exception):
    """The application thinks better of it."""


class Actor:
    """What all roles share."""

    def __init__(self, role: str, name: str, dsn: str, folder: Path, seed: int, lease: str) -> None:
        self.role, self.name, self.dsn, self.lease = role, name, dsn, lease
        self.random = random.Random(seed)
        self.history = History(folder, name)
        self.pq = PQ(dsn, max_connections=3, max_retries=RETRIES, retry_in="0s", timeout=0.5)
        self.stopping = False
        self._parent = os.getppid()
        self._numbers = count(1)
        self.tasks = self.pq["tasks"]
        options: dict[str, Any] = {"max_retries": RETRIES, "retry_in": "0s"}
        leased, effect, poison = self.handle, self.handle_effect, self.fail  # methods can't be decorated
        self.leased_task = self.tasks.task(name="leased", lease=lease, **options)(lambda *args: leased(*args))
        self.effect_task = self.tasks.task(name="effect", lease=lease, transactional=True, **options)(
            lambda *args: effect(*args)
        )
        self.poison_task = self.tasks.task(max_retries=1, retry_in="0s", name="poison", lease=lease)(
            lambda *args: poison(*args)
        )

    def run(self) -> None:
        signal.signal(signal.SIGTERM, self._stop)
        with self.pq:
            getattr(self, self.role)()

    def _stop(self, number: int, frame: object) -> None:
        self.stopping = True

    def orphaned(self) -> bool:
        return os.getppid() != self._parent

    def goes_on(self) -> bool:
        return not self.stopping and not self.orphaned()

    # -- producers

    def producer(self) -> None:
        """Puts, one at a time."""
        while self.goes_on():
            self._put(scheduled=False)
            time.sleep(self.random.expovariate(1 / 0.003))

    def scheduler(self) -> None:
        """Puts for later."""
        while self.goes_on():
            self._put(scheduled=True)
            time.sleep(self.random.expovariate(1 / 0.02))

    def business(self) -> None:
        """Puts together with rows of its own; one in five is rolled back."""
        while self.goes_on():
            jobs = [self._job() for _ in range(self.random.randint(1, 10))]
            abort = self.random.random() < 0.2
            keys = [key for key, put in jobs]
            self.history.note("put", keys=keys, order=True)
            self._outcome(keys, partial(self._transaction, jobs, abort))
            time.sleep(self.random.expovariate(1 / 0.02))

    def _transaction(self, jobs: list[tuple[str, Callable[[Any], int]]], abort: bool) -> list[int]:
        ids = []
        with self.tasks as cursor:
            for key, put in jobs:
                cursor.execute("insert into orders (key) values (%s)", (key,))
                ids.append(put(None))
            if abort:
                raise Abort
        return ids

    def _put(self, scheduled: bool) -> None:
        key, put = self._job()
        at: Any = None
        if scheduled:
            delay = timedelta(seconds=round(self.random.uniform(0.1, 3), 3))
            now = datetime.fromtimestamp(clock.now(), timezone.utc)  # a time that the caller computes must be right
            at = self.random.choice([delay, now + delay])
            self.history.note("put", keys=[key], not_before=(now + delay).timestamp())
        else:
            self.history.note("put", keys=[key])
        self._outcome([key], lambda: [put(at)])

    def feeder(self) -> None:
        """Puts bursts into the line, of which `single` takes."""
        line = self.pq["line"]
        while self.goes_on():
            for _ in range(self.random.randint(5, 20)):
                key = f"l-{self.name}-{next(self._numbers)}"
                self.history.note("put", keys=[key], line=True)
                self._outcome([key], lambda key=key: [line.put({"key": key})])
            time.sleep(self.random.expovariate(1 / 0.3))

    def _job(self) -> tuple[str, Callable[[Any], int]]:
        """A key, and what puts its job."""
        letter, queue = self.random.choice(["l lease", "l tasks", "e block", "e tasks"]).split()
        if queue == "tasks" and self.random.random() < 0.02:
            letter = "p"
        key = f"{letter}-{self.name}-{next(self._numbers)}"
        if queue == "tasks":
            task = {"l": self.leased_task, "e": self.effect_task, "p": self.poison_task}[letter]
            return key, lambda at: task(key, _schedule_at=at)
        return key, lambda at: self.pq[queue].put({"key": key}, at)

    def _outcome(self, keys: list[str], put: Callable[[], list[int]]) -> None:
        try:
            ids = put()
        except CommitUnknown:
            self.history.note("unknown", keys=keys)
        except Abort:
            self.history.note("aborted", keys=keys)
        except TROUBLE as error:  # that nothing was put is what pq says
            self.history.note("aborted", keys=keys, error=describe(error))
            time.sleep(0.05)
        else:
            self.history.note("acknowledged", keys=keys, ids=ids)

    # -- consumers

    def leaser(self) -> None:
        """Takes jobs under leases."""
        while self.goes_on():
            try:
                self._lease_one(self.pq["lease"])
            except TROUBLE as error:
                self.history.note("trouble", error=describe(error))
                time.sleep(0.1)

    def single(self) -> None:
        """Takes the jobs of the line, alone. It notes the end of each of its sessions: so its connection is one that pq
        does not replace."""
        while self.goes_on():
            self.history.note("session")
            try:
                with closing(psycopg2.connect(self.dsn)) as conn:
                    line = PQ(conn)["line"]
                    while self.goes_on():
                        self._lease_one(line)
            except TROUBLE as error:
                self.history.note("trouble", error=describe(error))
                time.sleep(0.1)

    def _lease_one(self, queue: Queue) -> None:
        job = queue.get(timeout=0.5, lease=self.lease)
        if not isinstance(job, LeasedJob):
            return
        try:
            with job:
                self._work(job, job.data["key"])
            self._done(job, job.data["key"])
        except LeaseLost:
            self.history.note("lost", key=job.data["key"])

    def block(self) -> None:
        """Takes jobs in transactions."""
        queue = self.pq["block"]
        while self.goes_on():
            taken: list[tuple[Job, float]] = []
            try:
                with queue as cursor:
                    for _ in range(self.random.randint(1, 3)):
                        job = queue.get(timeout=0.5)
                        if job is None:
                            break
                        begun = self._effect(cursor, job.data["key"])
                        taken.append((job, begun))
                        self.history.note("delivered", key=job.data["key"], id=job.id, begun=begun)
                        self._pause()
                for job, begun in taken:
                    self.history.note("done", key=job.data["key"], id=job.id, begun=begun)
            except TROUBLE as error:
                self.history.note("trouble", error=describe(error))
                time.sleep(0.1)

    def worker(self) -> None:
        """Performs tasks."""
        worker = Worker(self.tasks, threads=4, lease=self.lease, shutdown_timeout="5s")
        worker.on("done", lambda event: self._done(event.job, event.job.data["args"][0]))
        self.perform(worker)

    def perform(self, worker: Worker) -> None:
        """Run a worker for as long as the run is there."""

        def watch() -> None:
            while not self.orphaned():
                time.sleep(1)
            worker.stop()

        threading.Thread(target=watch, daemon=True).start()
        worker.run()

    def handle(self, job_id: int, key: str) -> None:
        self._work(current(), key)

    def handle_effect(self, job_id: int, key: str) -> None:
        job = current()
        self._delivered(job, key)
        self._effect(job.cursor, key)
        self._pause()

    def fail(self, job_id: int, key: str) -> None:
        self._delivered(current(), key)
        raise ValueError(key)

    def _work(self, job: LeasedJob, key: str) -> None:
        self._delivered(job, key)
        self._pause()
        self.history.note("handled", key=key, id=job.id, attempt=job.attempts)

    def _delivered(self, job: LeasedJob, key: str) -> None:
        begun = job.dequeued_at.timestamp()
        self.history.note("delivered", key=key, id=job.id, attempt=job.attempts, begun=begun)

    def _done(self, job: LeasedJob, key: str) -> None:
        begun = job.dequeued_at.timestamp()
        self.history.note("done", key=key, id=job.id, attempt=job.attempts, begun=begun)

    def _effect(self, cursor: Any, key: str) -> float:
        """The effect of a job in its transaction; returns when that was, by the server's clock."""
        cursor.execute(
            "insert into effects (key, who) values (%s, %s) returning extract(epoch from statement_timestamp())",
            (key, self.name),
        )
        return float(cursor.fetchone()[0])

    def _pause(self) -> None:
        """Mostly short work. In a worker, where there is a heartbeat, some of it is longer than a lease."""
        luck = random.random()
        if self.role == "worker" and luck < 0.001:
            time.sleep(3)
        else:
            time.sleep(random.random() * (0.5 if luck < 0.01 else 0.002))


def describe(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"


def main(role: str, name: str, dsn: str, folder: str, seed: str, lease: str) -> None:
    logging.basicConfig(level=logging.CRITICAL)
    with suppress(KeyboardInterrupt):
        Actor(role, name, dsn, Path(folder), int(seed), lease).run()
