"""The queues that a worker performs, and whether their connections can hold what it promises."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from .._table import Table
from .._times import Delay
from .execution import Execution

#: Why a worker with one connection performs no transactional tasks.
ALONE = (
    "there is one connection alone: while such a task runs, the leases of the worker's jobs could not be extended; "
    "give PQ a DSN with max_connections=2 at least, or a pool"
)


class TaskQueue(Protocol):
    """A `pq.Queue`."""

    name: str
    timeout: Delay | None
    _has_tasks: bool
    _has_transactional_tasks: bool
    _declared: Mapping[str, Any]
    _intake: Any
    _table: Table
    _claims: Any

    def _on(self, table: Table) -> Any: ...


class OtherPQ(TypeError, ValueError):
    """A queue of another PQ. `Queue.settle` refuses the jobs of such a queue by a `ValueError`."""


def choose(pq: Any, given: Iterable[Any] | None) -> list[Any]:
    """Return the queues that are meant.

    :param pq: a `pq.PQ`, or one of its queues.
    :param given: queues of that PQ, or their names; None: those that have tasks.
    """
    if not hasattr(pq, "_table"):
        raise TypeError(f"a worker needs a PQ or one of its queues, not {pq!r}")
    if isinstance(given, str):
        raise TypeError(f"queues must be a list of queues or names, not a str: {given!r}")
    if hasattr(pq, "perform"):
        if given is not None:
            raise TypeError(f"queues can't be chosen where {pq!r} alone is given")
        chosen = [pq]
    elif given is not None:
        chosen = [pq[item] if isinstance(item, str) else item for item in given]
    else:
        chosen = pq._with_tasks() if hasattr(pq, "_with_tasks") else []
    for queue in chosen:
        if not hasattr(queue, "perform"):
            raise TypeError(f"{queue!r} has no tasks: its class must be pq.Queue, or a subclass")
        if not queue._table.is_same(pq._table):
            raise OtherPQ(f"{queue!r} is a queue of another PQ than {pq!r}: make a worker for each")
    if not chosen:
        raise ValueError("there is no queue to work on: none has tasks here, and none was named")
    return chosen


def check_connections(queues: Iterable[TaskQueue]) -> None:
    """Check that the heartbeat has a connection while a transactional task runs.

    :raises ValueError: a task is transactional, and there is only one connection.
    """
    for queue in queues:
        if queue._has_transactional_tasks and queue._table.database.source.capacity < 2:
            raise ValueError(f"queue {queue.name!r} has transactional tasks, and {ALONE}")


def check_alone(execution: Execution, table: Table) -> None:
    """Refuse a transactional task that was imported just now, when `check_connections` has passed."""
    if execution.options.transactional and table.database.source.capacity < 2:
        execution.refuse(f"is transactional, and {ALONE}")
