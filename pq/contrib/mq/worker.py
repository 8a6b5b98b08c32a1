"""`MQWorker`: runs jobs, by a `pq.Worker` that is told by deliveries which records to look at."""

from __future__ import annotations

import logging
import os
import platform
import random
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from typing import Any, Protocol

from sqlalchemy import exc, orm

from ... import PQ, Worker
from ..._loop import Loop
from .delivery import CURSOR, JOB, SCHEDULE, pq_of, put_missing
from .records import FailedJobError, Holder, JobContext, begin, finish, lock_id_of, wake_next
from .safe import safe, text
from .signals import captured
from .source import MQSource
from .upkeep import fire, missing

log: logging.Logger = logging.getLogger("pq.contrib.mq")

#: Running jobs are waited for until they end.
FOREVER = "3650d"

#: Seconds until the next look for missing deliveries after one that the database has refused.
ERROR_PAUSE = 1.0


class MQQueue(Protocol):
    """What stands for a queue: it runs all its jobs."""

    def execute_job(self, job: Any, /) -> Any: ...


class MQWorker:
    """Runs the jobs of queues. What ``execute_job`` returns becomes the result of the job, which is then completed;
    what it raises makes the job fail. No job is tried again by itself.

    :param engine: of SQLAlchemy, on psycopg2 or psycopg 3. pq itself has a pool of its own, like that of the engine.
    :param queues: the objects whose ``execute_job(job)`` runs the jobs, by the names of the queues.
    :param model: what `make_default_model` returned.
    :param retry_intervals: the pauses, in seconds, after which the end of a job is written again if the connection
        broke.
    :param timeout: in seconds, or a timedelta: how long after the death of a worker its jobs are lost, and how often
        missing deliveries are looked for.
    :param jitter: in seconds: the pauses of `retry_intervals` and of `timeout` are longer by up to that, at random.
    :param lock_key: has no effect.
    :param threads: how many jobs run at the same time; default: the number of processors.
    :param capture_signals: let `run`, in the main thread, handle SIGTERM, SIGINT and SIGUSR1.
    :param name: the ``worker`` of the jobs that it runs; default: the name of the machine and the id of the process.
    :param mq_source_factory: called with ``dbsession=`` and ``model=``; what it returns emits the events.
    """

    def __init__(
        self,
        *,
        engine: Any,
        queues: Mapping[str, MQQueue],
        model: Any,
        retry_intervals: Sequence[float | timedelta] = (1, 3, 5, 10, 15, 30),
        timeout: float | timedelta = 60,
        jitter: float = 1,
        lock_key: int | None = None,
        threads: int | None = None,
        capture_signals: bool = True,
        name: str | None = None,
        mq_source_factory: Callable[..., Any] = MQSource,
    ) -> None:
        self._engine = engine
        self._queues = queues
        self._model = model
        self._retry_intervals = [_seconds(each) for each in retry_intervals]
        self._timeout = timedelta(seconds=_seconds(timeout))
        self._jitter = jitter
        self._threads = (os.cpu_count() or 1) if threads is None else threads
        self._capture_signals = capture_signals
        self._name = f"{platform.node()}.{os.getpid()}" if name is None else name
        self._mq_source_factory = mq_source_factory
        self._holder = Holder(self._name, list(queues))
        self._active: dict[int, JobContext] = {}
        self._worker: Worker | None = None
        self._pq: PQ | None = None
        self._told = False

    def run(self) -> None:
        """Run jobs until `shutdown_gracefully`, SIGTERM or SIGINT, and the end of those that run."""
        handlers = {JOB: self._run_job, SCHEDULE: self._run_schedule, CURSOR: self._run_cursor}
        self._pq = pq = pq_of(self._engine, self._model.schema, handler_registry=handlers)
        self._worker = worker = Worker(
            pq,
            [self._model.channel_prefix + name for name in self._queues],
            threads=self._threads,
            lease=self._timeout,
            shutdown_timeout=FOREVER,
            name=self._name,
            capture_signals=False,
        )
        upkeep = Loop(self.run_once, f"{self._name} upkeep")
        try:
            with captured(self.shutdown_gracefully, self.get_status) if self._capture_signals else nullcontext():
                upkeep.start()
                worker.run()
        finally:
            self._worker = None
            upkeep.stop()
            pq.close()

    def shutdown_gracefully(self) -> None:
        """Begin no more jobs, and have `run` return when those that run have ended. From any thread."""
        if self._worker is not None:
            self._worker.stop()

    def get_status(self) -> dict[str, Any]:
        """Return what the worker does, for JSON."""
        active = list(self._active.values())
        shown = ("id", "queue", "method", "args", "cursor_key")
        return {
            "name": self._name,
            "running": self._worker is not None,
            "total_threads": self._threads,
            "idle_threads": self._threads - len(active),
            "active_jobs": [{name: getattr(job, name) for name in shown} for job in active],
        }

    def result_from_error(self, ex: BaseException) -> Any:
        """Return the result of a job that ended with an exception. Yours to override."""
        kind = type(ex)
        module = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
        return {
            "exc": f"{module}{kind.__qualname__}",
            "message": text(str, ex),
            "args": safe(ex.args),
            "tb": [text(str, line) for line in traceback.format_tb(ex.__traceback__)],
        }

    def is_retryable_error(self, ex: BaseException) -> bool:
        """Return whether the end of a job is to be written again after this error. Yours to override."""
        broken = isinstance(ex, exc.DBAPIError) and ex.connection_invalidated
        return broken or isinstance(ex, exc.IntegrityError)

    def run_once(self) -> float:
        """Put the deliveries that may be missing; return the seconds until the next look."""
        try:
            with self._source() as source:
                found = missing(source, self._holder, self._timeout)
        except exc.DBAPIError as error:  # no tables yet, or no connection
            if not self._told:
                log.warning("can't look for missing deliveries yet: %s", str(error.orig).partition("\n")[0])
            self._told = True
            return ERROR_PAUSE
        self._told = False
        assert self._pq is not None
        put_missing(self._pq, self._model, found)
        return self._timeout.total_seconds() + random.uniform(0, self._jitter)

    # -- what deliveries ask for, in a thread of the worker

    def _run_job(self, delivery: int, job_id: int) -> None:
        lock_id = lock_id_of(delivery)
        with self._source() as source:
            job = begin(source, self._holder, job_id, lock_id)
        if job is None:
            return
        states = self._model.JobStates
        self._active[job.id] = job
        try:
            try:
                result = self._queues[job.queue].execute_job(job)
            except FailedJobError as error:
                cursor = job.cursor if error.update_cursor else None
                self._end(job, lock_id, states.FAILED, error.result, cursor)
            except BaseException as error:  # sys.exit(), too: the worker goes on
                log.exception("job %s in queue %s has failed", job.id, job.queue)
                self._end(job, lock_id, states.FAILED, self.result_from_error(error))
            else:
                self._end(job, lock_id, states.COMPLETED, result, job.cursor)
        finally:
            del self._active[job.id]

    def _run_schedule(self, delivery: int, schedule_id: int) -> None:
        with self._source() as source:
            fire(source, schedule_id, self._timeout)

    def _run_cursor(self, delivery: int, key: str) -> None:
        with self._source() as source:
            wake_next(source, key)

    def _end(self, job: JobContext, lock_id: int, state: str, result: Any, cursor: Any = None) -> None:
        """Write down how a job has ended. If the database refuses the result or the cursor, the job has failed."""
        try:
            self._write(job, lock_id, state, result, cursor)
        except (exc.StatementError, TypeError, ValueError) as error:
            if self.is_retryable_error(error):
                raise
            log.exception("the end of job %s in queue %s can't be stored", job.id, job.queue)
            self._write(job, lock_id, self._model.JobStates.FAILED, self.result_from_error(error), None)

    def _write(self, job: JobContext, lock_id: int, state: str, result: Any, cursor: Any) -> None:
        for pause in (*self._retry_intervals, None):
            try:
                with self._source() as source:
                    finish(source, job, lock_id, state, result, cursor)
                return
            except Exception as error:
                if pause is None or not self.is_retryable_error(error):
                    raise
                log.warning("the end of job %s is not stored yet: %s", job.id, error)
            time.sleep(pause + random.uniform(0, self._jitter))

    @contextmanager
    def _source(self) -> Iterator[Any]:
        """A source in a transaction of its own. What was committed after it began is seen."""
        engine = self._engine.execution_options(isolation_level="READ COMMITTED")
        with orm.Session(engine) as db, db.begin():
            yield self._mq_source_factory(dbsession=db, model=self._model)


def _seconds(time: float | timedelta) -> float:
    return time.total_seconds() if isinstance(time, timedelta) else float(time)
