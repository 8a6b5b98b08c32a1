"""The faults. Which, when and for how long is decided by the seed alone, so that a schedule can be played again."""

from __future__ import annotations

import random
import re
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, closing
from typing import NamedTuple

import psycopg2

from pq import PQ
from pq.errors import PQError

from .cast import Cast
from .proxy import CHANGE, COMMIT, Proxy
from .server import Server


class Fault(NamedTuple):
    """One of the schedule.

    :ivar at: seconds after the beginning.
    :ivar luck: between 0 and 1: whom it hits.
    :ivar seconds: how long, for those that last.
    """

    at: float
    kind: str
    luck: float
    seconds: float


#: The kinds, how often each is chosen, and the seconds that it lasts.
KINDS: dict[str, tuple[int, float, float]] = {
    "kill": (6, 0, 0),
    "terminate": (4, 0, 0),
    "cut": (3, 0, 0),
    "commit-lost": (4, 0, 0),  # the connection is cut before the COMMIT gets to the server
    "commit-unheard": (4, 0, 0),  # after the server has done it
    "change-lost": (3, 0, 0),  # the same for statements outside of transactions
    "change-unheard": (3, 0, 0),
    "freeze": (3, 0.1, 1.0),
    "freeze-long": (2, 2.5, 4.5),  # longer than the lease
    "restart": (1, 0, 0.5),
    "black-hole": (1, 0.5, 3.0),
    "statement-timeout": (1, 1.0, 3.0),
    "idle-timeout": (1, 1.0, 3.0),
    "exhaust": (1, 0.5, 2.0),
    "create": (2, 0, 0),
    "xmin": (1, 2.0, 6.0),
}


#: Seconds within which a message must come by that a connection is to be cut at.
FIRES = 10.0


def schedule(seed: int, seconds: float, interval: float, kinds: list[str]) -> list[Fault]:
    """What happens in so many seconds; about one fault each `interval`."""
    chance = random.Random(seed)
    weights = [KINDS[kind][0] for kind in kinds]
    faults: list[Fault] = []
    at = 1.0
    while kinds and (at := at + chance.uniform(0.2, 1.8) * interval) < seconds:
        (kind,) = chance.choices(kinds, weights)
        faults.append(Fault(round(at, 3), kind, chance.random(), round(chance.uniform(*KINDS[kind][1:]), 3)))
    return faults


class Missed(Exception):
    """A fault hit nothing."""


class Nemesis:
    """Does the faults: each in a thread, since some last.

    :ivar done: how many of each kind.
    :ivar errors: faults that could not be done.
    """

    def __init__(self, server: Server, proxy: Proxy, cast: Cast) -> None:
        self._server, self._proxy, self._cast = server, proxy, cast
        self._threads: list[threading.Thread] = []
        self._restarting = threading.Lock()
        self.done: Counter[str] = Counter()
        self.errors: list[str] = []

    def run(self, faults: list[Fault], seconds: float, meanwhile: Callable[[], None]) -> None:
        """Play a schedule; `meanwhile` is called every so often."""
        began = time.monotonic()
        waiting = list(faults)
        while (now := time.monotonic() - began) < seconds:
            while waiting and waiting[0].at <= now:
                thread = threading.Thread(target=self._do, args=[waiting.pop(0)])
                self._threads.append(thread)
                thread.start()
            meanwhile()
            time.sleep(0.02)

    def heal(self) -> None:
        """No fault is left."""
        for thread in self._threads:
            thread.join()

    def _do(self, fault: Fault) -> None:
        try:
            getattr(self, f"_{fault.kind.replace('-', '_')}")(fault)
            self.done[fault.kind] += 1
        except (psycopg2.Error, PQError, Missed) as error:  # it fell into another fault
            self.errors.append(f"{fault.kind}: {error}")

    # -- processes

    def _someone(self, fault: Fault) -> str:
        names = self._cast.names()
        return names[int(fault.luck * len(names))]

    def _kill(self, fault: Fault) -> None:
        self._cast.kill(self._someone(fault))

    def _freeze(self, fault: Fault) -> None:
        self._cast.freeze(self._someone(fault), fault.seconds)

    _freeze_long = _freeze

    # -- the network

    def _cut(self, fault: Fault) -> None:
        self._proxy.cut()

    def _cut_at(self, pattern: re.Pattern[bytes], after: bool) -> None:
        if not self._proxy.arm(pattern, after).wait(FIRES):
            raise Missed("nothing of that kind came by")

    def _commit_lost(self, fault: Fault) -> None:
        self._cut_at(COMMIT, after=False)

    def _commit_unheard(self, fault: Fault) -> None:
        self._cut_at(COMMIT, after=True)

    def _change_lost(self, fault: Fault) -> None:
        self._cut_at(CHANGE, after=False)

    def _change_unheard(self, fault: Fault) -> None:
        self._cut_at(CHANGE, after=True)

    def _black_hole(self, fault: Fault) -> None:
        self._proxy.silent = True
        time.sleep(fault.seconds)
        self._proxy.cut()
        self._proxy.silent = False

    # -- the server

    def _restart(self, fault: Fault) -> None:
        with self._restarting:
            self._server.crash()
            time.sleep(fault.seconds)
            self._server.start()

    def _terminate(self, fault: Fault) -> None:
        self._server.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where backend_type = 'client backend'"
            " and pid <> pg_backend_pid() and random() < 0.1"
        )

    def _statement_timeout(self, fault: Fault) -> None:
        self._set("statement_timeout", "20ms", fault.seconds)

    def _idle_timeout(self, fault: Fault) -> None:
        self._set("idle_in_transaction_session_timeout", "20ms", fault.seconds)

    def _set(self, name: str, value: str, seconds: float) -> None:
        """For new sessions: so the connections are cut, before and after."""
        try:
            self._server.execute(f"alter role torture set {name} = '{value}'")
            self._proxy.cut()
            time.sleep(seconds)
        finally:
            self._until_done(f"alter role torture reset {name}")
            self._proxy.cut()

    def _until_done(self, sql: str) -> None:
        """The server may be down."""
        end = time.monotonic() + 60
        while True:
            try:
                self._server.execute(sql)
                return
            except psycopg2.Error:
                if time.monotonic() > end:
                    raise
                time.sleep(0.1)

    def _exhaust(self, fault: Fault) -> None:
        """No connection is left for new ones."""
        with ExitStack() as stack:
            for _ in range(200):
                try:
                    stack.enter_context(closing(psycopg2.connect(f"{self._server.dsn} user=torture")))
                except psycopg2.OperationalError:
                    break
            self._proxy.cut()
            time.sleep(fault.seconds)

    def _create(self, fault: Fault) -> None:
        with PQ(self._server.dsn) as pq:
            pq.create()

    def _xmin(self, fault: Fault) -> None:
        """A transaction that keeps dead rows from being removed."""
        with closing(psycopg2.connect(self._server.dsn)) as conn, conn.cursor() as cursor:
            conn.set_session(isolation_level="REPEATABLE READ")
            cursor.execute("select count(*) from queue")
            time.sleep(fault.seconds)
