"""Workers, in processes of their own: with kill -9, terminated connections, and code that changes."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from django_site import Site
from support import wait_until

from pq import PQ


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
