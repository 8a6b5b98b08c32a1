"""The session that listens: on a connection of its own, or on the application's single one between its statements."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from .._db.sockets import readable
from .._db.sources.base import Source
from ..sql import array, bound
from .connections import Busy, OwnConnection, SharedConnection
from .schedules import NextSchedule

#: Seconds after which the server gives up a statement of the listening session: a table may be locked for hours, and
#: the gates would be held for as long.
TIME_LIMIT = 4.0

#: How many keys of gates a session remembers, so that it can take these gates again at once.
MAX_KEYS = 10_000

#: Up to this number of gates, the server need not be asked how many are allowed.
FEW_GATES = 100


class Look(NamedTuple):
    """What a look at a queue has shown.

    :ivar sure: each put that this look did not see will notify.
    :ivar due_in: seconds until the next row becomes due; None: there is no such row.
    :ivar ready: there is a job, which somebody may have locked.
    """

    sure: bool
    due_in: float | None
    ready: bool


@dataclass
class Gate:
    """The gate of a queue, which the session holds, or may hold.

    :ivar key: the key of the advisory lock.
    :ivar next: transactions from this id on began to write when the gate was held.
    :ivar left: the queue is paused, so the session only listens: the end of the pause is notified in any case.
    """

    key: int
    next: int | None = None
    left: bool = False

    @property
    def channel(self) -> str:
        """The channel on which the trigger notifies; to_hex() of a negative number is its two's complement."""
        return f"pq_{self.key & 0xFFFFFFFFFFFFFFFF:x}"


def open_session(source: Source, table: str, listen_dsn: str | None) -> ListeningSession:
    """Return a session that listens.

    :raises Busy: the source has a single connection, which is in use.
    :raises Error: no connection can be had now.
    """
    driver = source.driver.limited(None)  # the session has a limit of its own
    if listen_dsn is not None:
        return ListeningSession(OwnConnection(driver, driver.connect(listen_dsn)), table)
    if source.single:
        return ListeningSession(SharedConnection(source), table)
    conn = source.open_listening_connection()
    if conn is None:
        raise driver.Error("the parameters for a further connection are not known")
    return ListeningSession(OwnConnection(driver, conn), table)


class ListeningSession:
    """The session that listens for the threads of this process that wait for queues of one table.

    It holds the gates of these queues. Only the leader uses it, but any thread may call `pending`.

    :ivar hears: notifications come through.
    :ivar gates: by the name of the queue.
    """

    def __init__(self, connection: OwnConnection | SharedConnection, table: str) -> None:
        self._connection = connection
        self._driver = connection.driver
        self._table = table
        self._sql = bound("waiting.sql", table)
        self._sql_with_schedules = bound("waiting.sql", table, schedule_in="next_schedule_in")
        self._keys: dict[str, int] = {}
        self._most: int | None = None
        self.gates: dict[str, Gate] = {}
        self._queues: dict[str, str] = {}  # by the channel on which this session listens
        try:
            self.hears = not connection.use(self._driver.backend_is_hidden)
            connection.use(self._driver.listen)
        except BaseException:
            connection.close()
            raise

    def look(self, queues: Collection[str], schedule: NextSchedule | None = None) -> dict[str, Look]:
        """Look at queues, each from behind its gate if that can be had: W1 to W4.

        :param schedule: is told of schedules, if it wants to; only where who fires these sees the same ones.
        :returns: by queue; without those for which there are no more gates.
        """
        if self.hears:
            new = [queue for queue in queues if queue not in self.gates]
            allowed = self._allowed(len(new))
            if new[:allowed]:
                self._take_gates(new[:allowed])
            beyond = frozenset(new[allowed:])
            queues = [queue for queue in queues if queue not in beyond]
        rows = self._look(queues, schedule) if queues else []
        self._remember((queue, key) for queue, key, *_ in rows)
        self._leave_gates([queue for queue, key, _, _, paused, *_ in rows if self._must_be_left(queue, key, paused)])
        self._leave_paused_gates([queue for queue, _, _, _, paused, *_ in rows if paused])
        return {queue: self._seen(queue, *rest) for queue, _, *rest, _ in rows}

    def _look(self, queues: Collection[str], schedule: NextSchedule | None) -> list[tuple[Any, ...]]:
        params = {"queues": array(queues), "table": self._table}
        if schedule is not None and schedule.wanted:
            asked_at = time.monotonic()
            try:
                rows = self._run(self._sql_with_schedules["look"], params)
                for *_, due_in in rows[:1]:
                    schedule.saw(asked_at, due_in)
                return rows
            except self._driver.Error:
                if self.is_lost:
                    raise
                schedule.refuse()
        return self._run(self._sql["look"], params)

    def _must_be_left(self, queue: str, key: int, paused: bool) -> bool:
        """Return whether a gate must be left and taken anew, since it is another table's (the search path has changed),
        or was left during a pause that is over."""
        gate = self.gates.get(queue)
        return gate is not None and (gate.key != key or (gate.left and not paused))

    def _seen(
        self, queue: str, oldest: int, following: int, paused: bool, due_in: float | None, ready: bool
    ) -> Look:
        gate = self.gates.get(queue)
        if gate is not None and paused:
            return Look(True, None, False)
        if gate is not None and gate.next is None:
            gate.next = following
        return Look(gate is not None and gate.next is not None and oldest >= gate.next, due_in, ready)

    def keep(self, queues: Collection[str]) -> None:
        """Leave the gates of all other queues."""
        self._leave_gates([queue for queue in self.gates if queue not in queues])

    def notified(self, has_arrived: bool) -> list[str]:
        """Return the queues for which notifications have come since the last call.

        :param has_arrived: the socket is known to be readable.
        """
        if not (has_arrived or readable(self.fileno()) or self.pending()):
            return []
        return [self._queues[channel] for channel in self._connection.notified(self._queues)]

    @property
    def lingers(self) -> bool:
        """Whether the session may hold gates that nobody needs just now; the application's would keep them."""
        return self.hears and isinstance(self._connection, OwnConnection)

    def pending(self) -> bool:
        """Return whether a notification has been read from the socket already."""
        return self._driver.has_notified(self._connection.conn, self._queues)

    @property
    def is_lost(self) -> bool:
        return bool(self._connection.conn.closed)

    def fileno(self) -> int:
        return int(self._connection.conn.fileno())

    def close(self) -> None:
        """Give up all gates, and the connection if it is ours."""
        try:
            if isinstance(self._connection, SharedConnection):
                self.keep(())
        except (Busy, self._driver.Error):
            pass
        finally:
            self._connection.close()

    # -- statements

    def _run(self, sql: str, params: Any = None) -> list[tuple[Any, ...]]:
        rows: list[tuple[Any, ...]] = self._connection.use(self._limited, sql, params)
        return rows

    def _limited(self, conn: Any, sql: str, params: Any = None) -> list[tuple[Any, ...]]:
        """Execute statements in one message, which the server gives up after `TIME_LIMIT`."""
        return self._driver.run(conn, f"set local statement_timeout = {TIME_LIMIT * 1000:.0f}; {sql}", params)

    # -- gates

    def _allowed(self, wanted: int) -> int:
        """Return how many more gates this session may hold: each is an entry in the server's table of locks."""
        if len(self.gates) + wanted <= FEW_GATES:
            return wanted
        if self._most is None:
            ((self._most,),) = self._run(self._sql["most_gates"])
        return max(0, self._most - len(self.gates))

    def _remember(self, keys: Iterable[tuple[Any, ...]]) -> None:
        if len(self._keys) >= MAX_KEYS:
            self._keys.clear()
        self._keys.update(keys)

    def _take_gates(self, queues: list[str]) -> None:
        """Take gates, and listen: W1 and W2. LISTEN takes effect at the end of the message, when the gates are held."""
        unknown = [queue for queue in queues if queue not in self._keys]
        if unknown:
            self._remember(self._run(self._sql["keys"], {"queues": array(unknown), "table": self._table}))
        gates = {queue: Gate(self._keys[queue]) for queue in queues if queue in self._keys}
        if not gates:
            return  # the table is not there, as the look will tell

        def take(conn: Any) -> None:
            self._hold(gates)  # whatever goes wrong from here on, the session may have them
            listen = "".join(f'listen "{gate.channel}"; ' for gate in gates.values())
            keys = array(gate.key for gate in gates.values())
            rows = self._limited(conn, listen + self._sql["take_gates"], {"keys": keys})
            taken = {key for key, taken in rows if taken}  # where it is not taken, a put is just at P2
            refused = {queue: gate for queue, gate in gates.items() if gate.key not in taken}
            if refused:
                self._limited(conn, "; ".join(f'unlisten "{gate.channel}"' for gate in refused.values()))
                self._drop(refused)

        self._connection.use(take)

    def _leave_gates(self, queues: list[str]) -> None:
        """Leave gates, and forget what was notified there."""
        if not queues:
            return
        gates = {queue: self.gates[queue] for queue in queues}

        def leave(conn: Any) -> None:
            unlisten = "; ".join(f'unlisten "{gate.channel}"' for gate in gates.values())
            keys = array(gate.key for gate in gates.values() if not gate.left)
            self._limited(conn, f"{self._sql['leave_gates']}; {unlisten}", {"keys": keys})
            self._driver.notified(conn, {gate.channel for gate in gates.values()})
            self._drop(gates)

        self._connection.use(leave)

    def _leave_paused_gates(self, queues: list[str]) -> None:
        """Leave the gates of paused queues, and go on listening."""
        gates = [self.gates[queue] for queue in queues if queue in self.gates and not self.gates[queue].left]
        if gates:
            self._run(self._sql["leave_gates"], {"keys": array(gate.key for gate in gates)})
            for gate in gates:
                gate.left = True

    def _hold(self, gates: dict[str, Gate]) -> None:
        self.gates |= gates
        self._queues |= {gate.channel: queue for queue, gate in gates.items()}

    def _drop(self, gates: dict[str, Gate]) -> None:
        for queue, gate in gates.items():
            del self.gates[queue]
            self._queues.pop(gate.channel, None)
