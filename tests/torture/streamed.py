"""The processes that publish events and read them; `clock` runs them.

Each event has a name. `streams` says what must hold, and what the tables `truth`, `seen` and `aside` tell.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import Any

import psycopg2

from pq import NewEvent
from pq.errors import BatchLost
from pq.tasks import Worker, current

from .actor import RETRIES, TROUBLE, Abort
from .keyed import Keyed
from .streams import STREAM, SUBSCRIPTIONS

#: How many events a batch may have.
SIZES = (1, 3, 20, 100, 100, 500, 500)

#: Keys of events.
KEYS = 24

SEE = "insert into seen (subscription, name) select %s, name from unnest(%s::text[]) as name"
PUBLISH = f'insert into "queue_stream_{STREAM}" (type, key, data) values (%s, %s, json_build_object(\'name\', %s))'


class Streamed(Keyed):
    """What the roles of the cast of streams do."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.stream = self.pq.streams[STREAM]
        self._rotated = time.monotonic()

    # -- producers

    def _event(self) -> tuple[str, NewEvent]:
        name = f"s-{self.name}-{next(self._numbers)}"
        key = None if self._chance(0.05) else f"k{self.random.randrange(3 if self._chance(0.3) else KEYS)}"
        type = self.random.choices(["a", "b", "w"], [5, 12, 1])[0]
        return name, NewEvent({"name": name}, type, key, {"by": self.name} if self._chance(0.1) else None)

    def _events(self, most: int) -> tuple[list[str], list[NewEvent]]:
        made = [self._event() for _ in range(self.random.randint(1, most))]
        return [name for name, _ in made], [event for _, event in made]

    def streamput(self) -> None:
        """Publishes events, one at a time."""
        while self.goes_on():
            name, event = self._event()
            self._result([name], lambda event=event: [self.stream.publish(*event)])
            time.sleep(self.random.expovariate(1 / 0.03))

    def streammany(self) -> None:
        """Publishes many at once."""
        while self.goes_on():
            if self._chance(0.5):
                names, events = self._events(300)
                self._result(names, partial(self.stream.publish_many, events))
            else:
                names, events = self._events(1500)
                self._result(names, lambda events=events: [self.stream.load(events)])
            time.sleep(self.random.expovariate(1 / 0.4))

    def streamopen(self) -> None:
        """Publishes in transactions of the application, which stay open for some time, have savepoints, and may be
        rolled back."""
        while self.goes_on():
            with self._trouble(), closing(psycopg2.connect(self.dsn)) as conn:
                while self.goes_on():
                    self._transact(conn, lambda conn=conn: self._publish_some(conn))
                    time.sleep(self.random.expovariate(1 / 0.1))

    def _publish_some(self, conn: Any) -> list[str]:
        """Publish in the transaction; return the names of those that it is to commit."""
        kept: list[str] = []
        with conn.cursor() as cursor:
            for _ in range(self.random.randint(1, 5)):
                if self._chance(0.7):
                    kept += self._publish(conn)
                else:
                    cursor.execute("savepoint s")
                    inner = self._publish(conn)
                    self._stay()
                    if self._chance(0.5):
                        cursor.execute("rollback to savepoint s")
                        self.note("aborted", names=inner)
                    else:
                        cursor.execute("release savepoint s")
                        kept += inner
                self._stay()
        return kept

    def _publish(self, conn: Any) -> list[str]:
        names, events = self._events(4)
        self.note("put", names=names)
        try:
            how = self.random.randrange(4)
            if how == 0:
                with conn.cursor() as cursor:
                    for name, event in zip(names, events, strict=True):
                        cursor.execute(PUBLISH, (event.type, event.key, name))
            elif how == 1:
                with self.pq.using(conn):
                    self.stream.publish_many(events)
            elif how == 2:
                self.stream.publish_many(events, conn=conn)
            else:
                for event in events:
                    self.stream.publish(*event, conn=conn)
        except TROUBLE:
            self.note("aborted", names=names)
            raise
        return names

    def _transact(self, conn: Any, do: Callable[[], list[str]], rolled_back: float = 0.2) -> bool:
        """Commit what was done, or roll it back; note what becomes of the events that were published meanwhile.

        Those that were not committed need no note: without one they are of unknown outcome, and `truth` knows.
        """
        try:
            names = do()
        except TROUBLE:
            with suppress(psycopg2.Error):
                conn.rollback()
            raise
        if self._chance(rolled_back):
            conn.rollback()
            self.note("aborted", names=names)
            return False
        conn.commit()
        self.note("acknowledged", names=names)
        return True

    def _stay(self) -> None:
        time.sleep(self.random.random() * (3.0 if self._chance(0.01) else 0.1 if self._chance(0.2) else 0.003))

    # -- consumers

    def _names(self, n: int, batch: Any) -> list[str]:
        """The names of the events, of which there may be `n`."""
        if len(batch) > n:
            self.note("too many", n=n, got=len(batch))
        return [event.data["name"] for event in batch]

    def _upkeep(self) -> None:
        """Consumers do this each minute."""
        if time.monotonic() - self._rotated > 1.0:
            self._rotated = time.monotonic()
            if self.stream.rotate():
                self.note("rotated")

    def _take_blocks(self, name: str, most: int = 500) -> None:
        """In transactions, exactly once; some are rolled back, and some events set aside."""
        reader = self.stream.subscription(name, retry_in="0s")
        while self.goes_on():
            with self._trouble():
                self._upkeep()
                n = min(most, self.random.choice(SIZES))
                with reader.batch(n, timeout=0.5) as batch:
                    if not batch:
                        continue
                    names = self._names(n, batch)
                    if self._chance(0.1):
                        aside = self.random.choice(batch)
                        aside.retry(self.random.choice(["0s", "200ms"]))
                        names.remove(aside.data["name"])
                        batch.cursor.execute("insert into aside values (%s, %s)", (name, aside.data["name"]))
                    batch.cursor.execute(SEE, (name, names))
                    self._work_for(0.3)
                    if self._chance(0.05):
                        raise Abort

    def streamblock(self) -> None:
        self._take_blocks("block")

    def streamparted(self) -> None:
        self._take_blocks("parted")

    def streamshared(self) -> None:
        self._take_blocks("shared", 20)

    def streamtake(self) -> None:
        """In transactions of the application, which also publish."""
        self._take_in_transactions("take", echo=0.1)

    def streamtypes(self) -> None:
        """The same, some types only."""
        self._take_in_transactions("types")

    def _take_in_transactions(self, name: str, echo: float = 0.0) -> None:
        reader = self.stream.subscription(name)

        def work(conn: Any) -> list[str]:
            nonlocal found
            published: list[str] = []
            if echo and self._chance(echo / 2):
                published += self._publish(conn)
            n = self.random.choice(SIZES)
            names = self._names(n, reader.take(n, conn=conn))
            found = bool(names)
            if names:
                with conn.cursor() as cursor:
                    cursor.execute(SEE, (name, names))
                self._work_for(0.1)
                if self._chance(echo):
                    published += self._publish(conn)
            return published

        while self.goes_on():
            with self._trouble(), closing(psycopg2.connect(self.dsn)) as conn:
                while self.goes_on():
                    found = False
                    self._upkeep()
                    self._transact(conn, partial(work, conn), 0.1)
                    if not found:
                        time.sleep(0.05)

    def streamsettle(self) -> None:
        """Under leases, which end in the transactions of the effects."""
        reader = self.stream.subscription("settle", retry_in="0s")
        while self.goes_on():
            with self._trouble(), closing(psycopg2.connect(self.dsn)) as conn:
                while self.goes_on():
                    self._upkeep()
                    n = self.random.choice(SIZES)
                    batch = next(reader.batches(n, self.lease, timeout=0.5))
                    if not batch:
                        continue
                    with conn.cursor() as cursor:
                        cursor.execute(SEE, ("settle", self._names(n, batch)))
                    self._work_for(0.1)
                    try:
                        batch.done(conn=conn)
                    except BatchLost:
                        conn.rollback()
                    else:
                        (conn.rollback if self._chance(0.02) else conn.commit)()  # else its lease expires

    def streamlease(self) -> None:
        """Under leases, at least once; of some nobody hears any more."""
        reader = self.stream.subscription("lease", retry_in="0s")
        while self.goes_on():
            with self._trouble(), suppress(BatchLost):
                self._upkeep()
                n = self.random.choice(SIZES)
                if n == 1:
                    event = next(reader.events(self.lease, timeout=0.5))
                    if event is not None:
                        self._handle([event.data["name"]], event)
                    continue
                batch = next(reader.batches(n, self.lease, timeout=0.5))
                if batch:
                    self._handle(self._names(n, batch), batch)

    def _handle(self, names: list[str], held: Any) -> None:
        self._work_for(0.1)
        luck = self.random.random()
        if luck < 0.03:
            held.failed("no")
        elif luck < 0.06:
            held.release()
        else:
            if self._chance(0.1):
                held.extend()
            self.note("handled", names=names)
            if self._chance(0.98):
                held.done()

    def streamworker(self) -> None:
        """Performs the events of one type, in transactions."""
        options: Any = {"max_retries": RETRIES, "retry_in": "0s", "transactional": True, "lease": self.lease}

        @self.stream.on("w", subscription="worker", start="beginning", **options)
        def perform(event: Any) -> None:
            current().cursor.execute(SEE, ("worker", [event.data["name"]]))
            self._work_for(0.1)

        self.perform(Worker(self.pq, threads=2, lease=self.lease, shutdown_timeout="5s"))

    # -- the operator

    def streamoperator(self) -> None:
        """Looks, pauses, resumes, and makes again what is there."""
        while self.goes_on():
            with self._trouble():
                name = self.random.choice(list(SUBSCRIPTIONS))
                self.stream.info()
                self.stream.create()
                self.stream.subscribe(name, **SUBSCRIPTIONS[name])
                reader = self.stream.subscription(name)
                reader.lag(exact=True)
                reader.pause()
                self._stay()
                reader.resume()
                time.sleep(self.random.expovariate(1 / 1.0))


def main(role: str, name: str, dsn: str, folder: str, seed: str, lease: str) -> None:
    logging.basicConfig(level=logging.CRITICAL)
    with suppress(KeyboardInterrupt):
        Streamed(role, name, dsn, Path(folder), int(seed), lease).run()
