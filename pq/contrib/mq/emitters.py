"""What makes jobs: schedules, and listeners for events."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

from .delivery import SCHEDULE, deliver, moment, next_time, now_on
from .safe import check_call

log: logging.Logger = logging.getLogger("pq.contrib.mq")


class Emitters:
    """The methods of `MQSource` for schedules and listeners. A `now` that is not given is the server's time, in UTC.

    :param dbsession: a session of SQLAlchemy, whose transaction does it all.
    :param model: what `make_default_model` returned.
    """

    def __init__(self, dbsession: Any, model: Any) -> None:
        self.dbsession: Any = dbsession
        self.model: Any = model

    def call(self, *args: Any, **options: Any) -> int:
        """Put a job; see `MQSource.call`."""
        raise NotImplementedError

    def _now(self, now: datetime | None) -> datetime:
        return now_on(self.dbsession) if now is None else moment(now, None)

    def _one(self, query: Any, id: int, for_update: bool) -> Any:
        query = query.filter_by(id=id)
        return (query.with_for_update().populate_existing() if for_update else query).one()

    def _added(self, record: Any) -> Any:
        self.dbsession.add(record)
        self.dbsession.flush()
        return record

    # -- schedules

    def add_schedule(
        self,
        queue: str,
        method: str,
        args: Any,
        *,
        rrule: str,
        is_enabled: bool = True,
        cursor_key: str | None = None,
        collapse_on_cursor: bool = False,
        schedule_kwargs: Mapping[str, Any] | None = None,
        now: datetime | None = None,
        reload: bool = True,
    ) -> Any:
        """Call a method again and again, and return the schedule.

        :param rrule: when, as in RFC 5545. The rule begins now, unless it has a ``DTSTART``; times without a zone are
            UTC.
        :param reload: have a worker wait for the first time. Without this it does so after `reload_scheduler`, or
            within the `timeout` of the worker.
        :raises ValueError: `rrule` is no rule; `collapse_on_cursor` without `cursor_key`.
        """
        check_call(self.dbsession.get_bind().dialect, queue, method, args, cursor_key, collapse_on_cursor)
        now = self._now(now)
        schedule = self._added(
            self.model.JobSchedule(
                queue=queue,
                method=method,
                args={} if args is None else args,
                rrule=rrule,
                is_enabled=is_enabled,
                cursor_key=cursor_key,
                collapse_on_cursor=collapse_on_cursor,
                created_time=now,
                next_execution_time=next_time(rrule, now, now),
                **(schedule_kwargs or {}),
            )
        )
        if reload:
            self.expect_schedule(schedule)
        return schedule

    @property
    def query_schedules(self) -> Any:
        """A query of all schedules."""
        return self.dbsession.query(self.model.JobSchedule)

    def get_schedule(self, schedule_id: int, *, for_update: bool = False) -> Any:
        """Return a schedule.

        :param for_update: lock it until the transaction ends.
        :raises sqlalchemy.exc.NoResultFound: there is none.
        """
        return self._one(self.query_schedules, schedule_id, for_update)

    def disable_schedule(self, schedule_id: int) -> None:
        """Make no more jobs by this schedule, until `enable_schedule`."""
        schedule = self.get_schedule(schedule_id, for_update=True)
        schedule.is_enabled, schedule.next_execution_time = False, None

    def enable_schedule(self, schedule_id: int, *, now: datetime | None = None, reload: bool = True) -> None:
        """Make jobs by this schedule again, from its next time on; `reload` is as for `add_schedule`."""
        schedule = self.get_schedule(schedule_id, for_update=True)
        if not schedule.is_enabled:
            schedule.is_enabled = True
            schedule.next_execution_time = next_time(schedule.rrule, schedule.created_time, self._now(now))
            if reload:
                self.expect_schedule(schedule)

    def call_schedule(
        self, schedule_id: int, *, now: datetime | None = None, reload: bool = True, when: Any = None
    ) -> int:
        """Make a job by this schedule now, and return its id. An enabled schedule goes on at its next time after `now`.

        :param when: as for `MQSource.call`.
        :param reload: as for `add_schedule`.
        """
        now = self._now(now)
        schedule = self.get_schedule(schedule_id, for_update=True)
        job_id = self.call(
            schedule.queue,
            schedule.method,
            schedule.args,
            now=now,
            when=when,
            cursor_key=schedule.cursor_key,
            collapse_on_cursor=bool(schedule.collapse_on_cursor),
            schedule_ids=[schedule.id],
        )
        if schedule.is_enabled:
            schedule.next_execution_time = next_time(schedule.rrule, schedule.created_time, now)
            if reload:
                self.expect_schedule(schedule)
        return job_id

    def reload_scheduler(self, queue: str, *, now: datetime | None = None) -> None:
        """Have the workers of a queue see its schedules as they are now. Needed after ``reload=False``, and after you
        have changed a schedule yourself, if the workers are to see that sooner than within their `timeout`. `now` has
        no effect."""
        for schedule in self.query_schedules.filter_by(queue=queue, is_enabled=True):
            self.expect_schedule(schedule)

    def expect_schedule(self, schedule: Any) -> None:
        """Have a worker look at the schedule when it is due."""
        if schedule.is_enabled and schedule.next_execution_time is not None:
            deliver(self.dbsession, self.model, SCHEDULE, schedule.queue, schedule.id, schedule.next_execution_time)

    # -- listeners

    def add_listener(
        self,
        event: str,
        queue: str,
        method: str,
        args: Any,
        *,
        when: Any = None,
        is_enabled: bool = True,
        context_arg_key: str | None = None,
        cursor_key: str | None = None,
        collapse_on_cursor: bool = False,
        listener_kwargs: Mapping[str, Any] | None = None,
        now: datetime | None = None,
    ) -> Any:
        """Call a method whenever an event is emitted, and return the listener.

        :param event: the whole name of the event.
        :param when: a timedelta: how long after the event the job is to begin.
        :param context_arg_key: the argument that has the event; default: ``event``, or with `collapse_on_cursor`
            ``events``, a list of all those that came while the job was pending.
        :raises ValueError: `collapse_on_cursor` without `cursor_key`.
        """
        check_call(self.dbsession.get_bind().dialect, queue, method, args, cursor_key, collapse_on_cursor)
        return self._added(
            self.model.JobListener(
                event=event,
                queue=queue,
                method=method,
                args={} if args is None else args,
                when=when,
                is_enabled=is_enabled,
                context_arg_key=context_arg_key or ("events" if collapse_on_cursor else "event"),
                cursor_key=cursor_key,
                collapse_on_cursor=collapse_on_cursor,
                created_time=self._now(now),
                **(listener_kwargs or {}),
            )
        )

    @property
    def query_listeners(self) -> Any:
        """A query of all listeners."""
        return self.dbsession.query(self.model.JobListener)

    def get_listener(self, listener_id: int, *, for_update: bool = False) -> Any:
        """Return a listener; the argument and the error are those of `get_schedule`."""
        return self._one(self.query_listeners, listener_id, for_update)

    def disable_listener(self, listener_id: int) -> None:
        """Have events pass this listener, until `enable_listener`."""
        self.get_listener(listener_id, for_update=True).is_enabled = False

    def enable_listener(self, listener_id: int, *, now: datetime | None = None) -> None:
        """Have events reach this listener again. `now` has no effect."""
        self.get_listener(listener_id, for_update=True).is_enabled = True

    def emit_event(self, name: str, data: Any, *, now: datetime | None = None, trace: Any = None) -> list[int]:
        """Make a job for each listener that waits for this event, and return their ids.

        :param data: what JSON can hold: the ``data`` of the event.
        :param trace: as for `MQSource.call`.
        """
        Listener = self.model.JobListener
        listeners = self.query_listeners.filter(Listener.event == name, Listener.is_enabled).order_by(Listener.id).all()
        if not listeners:
            return []
        now = self._now(now)
        return [self._notify(listener, name, data, now, trace) for listener in listeners]

    def _notify(self, listener: Any, name: str, data: Any, now: datetime, trace: Any) -> int:
        key = listener.context_arg_key
        event = {
            "name": name,
            "listener_id": listener.id,
            "now": now.replace(tzinfo=timezone.utc).isoformat(),
            "data": data,
        }
        collapses = bool(listener.collapse_on_cursor)

        def append(job: Any) -> None:
            job.args = {**job.args, key: [*job.args.get(key, ()), event]}

        return self.call(
            listener.queue,
            listener.method,
            {key: [event] if collapses else event, **listener.args},
            now=now,
            when=listener.when,
            cursor_key=listener.cursor_key,
            collapse_on_cursor=collapses,
            conflict_resolver=append if collapses else None,
            listener_ids=[listener.id],
            trace=trace,
        )
