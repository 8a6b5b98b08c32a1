"""The session that listens: a connection of its own, or the application's single one, between its statements."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, NamedTuple

from .._db.drivers.base import Driver
from .._db.sockets import readable
from .._db.sources.base import Source
from .._db.sources.single import SingleConnection
from .._db.watchdog import Watchdog
from ..sql import array, bound

#: Seconds after which a statement on a line of our own counts as unanswered.
PATIENCE = 5.0

#: Seconds that the leader waits for the single connection.
BUSY = 0.05

#: How many keys of gates a line remembers.
MAX_KEYS = 1000


class Busy(Exception):
    """The single connection is in a transaction that is not ours."""


class Look(NamedTuple):
    """What there is to know of a queue."""

    sure: bool  # whoever puts a job that this look did not see will notify
    due_in: float | None  # seconds until the next row becomes due
    ready: bool  # a job can be had, unless somebody has it locked


@dataclass
class Gate:
    """The gate of a queue, which we hold, or may hold."""

    key: int
    next: int | None = None  # transactions from this id on began writing when we held it
    left: bool = False  # the queue is paused: only its end is notified, whoever holds the gate

    @property
    def channel(self) -> str:
        """As the trigger writes it: to_hex() of a negative number is its two's complement."""
        return f"pq_{self.key & 0xFFFFFFFFFFFFFFFF:x}"


def open_line(source: Source, table: str, listen_dsn: str | None) -> Line:
    """The line of a source.

    :raises Busy: it has a single connection, which is busy.
    :raises Error: no connection can be had now.
    """
    driver = source.driver
    if listen_dsn is not None:
        return Line(_Own(driver, driver.connect(listen_dsn)), table)
    if isinstance(source, SingleConnection):
        return Line(_Shared(source), table)
    conn = source.open_line()
    if conn is None:
        raise driver.Error("the parameters for a further connection are not known")
    return Line(_Own(driver, conn), table)


class Line:
    """What the threads that wait for the queues of one table say to the server, and hear from it.

    Only the leader uses it; any thread may ask for `pending`. `hears`: notifications come through.
    """

    def __init__(self, session: _Own | _Shared, table: str) -> None:
        self._session = session
        self._driver = session.driver
        self._table = table
        self._sql = bound("waiting.sql", table)
        self._keys: dict[str, int] = {}  # of gates that we had, to take them again at once
        self.gates: dict[str, Gate] = {}
        self._pattern = re.compile("(?!)")  # of the channels
        try:
            self.hears = not session.use(self._driver.backend_is_hidden)
            session.use(self._driver.listen)
        except BaseException:
            session.close()
            raise

    def look(self, queues: Collection[str]) -> dict[str, Look]:
        """Look at queues, each from behind its gate if that can be had: W1 to W4."""
        for queue in queues:
            if self.hears and queue not in self.gates:
                self._take_gate(queue)
        return {queue: self._seen(queue, *row) for queue, *row in self._look(queues)}

    def _seen(
        self, queue: str, key: int, oldest: int, following: int, paused: bool, due_in: float | None, ready: bool
    ) -> Look:
        gate = self.gates.get(queue)
        # the search path has changed, and with it the table; or the queue is not paused any more
        if gate is not None and (gate.key != key or (gate.left and not paused)):
            self._leave_gate(queue)
            gate = None
        if gate is not None and paused:
            self._step_aside(gate)
            return Look(True, None, False)
        if gate is not None and gate.next is None:
            gate.next = following
        return Look(gate is not None and gate.next is not None and oldest >= gate.next, due_in, ready)

    def keep(self, queues: Collection[str]) -> None:
        """Leave the gates of all other queues."""
        for queue in [queue for queue in self.gates if queue not in queues]:
            self._leave_gate(queue)

    def notified(self) -> list[str]:
        """The queues that we were notified of; forgotten with this call."""
        if readable(self.fileno()):
            self._session.read()
        elif not self.pending():
            return []
        channels = self._session.use(self._driver.notified, self._pattern)
        return [queue for queue, gate in self.gates.items() if gate.channel in channels]

    @property
    def lingers(self) -> bool:
        """Whether its session may have gates that nobody needs just now: on the application's they'd stay."""
        return self.hears and isinstance(self._session, _Own)

    def pending(self) -> bool:
        """Whether a notification has been read from the socket already."""
        return self._driver.has_notified(self._session.conn, self._pattern)

    def fileno(self) -> int:
        return int(self._session.conn.fileno())

    def close(self) -> None:
        """Give up all gates, and the connection if it is ours."""
        try:
            if isinstance(self._session, _Shared):
                self.keep(())
        except (Busy, self._driver.Error):
            pass
        finally:
            self._session.close()

    def _look(self, queues: Collection[str]) -> list[tuple[Any, ...]]:
        params = {"queues": array(queues), "table": self._table}
        rows: list[tuple[Any, ...]] = self._session.use(self._driver.run, self._sql["look"], params)
        if len(self._keys) >= MAX_KEYS:
            self._keys.clear()
        self._keys |= {queue: key for queue, key, *_ in rows}
        return rows

    def _take_gate(self, queue: str) -> None:
        if queue not in self._keys:
            self._look([queue])
        gate = Gate(self._keys[queue])

        def take(conn: Any) -> None:
            self._hold(queue, gate)  # whatever goes wrong from here on: we may have it
            listen = f'listen "{gate.channel}"; {self._sql["take_gate"]}'
            ((taken,),) = self._driver.run(conn, listen, {"key": gate.key})
            if not taken:  # a put is just at P2
                self._driver.run(conn, f'unlisten "{gate.channel}"')
                self._hold(queue, None)

        self._session.use(take)

    def _leave_gate(self, queue: str) -> None:
        """Whatever came from there is forgotten."""
        gate = self.gates[queue]

        def leave(conn: Any) -> None:
            unlisten = f'unlisten "{gate.channel}"'
            if not gate.left:
                unlisten = f'{self._sql["leave_gate"]}; {unlisten}'
            self._driver.run(conn, unlisten, {"key": gate.key})
            self._driver.notified(conn, re.compile(gate.channel))
            self._hold(queue, None)

        self._session.use(leave)

    def _step_aside(self, gate: Gate) -> None:
        """Leave it, and go on listening."""
        if not gate.left:
            self._session.use(self._driver.run, self._sql["leave_gate"], {"key": gate.key})
            gate.left = True

    def _hold(self, queue: str, gate: Gate | None) -> None:
        if gate is None:
            del self.gates[queue]
        else:
            self.gates[queue] = gate
        self._pattern = re.compile("|".join(gate.channel for gate in self.gates.values()) or "(?!)")


class _Own:
    """A connection for this alone."""

    def __init__(self, driver: Driver, conn: Any) -> None:
        self.driver = driver
        self.conn = conn
        self._watchdog = Watchdog()

    def use(self, action: Callable[..., Any], *args: Any) -> Any:
        with self._watchdog.guard(self.conn, PATIENCE):
            return action(self.conn, *args)

    def read(self) -> None:
        """Take what has arrived."""
        self.driver.receive(self.conn)

    def close(self) -> None:
        self._watchdog.close()
        try:
            self.conn.close()
        except self.driver.Error:
            pass  # it is gone, and the gates with it


class _Shared:
    """The application's connection, used when no transaction is open on it."""

    def __init__(self, source: SingleConnection) -> None:
        self.driver = source.driver
        self._source = source

    @property
    def conn(self) -> Any:
        return self._source.conn

    def use(self, action: Callable[..., Any], *args: Any) -> Any:
        """:raises Busy: another thread has a transaction open on it, or the application itself."""
        try:
            conn = self._source.acquire(timeout=BUSY)
        except TimeoutError:
            raise Busy from None
        try:
            if not self.driver.idle(conn):
                raise Busy  # not ours to commit
            with self.driver.committed(conn):
                return action(conn, *args)
        finally:
            self._source.release(conn)

    def read(self) -> None:
        """Left to statements: it would take the answer to what another thread of the application executes."""

    def close(self) -> None:
        pass  # it is the application's
