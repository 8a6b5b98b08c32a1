"""A process that puts jobs and publishes events: ``python -m tests.soak.producers NAME RATE SEED``.

The numbers of each kind of job are 1, 2, 3, … A number is used when its put is committed. So what was promised is one
number for each kind, which is written down at the end.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import psycopg2

from pq import NewEvent

from . import app
from .app import pq, stream

#: How often each of the methods of `Producer` is called, relative to the others.
WEIGHTS = {
    "single": 6.0, "keyed": 4.0, "unique": 3.0, "limited": 2.0, "later": 2.0, "transaction": 2.0, "many": 0.6,
    "chain": 1.0, "asked": 0.5, "poison": 0.05, "event": 3.0, "events": 0.3, "performed": 1.0,
}  # fmt: skip

#: Queues whose jobs are taken by `consumers`.
TAKEN = ("blocks", "items", "leases")

#: Seconds for a result: the machine may be busy.
PATIENCE = 60.0


class Producer:
    """
    :param who: its name.
    :param rate: calls of its methods in a second.
    """

    def __init__(self, who: str, rate: float, seed: int) -> None:
        self.who, self.rate = who, rate
        self.random = random.Random(seed)
        self.numbers: Counter[str] = Counter()
        self.conn = psycopg2.connect(os.environ["SOAK_DSN"])
        self.stopping = False
        signal.signal(signal.SIGTERM, self._stop)

    def _stop(self, *signal: object) -> None:
        self.stopping = True

    def run(self) -> None:
        methods: list[Callable[[], None]] = [getattr(self, name) for name in WEIGHTS]
        while not self.stopping:
            (method,) = self.random.choices(methods, list(WEIGHTS.values()))
            method()
            time.sleep(self.random.expovariate(self.rate))
        with self.conn, self.conn.cursor() as cursor:
            for kind, numbers in self.numbers.items():
                cursor.execute("insert into promised values (%s, %s, %s)", (kind, self.who, numbers))

    def _work(self, kind: str, n: int = 1, delay: float = 0.0, key: str | None = None) -> dict[str, Any]:
        """The next job of a kind; or the nth one."""
        number = self.numbers[kind] + n
        return {"kind": kind, "who": self.who, "number": number, "due": time.time() + delay, "key": key}

    def _key(self) -> str:
        return f"k{self.random.randrange(8)}"

    # -- jobs

    def single(self) -> None:
        app.record(self._work("single"))
        self.numbers["single"] += 1

    def keyed(self) -> None:
        key = self._key()
        app.keyed(self._work("keyed", key=key), _key=key)
        self.numbers["keyed"] += 1

    def unique(self) -> None:
        job: Any = app.unique(self._work("unique"), _unique=f"{self.who}-{self.random.randrange(3)}")
        self.numbers["unique"] += job.created

    def limited(self) -> None:
        app.limited(self._work("limited"))
        self.numbers["limited"] += 1

    def later(self) -> None:
        delay = self.random.randint(200, 5000)
        app.record(self._work("later", delay=delay / 1000), _schedule_at=f"{delay}ms")
        self.numbers["later"] += 1

    def transaction(self) -> None:
        """Several, in a transaction of the application; one in five is rolled back."""
        n = self.random.randint(1, 5)
        for number in range(1, n + 1):
            app.record(self._work("transaction", number), _conn=self.conn)
        stream.publish(self._event("event"), type="event", key=self._key(), conn=self.conn)
        if self.random.random() < 0.2:
            self.conn.rollback()
            return
        self.conn.commit()
        self.numbers["transaction"] += n
        self.numbers["event"] += 1

    def many(self) -> None:
        queue = self.random.choice(TAKEN)
        pq[queue].put_many([self._work(queue, n) for n in range(1, 21)])
        self.numbers[queue] += 20

    def chain(self) -> None:
        """One after the other: both or none."""
        with pq.using(self.conn):
            first = app.record(self._work("first"))
            app.record(self._work("then"), _after=[first])
        self.conn.commit()
        self.numbers["first"] += 1
        self.numbers["then"] += 1

    def asked(self) -> None:
        work = self._work("asked")
        answer = pq["asked"].result(app.asked(work), PATIENCE)
        if answer != work["number"]:
            raise RuntimeError(f"asked for {work['number']}, and got {answer}")
        self.numbers["asked"] += 1

    def poison(self) -> None:
        app.poison(self._work("poison"))
        self.numbers["poison"] += 1

    # -- events

    def _event(self, kind: str, n: int = 1) -> dict[str, Any]:
        return {"who": self.who, "number": self.numbers[kind] + n}

    def event(self) -> None:
        stream.publish(self._event("event"), type="event", key=self._key())
        self.numbers["event"] += 1

    def events(self) -> None:
        many = [NewEvent(self._event("event", n), "event", self._key()) for n in range(1, 11)]
        stream.publish_many(many)
        self.numbers["event"] += len(many)

    def performed(self) -> None:
        """The worker wants events of this type alone."""
        stream.publish(self._event("performed"), type="performed", key=self._key())
        self.numbers["performed"] += 1


def main(who: str, rate: str, seed: str) -> None:
    with pq:
        Producer(who, float(rate), int(seed)).run()


if __name__ == "__main__":
    main(*sys.argv[1:])
