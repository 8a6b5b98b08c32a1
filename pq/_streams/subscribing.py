"""Making subscriptions."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

from .._args import UNSET, Unset, check_text, check_word, integer, queue_name
from ..retry import RetryIn, exponential
from .event import types_of
from .log import Log
from .retries import retries_of
from .start import start_of
from .subscription import Subscription

#: The pauses before an event that has failed is tried again.
DEFAULT_PAUSES = exponential()

#: What becomes of an event that has failed too often.
ORDERED = ("aside", "stop")

#: The largest number of partitions of a subscription.
PARTITIONS = 256


class Subscribing(Log):
    """A part of `Stream`."""

    def subscribe(
        self,
        name: str,
        start: str | int | timedelta | datetime = "new",
        *,
        types: Iterable[str] | None = None,
        partitions: int = 1,
        shared: bool = False,
        max_retries: int | Unset = UNSET,
        ordered: str | Unset = UNSET,
        retry_in: RetryIn = DEFAULT_PAUSES,
        conn: Any = None,
    ) -> Subscription:
        """Make a subscription, unless there is one of that name, and return it.

        :param name: any text without NUL characters.
        :param start: ``'new'``: with the events that are committed from now on; ``'beginning'``: with all that there
            are; ``'2h'`` or a datetime: with those that were published since then; an id: with those behind it.
        :param types: the types of events that it wants; None: all.
        :param partitions: 1 to 256. The events of one key are in one of so many partitions, each of which one consumer
            at a time reads, in order; events without a key are all in the same one.
        :param shared: several consumers at a time read it, each another batch, in no order.
        :param max_retries: how often an event that fails is tried again. By default the number does not change, and is
            3 for a new subscription.
        :param ordered: what follows then: ``'aside'``: it becomes a dead job of the queue ``orders:billing``, and the
            events behind it go on; ``'stop'``: it is tried again for ever, and its partition waits for it. By default
            this does not change, and is ``'aside'`` for a new subscription.
        :param retry_in: the pause before each retry, as for `subscription`; it is not stored.
        :raises ValueError: there is a subscription of that name which differs in `types`, `partitions` or `shared`;
            there is a queue ``orders:billing`` whose jobs are no such events; a number or text is out of range.
        :raises TypeError: an argument has another type.
        :raises StreamMissing: call `create` first.
        """
        wanted = self._checked(name, types, partitions, shared)
        options = _options(max_retries, ordered, shared)
        made = self.subscription(name, retry_in)
        queue = queue_name(retries_of(self.name, name))
        begin = start_of("start", start)
        stream = self if conn is None else self._bind(conn)
        after = begin.after(stream._run)
        if not stream._run("subscribe", after=after, queue=queue, **wanted, **options):
            found = stream._run("subscription", subscription=name)
            if not found:
                raise ValueError(
                    f"queue {queue!r}, which is to hold what subscription {name!r} sets aside, has other jobs"
                )
            there = dict(zip(("types", "partitions", "shared"), found[0][1:4], strict=True))
            differing = [word for word in there if there[word] != wanted[word]]
            if differing:
                words = ", ".join(f"{word} is {there[word]!r}, not {wanted[word]!r}" for word in differing)
                raise ValueError(f"subscription {name!r} of stream {self.name!r} is there: its {words}")
            if options != dict.fromkeys(options):
                stream._run("set_options", subscription=name, **options)
        return made

    def subscription(self, name: str, retry_in: RetryIn = DEFAULT_PAUSES) -> Subscription:
        """Return the subscription of that name, without looking whether there is one.

        :param retry_in: the pause before an event that has failed, and is alone, is tried again, as for
            `pq.retry.Policy`.
        :raises TypeError: the name is not a str, or the pause has another type.
        :raises ValueError: the name is empty, or has a NUL character or a lone surrogate; the pause has another form or
            is out of range.
        """
        return Subscription(self, check_text("subscription name", name), retry_in)

    def _checked(self, name: str, types: Any, partitions: int, shared: bool) -> dict[str, Any]:
        check_text("subscription name", name)
        types = types_of(types)
        if integer("partitions", partitions, 1) > PARTITIONS:
            raise ValueError(f"partitions must be at most {PARTITIONS}: {partitions}")
        if not isinstance(shared, bool):
            raise TypeError(f"shared must be a bool, not {shared!r}")
        if shared and partitions > 1:
            raise ValueError("a subscription with partitions can't be shared: each partition is read in order")
        return {"subscription": name, "types": types, "partitions": partitions, "shared": shared}


def _options(max_retries: int | Unset, ordered: str | Unset, shared: bool) -> dict[str, Any]:
    """Return what is to be stored; None: as it is."""
    if ordered is not UNSET and check_word("ordered", ordered, ORDERED) == "stop" and shared:
        raise ValueError("ordered can't be 'stop' where a subscription is shared: its events have no order")
    if max_retries is not UNSET:
        max_retries = min(integer("max_retries", max_retries), 2**31 - 2)
    return {
        "max_retries": None if max_retries is UNSET else max_retries, "ordered": None if ordered is UNSET else ordered,
    }  # fmt: skip
