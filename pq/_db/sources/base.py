"""Where connections come from.

A source gives a connection to one thread at a time (`acquire`, `release`). This module has what all sources share;
`dsn` has the source of a DSN, `single`, `pools` and `sqlalchemy` those of the application's connections and pools.
"""

from __future__ import annotations

import math
import os
import threading
import weakref
from abc import ABC, abstractmethod
from collections import deque
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, NoReturn
from weakref import WeakKeyDictionary, WeakSet

from ... import sql as _sql
from ..drivers.base import Driver, Params, Rows
from ..known import ServerSession, known
from ..scope import current
from ..watchdog import SILENCE, Guard, Watchdog
from .cut import cut

if TYPE_CHECKING:
    from typing_extensions import Self


_SQL = _sql.statements("session.sql")


class Source(ABC):
    """Connections for the threads of this process.

    `replaceable`: a lost connection can be replaced by another. `owned`: pq opened the connections.
    `single`: there is one connection, the application's `conn`. `hears_in_transactions`: notifications come through
    while this thread has a transaction open. `begun`: the transactions that pq has open, and the idents of the threads
    that began them.
    `statement_timeout`: seconds that a statement of pq's may take outside of a transaction; None: no limit.
    """

    driver: Driver
    replaceable = True
    owned = False
    single = False
    hears_in_transactions = True
    statement_timeout: float | None = None

    def __init__(self) -> None:
        self._pid = os.getpid()
        self.begun: WeakKeyDictionary[Any, int] = WeakKeyDictionary()
        self.holders: dict[int, object] = {}  # by the id of the connection
        self.dropped: deque[tuple[Any, object, bool]] = deque()
        self._suspects: set[int] = set()  # the ids of lent connections that are not to be used again
        self.watchdog: Watchdog = Watchdog(weakref.WeakMethod(self.distrust))
        weakref.finalize(self, self.watchdog.close, 0).atexit = False
        _sources.add(self)

    @property
    def transaction(self) -> Any:
        """The transaction that statements of the current context belong to; see `scope.current`."""
        return current(self)

    @property
    def conn(self) -> Any:
        """The connection of a `single` source; else None."""
        return None

    def __reduce__(self) -> NoReturn:
        raise TypeError("a PQ, its queues and jobs can't be pickled: let the other process make a PQ of the same DSN")

    @abstractmethod
    def acquire(self, timeout: float | None = None, into: Any = None) -> Any:
        """Return a connection for this thread alone, which seems to be alive. Wait for one if necessary.

        :param into: a `Loan`, whose `conn` is set as soon as there is one.
        :raises TimeoutError: none became free within `timeout` seconds.
        """

    @abstractmethod
    def release(self, conn: Any, lost: bool = False) -> None:
        """Give a connection back. If it is `lost`, throw it away. A second call does nothing."""

    def reclaim(self) -> None:
        """Take back the connections of loans that were dropped with them, by an interrupted thread."""
        while self.dropped:
            entry = self.dropped.popleft()
            try:
                self._take_back(*entry)
            except BaseException:  # interrupted: the next one goes on
                self.dropped.append(entry)
                raise

    def _take_back(self, conn: Any, token: object, begins: bool) -> None:
        if self.holders.get(id(conn), token) is token:
            self.holders.pop(id(conn), None)
            # otherwise the application may have gone on to use its own connection
            if (begins or self.replaceable) and not conn.closed and not self.driver.idle(conn):
                self.driver.rollback(conn)
            self.restore(conn)

    def restore(self, conn: Any, lost: bool = False) -> None:
        """Release a connection whose `acquire` or `release` may have been interrupted anywhere."""
        self.release(conn, lost)

    @abstractmethod
    def open_listening_connection(self) -> Any:
        """Return a further connection to listen on, which `acquire` never gives; None if there can't be one."""

    @abstractmethod
    def close(self) -> None:
        """Close all connections, including those that the application gave."""

    @property
    def capacity(self) -> float:
        """How many connections there can be at the same time, as far as that is known."""
        return math.inf

    def reserve(self) -> Source | None:
        """Return a source of one of these connections, which nobody else gets until it is closed; None if there is no
        second one.

        :raises TimeoutError: all connections are in use, for long.
        """
        return None

    def open_transactions(self) -> list[Any]:
        """The transactions that pq has open, while other threads begin and end some: no iteration over `begun`."""
        return [transaction for ref in self.begun.keyrefs() if (transaction := ref()) is not None]

    def cut(self, ident: int | None) -> None:
        """End the transactions that pq began in a thread, which hangs: cut their connections, and replace these."""
        for transaction in self.begun_by(ident):
            if self.replaceable:
                cut(self.driver, transaction.conn)
                self.release(transaction.conn, lost=True)  # when the thread does that, it is done already

    def begun_by(self, ident: int | None) -> list[Any]:
        """Return the transactions that pq has begun in a thread and not ended."""
        return [each for each in self.open_transactions() if self.begun.get(each) == ident]

    def exclusive(self, conn: Any) -> AbstractContextManager[Any]:
        """Return a context manager: inside, nobody else gets `conn`, the application's, from this source."""
        return nullcontext()

    def note(self, conn: Any, error: BaseException) -> bool:
        """Note an error that a connection has met. If the session can't write, since its server is a standby now or its
        settings have changed, `release` throws the connection away, and the method returns True."""
        if not (self.replaceable and self.driver.is_read_only(error)):
            return False
        self._suspects.add(id(conn))
        self.distrust()
        return True

    def _is_suspect(self, conn: Any) -> bool:
        """Whether a connection that comes back is not to be used again."""
        if id(conn) not in self._suspects:
            return False
        self._suspects.discard(id(conn))
        return True

    def distrust(self) -> None:
        """Close idle connections where possible: one leads to a server that is not to be used; others may, too."""

    # -- limits

    def session(self, conn: Any) -> ServerSession:
        """Return what is known of the session behind an idle connection. The server is asked once.

        :raises ConnectionLost: nothing was changed.
        """
        its = known(conn)
        if its.session is None:
            pid = self.driver.backend_pid(conn)
            limit = round((self.statement_timeout or 0) * 1000)
            try:
                params = {"pid": pid, "limit": limit}
                ((found, own, limited),) = self.driver.committed(conn, self.driver.run, _SQL["limit"], params)
            except self.driver.Error as error:
                if self.driver.is_lost(conn, error):
                    self.driver.raise_lost(error)
                raise
            its.session = ServerSession(found != pid, own, limited)
            its.limit = limit if limited else None
        return its.session

    def guard(self, conn: Any, limit: float) -> Guard:
        """Return a context manager around a statement that the server gives up after `limit` seconds: if it lasts much
        longer, the connection is cut, and others are distrusted."""
        return self.watchdog.guard(conn, limit + SILENCE)

    def run_patiently(self, conn: Any, sql: str, params: Params | None) -> Rows:
        """Execute a statement that may take as long as the server works on it."""
        return self.driver.run(conn, sql, params)

    def is_overdue(self, seconds: float) -> bool:
        """Whether a statement that was cancelled after this time had reached `statement_timeout`."""
        return self.statement_timeout is not None and seconds >= 0.95 * self.statement_timeout

    def puts_off(self, conn: Any, hot: bool) -> bool:
        """Prepare a connection for a transaction that begins with its first statement, which the driver or pq may
        send; return False if it is to begin now.

        :param hot: whether the connection has answered a moment ago.
        """
        return False

    def executed(self, sql: str) -> None:
        """Take note that a statement was executed and committed.

        If it made jobs ready, waiting threads of this process hear of that from the server, unless they listen on the
        very connection that executed it.
        """

    def committed(self, conn: Any) -> None:
        """Take note that a transaction was committed on this connection, which the caller still has."""

    @property
    def rests(self) -> bool:
        """Whether a statement that nobody has asked for, and that can be left out, is in nobody's way: on the
        application's connection it would be part of what is going on there, and commit it."""
        return True

    def add_room(self, room: Any) -> None:
        """Have a `WaitingRoom` told what may concern it, where a `single` connection makes that necessary."""

    def briefly(self) -> AbstractContextManager[None]:
        """Return a context manager: inside, something is done now and then. If no connection was open before it keeps
        none."""
        return nullcontext()

    def tidy(self) -> None:
        """Close connections that were not needed for a while."""

    def forked(self) -> None:
        """Forget what belongs to the parent, without touching its sockets. Called in a child process."""
        self.begun = WeakKeyDictionary()
        self.holders = {}
        _parents.append(self.dropped)  # where the parent's loans end: never reclaimed here, nor closed
        self.dropped = deque()


_sources: WeakSet[Source] = WeakSet()
_parents: list[Any] = []


class Given(Source):
    """A connection or pool of the application's. All PQ that use it share one source: get it by `of`."""

    _known: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()
    _known_lock = threading.Lock()

    @classmethod
    def of(cls, given: Any) -> Self:
        with Given._known_lock:
            if given not in cls._known:
                cls._known[given] = cls(given)
            source: Self = cls._known[given]
            return source

    def __init__(self, given: Any) -> None:
        super().__init__()
        # weak: this object is the value to that key, and would keep it alive for ever
        self._given = weakref.ref(given)

    def check_process(self) -> None:
        if self._pid != os.getpid():
            self.driver.raise_forked()


def _after_fork_in_child() -> None:
    Given._known_lock = threading.Lock()  # the parent's may be held by a thread that is not here
    for source in list(_sources):
        source.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
