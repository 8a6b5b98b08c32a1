"""Performing each job as it is put."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from .._args import integer
from ..worker.queues import choose
from .drain import Drain, Performed


@contextmanager
def inline(
    pq: Any, conn: Any = None, *, queues: Iterable[Any] | None = None, raises: bool = True, limit: int = 1000
) -> Iterator[list[Performed]]:
    """Return a context manager: inside, a put performs the job before it returns, and the jobs that this one puts.

    ::

        with inline(pq, conn):
            signup(conn, "ann@example.org")  # the mail is sent when this returns

    A job that is scheduled, or fails and is to be tried again, is left; `drain` performs it. With `drain` a test is
    nearer to what happens in production, where a job begins when the transaction of its put is over.

    The arguments and errors are those of `drain`; a put raises the error of the task.

    :returns: a list, to which all that is performed is added.
    """
    chosen = choose(pq, queues)
    run = Drain(pq, chosen, raises, integer("limit", limit, 1))
    classes = [type(queue) for queue in chosen]
    with run.using(conn):
        for queue in chosen:
            queue.__class__ = _inline(type(queue), run)
        try:
            yield run.performed
        finally:
            for queue, kind in zip(chosen, classes, strict=True):
                queue.__class__ = kind


def _inline(kind: type[Any], run: Drain) -> type[Any]:
    """Return a class of queues whose puts perform what was put. Views of such a queue have the same class."""

    class Inline(kind):  # type: ignore[misc]
        def put(self, *args: Any, **kwargs: Any) -> Any:
            found = super().put(*args, **kwargs)
            run.perform_ready()
            return found

        def put_many(self, *args: Any, **kwargs: Any) -> Any:
            found = super().put_many(*args, **kwargs)
            run.perform_ready()
            return found

        def load(self, *args: Any, **kwargs: Any) -> Any:
            found = super().load(*args, **kwargs)
            run.perform_ready()
            return found

    Inline.__name__, Inline.__qualname__ = kind.__name__, kind.__qualname__
    return Inline
