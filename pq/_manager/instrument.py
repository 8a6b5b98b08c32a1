"""Telling others what a PQ does: `PQ.instrument`."""

from __future__ import annotations

from typing import Any

from .._table import Table


class Instrumented:
    """A part of `PQ`."""

    _table: Table

    def instrument(self, instrument: Any) -> None:
        """Have an object called around each put, and around each call of a handler, for all queues of this PQ.

        The object has one or more of these methods. Several objects are called in the order in which they were given.

        ``headers(queue)``
            Called with the name of the queue once for each put, `put_many`, `load` or firing of a schedule, before any
            SQL, in the thread that puts. It returns a dict of str, or None. The headers are stored in the rows of the
            jobs, beside their data, and stay there, whatever becomes of the jobs: `LeasedJob.headers`. What it raises,
            the put raises.
        ``sending(queue)``
            Returns a context manager around the same, and around the call of ``headers``. If its value is a function,
            that is called with the number of jobs that were put and, where it was a single put, with the job's id, else
            with None.
        ``around(job, task)``
            Returns a context manager around the call of a handler, with its transaction, if it has one, in the thread
            that runs it. `job` is the `LeasedJob`, `task` the task's name. The context manager sees the exception of an
            attempt that fails, and can't swallow it.
        ``event(event)``
            Called with each event of a worker, as a function of `Worker.on` is.

        What the others raise is logged, and does not change what becomes of the job.

        :param instrument: the object.
        :raises TypeError: it has none of these methods, or is a class.

        The headers of a put are text, and their names must not begin with ``pq.``; all of them together have at most
        16,384 bytes of JSON. If more than one object gives a header, the last one counts; the parts of ``baggage`` are
        joined.
        """
        self._table.instruments.add(instrument)
