"""The queue table as the rest of pq uses it: its name, its database, its statements, and the threads that wait."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from .._db import Database, Outside, Rows, aside_of
from .._wait import Polling, ResultRoom, Wait, Waiter, WaitingRoom, wait_alone
from ..sql import TableName, array, bound
from .instruments import Instruments
from .retention import Retention, read

#: Seconds for which `Table.retention` answers from memory.
RETENTION_FRESH = 60.0

#: Seconds from one call of `Table.heal` that does something to the next; how many times as many before one that is in a
#: hurry does something; the checks that it makes by a statement, most of which are of few keys; and how many of these
#: follow each other.
HEAL_PAUSE = 0.5
HEAL_HURRY = 4
HEAL_CHECKS = 1000
HEAL_STATEMENTS = 30


class _Memory:
    """What a `Table` and all its views remember of the table.

    :ivar read_at: when the retention was read; monotonic seconds.
    :ivar healed_at: when keys were healed, likewise.
    """

    def __init__(self) -> None:
        self.retention = Retention()
        self.read_at = -RETENTION_FRESH
        self.healed_at = -HEAL_PAUSE


class Table:
    """One queue table in one database, shared by all queues of a `PQ`.

    :param name: the name of the table.
    :param database: where the table is.
    :param poll_interval: seconds; a waiter looks at least this often.
    :param listen_dsn: a DSN for the connection that listens; default: the parameters of the other connections.
    :ivar quoted: the name as it stands in SQL.
    :ivar instruments: what is told of puts and of calls.
    :raises ValueError: `listen_dsn` is malformed.
    """

    def __init__(
        self, name: TableName, database: Database, *, poll_interval: float = 1.0, listen_dsn: str | None = None
    ) -> None:
        self.name = name
        self.quoted: str = name.quoted
        self.database = database
        self._poll_interval = poll_interval
        if listen_dsn is not None:
            database.source.driver.parameters(listen_dsn)
        self._aside = aside_of(database, name.quoted)
        self._room = WaitingRoom(database.source, name.quoted, poll_interval, listen_dsn, self._aside)
        self._results = ResultRoom(self._look_aside, database.source.driver, poll_interval)
        self._memory = _Memory()
        self.instruments: Instruments = Instruments()
        self.outside: Outside = Outside(database.source)
        self.closed: bool = False

    def bind(self, conn: Any) -> Table:
        """Return a view of this table that executes everything in a transaction of the application's.

        The errors are those of `Database.bind`.
        """
        view = object.__new__(type(self))
        view.__dict__.update(self.__dict__, database=self.database.bind(conn))
        return view

    def reserve(self) -> Table | None:
        """Return a view of this table with a connection of its own, which nobody else gets; see `Database.reserve`."""
        database = self.database.reserve()
        if database is None:
            return None
        view = object.__new__(type(self))
        view.__dict__.update(self.__dict__, database=database)
        return view

    def is_same(self, other: Table) -> bool:
        """Return whether both are one table, reached by the same connections."""
        return self.database.source is other.database.source and self.quoted == other.quoted

    def statements(self, path: str, stream: str | None = None, **instead: str) -> Mapping[str, str]:
        """Return the statements of a file in ``pq/sql`` for this table; the arguments are those of `pq.sql.bound`."""
        return bound(path, self.quoted, stream, **instead)

    def execute(self, sql: str, params: Mapping[str, Any] | None = None, **options: Any) -> Rows:
        """Execute one statement; the arguments and the other errors are those of `Database.execute`.

        :raises ValueError: a queue's encoder has returned something else than JSON.
        """
        try:
            return self.database.execute(sql, params, **options)
        except self.database.driver.Error as error:
            self.check_encoding(error)
            raise

    def check_encoding(self, error: Exception) -> None:
        """
        :raises ValueError: it is what the server says of text that is no JSON; the server's message quotes the data.
        """
        if self.database.driver.text_is_invalid(error):
            raise ValueError("the queue's encoder did not return valid JSON") from None

    # -- retention

    def retention(self, timeout: float | None = None) -> Retention:
        """Return how long rows are kept, as the table said at most a minute ago.

        :param timeout: the seconds that the caller has, for `Database.execute`.
        """
        now = time.monotonic()
        if now - self._memory.read_at >= RETENTION_FRESH:
            self._memory.retention = read(self.database, timeout)
            self._memory.read_at = now
        return self._memory.retention

    def forget_retention(self) -> None:
        """Read the retention anew at the next call of `retention`; call this after it was changed."""
        self._memory.read_at = -RETENTION_FRESH

    # -- keys

    def heal(self, timeout: float | None = None, *, only_one: bool = False, in_a_hurry: bool = False) -> bool:
        """Make the checks of keys that are due, unless that was done a moment ago; see ``sql/keys.sql``.

        :param timeout: the seconds that the caller has, for `Database.execute`.
        :param only_one: make one check at most: in a transaction that stays open its rows stay locked.
        :param in_a_hurry: a later call may do it as well, if there is one.
        :returns: whether there were such checks.
        """
        now = time.monotonic()
        if now - self._memory.healed_at < HEAL_PAUSE * (HEAL_HURRY if in_a_hurry else 1):
            return False
        self._memory.healed_at = now
        sql = self.statements("keys.sql")["heal"]
        found = False
        limit, statements = (1, 1) if only_one else (HEAL_CHECKS, HEAL_STATEMENTS)
        for _ in range(statements):
            ((checks,),) = self.execute(sql, {"limit": limit}, timeout=timeout, prepare=True)
            found = found or bool(checks)
            if checks == 0:  # not "less than the limit": a check may leave another one, which is due at once
                break
        return found

    def heal_outside(self) -> None:
        """Make the checks that are due on a further connection: a transaction is open, for whose end nobody is to
        wait."""
        now = time.monotonic()
        if now - self._memory.healed_at < HEAL_PAUSE:
            return
        if self.database.joined is not None and not self.database.source.owned:
            return  # the pool may have no other connection
        sql = self.statements("keys.sql")
        if not self.execute(sql["has_checks"]) or self.outside.execute(sql["heal"], {"limit": HEAL_CHECKS}) is not None:
            self._memory.healed_at = now

    # -- waiting

    def waiter(self, queue: str) -> Waiter | Polling:
        """Return a context manager by which this thread waits for jobs of a queue."""
        database = self.database
        if database.joined is not None:
            if not database.driver.can_wait:
                raise TypeError("get can't wait inside of run_sync, which would stop the event loop: pass timeout=0")
            # The application's transaction may see another table than the session that listens: look, and listen if a
            # connection for that is certainly to be had (the last one of a pool may be the application's).
            listening = self.waiter_for_all([queue]) if database.source.owned else None
            return Polling(database, self.quoted, self._poll_interval, queue, listening)
        if database.in_transaction and not database.source.hears_in_transactions:
            return Polling(database, self.quoted, self._poll_interval, queue)
        return self.waiter_for_all([queue])

    def is_seen_empty(self, queue: str) -> bool:
        """Return whether waiting threads have just seen that a queue has no job, and will hear of each put since. In a
        transaction there may be more, also in one that the application has begun on its single connection: a claim sees
        that, and commits it."""
        database = self.database
        if database.current is not None or not self._room.is_seen_empty(queue):
            return False
        conn = database.source.conn
        return conn is None or (not conn.closed and database.source.driver.idle(conn))

    def waiter_for_all(self, queues: Iterable[str]) -> Waiter:
        """Return one that waits for several queues at once, outside of a transaction."""
        return self._room.enter(queues, self._peek)

    def schedules_rest(self, fresh: float) -> float:
        """Return for how many seconds no schedule is due, as a process that waits has seen by the way; 0 or less: look
        now.

        :param fresh: seconds after which what was seen is too old.
        """
        return 0.0 if self.database.current is not None else self._room.leader.next_schedule.pause(fresh)

    def waiter_for_log(self, gate: str, queue: str) -> Waiter:
        """Return one that waits for what is not in this table, but notifies as if it were put into a queue.

        :param gate: the name of that queue.
        :param queue: a queue that is waited for, too.
        """
        return self._room.enter([gate, queue], lambda names: names, [gate])

    def aside(self) -> Table | None:
        """Return a view of this table on the second connection, if claims are to go there; see `pq._db.aside`."""
        if self._aside is None or self.database.current is not None:
            return None
        database = self._aside.database_for_claim
        if database is None:
            return None
        view = object.__new__(type(self))
        view.__dict__.update(self.__dict__, database=database, _aside=None)
        return view

    def _peek(self, queues: Collection[str]) -> list[str]:
        """Return those of the given queues that have a job, as the connection of a claim sees them."""
        sql = self.statements("waiting.sql")["peek"]
        rows = (self.aside() or self).execute(sql, {"queues": array(queues), "table": self.quoted})
        return [name for (name,) in rows]

    # -- waiting for the ends of jobs

    def ends(self, ids: Collection[int], timeout: float, queue: str | None = None) -> Wait:
        """Wait until jobs have ended, or time is up, and return what was seen of them.

        :param timeout: seconds; 0 looks once.
        :param queue: as for `Wait`.
        :raises TypeError: some have not ended, and to wait would stop the event loop.
        """
        wait = Wait(ids, timeout, queue)
        if wait.pending and self.database.current is None:
            try:
                self._results.wait(wait)
            finally:
                self._room.step_back()
        elif wait.pending:
            wait_alone(self._look, wait, self._poll_interval, self._check_can_wait)
        return wait

    def _check_can_wait(self) -> None:
        if not self.database.driver.can_wait:
            raise TypeError("a wait inside of run_sync would stop the event loop: pass timeout=0")

    def _look(self, ids: Collection[int], timeout: float) -> Rows:
        return self.execute(self.statements("browse.sql")["ends"], {"ids": array(ids)}, timeout=timeout)

    def _look_aside(self, ids: Collection[int], timeout: float) -> Rows:
        """Look on the second connection, where there is one: the application may use its own for something else."""
        self._room.step_aside()
        return (self.aside() or self)._look(ids, timeout)

    # -- the end

    def close(self) -> None:
        """Wake and refuse all waiters, and close all connections, those given to pq, too. Of a view, do nothing."""
        if self.database.is_view:
            return
        self.closed = True
        self._room.close()
        self._results.close()
        self.outside.close()
        self.database.close()
