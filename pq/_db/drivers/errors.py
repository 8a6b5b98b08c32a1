"""Errors that are pq's and the driver's at once."""

from __future__ import annotations

from functools import cache
from typing import Any, NoReturn

from ... import errors


@cache
def both(ours: type[errors.PQError], drivers: type[Exception]) -> Any:
    """A subclass of both, under our name: what catches the driver's error goes on catching it."""
    return type(ours.__name__, (ours, drivers), {"__module__": ours.__module__, "__doc__": ours.__doc__})


class Raising:
    """What a driver raises in pq's words.

    :ivar _package: of the driver.
    """

    _package: Any

    def raise_lost(self, cause: BaseException | None, message: str | None = None) -> NoReturn:
        raise both(errors.ConnectionLost, self._package.OperationalError)(message) from cause

    def raise_commit_unknown(self, cause: BaseException, message: str | None = None) -> NoReturn:
        raise both(errors.CommitUnknown, self._package.OperationalError)(message) from cause

    def raise_forked(self, message: str | None = None) -> NoReturn:
        raise both(errors.ForkedConnection, self._package.InterfaceError)(message)

    def raise_table_missing(self, cause: BaseException, table: str, database: str) -> NoReturn:
        raise both(errors.TableMissing, self._package.ProgrammingError)(table=table, database=database) from cause
