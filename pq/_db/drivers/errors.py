"""What errors of a driver mean, by their SQLSTATE, and errors that are pq's and the driver's at once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cache
from typing import Any, NoReturn

from ... import errors


@cache
def both(ours: type[errors.PQError], drivers: type[Exception]) -> Any:
    """Return a subclass of both with our name: code that catches the driver's error catches it."""
    return type(ours.__name__, (ours, drivers), {"__module__": ours.__module__, "__doc__": ours.__doc__})


# SQLSTATEs: the table is missing, or a column or a function of it; the transaction may be tried again; there is
# something of that name
_NO_SAVEPOINT = ("3B001", "25P01")
_UNDEFINED = ("42P01", "42703", "42883")
_AGAIN = ("40001", "40P01")
_DUPLICATE = ("42701", "42P07")
_INVALID_TEXT, _LOCK_TIMEOUT, _CANCELED, _UNSUPPORTED = "22P02", "55P03", "57014", "0A000"
# there is no such prepared statement, or one already; its result has changed
_UNPREPARED = ("26000", "42P05", "0A000")
_FORBIDDEN, _READ_ONLY = "42501", "25006"
_REFUSED = (_FORBIDDEN, _READ_ONLY)


class Errors(ABC):
    """The errors of one driver.

    :ivar Error: the base of them all.
    :ivar PoolError: the base of the errors of its pools.
    """

    _package: Any
    Error: type[Exception]
    PoolError: type[Exception]

    @abstractmethod
    def _sqlstate(self, error: BaseException) -> str | None: ...

    @abstractmethod
    def database_name(self, conn: Any) -> str: ...

    def raise_lost(self, cause: BaseException | None, message: str | None = None) -> NoReturn:
        raise both(errors.ConnectionLost, self._package.OperationalError)(message) from cause

    def raise_commit_unknown(self, cause: BaseException, message: str | None = None) -> NoReturn:
        raise both(errors.CommitUnknown, self._package.OperationalError)(message) from cause

    def raise_timed_out(self, cause: BaseException, seconds: float | None) -> NoReturn:
        kind: Any = type(cause)
        raise both(errors.StatementTimeout, kind)(seconds=seconds) from cause

    def raise_locked(self, cause: BaseException, seconds: float) -> NoReturn:
        kind: Any = type(cause)
        text = (
            f"Another session has locked a table: the server has waited {seconds:g} seconds for it, and nothing was"
            " changed. Which one, the doctor says: python -m pq doctor"
        )
        raise both(errors.StatementTimeout, kind)(text, seconds=seconds) from cause

    def raise_forked(self, message: str | None = None) -> NoReturn:
        raise both(errors.ForkedConnection, self._package.InterfaceError)(message)

    def raise_table_missing(self, cause: BaseException, table: str, database: str) -> NoReturn:
        raise both(errors.TableMissing, self._package.ProgrammingError)(table=table, database=database) from cause

    def raise_meaning(self, conn: Any, error: BaseException, changes: bool, table: str) -> NoReturn:
        """Raise what an error of the driver means.

        :param changes: whether what was being committed changes something.
        :param table: the name of the queue table, for the message.
        """
        if isinstance(error, self.Error) and not isinstance(error, errors.PQError):
            if self.is_lost(conn, error):
                if changes:
                    self.raise_commit_unknown(error)
                self.raise_lost(error)
            if self.table_is_missing(error):
                self.raise_table_missing(error, table, self.database_name(conn))
        raise error

    def is_lost(self, conn: Any, error: BaseException | None) -> bool:
        """Return whether the connection is gone after an error. The SQLSTATE does not tell: libpq reports the end of
        the connection, not the server's last words before it."""
        return bool(conn.closed)

    def was_canceled(self, error: BaseException) -> bool:
        return self._sqlstate(error) == _CANCELED

    def is_refused(self, error: BaseException) -> bool:
        """Return whether the role may not do that, or the session is read-only."""
        return self._sqlstate(error) in _REFUSED

    def explain_refusal(self, error: Exception, message: str) -> None:
        """Raise an error of the same kind that says more, if the role may not do that."""
        if self._sqlstate(error) == _FORBIDDEN:
            kind: Any = type(error)
            raise both(errors.PQError, kind)(f"{str(error).strip()}: {message}") from error

    def is_read_only(self, error: BaseException) -> bool:
        """Return whether the session can't write: the server is a standby now, or its settings say so."""
        return self._sqlstate(error) == _READ_ONLY

    def is_unprepared(self, error: BaseException) -> bool:
        return self._sqlstate(error) in _UNPREPARED

    def may_be_repeated(self, error: BaseException) -> bool:
        return self._sqlstate(error) in _AGAIN

    def table_is_missing(self, error: BaseException) -> bool:
        """Return whether the queue table is missing, or a column or a function of it. What a trigger misses has a
        context: its function."""
        diag: Any = getattr(error, "diag", None)
        return self._sqlstate(error) in _UNDEFINED and getattr(diag, "context", None) is None

    def text_is_invalid(self, error: BaseException) -> bool:
        return self._sqlstate(error) == _INVALID_TEXT

    def savepoint_is_missing(self, error: BaseException) -> bool:
        """Return whether there is no such savepoint, or no transaction that could have one."""
        return self._sqlstate(error) in _NO_SAVEPOINT

    def lock_timed_out(self, error: BaseException) -> bool:
        return self._sqlstate(error) == _LOCK_TIMEOUT

    def is_unsupported(self, error: BaseException) -> bool:
        """Whether it is what the guard of keys says of a transaction that is not at READ COMMITTED."""
        return self._sqlstate(error) == _UNSUPPORTED

    def name_is_taken(self, error: BaseException) -> bool:
        """Return whether there is a column or a table of that name already."""
        return self._sqlstate(error) in _DUPLICATE
