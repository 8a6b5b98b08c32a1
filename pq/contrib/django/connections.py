"""Django's connections, and which statements go there.

What the application's threads do goes to Django's connection of the thread, and so belongs to its transaction. The
threads of a worker have connections of their own for what they do between the jobs, with the same parameters; a job
that runs is the application again.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from typing import Any

from django.db import DatabaseError, InterfaceError, connections, reset_queries, transaction
from django.db.transaction import TransactionManagementError

from pq._db import Database, Rows, Statement
from pq._db.drivers.detect import driver_of
from pq._db.drivers.dsn import compose
from pq._db.joined import Joined
from pq._loop import is_own_thread
from pq.errors import BlockError, CommitUnknown, ConnectionFailed, ConnectionLost
from pq.worker.handler import is_handling

#: Parameters of Django's connections that are not the server's or libpq's.
_DRIVERS_OWN = {"autocommit", "prepare_threshold"}


def dsn_of(alias: str) -> str:
    """Return the DSN by which Django connects now: while tests run, that of the test database."""
    wrapper = connections[alias]
    given: Mapping[str, Any] = wrapper.get_connection_params()
    names = [name for name, value in given.items() if isinstance(value, (str, int)) and name not in _DRIVERS_OWN]
    parameters = {name: str(given[name]) for name in names}
    role = wrapper.settings_dict["OPTIONS"].get("assume_role")
    if role:
        escaped = str(role).replace("\\", r"\\").replace(" ", r"\ ")
        parameters["options"] = f"{parameters.get('options', '')} -c role={escaped}".strip()
    return compose(parameters)


def freshen(alias: str | None = None) -> None:
    """Close Django's connections of this thread that are broken or too old, except inside of ``atomic()``.

    Django does so around each request. A connection that the server has closed meanwhile it notices only by an error.

    :param alias: of the one connection to see to; None: all.
    """
    for wrapper in connections.all(initialized_only=True):
        if wrapper.vendor != "postgresql" or wrapper.in_atomic_block or alias not in (None, wrapper.alias):
            continue
        if wrapper.connection is not None and not _is_alive(wrapper.connection):
            wrapper.close()
        else:
            wrapper.close_if_unusable_or_obsolete()


def around_job(begins: bool) -> None:
    """Do for a job what Django does before and after a request, in the threads of a worker."""
    if is_own_thread():
        if begins:
            reset_queries()
        freshen()
        _threads.closer.note()


def _freshen_around_task(alias: str) -> None:
    """Do for a transactional task what `around_job` can't, inside of its block. Blocks of a task's own keep the session
    that it has: there may be a search path, or temporary tables."""
    if is_own_thread() and not is_handling():
        freshen(alias)


def _is_alive(conn: Any) -> bool:
    try:
        return bool(driver_of(conn).alive(conn))
    except TypeError:  # of no driver that pq knows: Django finds out
        return True


class _Closer:
    """Closes Django's connections of a worker's thread when that ends: `threading.local` drops it then."""

    def __init__(self) -> None:
        self._wrappers: list[Any] = []
        self._pid = os.getpid()

    def note(self) -> None:
        self._wrappers = connections.all(initialized_only=True)

    def __del__(self) -> None:
        for wrapper in self._wrappers if self._pid == os.getpid() else ():
            try:
                wrapper.close()
            except Exception:  # the thread ends
                pass


class _Threads(threading.local):
    def __init__(self) -> None:
        self.closer = _Closer()
        self.joined: dict[tuple[str, str], Joined] = {}


_threads = _Threads()


class DjangoDatabase(Database):
    """A database whose statements go to Django's connection of the current thread, unless a thread of pq executes them
    between two jobs.

    :ivar alias: of Django's connection; None: all statements go to connections of pq's own.
    """

    alias: str | None = None

    @property
    def current(self) -> Any:
        found = super().current
        return self._joined() if found is None else found

    def on(self, source: Any) -> Database:
        view = super().on(source)
        view.alias = None  # type: ignore[attr-defined]
        return view

    def transaction(self, opener: object = None, first: Statement | None = None, **cursor_kwargs: Any) -> Any:
        """Return a transaction; where Django is in autocommit mode, by ``atomic()``."""
        if self._commits_at_once():
            return Atomic(self, opener, cursor_kwargs, first)
        return super().transaction(opener, first, **cursor_kwargs)

    def grouped(self) -> Any:
        return self.transaction() if self._commits_at_once() else super().grouped()

    def is_djangos(self) -> bool:
        """Whether a block that begins now is to be one of Django's."""
        if self.alias is None:
            return False
        found = super().current
        if found is None or isinstance(found, Inside):
            return True
        given: Any = found._given if isinstance(found, Joined) else None  # of `PQ.using`, and where tests run in one
        return hasattr(given, "ensure_connection") and given.alias == self.alias

    def _joined(self) -> Joined | None:
        alias = self.alias
        if alias is None or (is_own_thread() and not is_handling()):
            return None
        wrapper = connections[alias]
        key = alias, self.table
        joined = _threads.joined.get(key)
        if joined is None or joined._given is not wrapper or joined._pid != os.getpid():
            joined = _threads.joined[key] = Joined(self.source, self.table, wrapper)
        return joined

    def _commits_at_once(self) -> bool:
        joined = self._joined() if super().current is None else None
        return joined is not None and joined.commits_at_once


class Inside(Joined):
    """What an `Atomic` has opened.

    :ivar after_rollback: called once the transaction, or savepoint, was rolled back.
    """

    after_rollback: Any = None


class Atomic:
    """A block of pq's that is Django's ``atomic()``. The value of the context manager is a cursor.

    :ivar frame: as of `pq._db.block.Block`; likewise `rows`.
    """

    def __init__(
        self, database: DjangoDatabase, opener: object, cursor_kwargs: Mapping[str, Any], first: Statement | None = None
    ) -> None:
        assert database.alias is not None
        self.opener = opener
        self.frame: Any = None
        self.rows: Rows = []
        self._first = first
        self._database = database
        self._alias = database.alias
        self._cursor_kwargs = cursor_kwargs
        self._wrapper: Any = None
        self._atomic: Any = None
        self._inside: Inside | None = None
        self._cursor: Any = None

    def __enter__(self) -> Any:
        self._wrapper = wrapper = connections[self._alias]
        _freshen_around_task(self._alias)
        try:
            wrapper.ensure_connection()
        except DatabaseError as error:
            raise ConnectionFailed(f"the database can't be reached: {str(error).strip()}") from error
        try:
            self._atomic = transaction.atomic(using=self._alias)
            self._atomic.__enter__()
            self._inside = Inside(self._database.source, self._database.table, wrapper)
            self._inside.block = self if self.opener is not None else None
            self._inside.enter()
            if self._first is not None:
                self.rows = self._inside.run(*self._first)
            kwargs = self._cursor_kwargs
            self._cursor = self._inside.conn.cursor(**kwargs) if kwargs else wrapper.cursor()
            return self._cursor
        except BaseException as error:
            self.end(error)
            raise

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self.end(error)

    def mistake(self) -> str | None:
        """Say what is wrong with ending this block here; None if nothing is."""
        return None if self._inside is None else self._inside.mistake()

    def end(self, error: BaseException | None) -> None:
        """Commit or, after an error, roll back. A second call does nothing.

        :raises ConnectionLost: the connection is gone; nothing was changed.
        :raises CommitUnknown: it went during the commit.
        :raises BlockError: the block was left elsewhere than it was entered.
        :raises TransactionManagementError: Django was told to roll back.
        """
        try:
            self._end(error)
        finally:
            _freshen_around_task(self._alias)

    def _end(self, error: BaseException | None) -> None:
        atomic, self._atomic = self._atomic, None
        inside, self._inside = self._inside, None
        cursor, self._cursor = self._cursor, None
        if atomic is None:
            return
        if inside is not None and connections[self._alias] is not self._wrapper:
            self._left_elsewhere(inside, error)
            return
        undone: Exception | None = None
        if error is None and inside is not None:
            undone = self._undone(inside)
            error = undone
        if inside is not None:
            inside.leave()
        try:
            if cursor is not None:
                cursor.close()
            atomic.__exit__(None if error is None else type(error), error, None)
        except (DatabaseError, InterfaceError) as problem:
            if error is None and self._is_lost():
                raise CommitUnknown(f"the connection was lost during the commit: {str(problem).strip()}") from problem
            raise
        finally:
            if error is not None and inside is not None and inside.after_rollback is not None:
                inside.after_rollback()
        if undone is not None:
            raise undone
        known = isinstance(error, (DatabaseError, InterfaceError)) or (
            inside is not None and isinstance(error, inside.driver.Error)
        )
        if known and self._is_lost():
            raise ConnectionLost(f"the connection is gone: {str(error).strip()}") from error

    def _left_elsewhere(self, inside: Inside, error: BaseException | None) -> None:
        """Undo what was done: Django can end its block only in the thread that has entered it."""
        mistake = inside.mistake() or "a block of pq was left in another thread"
        inside.leave()
        inside.driver.rollback(inside.conn)
        if error is None:
            raise BlockError(mistake)

    def _undone(self, inside: Inside) -> Exception | None:
        """Return an error for a block that Django would roll back in silence, or that pq can't commit."""
        mistake = inside.mistake()
        if mistake is not None:
            return BlockError(mistake)
        failure: Exception | None = None
        if self._wrapper.closed_in_transaction:
            failure = ConnectionLost("Django's connection was closed inside of the transaction; nothing was changed")
        elif self._wrapper.needs_rollback:
            failure = TransactionManagementError(
                "the transaction was marked to be rolled back, by set_rollback() or by an error that was caught inside "
                "of it: nothing was changed"
            )
        return failure

    def _is_lost(self) -> bool:
        conn = self._wrapper.connection
        return conn is None or bool(conn.closed)
