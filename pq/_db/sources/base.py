"""Where connections come from.

A source hands a connection to one thread at a time (`acquire`, `release`), and knows the transaction that a thread has
open on it. Here is what they have in common, and the one for a single connection of the
application's; `pools` has those for its pools, `own` the one for a DSN.
"""

from __future__ import annotations

import math
import os
import threading
import time
import weakref
from abc import ABC, abstractmethod
from collections import deque
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn
from weakref import WeakKeyDictionary, WeakSet

from ... import sql as _sql
from ..drivers.base import Driver, Params, Rows
from ..scope import current
from ..watchdog import Guard, Watchdog
from .cut import cut

if TYPE_CHECKING:
    from typing_extensions import Self


#: Seconds after an answer for which a connection is taken to be alive. The less, the rarer a `CommitUnknown`; the more,
#: the fewer round trips. One that is closed in order, as when the server ends, is noticed in any case; what vanishes
#: without a word hardly does so just after an answer.
HOT = 1.0

_SQL = _sql.statements("session.sql")


class Session(NamedTuple):
    """What pq knows of the server session behind a connection.

    :ivar hidden: a transaction pooler stands between: the next statement may meet another session.
    :ivar own_limit: milliseconds that statements may take by the settings of role, database or connection; 0: no limit.
    :ivar limited: the source's `statement_timeout` holds in its place.
    """

    hidden: bool = False
    own_limit: int = 0
    limited: bool = False


class Source(ABC):
    """Connections for the threads of this process.

    `replaceable`: a lost connection can be replaced by another. `owned`: pq opened the connections.
    `hears_in_transactions`: notifications come through while this thread has a transaction open. `begun`: the
    transactions that pq has open, and the idents of the threads that began them.
    `statement_timeout`: seconds that a statement of pq's may take outside of a transaction; None: no limit.
    """

    driver: Driver
    replaceable = True
    owned = False
    hears_in_transactions = True
    statement_timeout: float | None = None

    def __init__(self) -> None:
        self._pid = os.getpid()
        self.begun: WeakKeyDictionary[Any, int] = WeakKeyDictionary()
        self.holders: dict[int, object] = {}  # by the id of the connection
        self.dropped: deque[tuple[Any, object]] = deque()
        self._answered: WeakKeyDictionary[Any, float] = WeakKeyDictionary()
        self._sessions: WeakKeyDictionary[Any, Session] = WeakKeyDictionary()
        self._suspects: set[int] = set()  # the ids of lent connections that are not to be used again
        self.watchdog: Watchdog = Watchdog()
        weakref.finalize(self, self.watchdog.close, 0).atexit = False
        _sources.add(self)

    @property
    def transaction(self) -> Any:
        """The transaction that statements of the current context belong to; see `scope.current`."""
        return current(self)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a PQ, its queues and jobs can't be pickled: let the other process make a PQ of the same DSN")

    @abstractmethod
    def acquire(self, timeout: float | None = None, into: Any = None) -> Any:
        """A connection for this thread alone, believed to be alive. Waits for one if need be.

        :param into: a `Loan`, whose `conn` is set as soon as there is one.
        :raises TimeoutError: none became free within `timeout` seconds.
        """

    @abstractmethod
    def release(self, conn: Any, lost: bool = False) -> None:
        """Hand it back; a `lost` one is thrown away."""

    def reclaim(self) -> None:
        """Take back the connections of loans that were dropped with them, by an interrupted thread."""
        while self.dropped:
            conn, token = self.dropped.popleft()
            if self.holders.get(id(conn), token) is token:
                self.holders.pop(id(conn), None)
                if not conn.closed and not self.driver.idle(conn):
                    self.driver.rollback(conn)
                self.restore(conn)

    def restore(self, conn: Any) -> None:
        """Release a connection, although its `acquire` may not have come to its end."""
        self.release(conn)

    @abstractmethod
    def open_line(self) -> Any:
        """A further connection to listen on, outside of those that `acquire` gives; None if there can't be one."""

    @abstractmethod
    def close(self) -> None:
        """Close all connections, the given ones, too."""

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

    def cut(self, ident: int | None) -> None:
        """End the transactions that pq began in a thread, which hangs: cut their connections, and replace these."""
        for transaction, thread in list(self.begun.items()):
            if thread == ident and self.replaceable:
                cut(self.driver, transaction.conn)
                self.release(transaction.conn, lost=True)  # when the thread does that, it is done already

    def exclusive(self, conn: Any) -> AbstractContextManager[Any]:
        """While the application has this thread use `conn`, keep others that come by way of this source from it."""
        return nullcontext()

    def proved(self, conn: Any) -> None:
        """It has just answered."""
        if self.replaceable:
            self._answered[conn] = time.monotonic()

    def is_doubtful(self, conn: Any) -> bool:
        """Whether a lost connection may turn up now, that another would replace; not just after an answer."""
        return self.replaceable and time.monotonic() - self._answered.get(conn, 0.0) > HOT

    def has_served(self, conn: Any) -> bool:
        """Whether a statement has succeeded on it before."""
        return conn in self._answered

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
        """A connection leads to a server that is not to be used: others probably do so, too."""

    # -- limits

    def session(self, conn: Any) -> Session:
        """What is known of the session behind an idle connection; asked once.

        :raises ConnectionLost: nothing was changed.
        """
        session = self._sessions.get(conn)
        if session is None:
            pid = self.driver.backend_pid(conn)
            limit = round((self.statement_timeout or 0) * 1000)
            try:
                with self.driver.committed(conn):
                    ((found, own, limited),) = self.driver.run(conn, _SQL["limit"], {"pid": pid, "limit": limit})
            except self.driver.Error as error:
                if self.driver.is_lost(conn, error):
                    self.driver.raise_lost(error)
                raise
            session = self._sessions[conn] = Session(found != pid, own, limited)
        return session

    def guard(self, conn: Any, seconds: float) -> Guard:
        """Return a context manager: if the block takes longer, the connection is cut, and others are distrusted."""
        return self.watchdog.guard(conn, seconds, on_cut=self.distrust)

    def run_patiently(self, conn: Any, sql: str, params: Params | None) -> Rows:
        """Execute a statement that may take as long as the server works on it."""
        return self.driver.run(conn, sql, params)

    def is_overdue(self, seconds: float) -> bool:
        """Whether a statement that was cancelled after this time had reached `statement_timeout`."""
        return self.statement_timeout is not None and seconds >= 0.95 * self.statement_timeout

    def executed(self, sql: str) -> None:
        """Take note that a statement was executed and committed.

        If it made jobs ready, waiting threads of this process hear of that from the server, unless they listen on the
        very connection that executed it.
        """

    def committed(self) -> None:
        """Take note that a transaction was committed, as `executed` does for a statement."""

    def tidy(self) -> None:
        """Close what has not been needed for a while."""

    def forked(self) -> None:
        """In a child process: forget what belongs to the parent, without touching its sockets."""
        self.begun = WeakKeyDictionary()


_sources: WeakSet[Source] = WeakSet()


class Given(Source):
    """The application's own connection or pool. There is one source for it, however many PQ use it: get it by `of`."""

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
