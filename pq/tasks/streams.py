"""Functions that workers call with the events of a stream: `Stream.on`."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from functools import wraps
from typing import Any, TypeVar

from .._args import check_text
from .._streams import Event, Streams
from .._streams import Stream as BaseStream
from .._streams.retries import retries_of
from .._streams.start import start_of
from .._times import Delay
from ..retry import RetryIn, retries_from
from ..worker.handler import current
from ..worker.intake import Intake

__all__ = ["Stream", "Streams"]

F = TypeVar("F", bound=Callable[[Event], Any])


class Stream(BaseStream):
    """A log of events beside the table of the jobs: ``pq.streams["orders"]``.

    Each subscription reads all events, in order, however many there are. Any thread may use a stream.

    :param name: any text without NUL characters. A name that ends in ``/text`` means the stream before that, with data
        that is text, or None, in place of JSON.
    """

    def on(
        self,
        *types: str,
        subscription: str,
        start: str | int | timedelta | datetime = "new",
        max_retries: int = 3,
        max_attempts: int | None = None,
        retry_in: RetryIn = "30s",
        transactional: bool = False,
        lease: Delay | None = None,
        timeout: Delay | None = None,
    ) -> Callable[[F], F]:
        """Decorate a function, which workers then call with each `Event` of a subscription.

        The worker makes a job of each event, exactly one, in the queue ``orders:billing:jobs``. So events are performed
        as jobs are: by the same threads, with the same retries, hooks and end. The events of one key are performed one
        after the other, in order; those without a key side by side. The function raises `Retry` or `Discard` in place
        of ``event.retry`` and ``event.fail``.

        :param types: the types of events that the function wants; none: all those for which no other function of this
            subscription was decorated.
        :param subscription: its name. A worker makes it when it starts, if there is none. One that is there must have
            been made without `types`, `partitions` and `shared`.
        :param start: where it begins then, as for `subscribe`.
        :param max_retries: as for `Queue.task`; likewise the others.
        :raises TypeError: an argument has another type.
        :raises ValueError: the subscription has a function for that type already, or an argument is out of range.
        """
        max_retries = retries_from(max_retries, max_attempts)
        check_text("subscription name", subscription)
        start_of("start", start)
        for type in types:
            check_text("type", type)
        queue: Any = self._queue_of(f"{retries_of(self.name, subscription)}:jobs")
        if queue._intake is None:
            queue._intake = Intake(self, subscription, queue, start)
        tasks = queue._intake.tasks
        for type in types or ("",):
            if type in tasks:
                what = f"type {type!r}" if type else "all other types"
                raise ValueError(f"subscription {subscription!r} of stream {self.name!r} has a function for {what}")

        def decorate(function: F) -> F:
            @wraps(function)
            def handle(job_id: int, event: dict[str, Any]) -> Any:
                return function(Event.of(event, current().attempts))

            del handle.__dict__["__wrapped__"]  # the arguments of a call are those of this one
            for type in types or ("",):
                options = {"max_retries": max_retries, "retry_in": retry_in, "lease": lease, "timeout": timeout}
                name = f"{queue.name}/{type}"
                tasks[type] = queue.task(name=name, transactional=transactional, **options)(handle)
            return function

        return decorate
