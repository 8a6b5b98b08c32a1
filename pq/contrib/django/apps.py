"""The app."""

from __future__ import annotations

from typing import Any

from django.core import checks
from django.db import connections
from django.db.migrations.loader import MigrationLoader
from django.db.models.signals import post_migrate, pre_migrate

from .bases import AppConfig


class PQConfig(AppConfig):
    """The app of pq: its label is ``pq``."""

    name: str = "pq.contrib.django"
    label: str = "pq"
    verbose_name: str = "Jobs"
    default_auto_field: str = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from .checks import check_settings, check_tables
        from .queues import backends

        backends()  # are imported, so that workers know how to run their tasks
        checks.register(check_settings, "pq")
        checks.register(check_tables, checks.Tags.database)
        pre_migrate.connect(_create_without_migrations, sender=self)
        post_migrate.connect(_create_others, sender=self)


def _create_without_migrations(using: str, **kwargs: Any) -> None:
    """Create the tables where migrations are switched off, as for tests: otherwise Django would make them of the model.

    :param using: the alias of the database.
    """
    module, _ = MigrationLoader.migrations_module("pq")
    if module is None:
        _create(using)


def _create_others(using: str, **kwargs: Any) -> None:
    """Create tables that were added to the setting after the migrations had run; or see to those that were flushed.

    :param using: the alias of the database.
    """
    if "plan" not in kwargs:  # as ``migrate`` has: so this is ``flush``, or somebody who sends the signal
        _see_to_flushed(using)
        return
    loader = MigrationLoader(connections[using], ignore_no_migrations=True)
    if all(leaf in loader.applied_migrations for leaf in loader.graph.leaf_nodes("pq")):
        _create(using)


def _create(using: str) -> None:
    from . import conf
    from .queues import pqs

    for setting in conf.of_database(using):
        pqs[setting.alias].create()


def _see_to_flushed(using: str) -> None:
    """Finish what ``flush`` has begun, which has emptied the table of `Job` alone. A `TransactionTestCase` calls it
    behind each test.

    Others than ``flush`` send the same signal, so jobs are deleted while tests run, and at no other time.

    :param using: the alias of the database.
    """
    from django.test import utils

    from . import conf
    from .queues import pqs

    tests_run = hasattr(getattr(utils, "_TestState", None), "saved_data")  # pytest-django sets it, too
    for setting in conf.of_database(using):
        pqs[setting.alias].was_flushed(tests_run)
