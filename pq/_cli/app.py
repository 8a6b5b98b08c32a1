"""Finding what the application has: its PQ, its queues and its tasks."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .. import tasks
from .._text import describe, message_of
from ..errors import ConnectionFailed, PQError
from ..tasks.importing import NotFound, locate


class UsageError(Exception):
    """What was named does not exist, or is something else."""


def find(target: str) -> Any:
    """Return what ``module:attribute`` names. The current folder is searched for the module first.

    :raises UsageError: there is no such thing.
    """
    module, _, path = target.partition(":")
    if not module or not path:
        raise UsageError(f"{target!r} is not of the form module:attribute")
    _search_here()
    try:
        found = importlib.import_module(module)
        for name in path.split("."):
            found = getattr(found, name)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # sys.exit() in the module would look like success
        raise UsageError(f"cannot import {target}: {describe(error)}") from error
    return found


def find_task(path: str) -> tasks.Task[..., Any]:
    """Return the task that ``module.task`` names.

    :raises UsageError: there is none.
    """
    if ":" in path:
        raise UsageError(f"task {path}: its path has dots alone, as in {path.replace(':', '.')}")
    _search_here()
    try:
        found = locate(path, None)
    except NotFound as error:
        raise UsageError(f"task {path} {error}") from error
    if not isinstance(found, tasks.Task):
        raise UsageError(f"{path} is not a task, but a {type(found).__name__}")
    return found


@contextmanager
def connected(queue: Any) -> Iterator[None]:
    """Check that there is a database; inside, raise errors of the application's driver or pool as errors of pq.

    pq opens connections with one driver, and the application may have given a pool or an engine of another one.

    :raises ConnectionFailed: there is no connection.
    """
    database = queue._table.database
    driver = database.source.driver
    kind: type[PQError] = ConnectionFailed
    try:
        database.execute("select 1")
        kind = PQError
        yield
    except PQError:
        raise
    except (driver.Error, driver.PoolError, TimeoutError) as error:
        raise kind(message_of(error).partition("\n")[0]) from error


def _search_here() -> None:
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
