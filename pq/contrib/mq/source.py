"""`MQSource`: asks for jobs, and looks at them, in the transaction of a session."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from importlib import import_module
from typing import Any

from sqlalchemy import and_, select, true
from sqlalchemy.dialects.postgresql import insert

from .delivery import CURSOR, JOB, deliver, moment, now_on
from .emitters import Emitters, log
from .records import finished_event
from .safe import check_call


class MQSource(Emitters):
    """Asks for jobs, and looks at them. All that it does is part of the session's transaction.

    :param dbsession: a session of SQLAlchemy, on psycopg2 or psycopg 3.
    :param model: what `make_default_model` returned.
    :param transaction_manager: with one, the session is marked as changed for zope.sqlalchemy.
    """

    def __init__(self, *, dbsession: Any, model: Any, transaction_manager: Any = None) -> None:
        super().__init__(dbsession, model)
        self.transaction_manager: Any = transaction_manager

    def call(
        self,
        queue: str,
        method: str,
        args: Any,
        *,
        when: Any = None,
        now: datetime | None = None,
        job_kwargs: Mapping[Any, Any] | None = None,
        cursor_key: str | None = None,
        collapse_on_cursor: bool = False,
        conflict_resolver: Callable[[Any], object] | None = None,
        schedule_ids: Iterable[int] | None = None,
        listener_ids: Iterable[int] | None = None,
        trace: Mapping[str, Any] | None = None,
    ) -> int:
        """Put a job, and return its id.

        :param args: what JSON can hold; None: ``{}``.
        :param when: the job does not begin before: a datetime, in UTC if it is naive, or a timedelta from now. Jobs of
            a queue begin in the order of these times.
        :param now: what counts as now; default: the server's time.
        :param job_kwargs: values for columns of your own.
        :param cursor_key: of all jobs with this key, in all queues, one runs at a time.
        :param collapse_on_cursor: if a job of this queue, method and key that was put with this, too, has not begun:
            put none, and return the id of that one, which then begins at the earlier one of the two times.
        :param conflict_resolver: called with that job, which is locked; it may change it.
        :param schedule_ids: of the schedules that ask for this. They are noted in `trace`, as the listeners are.
        :param listener_ids: of the listeners that ask for this.
        :param trace: what JSON can hold; goes with the job.
        :raises ValueError: `collapse_on_cursor` without `cursor_key`; a text is empty, or PostgreSQL can't hold it.
        :raises TypeError: `when` is something else; an argument has another type; `args` or `trace` is no JSON; jobs
            have no such column.
        """
        dialect = self.dbsession.get_bind().dialect
        check_call(dialect, queue, method, args, cursor_key, collapse_on_cursor, trace)
        unknown = [key for key in job_kwargs or {} if not hasattr(self.model.Job, getattr(key, "key", key))]
        if unknown:
            raise TypeError(f"jobs have no column {unknown[0]!r}")
        time = moment(when, now)
        job_id = None
        while job_id is None:  # the job that there was may have begun, or ended, since
            job_id = self._put(
                queue=queue,
                method=method,
                args={} if args is None else args,
                created_time=moment(None, now),
                scheduled_time=time,
                cursor_key=cursor_key,
                collapsible=collapse_on_cursor,
                trace=_traced(trace, schedule_ids, listener_ids),
                **{getattr(key, "key", key): value for key, value in (job_kwargs or {}).items()},
            )
            if job_id is None:
                job_id = self._join(queue, method, cursor_key, time, schedule_ids, listener_ids, conflict_resolver)
        self._link(self.model.JobListenerLink, "listener_id", job_id, listener_ids)
        self._link(self.model.JobScheduleLink, "schedule_id", job_id, schedule_ids)
        if self.transaction_manager:
            import_module("zope.sqlalchemy").mark_changed(self.dbsession)
        return job_id

    def _put(self, **values: Any) -> int | None:
        """Put a job; return None if there is one to join."""
        Job, states = self.model.Job, self.model.JobStates
        given = {getattr(Job, name): value for name, value in values.items()}
        put = insert(Job.__table__).values({**given, Job.state: states.PENDING})
        put = put.on_conflict_do_nothing(
            index_elements=[Job.cursor_key, Job.queue, Job.method],
            index_where=and_(Job.state == states.PENDING, Job.collapsible == true()),
        )
        row = self.dbsession.execute(put.returning(Job.id, Job.scheduled_time)).one_or_none()
        if row is None:
            return None
        id, time = row
        deliver(self.dbsession, self.model, JOB, values["queue"], id, time)
        log.info("put job %s in queue %s: %s", id, values["queue"], values["method"])
        return id  # type: ignore[no-any-return]

    def _join(
        self, queue: str, method: str, cursor_key: str | None, time: Any, schedule_ids: Any, listener_ids: Any,
        conflict_resolver: Callable[[Any], object] | None,
    ) -> int | None:  # fmt: skip
        """Join the pending job, which stays locked until the transaction ends; return None if there is none."""
        pending = self.query_jobs.filter_by(
            state=self.model.JobStates.PENDING, queue=queue, method=method, cursor_key=cursor_key, collapsible=True
        )
        job = pending.with_for_update().populate_existing().one_or_none()
        if job is None:
            return None
        before = job.scheduled_time
        if not isinstance(time, datetime):
            time = self.dbsession.scalar(select(time))
        job.scheduled_time = min(before, time)
        job.trace = _traced(job.trace, schedule_ids, listener_ids)
        if conflict_resolver is not None:
            conflict_resolver(job)
        self.dbsession.flush()
        if job.scheduled_time < before:
            deliver(self.dbsession, self.model, JOB, queue, job.id, job.scheduled_time)
        log.info("joined job %s in queue %s: %s", job.id, queue, method)
        return job.id  # type: ignore[no-any-return]

    def _link(self, kind: Any, column: str, job_id: int, ids: Iterable[int] | None) -> None:
        rows = [{"job_id": job_id, column: id} for id in ids or ()]
        if rows and kind is not None:
            self.dbsession.execute(insert(kind.__table__).values(rows).on_conflict_do_nothing())

    @property
    def query_jobs(self) -> Any:
        """A query of all jobs."""
        return self.dbsession.query(self.model.Job)

    def get_job(self, job_id: int, *, for_update: bool = False, raises: bool = True) -> Any:
        """Return a job.

        :param for_update: lock it until the transaction ends: meanwhile it does not begin.
        :param raises: if there is none, raise; else return None.
        :raises LookupError: there is none.
        """
        if for_update:
            job = self.query_jobs.filter_by(id=job_id).with_for_update().populate_existing().one_or_none()
        else:
            job = self.dbsession.get(self.model.Job, job_id)
        if job is None and raises:
            raise LookupError(f"there is no job {job_id!r}")
        return job

    def retry_job(self, job_id: int, *, now: datetime | None = None) -> int:
        """Put a copy of a job, whatever its state, and return the id of the copy. It is never collapsed. Its trace has
        the id of the job as ``mq_source_job_id``.

        :raises LookupError: there is no such job.
        """
        job = self.get_job(job_id)
        return self.call(
            job.queue,
            job.method,
            job.args,
            now=now,
            when=job.scheduled_time,
            cursor_key=job.cursor_key,
            trace={**(job.trace or {}), "mq_source_job_id": job_id},
        )

    def fail_lost_job(self, job_id: int, *, result: Any = None) -> None:
        """Make a lost job a failed one: then the next one of its cursor can begin.

        :param result: becomes the result of the job.
        :raises RuntimeError: the job is not lost.
        :raises LookupError: there is no such job.
        """
        job, states = self.get_job(job_id, for_update=True), self.model.JobStates
        if job.state != states.LOST:
            raise RuntimeError(f"job {job_id} is not lost but {job.state}")
        job.state, job.lock_id = states.FAILED, None
        if result is not None:
            job.result = result
        self.dbsession.flush()
        self._free_cursor(job)
        self.emit_event(*finished_event(job, job.state, result=result))

    def cancel_job(self, job_id: int, *, now: datetime | None = None) -> None:
        """Cancel a job that is pending or has failed.

        :raises RuntimeError: it is in another state.
        :raises LookupError: there is no such job.
        """
        job, states = self.get_job(job_id, for_update=True), self.model.JobStates
        if job.state not in (states.PENDING, states.FAILED):
            raise RuntimeError(f"job {job_id} is neither pending nor failed but {job.state}")
        job.state = states.CANCELED
        if job.end_time is None:
            job.end_time = now_on(self.dbsession) if now is None else moment(now, None)
        self.dbsession.flush()
        self._free_cursor(job)

    def _free_cursor(self, job: Any) -> None:
        """Have a worker look who is next, once this is committed."""
        if job.cursor_key is not None:
            deliver(self.dbsession, self.model, CURSOR, job.queue, job.cursor_key)


def _traced(trace: Any, schedule_ids: Iterable[int] | None, listener_ids: Iterable[int] | None) -> Any:
    """Return a trace with the ids that it had, and these."""
    for key, ids in (("mq_schedule_ids", schedule_ids), ("mq_listener_ids", listener_ids)):
        if ids:
            trace = {**(trace or {}), key: sorted({*(trace or {}).get(key, ()), *ids})}
    return trace
