"""The faults."""

from __future__ import annotations

import re
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, closing

import psycopg2

from pq import PQ
from pq.errors import PQError

from .cast import Cast
from .proxy import Action, Proxy, cut_after, cut_before
from .schedule import Fault
from .server import Server
from .streams import STREAM

#: A message that may commit something: COMMIT itself, or a statement outside of a transaction.
COMMIT = re.compile(rb"\bcommit\b", re.IGNORECASE)
CHANGE = re.compile(rb"\b(insert into|update|delete from)\b", re.IGNORECASE)

#: Seconds within which a message must come by that a connection is to be cut at.
FIRES = 10.0


class Missed(Exception):
    """A fault hit nothing."""


class Nemesis:
    """Does the faults: each in a thread, since some last.

    :param keyed: `create` also changes whether finished jobs are kept.
    :param streams: `create` also makes the stream again.

    `_sessions` is held by what ends sessions or cancels statements, and by a promotion: see `Server`.

    :ivar done: how many of each kind.
    :ivar errors: faults that fell into others, and so could not be done.
    :ivar times: when each fault began and ended, by the clock of the machine.
    :ivar failures: what must not happen: the server does not start, say.
    """

    def __init__(self, server: Server, proxy: Proxy, cast: Cast, keyed: bool = False, streams: bool = False) -> None:
        self._server, self._proxy, self._cast = server, proxy, cast
        self._keyed, self._streams = keyed, streams
        self._threads: list[threading.Thread] = []
        self._restarting = threading.Lock()
        self._sessions = threading.Lock()
        self.done: Counter[str] = Counter()
        self.errors: list[str] = []
        self.times: list[tuple[float, float]] = []
        self.failures: list[str] = []

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
        began = time.time()
        try:
            getattr(self, f"_{fault.kind.replace('-', '_')}")(fault)
            self.done[fault.kind] += 1
        except (psycopg2.Error, PQError, Missed) as error:
            self.errors.append(f"{fault.kind}: {error}")
        except Exception as error:
            self.failures.append(f"{fault.kind}: {error!r}")
        finally:
            self.times.append((began, time.time()))

    # -- processes

    def _someone(self, fault: Fault) -> str:
        names = self._cast.names()
        return names[int(fault.luck * len(names))]

    def _kill(self, fault: Fault) -> None:
        self._cast.kill(self._someone(fault))

    def _freeze(self, fault: Fault) -> None:
        self._cast.freeze(self._someone(fault), fault.seconds)

    _freeze_long = _freeze

    def _clock(self, fault: Fault) -> None:
        name = self._someone(fault)
        self._cast.jump(name)
        time.sleep(fault.seconds)
        self._cast.jump(name)

    # -- the network

    def _cut(self, fault: Fault) -> None:
        self._proxy.cut()

    def _cut_at(self, pattern: re.Pattern[bytes], action: Action) -> None:
        if not self._proxy.when(pattern, action).wait(FIRES):
            raise Missed("nothing of that kind came by")

    def _commit_lost(self, fault: Fault) -> None:
        self._cut_at(COMMIT, cut_before)

    def _commit_unheard(self, fault: Fault) -> None:
        self._cut_at(COMMIT, cut_after)

    def _change_lost(self, fault: Fault) -> None:
        self._cut_at(CHANGE, cut_before)

    def _change_unheard(self, fault: Fault) -> None:
        self._cut_at(CHANGE, cut_after)

    def _black_hole(self, fault: Fault) -> None:
        self._proxy.silent = True
        time.sleep(fault.seconds)
        self._proxy.cut()
        self._proxy.silent = False

    # -- the server

    def _restart(self, fault: Fault) -> None:
        with self._restarting:
            self._server.primary.crash()
            time.sleep(fault.seconds)
            self._server.primary.start()

    def _promote(self, fault: Fault) -> None:
        with self._restarting:
            if self._server.standby is None:
                raise Missed("there is no standby")
            with self._sessions:
                self._server.promote()
            self._proxy.target = self._server.address
            self._server.add_standby()

    def _terminate(self, fault: Fault) -> None:
        with self._sessions:
            self._server.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity where backend_type = 'client backend'"
                " and pid <> pg_backend_pid() and random() < 0.1"
            )

    def _statement_timeout(self, fault: Fault) -> None:
        with self._sessions:  # one that fires just before a commit cancels the wait for the standby
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
            self._server.insist(f"alter role torture reset {name}")
            self._proxy.cut()

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
            pq.create(**{"retain": 0 if fault.luck < 0.6 else "7d"} if self._keyed else {})
            if self._streams:
                pq.streams[STREAM].create()

    def _xmin(self, fault: Fault) -> None:
        """A transaction that keeps dead rows from being removed."""
        with closing(psycopg2.connect(self._server.dsn)) as conn, conn.cursor() as cursor:
            conn.set_session(isolation_level="REPEATABLE READ")
            cursor.execute("select count(*) from queue")
            time.sleep(fault.seconds)
