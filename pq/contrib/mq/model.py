"""The tables: those of psycopg2_mq, of which pq's worker uses all but the one of the locks."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy import orm
from sqlalchemy.dialects.postgresql import INTERVAL, JSONB

from .delivery import pq_on


class JobStates:
    """What ``job.state`` may be."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELED = "canceled"
    LOST = "lost"


class Model:
    """What `make_default_model` returns: classes that are mapped to tables, and `JobStates`. You may make one of your
    own classes, which need at least the same attributes."""

    #: The name of a pq queue is this and the name of the queue.
    channel_prefix = "mq_"

    def __init__(
        self,
        *,
        Job: Any,
        JobStates: Any = JobStates,
        JobCursor: Any,
        JobListener: Any,
        JobSchedule: Any,
        JobListenerLink: Any = None,
        JobScheduleLink: Any = None,
        Lock: Any = None,
    ) -> None:
        self.Job: Any = Job
        self.JobStates: Any = JobStates
        self.JobCursor: Any = JobCursor
        self.JobListener: Any = JobListener
        self.JobSchedule: Any = JobSchedule
        self.JobListenerLink: Any = JobListenerLink
        self.JobScheduleLink: Any = JobScheduleLink
        self.Lock: Any = Lock  # not used

    @property
    def schema(self) -> str | None:
        """Where pq's table is: beside that of the jobs."""
        return self.Job.__table__.schema  # type: ignore[no-any-return]


def make_default_model(metadata: sa.MetaData, JobStates: Any = JobStates) -> Model:
    """Define the tables in this MetaData, and return the classes that are mapped to them.

    ``metadata.create_all()`` also creates, or upgrades, pq's table in the same schema.

    :param JobStates: a subclass of `JobStates`, if you have one.
    """
    tables = _tables(metadata, JobStates)
    registry = orm.registry(metadata=metadata)
    classes = {name: type(name, (), {"__repr__": _repr, "__table__": table}) for name, table in tables.items()}
    for name, relations in _relations(classes).items():
        registry.map_imperatively(classes[name], tables[name], properties=relations)

    @sa.event.listens_for(metadata, "after_create")
    def create_pq(target: object, connection: Any, **options: object) -> None:
        pq_on(connection, metadata.schema).create()

    return Model(JobStates=JobStates, **classes)


def _tables(metadata: sa.MetaData, states: Any) -> dict[str, sa.Table]:
    def table(name: str, *columns: Any) -> sa.Table:
        return sa.Table(name, metadata, *columns)

    def task() -> list[sa.Column[Any]]:
        """What is to be called."""
        return [
            sa.Column("queue", sa.Text, nullable=False, index=True),
            sa.Column("method", sa.Text, nullable=False),
            sa.Column("args", JSONB, nullable=False),
        ]

    def emitter(name: str, *columns: Any) -> sa.Table:
        """What makes jobs."""
        return table(
            name,
            sa.Column("id", sa.BigInteger, primary_key=True),
            sa.Column("created_time", sa.DateTime, nullable=False),
            sa.Column("is_enabled", sa.Boolean, nullable=False),
            *task(),
            sa.Column("cursor_key", sa.Text),
            sa.Column("collapse_on_cursor", sa.Boolean),
            *columns,
        )

    def link(name: str, to: sa.Table, column: str) -> sa.Table:
        def key(column: str, target: sa.Table) -> sa.Column[Any]:
            other = sa.ForeignKey(target.c.id, ondelete="cascade", onupdate="cascade")
            return sa.Column(column, other, primary_key=True, index=True)

        return table(name, key("job_id", job), key(column, to))

    state = sa.Enum(
        states.PENDING, states.RUNNING, states.COMPLETED, states.FAILED, states.CANCELED, states.LOST,
        name="mq_job_state", metadata=metadata,
    )  # fmt: skip
    job = table(
        "mq_job",
        sa.Column("id", sa.BigInteger, primary_key=True),
        sa.Column("created_time", sa.DateTime, nullable=False),
        sa.Column("scheduled_time", sa.DateTime, nullable=False, index=True),
        sa.Column("start_time", sa.DateTime),
        sa.Column("end_time", sa.DateTime),
        sa.Column("state", state, nullable=False, index=True),
        *task(),
        sa.Column("result", JSONB),
        sa.Column("cursor_key", sa.Text),
        sa.Column("cursor_snapshot", JSONB),
        sa.Column("collapsible", sa.Boolean),
        sa.Column("trace", JSONB),
        sa.Column("lock_id", sa.Integer),
        sa.Column("worker", sa.Text),
    )
    column, pending = job.c, job.c.state == states.PENDING
    sa.Index(
        "uq_mq_job_pending_cursor_key_queue_method", column.cursor_key, column.queue, column.method,
        unique=True, postgresql_where=sa.and_(pending, column.collapsible == sa.true()),
    )  # fmt: skip
    sa.Index(
        "uq_mq_job_active_cursor_key", column.cursor_key, unique=True,
        postgresql_where=sa.and_(column.cursor_key.is_not(None), column.state.in_([states.RUNNING, states.LOST])),
    )  # fmt: skip
    sa.Index(
        "ix_mq_job_waiting_cursor_key",
        column.cursor_key, column.queue, column.scheduled_time, column.created_time, column.id,
        postgresql_where=sa.and_(pending, column.cursor_key.is_not(None)),
    )  # fmt: skip
    schedule = emitter(
        "mq_job_schedule", sa.Column("rrule", sa.Text, nullable=False), sa.Column("next_execution_time", sa.DateTime)
    )
    listener = emitter(
        "mq_job_listener",
        sa.Column("event", sa.Text, nullable=False, index=True),
        sa.Column("context_arg_key", sa.Text, nullable=False),
        sa.Column("when", INTERVAL),
    )
    cursor = table(
        "mq_job_cursor",
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("properties", JSONB, nullable=False, default=dict),
        sa.Column("updated_job_id", sa.ForeignKey(job.c.id, ondelete="set null", onupdate="cascade")),
    )
    return {
        "Job": job,
        "JobCursor": cursor,
        "JobListener": listener,
        "JobSchedule": schedule,
        "JobListenerLink": link("mq_job_listener_link", listener, "listener_id"),
        "JobScheduleLink": link("mq_job_schedule_link", schedule, "schedule_id"),
    }


def _relations(classes: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The relationships of each class: to the links, and over the links to each other."""
    found: dict[str, dict[str, Any]] = {name: {} for name in classes}
    found["JobCursor"]["updated_job"] = orm.relationship(classes["Job"])
    for word in ("listener", "schedule"):
        name = f"Job{word.capitalize()}"
        links = classes[f"{name}Link"]

        def over(target: Any, back: str, links: Any = links) -> Any:
            return orm.relationship(target, secondary=links.__table__, back_populates=back, viewonly=True)

        found["Job"][f"{word}_links"] = orm.relationship(links, back_populates="job")
        found["Job"][f"{word}s"] = over(classes[name], "jobs")
        found[name]["job_links"] = orm.relationship(links, back_populates=word)
        found[name]["jobs"] = over(classes["Job"], f"{word}s")
        found[f"{name}Link"]["job"] = orm.relationship(classes["Job"], back_populates=f"{word}_links")
        found[f"{name}Link"][word] = orm.relationship(classes[name], back_populates="job_links")
    return found


#: What the repr of a record shows, where it has it.
_SHOWN = (
    "id", "key", "job_id", "listener_id", "schedule_id", "state", "is_enabled", "event", "rrule", "scheduled_time",
    "queue", "method", "cursor_key", "collapsible",
)  # fmt: skip


def _repr(self: Any) -> str:
    columns = type(self).__table__.c
    shown = ", ".join(f"{name}={getattr(self, name)!r}" for name in _SHOWN if name in columns)
    return f"<{type(self).__name__}({shown})>"
