"""The processes that put and take jobs with keys, tokens and limits; `clock` runs them.

Each event has ``wall``, the time by the server's clock, which is that of the machine. What becomes of the jobs is told
by the database itself; see `audit`.
"""

from __future__ import annotations

import json
import logging
import random
import time
from collections.abc import Callable
from contextlib import closing, suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import psycopg2

from pq import CommitUnknown, LeaseLost, Limit, NewJob, Unique
from pq._jobs.settlement import Settlement, settle
from pq.errors import LeasesLost
from pq.tasks import Worker, current

from . import clock
from .actor import RETRIES, TROUBLE, Abort, Actor, describe
from .audit import BY_HAND, RUNNING

#: Where jobs are put, and how often.
SHARES = {"keyed": 9, "keytasks": 4, "pairs": 3, "limited": 2, "rated": 1}

#: The queues of which the consumers take that take from several.
OPEN = ("keyed", "keyed", "keyed", "pairs", "keytasks")

#: As pq 1.9.1 takes and puts jobs.
TAKE_OLD = """
    with selected as (
      select id from queue
      where q_name = %(queue)s and dequeued_at is null and (schedule_at is null or schedule_at <= current_timestamp)
      order by schedule_at nulls first, expected_at nulls first, id
      for update skip locked
      limit 1
    )
    update queue set dequeued_at = current_timestamp where id = (select id from selected) returning id, key
"""
PUT_OLD = "insert into queue (q_name, data, schedule_at, expected_at) values (%s, %s, null, null) returning id"


class Keyed(Actor):
    """What the roles of the keyed cast do."""

    def __init__(self, role: str, name: str, dsn: str, *args: Any) -> None:
        super().__init__(role, name, f"{dsn} options='-c {BY_HAND}=yes'" if role == "operator" else dsn, *args)
        self.keytasks = self.pq["keytasks"]
        leased, effect = self._perform, self._perform_effect
        options: dict[str, Any] = {"max_retries": RETRIES, "retry_in": "0s"}
        self.plain_task = self.keytasks.task(name="keyed", lease=self.lease, **options)(lambda *args: leased(*args))
        self.sure_task = self.keytasks.task(name="keyed effect", lease=self.lease, transactional=True, **options)(
            lambda *args: effect(*args)
        )

    def note(self, event: str, **more: Any) -> None:
        self.history.note(event, wall=clock.now(), **more)

    def _chance(self, share: float) -> bool:
        return self.random.random() < share

    # -- producers

    def _key(self) -> str | None:
        if self._chance(0.05):
            return None
        return f"hot{self.random.randrange(3)}" if self._chance(0.4) else f"cold{self.random.randrange(300)}"

    def _new(self, queue: str) -> tuple[str, NewJob]:
        name = f"k-{self.name}-{next(self._numbers)}"
        at = timedelta(seconds=self.random.uniform(0.1, 1.5)) if self._chance(0.1) else None
        priority = timedelta(seconds=self.random.uniform(0, 10)) if self._chance(0.15) else None
        return name, NewJob({"name": name}, at, priority, self._key())

    def _put_one(self, queue: str, job: NewJob) -> int:
        if queue != "keytasks":
            return self.pq[queue].put(job.data, job.schedule_at, job.expected_at, key=job.key)
        task = self.random.choice([self.plain_task, self.sure_task])
        return task(
            job.data["name"], _schedule_at=job.schedule_at, _expected_at=job.expected_at, _key=job.key
        )

    def _queue(self) -> str:
        return self.random.choices(list(SHARES), list(SHARES.values()))[0]

    def _result(self, names: list[str], put: Callable[[], list[int]], **more: Any) -> None:
        began = clock.now()
        self.note("put", names=names)
        try:
            ids = put()
        except CommitUnknown:
            self.note("unknown", names=names)
        except Abort:
            self.note("aborted", names=names)
        except TROUBLE as error:
            self.note("aborted", names=names, error=describe(error))
            time.sleep(0.05)
        else:
            created = [getattr(id, "created", True) for id in ids]
            self.note("acknowledged", names=names, ids=ids, created=created, began=began, **more)

    def keyput(self) -> None:
        """Puts, one at a time, or several at once."""
        while self.goes_on():
            queue = self._queue()
            if queue != "keytasks" and self._chance(0.2):
                jobs = [self._new(queue) for _ in range(self.random.randint(2, 8))]
                put = partial(self.pq[queue].put_many, [job for name, job in jobs])
                self._result([name for name, job in jobs], put)
            else:
                name, job = self._new(queue)
                self._result([name], lambda queue=queue, job=job: [self._put_one(queue, job)])
            time.sleep(self.random.expovariate(1 / 0.025))

    def keyopen(self) -> None:
        """Puts in transactions that stay open for some time, and may be rolled back."""
        while self.goes_on():
            jobs = [(self._queue(), *self._new("")) for _ in range(self.random.randint(1, 5))]
            self._result([name for queue, name, job in jobs], partial(self._open, jobs))
            time.sleep(self.random.expovariate(1 / 0.05))

    def _open(self, jobs: list[tuple[str, str, NewJob]]) -> list[int]:
        ids = []
        with self.pq["keyed"]:
            for queue, _, job in jobs:
                ids.append(self._put_one(queue, job))
                self._stay()
            if self._chance(0.2):
                raise Abort
        return ids

    def _stay(self) -> None:
        time.sleep(self.random.random() * (1.0 if self._chance(0.02) else 0.1 if self._chance(0.3) else 0.003))

    def keyunique(self) -> None:
        """Puts with tokens, of which many are there already; with or without a transaction that stays open."""
        while self.goes_on():
            puts = [self._unique() for _ in range(self.random.choice([1, 1, 1, 2, 3]))]
            names = [name for name, *_ in puts]
            modes = [mode for *_, mode, _ in puts]
            tokens = [token for *_, token in puts]
            if len(puts) == 1 and self._chance(0.6):
                put = puts[0][2]
                self._result(names, lambda put=put: [put()], modes=modes, tokens=tokens)
            else:
                self._result(names, partial(self._join, puts), modes=modes, tokens=tokens, open=True)
            time.sleep(self.random.expovariate(1 / 0.05))

    def _unique(self) -> tuple[str, str, Callable[[], int], str | None, str]:
        """The name and the key of a job, its put, what the put does to a job that is there, and the token. Who keeps a
        job that may run already is not promised that it starts."""
        mode = self.random.choice(["keep", "keep", "merge", "replace"])
        until = self.random.choice(["started", "started", "done"])
        number = self.random.randrange(8)
        name = f"k-{self.name}-{next(self._numbers)}"
        key = f"hot{number % 3}" if number < 4 else f"token{number}"
        at = "300ms" if mode == "merge" and self._chance(0.5) else None
        token = f"{mode} {until} {number}"
        unique = Unique(token, until, on_duplicate=mode)  # type: ignore[arg-type]
        data = {"name": name, "items": [name]}
        put = partial(self.pq["keyed"].put, data, at, key=key, unique=unique)
        return name, key, put, None if (mode, until) == ("keep", "done") else mode, token

    def _join(self, puts: list[Any]) -> list[int]:
        """Several tokens in one transaction, in any order: two such may deadlock, and then one of them is undone."""
        ids = []
        try:
            with self.pq["keyed"] as cursor:
                for name, key, put, *_ in puts:
                    ids.append(put())
                    self.note("touched", queue="keyed", key=key)
                    cursor.execute("insert into joins values (%s)", (name,))
                    self._stay()
                if self._chance(0.2):
                    raise Abort
        finally:
            for _, key, *_ in puts:
                self.note("touched", queue="keyed", key=key)
        return ids

    # -- consumers

    def keylease(self) -> None:
        """Takes jobs under leases, one by one or several; what it does not find is noted."""
        while self.goes_on():
            with self._trouble():
                queue = self.pq[self.random.choice(OPEN)]
                since = clock.now()
                if self._chance(0.7):
                    job = queue.get(timeout=0.5, lease=self.lease)
                    jobs = [] if job is None else [job]
                else:
                    jobs = queue.get_many(self.random.randint(2, 20), timeout=0.5, lease=self.lease)
                if not jobs:
                    self.note("empty", queue=queue.name, since=since)
                for job in jobs:
                    self._held(job, leased=True)
                self._work_for(0.1)
                if len(jobs) > 1 and self._chance(0.5):
                    with suppress(LeasesLost):
                        queue.done(jobs)
                else:
                    for job in jobs:
                        with suppress(LeaseLost):
                            self._end(job)

    def _end(self, job: Any) -> None:
        luck = self.random.random()
        if luck < 0.85:
            job.done()
        elif luck < 0.9:
            job.retry(self.random.choice(["0s", "200ms"]))
        elif luck < 0.92:
            job.release()
        elif luck < 0.95:  # as workers do
            if settle([Settlement(job, "released", timedelta(milliseconds=200))]):
                raise LeaseLost(job_id=job.id)
        elif luck < 0.98:
            job.fail("no")  # else its lease expires

    def keyblock(self) -> None:
        """Takes jobs in transactions of its own, which may be rolled back."""
        while self.goes_on():
            with self._trouble():
                jobs: list[Any] = []
                queue = self.pq[self.random.choice(OPEN)]
                try:
                    with queue:
                        while len(jobs) < 3 and (not jobs or self._chance(0.4)):
                            job = queue.get(timeout=0.5)
                            if job is None:
                                break
                            jobs.append(job)
                            self._held(job)
                            self._work_for(0.1)
                        if self._chance(0.15):
                            raise Abort
                except Abort:
                    pass
                finally:
                    for job in jobs:
                        self._held(job)

    def keyitem(self) -> None:
        """Takes jobs in transactions that also end them."""
        while self.goes_on():
            with self._trouble(), self.pq[self.random.choice(OPEN)].item(timeout=0.5) as job:
                if job is not None:
                    self._held(job)
                    self._work_for(0.1)
                    if self._chance(0.1):
                        raise Abort

    def keyget(self) -> None:
        """Takes jobs for good."""
        while self.goes_on():
            with self._trouble():
                job = self.pq["keyed"].get(timeout=0.5)
                if job is not None:
                    self._held(job)
                    self._work_for(0.05)

    def keyconn(self) -> None:
        """Takes jobs in transactions of the application, with and without a lease."""
        while self.goes_on():
            with self._trouble(), closing(psycopg2.connect(self.dsn)) as conn:
                while self.goes_on():
                    queue = self.pq[self.random.choice(OPEN)]
                    job = queue.get(timeout=0, conn=conn, lease=self.random.choice([None, self.lease]))
                    if job is not None:
                        self._held(job)
                        self._work_for(0.1)
                        if hasattr(job, "done") and self._chance(0.9):
                            job.done(conn=conn)
                    (conn.rollback if self._chance(0.15) else conn.commit)()
                    if job is None:
                        time.sleep(0.05)
                    else:
                        self._held(job)

    def keyold(self) -> None:
        """Does as pq 1.9.1: puts jobs without keys, and takes whatever comes, at once or in a transaction."""
        while self.goes_on():
            with self._trouble(), closing(psycopg2.connect(self.dsn)) as conn, conn.cursor() as cursor:
                while self.goes_on():
                    queue = self.random.choice(OPEN[:4])
                    conn.rollback()
                    conn.autocommit = self._chance(0.5)
                    if self._chance(0.2):
                        name = f"k-{self.name}-{next(self._numbers)}"
                        self._result([name], partial(self._put_old, cursor, queue, name))
                        continue
                    cursor.execute(TAKE_OLD, {"queue": queue})
                    found = cursor.fetchone()
                    if found is not None:
                        self.note("held", queue=queue, key=found[1], id=found[0], begun=None)
                        self._work_for(0.1)
                    if not conn.autocommit:
                        (conn.rollback if self._chance(0.15) else conn.commit)()
                    if found is None:
                        time.sleep(0.05)
                    else:
                        self.note("held", queue=queue, key=found[1], id=found[0], begun=None)

    def _put_old(self, cursor: Any, queue: str, name: str) -> list[int]:
        try:
            cursor.execute(PUT_OLD, (queue, json.dumps({"name": name})))
            (id,) = cursor.fetchone()
            cursor.connection.commit()
        except psycopg2.Error as error:
            raise CommitUnknown(str(error)) from error
        return [id]

    def limiter(self) -> None:
        """Takes jobs of limited queues, under leases and in blocks."""
        while self.goes_on():
            with self._trouble():
                queue = self.pq[self.random.choice(["limited", "limited", "rated"])]
                if self._chance(0.6):
                    jobs = queue.get_many(self.random.choice([1, 1, 5]), timeout=0.3, lease=self.lease)
                    self._work_for(0.05)
                    for job in jobs:
                        with suppress(LeaseLost):
                            self._end(job)
                    continue
                with suppress(Abort), queue:
                    if queue.get(timeout=0.3):
                        self._work_for(0.05)
                        if self._chance(0.1):
                            raise Abort

    def keyworker(self) -> None:
        """Performs tasks."""
        self.perform(Worker(self.keytasks, threads=3, lease=self.lease, shutdown_timeout="5s"))

    def _perform(self, job_id: int, name: str) -> None:
        self._held(current(), leased=True)
        self._work_for(0.1)
        if random.random() < 0.05:
            raise ValueError(name)

    def _perform_effect(self, job_id: int, name: str) -> None:
        self._perform(job_id, name)

    def _held(self, job: Any, leased: bool = False) -> None:
        begun = job.dequeued_at.timestamp() if leased else None
        self.note("held", queue=job._queue.name, key=job.key, id=job.id, begun=begun)

    def _work_for(self, most: float) -> None:
        time.sleep(random.random() * (most if random.random() < 0.1 else 0.003))

    def _trouble(self) -> Any:
        return _Trouble(self)

    # -- who changes the rules

    def setter(self) -> None:
        """Changes limits."""
        while self.goes_on():
            with self._trouble():
                if self._chance(0.5):
                    most = self.random.randint(1, RUNNING + 2)
                    self._set("limited", most, Limit(running=most))
                else:
                    most = self.random.randint(1, 3)
                    self._set("pairs", most, Limit(per_key=most))
                time.sleep(self.random.expovariate(1 / 1.5))

    def _set(self, name: str, most: int, limit: Limit) -> None:
        began = clock.now()
        self.note("setting", limit=name, most=most, began=began)
        self.pq.limits[name] = limit
        self.note("set", limit=name, began=began)

    # -- the operator

    def operator(self) -> None:
        """Cancels, moves, reschedules and deletes jobs, and has dead ones tried again."""
        while self.goes_on():
            with self._trouble(), closing(psycopg2.connect(self.dsn)) as conn:
                while self.goes_on():
                    self._operate(conn)
                    conn.commit()
                    time.sleep(self.random.expovariate(1 / 0.15))

    def _operate(self, conn: Any) -> None:
        with conn.cursor() as cursor:
            cursor.execute(
                "select id, q_name, key from queue where q_name in ('keyed', 'pairs') and dequeued_at is null"
                " order by random() limit 1"
            )
            found = cursor.fetchone()
            conn.commit()
            act = self.random.choice(["cancel", "move", "later", "now", "delete", "lock", "cancel open", "retry"])
            for queue in ("keyed", "keytasks", "pairs", "limited", "rated") if act == "retry" else ():
                self.pq[queue].dead.retry(all=True)
            if found is None or act == "retry":
                return
            id, name, key = found
            queue = self.pq[name]
            self.note("touched", queue=name, key=key, **({"by_hand": id} if act == "now" else {}))
            if act == "cancel":
                queue.cancel(id)
            elif act == "move":
                queue.move(id, "pairs" if name == "keyed" else "keyed")
            elif act in ("later", "now"):
                queue.reschedule(id, "300ms" if act == "later" else None)
            elif act == "delete":
                cursor.execute("delete from queue where id = %s and dequeued_at is null", (id,))
            elif act == "lock":
                cursor.execute("select from queue where id = %s for update", (id,))
            else:
                with suppress(Abort), queue:
                    queue.cancel(id)
                    self._stay()
                    if self._chance(0.5):
                        raise Abort
            self._stay()
        (conn.rollback if self._chance(0.3) else conn.commit)()
        self.note("touched", queue=name, key=key)


class _Trouble:
    """Notes an error of the server or the network, and goes on after a pause."""

    def __init__(self, actor: Keyed) -> None:
        self._actor = actor

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> bool:
        if isinstance(error, Abort):
            return True
        if not isinstance(error, TROUBLE):
            return False
        self._actor.note("trouble", error=describe(error))
        time.sleep(0.1)
        return True


def main(role: str, name: str, dsn: str, folder: str, seed: str, lease: str) -> None:
    logging.basicConfig(level=logging.CRITICAL)
    with suppress(KeyboardInterrupt):
        Keyed(role, name, dsn, Path(folder), int(seed), lease).run()
