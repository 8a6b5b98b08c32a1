"""Groups: jobs that are put together, and one that runs after all of them."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal

from .._after import ON_FAILED, After
from .._args import check_word, job_ids
from .._table.bulk import NewJob
from .base import QueueBase

if TYPE_CHECKING:
    from typing_extensions import Self


class Group:
    """The jobs that are put in a block of `Queue.group`.

    :ivar ids: the ids of its jobs so far.
    :ivar id: the id of the job that is to run after them; None inside of the block.
    """

    def __init__(self, queue: Any, then: tuple[Any, Any], on_failed: Any, conn: Any) -> None:
        self.ids: list[int] = []
        self.id: int | None = None
        self._on_failed = check_word("on_failed", on_failed, ON_FAILED)
        if isinstance(then, NewJob):
            raise TypeError("a NewJob does not name its queue: give then=(queue, new_job)")
        if not isinstance(then, tuple) or len(then) != 2 or not isinstance(then[0], QueueBase):
            raise TypeError(
                "then must be a tuple of a queue and the data of the job, then=(queue, data), not "
                f"{type(then).__name__}: {reprlib.repr(then)}"
            )
        if not then[0]._table.is_same(queue._table):
            raise ValueError(f"then must name a queue of the same PQ, not {then[0]!r}")
        self._then = then
        self._conn = conn
        self._queue = queue if conn is None else queue._bind(conn)
        self._block: Any = None

    def put(self, data: Any, **options: Any) -> int:
        """Put a job of the group, and return its id.

        :param data: as for `Queue.put`; or a `NewJob`, such as ``task.new_job(…)`` makes.
        :param options: other arguments of `Queue.put`, but `conn`. The errors are those of `Queue.put`.
        """
        id: int = _put(self._queue, data, options)
        self.ids.append(id)
        return id

    def put_many(self, items: Iterable[Any], **options: Any) -> list[int]:
        """Put jobs of the group, and return their ids; the arguments and errors are those of `Queue.put_many`."""
        ids: list[int] = self._queue.put_many(items, **options)
        self.ids += ids
        return ids

    def add(self, id: int) -> int:
        """Make a job that was put otherwise one of the group, such as a call of a task; return its id.

        :raises TypeError: the id is not an int.
        """
        job_ids([id])
        self.ids.append(id)
        return id

    def __enter__(self) -> Self:
        self._block = self._queue._db.grouped()
        self._block.__enter__()
        return self

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> Any:
        if error is None:
            try:
                queue, data = self._then
                target = queue if self._conn is None else queue._bind(self._conn)
                id = _put(target, data, {"after": After(self.ids, self._on_failed)})  # type: ignore[arg-type]
            except BaseException as problem:
                self._block.__exit__(type(problem), problem, problem.__traceback__)
                raise
            self.id = id
        return self._block.__exit__(kind, error, traceback)


class Groups(QueueBase):
    """Groups of jobs of a queue."""

    def group(
        self, then: tuple[Any, Any], on_failed: Literal["hold", "run", "cancel"] = "hold", *, conn: Any = None
    ) -> Group:
        """Return a context manager: the jobs that are put with it, and one that runs after all of them, are put in one
        transaction::

            with parts.group(then=(reports, {"order": 7})) as group:
                for part in order:
                    group.put(part)

        :param then: a queue of the same PQ, and the data of the job that is to run then; or a `NewJob` as its data. If
            the group has no jobs, it is ready at once.
        :param on_failed: what it does if one of the group fails; see `After`.
        :param conn: put all of them in the transaction that is open there; see `PQ.using`.
        :raises TypeError: `then` is something else.
        :raises ValueError: the queue is one of another PQ; there is no such word; `conn` is in autocommit mode. At the
            end of the block: one of the jobs has a follower already, and nothing was put.
        """
        return Group(self, then, on_failed, conn)


def _put(queue: Any, data: Any, options: dict[str, Any]) -> int:
    if isinstance(data, NewJob):
        options = {**{name: value for name, value in data._asdict().items() if value is not None}, **options}
        data = options.pop("data", None)
    id: int = queue.put(data, **options)
    return id
