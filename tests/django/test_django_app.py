"""The app: migrations, the project's own tests, commands, checks, workers."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django_site import DRIVERS, HAS_TASKS, ROOT, Site
from support import wait_until

from pq import PQ
from pq.schema import VERSION, migration

MIGRATIONS = sorted(path.stem for path in (ROOT / "pq/contrib/django/migrations").glob("0*.py"))


# -- the projects's own tests


@pytest.mark.parametrize("driver", DRIVERS)
def test_the_tests_of_the_project(site: Site, driver: str) -> None:
    printed = site.manage("test", "shop", driver=driver)
    assert re.search(r"Ran \d\d tests", printed), printed


def test_the_tests_of_the_project_without_migrations_and_with_naive_times(site: Site) -> None:
    modules = dict.fromkeys(["admin", "auth", "contenttypes", "sessions", "pq", "shop"])
    printed = site.manage("test", "shop.tests.Committed", migration_modules=modules, use_tz=False)
    assert re.search(r"Ran \d\d tests", printed), printed


@pytest.mark.parametrize("driver", DRIVERS)
def test_the_tests_of_its_tasks(site: Site, driver: str) -> None:
    if not HAS_TASKS:
        pytest.skip("django.tasks needs Django 6, or the package django-tasks")
    printed = site.manage("test", "shop.tests_of_tasks", driver=driver)
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


def test_work(site: Site) -> None:
    put = """
from shop import tasks
from shop.models import Order
for _ in range(20):
    order = Order.objects.create(customer="Ann")
    tasks.send(order.id)
    tasks.send_once(order.id)
for how in ("error", "rollback", "close"):
    tasks.send_once(order.id, how)
tasks.look()
found = 0
"""
    site.run(put)
    site.manage("pq", "work", "--burst", "--threads", "2", "--processes", "2", "--allow", "shop")
    look = """
from pq.contrib.django import pq
from shop.models import Order
found = [sorted(Order.objects.values_list("mails", flat=True)), len(pq["log"]), pq["mails"].counts()]
"""
    mails, log, counts = site.run(look)
    assert mails == [2] * 19 + [5]
    assert log == 24
    assert counts == {**dict.fromkeys(counts, 0), "finished": 44}


def test_a_terminated_connection_costs_no_attempt_if_it_is_seen_and_one_at_most(site: Site) -> None:
    """Django's connection of the worker is ended between two jobs; it is to be kept for ever."""
    worker = site.start("pq", "work", "-q", max_age=None)
    pids = """
from pq.contrib.django import pq
from shop import tasks
number = tasks.look()
pq["mails"].result(number, "30s")
found = pq["log"].list()[-1].data
"""
    try:
        first = site.run(pids)
        again = site.run(pids)
        assert first["pid"] == again["pid"]  # it is kept
        with site.connect() as cursor:
            cursor.execute("select pg_terminate_backend(%s, 30000)", (first["pid"],))
        found = site.run(pids)
        assert found["pid"] != first["pid"]
        assert found["attempt"] == 1
    finally:
        worker.send_signal(signal.SIGTERM)
        printed, _ = worker.communicate(timeout=30)
    assert worker.returncode == 0, printed
    assert "ResourceWarning" not in printed


def test_two_processes_and_kill_9(site: Site) -> None:
    """One process puts, with the orders; another performs, and is killed in the midst of a transaction."""
    put = """
from django.db import transaction
from shop import tasks
from shop.models import Order
for number in range(30):
    try:
        with transaction.atomic():
            order = Order.objects.create(customer=str(number))
            tasks.send_once(order.id, "kill" if number == 10 else "")
            if number % 3 == 0:
                raise ZeroDivisionError
    except ZeroDivisionError:
        pass
found = Order.objects.count()
"""
    orders = site.run(put)
    assert orders == 20
    args = ("pq", "work", "--burst", "-q")
    first = site.start(*args)
    printed, _ = first.communicate(timeout=60)
    assert first.returncode == -signal.SIGKILL, printed
    left = site.run('from pq.contrib.django import pq; found = pq["mails"].count("running")')
    assert left >= 1
    with site.connect() as cursor:  # its lease expires
        cursor.execute("update queue set due_at = now() where due_at is not null and dequeued_at is not null")
    site.manage(*args)
    look = 'from shop.models import Order; found = list(Order.objects.values_list("mails", flat=True))'
    assert site.run(look) == [1] * 20


def test_a_worker_is_loaded_again_when_code_changes(site: Site, tmp_path: Path) -> None:
    def write(version: int) -> None:
        (tmp_path / "extra" / "tasks.py").write_text(
            "from pq.contrib.django import pq\n"
            "@pq['extra'].task\n"
            "def tell(job_id):\n"
            f"    pq['log'].put({version})\n"
        )

    (tmp_path / "extra").mkdir()
    (tmp_path / "extra" / "__init__.py").touch()
    write(1)
    site.settings |= {"debug": True, "apps": ["extra"], "path": str(tmp_path)}
    worker = site.start("pq", "work", "-q")
    with PQ(site.dsn) as pq:

        def tells(version: int) -> bool:
            pq["extra"].put({"function": "extra.tasks.tell", "args": [], "kwargs": {}})
            return version in {job.data for job in pq["log"].list(limit=100_000)}

        try:
            wait_until(lambda: tells(1), "the worker's start", 60)
            written = -1e9

            def tells_two() -> bool:
                nonlocal written
                if time.monotonic() - written > 15:  # Django may not look at the files yet, and then again it does
                    write(2)
                    written = time.monotonic()
                return tells(2)

            wait_until(tells_two, "the new code", 90)
        finally:
            os.killpg(worker.pid, signal.SIGINT)
            worker.communicate(timeout=30)
    with site.connect() as cursor:
        cursor.execute("select max(attempts) from queue where q_name = 'extra'")
        assert cursor.fetchone() == (1,)  # nothing was cut off
