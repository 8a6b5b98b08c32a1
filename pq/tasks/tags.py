"""The key and the token of a task's jobs, which may depend on the arguments of the call."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .._unique import Unique, key_of, tag, unique_of
from .signature import Signature

#: What `Queue.task` accepts. A function is called with the arguments of each call.
Key = str | Callable[..., str | None] | None
UniqueSpec = str | bool | Unique | Callable[..., str | bool | Unique | None] | None


def check(queue: str, key: Key, unique: UniqueSpec) -> None:
    """
    :param queue: the name of the queue.
    :raises TypeError: one of them has another type.
    :raises ValueError: one of them is empty, too long, or PostgreSQL can't hold it.
    """
    if not callable(key):
        key_of(key, queue)
    if not callable(unique):
        unique_of(unique, queue)


class Tags:
    """What a task's `key` and `unique` say for a call.

    :param task: the name of the task.
    """

    def __init__(self, task: str, signature: Signature, key: Key, unique: UniqueSpec) -> None:
        self._task = task
        self._key = signature.caller(key) if callable(key) else key
        self._unique = signature.caller(unique) if callable(unique) else unique
        self.is_plain: bool = key is None and unique is None

    def of(
        self,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        key: str | None,
        unique: str | bool | Unique | None,
    ) -> tuple[str | None, Unique | None]:
        """Return the key and the token of a call.

        :param key: what the call says instead of the task; likewise `unique`.
        """
        found = key_of(key)
        if found is None and self._key is not None:
            given = self._key(args, kwargs) if callable(self._key) else self._key
            found = None if given is None else tag(f"the key of task {self._task}", given)
        if unique is None:
            unique = self._unique(args, kwargs) if callable(self._unique) else self._unique
        return found, unique_of(unique)
