"""The table of jobs as a model, for the admin and for ``manage.py flush``: the tests of a `TransactionTestCase` begin
with an empty table.

The migrations make the table, not Django. Read it as you like; change jobs by `pq.contrib.django.pq`.
"""

from __future__ import annotations

from typing import Any

from django.db import models
from django.db.models.expressions import RawSQL

from pq.sql import bound

from . import conf
from .bases import Manager, Model, QuerySet

_SETTING = conf.read()["default"]
_SQL = bound("common.sql", _SETTING.name.quoted)
_STATE, _MARKER = _SQL["state"], _SQL["marker"]

#: The name as Django's backend writes it: quoted already, if it has a schema.
TABLE: str = _SETTING.name.name if _SETTING.name.schema is None else _SETTING.name.quoted


class There(QuerySet):
    """Jobs of the database of the setting ``PQ``; on others, which ``dumpdata`` may ask for, there are none."""

    def using(self, alias: str | None) -> Any:
        """Return the jobs there."""
        found = super().using(alias)  # type: ignore[misc]
        return found if alias in (None, _SETTING.database) else found.none()


class Jobs(Manager):
    """Finds jobs, with their states; rows that are none, such as the mark of a paused queue, are left out."""

    def get_queryset(self) -> Any:
        """Return a queryset on the database of the setting ``PQ``."""
        found = There(self.model, using=_SETTING.database)
        text = models.TextField()
        marks = RawSQL(f"coalesce({_MARKER}, false)", (), output_field=models.BooleanField())
        return found.annotate(state=RawSQL(f"({_STATE})", (), output_field=text), _mark=marks).filter(_mark=False)


class Job(Model):
    """A row of the table of ``PQ["default"]``.

    Times that may be infinite are left out: the drivers can't hold them.
    """

    id: Any = models.BigAutoField(primary_key=True)
    queue: Any = models.TextField(db_column="q_name")
    enqueued_at: Any = models.DateTimeField()
    finished_at: Any = models.DateTimeField(null=True)
    attempts: Any = models.IntegerField()
    key: Any = models.TextField(null=True)
    worker: Any = models.TextField(null=True)

    objects: Jobs = Jobs()

    class Meta:
        """What the migrations know of it."""

        db_table: str = TABLE
        default_permissions: tuple[str, ...] = ("view", "change")

    def __str__(self) -> str:
        return f"{self.queue}/{self.id}"
