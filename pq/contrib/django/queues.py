"""The classes of ``pq.contrib.django.pq`` and its queues."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from pq import tasks
from pq._db import Database
from pq._queue import Queue as BaseQueue
from pq.schema import VERSION
from pq.worker.call import Call

from . import conf
from .connections import Atomic, DjangoDatabase, around_job, dsn_of

#: Stands in the data of a job that is a task of ``django.tasks``.
MARK = "django"


class Queue(tasks.queue.Queue):
    """A `pq.Queue` whose blocks and transactional tasks are Django's ``atomic()``."""

    _db: DjangoDatabase

    #: Set by the backend of ``django.tasks``, which the app imports if the setting TASKS names it.
    call_of_django: ClassVar[Callable[[Any, dict[str, Any]], Call]]

    def _transaction(self, opener: object = None) -> Any:
        if self._db.is_djangos():
            return Atomic(self._db, opener, self.cursor_kwargs)
        return super()._transaction(opener)

    def _call(self, data: Any) -> Call:
        is_djangos = isinstance(data, dict) and MARK in data
        call = type(self).call_of_django(self, data) if is_djangos else super()._call(data)
        return call._replace(handler=partial(_run, call.handler))


class PQ(tasks.queue.PQ):
    """A `pq.PQ` on a database of Django's: ``pq.contrib.django.pq``.

    :param setting: its entry in the setting ``PQ``.
    """

    queue_class: type[BaseQueue] | None = Queue
    _database_class: type[Database] = DjangoDatabase

    def __init__(self, setting: conf.Setting) -> None:
        super().__init__(
            partial(dsn_of, setting.database), table=setting.name.name, schema=setting.name.schema, **setting.options
        )
        self.alias: str = setting.alias
        self._db.alias = setting.database  # type: ignore[attr-defined]

    def disconnect(self) -> None:
        """Close the connections that pq has opened itself, as for a worker, and that nobody uses. Others are opened
        when they are needed.

        Call it at the end of a test that has run a worker: Django can't drop its database while one is open.
        """
        self._table._room.leader.rest()
        self._table.outside.close()
        self._db.source.distrust()

    def was_flushed(self, resets: bool) -> None:
        """Bring the table into order after somebody may have truncated it.

        :param resets: delete all jobs, and what stands beside the table; else note again which queues are limited.
        """
        if self.version() < VERSION:
            return
        if resets:
            self.reset(force=True)
        else:
            self._table.execute(self._table.statements("limits.sql")["mark"], {})

    def _with_tasks(self) -> list[Any]:
        """Return the queues of the backends of ``django.tasks`` on this PQ, too."""
        for entry in backends():
            if entry.get("OPTIONS", {}).get("pq", "default") == self.alias:
                for name in entry.get("QUEUES", ["default"]):
                    self[name]._has_tasks = True
        return super()._with_tasks()

    if TYPE_CHECKING:

        def __getitem__(self, name: str) -> Queue: ...


class PQs(Mapping[str, PQ]):
    """The entries of the setting ``PQ``, each made when it is first used."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._made: dict[str, PQ] = {}

    def __getitem__(self, alias: str) -> PQ:
        found = self._made.get(alias)
        if found is None:
            with self._lock:
                found = self._made.get(alias) or self._make(alias)
                self._made[alias] = found
        return found

    def _make(self, alias: str) -> PQ:
        setting = conf.read()[alias]
        try:
            return PQ(setting)
        except (TypeError, ValueError) as error:
            raise ImproperlyConfigured(f"PQ[{alias!r}]: {error}") from error

    def __iter__(self) -> Iterator[str]:
        return iter(conf.read())

    def __len__(self) -> int:
        return len(conf.read())


pqs: PQs = PQs()


def _run(handler: Callable[..., Any], job_id: int, /, *args: Any, **kwargs: Any) -> Any:
    around_job(True)
    try:
        return handler(job_id, *args, **kwargs)
    finally:
        around_job(False)


def backends() -> list[Mapping[str, Any]]:
    """Return what the setting TASKS says of backends of pq's."""
    return [entry for entry in getattr(settings, "TASKS", {}).values() if _is_ours(entry.get("BACKEND"))]


def _is_ours(path: Any) -> bool:
    try:
        return bool(getattr(import_string(path), "is_of_pq", False))
    except (ImportError, AttributeError):  # of which Django tells
        return False
