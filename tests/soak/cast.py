"""The processes: which there are, and how they begin and end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from ..django.django_site import SITE, Site
from ..torture.server import free_port

ROOT = Path(__file__).parents[2]

#: Seconds that a process may take to end, and to answer at first.
PATIENCE = 60.0

#: What Django's shell does: orders, each with a job; one in five is rolled back.
DJANGO = """
import random, signal, time
from django.db import close_old_connections, transaction
from shop.models import Order
from shop.tasks import send_once
going = True
def stop(*args):
    global going
    going = False
signal.signal(signal.SIGTERM, stop)
chance = random.Random(SEED)
while going:
    close_old_connections()
    with transaction.atomic():
        order = Order.objects.create(customer="Ann")
        send_once(order.id)
        if chance.random() < 0.2:
            transaction.set_rollback(True)
    time.sleep(chance.expovariate(RATE))
"""


class Cast:
    """
    :param folder: where the processes write what they have to say.
    :param dsns: by role.
    :param rate: about how many jobs and events are put in a second, in all.
    :param seed: of what producers do by chance.
    :param seeded: what is to go wrong.
    :ivar processes: those that run, by name.
    :ivar wrong: processes that ended in another way than they should.
    """

    def __init__(self, folder: Path, dsns: dict[str, str], rate: float, seed: int, seeded: str = "") -> None:
        self._folder, self._dsns, self._rate, self._seed, self._seeded = folder, dsns, rate, seed, seeded
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.wrong: list[str] = []
        self.page, self.exporter, self.health = free_port(), free_port(), free_port()

    def _start(self, name: str, *args: str, role: str = "worker", site: bool = False) -> None:
        env = {**os.environ, "SOAK_DSN": self._dsns[role], "SOAK_SEEDED": self._seeded, "PYTHONPATH": str(ROOT)}
        env["SOAK_FOLDER"] = str(self._folder.resolve())
        if site:
            env = Site(self._dsns[role], pq={"default": {}}).environment()
        with open(self._folder / f"{name}.err", "ab") as told:
            self.processes[name] = subprocess.Popen(
                [sys.executable, *args], stdin=subprocess.DEVNULL, stdout=told, stderr=told, env=env,
                cwd=SITE if site else ROOT, start_new_session=True,
            )  # fmt: skip

    def migrate(self) -> None:
        """Make Django's tables, and the queue among them."""
        self._start("migrate", "manage.py", "migrate", "-v", "0", role="owner", site=True)
        if self.processes.pop("migrate").wait(PATIENCE):
            raise RuntimeError((self._folder / "migrate.err").read_text())
        (self._folder / "migrate.err").unlink()  # it warns that the table is missing, which it makes

    def start(self) -> None:
        work = ("-m", "pq", "work", "tests.soak.app:pq", "-c", "4", "--log-json", "--log-level", "warning")
        self._start("worker", *work, "--health", str(self.health))
        self._start("two workers", *work, "-p", "2", "-c", "2")
        self._start("consumers", "-m", "tests.soak.consumers")
        self._start("more consumers", "-m", "tests.soak.consumers")
        self._start("exporter", "-m", "tests.soak.consumers", str(self.exporter))
        self._start("page", "-m", "pq", "web", "--read-only", "--port", str(self.page), "--dsn", self._dsns["worker"])
        self._start("django worker", "manage.py", "pq", "work", "-c", "2", "-q", site=True)
        # a turn of a producer puts 1.9 jobs and events
        for number in (1, 2):
            args = (f"p{number}", str(self._rate / 4.5), str(self._seed + number))
            self._start(f"producer {number}", "-m", "tests.soak.producers", *args, role="producer")
        program = f"SEED, RATE = {self._seed}, {self._rate / 30}\n{DJANGO}"
        shell = ("manage.py", "shell", "--no-imports", "-c", program)
        self._start("django producer", *shell, role="producer", site=True)

    def look(self) -> None:
        """Note whoever has ended by itself."""
        for name, process in list(self.processes.items()):
            if process.poll() is not None:
                del self.processes[name]
                self.wrong.append(f"{name} ended with {process.returncode}")

    def stop(self, of: str = "") -> None:
        """SIGTERM for those with this in their name; they must end in time, with 0."""
        self.look()
        going = {name: process for name, process in self.processes.items() if of in name}
        for process in going.values():
            process.terminate()
        end = time.monotonic() + PATIENCE
        for name, process in going.items():
            del self.processes[name]
            try:
                if process.wait(max(0.1, end - time.monotonic())) not in (0, -signal.SIGTERM):
                    self.wrong.append(f"{name} ended with {process.returncode} when it was stopped")
            except subprocess.TimeoutExpired:
                self.wrong.append(f"{name} does not end")
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def close(self) -> None:
        for process in self.processes.values():
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self.processes.clear()
