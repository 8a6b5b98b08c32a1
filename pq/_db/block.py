"""The context managers around the application's code.

They are classes. A generator made into a context manager would set an attribute of the exception that leaves the block,
and some exceptions (of frozen dataclasses, say) don't let it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from .drivers.base import Rows, Statement
from .joined import Joined
from .own import OwnTransaction
from .scope import tell
from .transaction import Savepoint


class Home(Protocol):
    """What a block needs of `pq._db.database.Database`."""

    source: Any
    table: str

    @property
    def is_view(self) -> bool: ...
    @property
    def current(self) -> Any: ...
    def require_transaction(self, what: str) -> None: ...


class Block:
    """A transaction of pq's or, inside of another, a savepoint. The value of the context manager is a cursor.

    :param opener: who enters it.
    :ivar frame: for the opener: the frame of the code that entered it. It is the object, since an id may be used again.
    :param cursor_kwargs: arguments of the connection's ``cursor()``.
    :param first: the statement that it begins with.
    :ivar rows: of that.
    """

    def __init__(
        self, database: Home, opener: object, cursor_kwargs: Mapping[str, Any], first: Statement | None = None
    ) -> None:
        self.opener = opener
        self.frame: Any = None
        self.rows: Rows = []
        self._first = first
        self._database = database
        self._cursor_kwargs = cursor_kwargs
        self._cursor: Any = None
        self._scope: OwnTransaction | Savepoint | None = None

    def __enter__(self) -> Any:
        database = self._database
        try:
            outer = database.current
            if outer is None:
                self._scope = OwnTransaction(database.source, database.table)
            else:
                database.require_transaction("a block")
                self._scope = Savepoint(outer, not database.is_view)
            self._scope.block = self if self.opener is not None else None
            self.rows = self._scope.begin(self._first)
            self._cursor = self._scope.transaction.conn.cursor(**self._cursor_kwargs)
            return self._cursor
        except BaseException as error:
            self.end(error)
            raise

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        try:
            self.end(error)
        except BaseException as problem:
            self.end(problem)
            raise

    def mistake(self) -> str | None:
        """Say what is wrong with ending this block here; None if nothing is."""
        return None if self._scope is None else self._scope.mistake()

    def end(self, error: BaseException | None) -> None:
        """Commit or, after an error, roll back. A second call does nothing."""
        try:
            cursor, self._cursor = self._cursor, None
            if cursor is not None:
                cursor.close()  # a server-side cursor executes a statement for that
            if self._scope is not None:
                self._scope.end(error)
        except BaseException as problem:
            if self._scope is not None:
                self._scope.end(problem)  # if it has not ended yet
            raise


class Using:
    """What the current context executes goes to the application's transaction.

    :param savepoint: whether to make one, and go back to it after an error.
    """

    def __init__(self, database: Home, joined: Joined, savepoint: bool) -> None:
        self._database = database
        self._joined = joined
        self._wants_savepoint = savepoint
        self._savepoint: Savepoint | None = None

    def __enter__(self) -> None:
        try:
            self._joined.enter()
            if self._wants_savepoint:
                self._database.require_transaction("a savepoint")
                self._savepoint = Savepoint(self._joined, True)
                self._savepoint.begin()
        except BaseException as error:
            self._end(error)
            raise

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        try:
            self._end(error)
        except BaseException as problem:
            self._end(problem)  # as far as it has not ended yet
            raise

    def _end(self, error: BaseException | None) -> None:
        try:
            mistake = self._joined.mistake()
            if self._savepoint is not None:
                self._savepoint.end(error)
        finally:
            self._joined.leave()
        if mistake is not None:
            tell(mistake, error)
