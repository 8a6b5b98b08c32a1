"""Which jobs a new one follows. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

from ._args import check_word, job_ids

ON_FAILED = ("hold", "run", "cancel")


class After:
    """The jobs after which a new one is to run: ``queue.put(data, after=After([7, 8], on_failed="run"))``.

    :param ids: their ids, or one; they may be in any queue.
    :param on_failed: what the new job does if one of them fails: is dead, is cancelled, or is deleted before it has
        ended. ``'hold'``: it waits. It goes on when a dead one was retried and is done; otherwise a person decides, by
        `Queue.reschedule` or `Queue.cancel`. ``'run'``: it runs all the same. ``'cancel'``: it is cancelled, too, as
        are those that follow it in this way.
    :raises TypeError: an id is not an int; `on_failed` is not a str.
    :raises ValueError: `on_failed` is another word.
    """

    def __init__(
        self, ids: int | Iterable[int], on_failed: Literal["hold", "run", "cancel"] = "hold"
    ) -> None:
        several = isinstance(ids, Iterable) and not isinstance(ids, (str, bytes, bytearray, Mapping))
        found = list(ids) if several else [ids]  # type: ignore[arg-type]
        job_ids(found)
        self.ids: tuple[int, ...] = tuple(dict.fromkeys(found))  # type: ignore[arg-type]
        self.on_failed: str = check_word("on_failed", on_failed, ON_FAILED)

    def __repr__(self) -> str:
        return f"pq.After({list(self.ids)}, on_failed={self.on_failed!r})"


def after_of(after: object) -> After:
    """Read the argument `after`: an `After`, an id, or several; the errors are those of `After`."""
    return after if isinstance(after, After) else After(after)  # type: ignore[arg-type]
