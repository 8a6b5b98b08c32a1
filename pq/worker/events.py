"""What a worker tells about its jobs: in the log, in counters, and to functions of the application's.

Nothing here can raise: what an application's function, handler or exception does wrong is logged.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

from .._calls import check_finished, check_plain
from .._jobs.holder import holder
from .._jobs.lease import LeasedJob
from .._logs import worker_log as logger
from .._table.instruments import Instruments, trace_of
from .._text import NAME, cut, printable
from .execution import Execution

#: The events, and the level at which each is logged: at INFO, a job has one line.
LEVELS: dict[str, int] = {
    "start": logging.DEBUG,
    "done": logging.INFO,
    "retry": logging.WARNING,
    "dead": logging.ERROR,
    "lost": logging.ERROR,
    "cancelled": logging.INFO,
}


#: How an attempt that failed is told. The seconds are those of the attempt, not of the pause before the next one.
FAILED: dict[str, str] = {"retry": ", to be tried again", "dead": ", and the job is dead"}


class Event(NamedTuple):
    """What happened to a job; see `Worker.on`.

    :ivar name: ``'start'``, ``'done'``, ``'retry'`` or ``'dead'``; ``'lost'`` if the lease went to another delivery, or
        ``'cancelled'`` if somebody cancelled the job while it ran.
    :ivar job: the `LeasedJob`.
    :ivar task: the name of the task, or ``'?'`` if the job is no call of a task.
    :ivar seconds: time since the handler was called.
    :ivar error: the exception that ended the attempt, or None.
    """

    name: str
    job: LeasedJob
    task: str
    seconds: float
    error: BaseException | None


class Events:
    """The hooks of a worker.

    :param exited: called with the ``SystemExit`` or ``KeyboardInterrupt`` that a function raised.
    :param instruments: those that are told of each event, too.
    :ivar counts: how often each event happened.
    """

    def __init__(self, exited: Callable[[BaseException], object], instruments: Instruments) -> None:
        self._exited = exited
        self._instruments = instruments
        self._lock = threading.Lock()
        self._functions: dict[str, list[Callable[[Event], Any]]] = {name: [] for name in LEVELS}
        self.counts: dict[str, int] = dict.fromkeys(LEVELS, 0)

    def on(self, name: str, function: Callable[[Event], Any]) -> None:
        """Register a function; see `Worker.on`."""
        if name not in LEVELS:
            raise ValueError(f"event must be one of {', '.join(LEVELS)}, not {name!r}")
        check_plain(f"the function for {name!r}", function)
        self._functions[name].append(function)

    def done(self, executions: list[Execution]) -> None:
        """Tell of jobs that are done, as `tell` does."""
        if logger.isEnabledFor(LEVELS["done"]) or self._functions["done"] or self._instruments.events:
            for execution in executions:
                self.tell("done", execution)
        else:
            with self._lock:
                self.counts["done"] += len(executions)

    def tell(self, name: str, execution: Execution, error: BaseException | None = None) -> None:
        """Count and log an event that is committed, and call the functions for it.

        :param error: default: the error of the attempt.
        """
        if error is None:
            error = execution.error
        if name == "lost" and execution.job.cancelled:
            name = "cancelled"
        with self._lock:  # first: who has read the line finds it counted
            self.counts[name] += 1
        if logger.isEnabledFor(LEVELS[name]):
            log(LEVELS[name], name, execution, error)
        functions, instruments = self._functions[name], self._instruments.events
        for function in (*functions, *instruments) if functions or instruments else ():
            try:
                event = Event(name, execution.job, execution.task, execution.seconds, error)
                check_finished("the function", function(event))
            except BaseException as problem:  # sys.exit() must not end just the thread that settles
                logger.error("a function for the event %r failed", name, exc_info=problem)
                if isinstance(problem, (SystemExit, KeyboardInterrupt)):
                    self._exited(problem)
        if name != "start":
            execution.error = None  # it leads to the frames of the call, and these to the execution


def log(level: int, what: str, execution: Execution, error: BaseException | None = None) -> None:
    """Write a line with all that helps to find the job, but without its data.

    The same values are fields of the record, for structured logs; ``event`` is what happened, without them.
    """
    if not logger.isEnabledFor(level):
        return
    job = execution.job
    task = printable(cut(execution.task, NAME))  # a formatter may show the fields
    seconds = round(execution.seconds, 6)
    queue = printable(job.queue.name)
    fields = {"event": what, "queue": queue, "job_id": job.id, "task": task, "attempt": job.attempts}
    fields["worker"] = holder()
    trace_id = trace_of(job.headers)
    if trace_id is not None:
        fields["trace_id"] = trace_id
    text = "%(queue)s: job %(job_id)s, %(task)s, attempt %(attempt)s: %(event)s"
    if what != "start":
        fields["seconds"] = seconds
        text = text.replace("%(event)s", "failed") if what in FAILED else text
        text += f" after %(seconds).3f s{FAILED.get(what, '')}"
    shown = error if error is not None and job.queue.keep_traceback else None
    logger.log(level, text, fields, extra=fields, exc_info=shown)
