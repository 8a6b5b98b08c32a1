"""The app: migrations, the project's own tests, commands, checks."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from textwrap import dedent
from typing import Any

import pytest
from django_site import DRIVERS, HAS_TASKS, ROOT, Site

from pq import PQ
from pq.schema import VERSION, migration

MIGRATIONS = sorted(path.stem for path in (ROOT / "pq/contrib/django/migrations").glob("0*.py"))


# -- the projects's own tests


@pytest.mark.parametrize("driver", DRIVERS)
def test_the_tests_of_the_project(site: Site, driver: str) -> None:
    which = "shop.tests" if driver == DRIVERS[-1] else "shop.tests.InOneTransaction"  # Django takes the last one
    printed = site.manage("test", which, driver=driver)
    assert re.search(r"Ran \d\d tests", printed), printed


def test_the_tests_of_the_project_without_migrations_and_with_naive_times(site: Site) -> None:
    modules = dict.fromkeys(["admin", "auth", "contenttypes", "sessions", "pq", "shop"])
    printed = site.manage("test", "shop.tests.Committed", driver=DRIVERS[0], migration_modules=modules, use_tz=False)
    assert re.search(r"Ran \d\d tests", printed), printed


def test_the_tests_of_its_tasks(site: Site) -> None:
    if not HAS_TASKS:
        pytest.skip("django.tasks needs Django 6, or the package django-tasks")
    printed = site.manage("test", "shop.tests_of_tasks")
    assert re.search(r"Ran \d\d tests", printed), printed


# -- migrations


def test_migrations(empty_site: Callable[..., Site], empty_dsn: str) -> None:
    site = empty_site(pq={"default": {"table": "Jobs", "schema": "work"}, "old": {"table": "100%"}})
    with PQ(empty_dsn, table="100%") as by_hand:
        by_hand.create(retain="1h")
        by_hand["a"].put(1)
    site.manage("migrate", "pq", "0003", "-v", "0")
    with PQ(empty_dsn, table="Jobs", schema="work") as pq:
        assert pq.version() == 3
        assert f"has version 3, and pq needs {VERSION}" in site.manage("check", "--database", "default")
        site.manage("migrate", "pq", "-v", "0")
        assert pq.version() == VERSION
        pq["a"].put(1)
        assert "No changes detected" in site.manage("makemigrations", "--check", "--dry-run")
        assert "no issues" in site.manage("check", "--database", "default")
        site.manage("migrate", "pq", "zero", "-v", "0")
        site.manage("migrate", "pq", "-v", "0")
        assert pq["a"].get(timeout=0).data == 1
    with PQ(empty_dsn, table="100%") as by_hand:
        assert len(by_hand["a"]) == 1
    site.manage("migrate", "pq", "-v", "0", pq={"default": {"table": "Jobs", "schema": "work"}, "b": {"table": "late"}})
    with PQ(empty_dsn, table="late") as late:
        assert late.version() == VERSION  # the setting has it since the migrations have run


def test_the_sql_of_a_migration_is_that_of_the_schema(site: Site) -> None:
    printed = site.manage("sqlmigrate", "pq", "0005")
    for table in ("queue", "reports"):
        assert migration(4, 5, table=table).strip() in printed


def test_there_is_a_migration_for_each_step() -> None:
    assert [int(name[:4]) for name in MIGRATIONS] == list(range(1, VERSION + 1))


# -- checks


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"pq": {"default": {"table": "a"}, "b": {"table": "A"}}}, "pq.E003"),
        ({"pq": {"default": {"max_connection": 3}}}, "PQ['default']: Queue has no option 'max_connection'"),
        (
            {
                "pq": {"default": {}, "small": {"database": "small"}},
                "databases": {"small": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
            },
            "pq.E002",
        ),
    ],
    ids=["twice", "option", "sqlite"],
)
def test_checks_of_settings(site: Site, given: dict[str, Any], text: str) -> None:
    assert text in site.manage("check", code=1, **given)


def test_check_of_the_tables(empty_site: Callable[..., Site]) -> None:
    assert "pq.W002" in empty_site().manage("check", "--database", "default")


# -- without django.tasks


def test_the_app_needs_no_tasks_of_django() -> None:
    """Django 5.2 has none, and the package django-tasks is no requirement."""
    import django

    if django.VERSION >= (6, 0):
        pytest.skip("Django 6 has tasks")
    program = """
    import sys
    sys.modules["django_tasks"] = None  # an import fails
    import django
    from django.conf import settings
    apps = ["django.contrib.admin", "django.contrib.auth", "django.contrib.contenttypes", "pq.contrib.django"]
    database = {"ENGINE": "django.db.backends.postgresql", "NAME": "none"}
    settings.configure(INSTALLED_APPS=apps, DATABASES={"default": database})
    django.setup()
    import pq.contrib.django.admin, pq.contrib.django.models, pq.contrib.django.page
    """
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", dedent(program)], env=environment, check=True, timeout=60)


# -- commands


def test_commands(site: Site) -> None:
    site.manage("pq", "put", "mails", '{"to": "ann"}', "--at", "1h")
    assert "ann" in site.manage("pq", "list", "mails")
    assert '"state": "scheduled"' in site.manage("pq", "list", "mails", "--json")
    assert "mails" not in site.manage("pq", "--pq", "reports", "queues")
    assert f"version {VERSION}" in site.manage("pq", "--pq", "reports", "version")
    assert "manage.py pq" in site.manage("pq")
    assert "usage: manage.py pq put" in site.manage("pq", "put", "--help")
    site.manage("pq", "list", code=2)
    assert "no entry 'other'" in site.manage("pq", "--pq", "other", "queues", code=1)
    cleared = "from django.core.management import call_command; found = call_command('pq', 'clear', 'mails', '--yes')"
    assert site.run(cleared) is None


def test_dumpdata_of_another_database(site: Site, empty_dsn: str) -> None:
    """Django takes it that each of its databases has each table."""
    others = Site(empty_dsn).settings["database"] | {"ENGINE": "django.db.backends.postgresql"}
    site.manage("pq", "put", "mails", "1")
    assert '"pq.job"' in site.manage("dumpdata", "pq")
    assert "[]" in site.manage("dumpdata", "pq", "--database", "other", databases={"other": others})
