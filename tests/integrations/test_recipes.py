"""The programs of examples/, killed at each word that they say to the server, and then run again to their end."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from psycopg2.extensions import make_dsn, parse_dsn
from support import wait_until
from support.proxy import Proxy

import pq as package
from pq import PQ

pytest.importorskip("sqlalchemy", minversion="2")

EXAMPLES = Path(package.__file__).parents[1] / "examples"
DRIVERS = [name for name in ("psycopg2", "psycopg") if find_spec(name)]

Sql = Callable[..., list[tuple[Any, ...]]]


def url(dsn: str, driver: str) -> str:
    parts = parse_dsn(dsn)
    options = "&".join(f"{name}={parts[name]}" for name in ("sslmode", "gssencmode") if name in parts)
    return f"postgresql+{driver}://{parts['user']}@{parts['host']}:{parts['port']}/{parts['dbname']}?{options}"


class Program:
    """An example that is run in processes of its own."""

    def __init__(self, name: str, driver: str) -> None:
        self._driver = driver
        self._runner = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("runner.py")), str(EXAMPLES / f"{name}.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(EXAMPLES.parent)},
            text=True,
        )
        assert self._answer() == "ready"

    def start(self, dsn: str, *arguments: str) -> int:
        """Returns the process's id."""
        assert self._runner.stdin is not None
        self._runner.stdin.write(" ".join([url(dsn, self._driver), *arguments]) + "\n")
        self._runner.stdin.flush()
        return int(self._answer())

    def end(self) -> int:
        """Its exit status, or minus the signal that has killed it."""
        return int(self._answer())

    def run(self, dsn: str, *arguments: str) -> None:
        self.start(dsn, *arguments)
        assert self.end() == 0

    def _answer(self) -> str:
        assert self._runner.stdout is not None
        return self._runner.stdout.readline().strip()

    def close(self) -> None:
        assert self._runner.stdin is not None and self._runner.stdout is not None
        self._runner.stdin.close()
        self._runner.wait()
        self._runner.stdout.close()


class Killer(Proxy):
    """Kills the program when the server has answered its n-th message, which is before the next one."""

    def __init__(self, dsn: str, number: int) -> None:
        self._left = number
        self._victim: int | None = None
        self._known = threading.Event()
        super().__init__(dsn)

    def kill(self, victim: int) -> None:
        self._victim = victim
        self._known.set()

    def message(self, client: socket.socket, server: socket.socket, message: bytes) -> bool:
        self._left -= 1
        if self._left != 0:
            return super().message(client, server, message)
        server.sendall(message)
        server.recv(1)
        self._known.wait()
        assert self._victim is not None
        os.kill(self._victim, signal.SIGKILL)
        return False


def killed_at(program: Program, dsn: str, number: int, *arguments: str) -> bool:
    """Whether it was; else it has ended by itself before."""
    with Killer(dsn, number) as proxy:
        proxy.kill(program.start(proxy.dsn, *arguments))
        status = program.end()
    assert status in (0, -signal.SIGKILL)
    return status != 0


@pytest.fixture(params=DRIVERS)
def start(request: pytest.FixtureRequest) -> Iterator[Callable[[str], Program]]:
    started = []

    def make(name: str) -> Program:
        started.append(Program(name, request.param))
        return started[-1]

    yield make
    for program in started:
        program.close()


def nobody_else(sql: Sql) -> None:
    """Wait until the server knows that the program is gone."""
    others = """
        select from pg_stat_activity
        where datname = current_database() and pid <> pg_backend_pid() and application_name = 'program'
    """
    wait_until(lambda: not sql(others), "the end of its sessions")


def test_the_outbox_has_order_and_job_or_neither(dsn: str, sql: Sql, start: Callable[[str], Program]) -> None:
    sql("create table orders (id serial primary key, customer text not null)")
    named = make_dsn(dsn, application_name="program")
    program = start("outbox")
    outcomes = []
    for number in count(1):
        was_killed = killed_at(program, named, number, f"customer{number}")
        nobody_else(sql)
        orders = sql("select id from orders where customer = %s", (f"customer{number}",))
        ids = [id for (id,) in orders]
        mails = sql("select (data->>'order')::int from queue where (data->>'order')::int = any(%s)", (ids,))
        assert orders == mails
        ((all_orders, all_mails),) = sql("select (select count(*) from orders), (select count(*) from queue)")
        assert all_orders == all_mails
        outcomes.append(bool(orders))
        if not was_killed:
            break
        program.run(named, f"customer{number}")  # again: who called it does not know
    assert outcomes[-1]
    assert outcomes[0] is False
    assert outcomes == sorted(outcomes), "what was committed before its end is there"
    assert number > 5
    assert any(outcomes[:-1]), "between the commit and the end"


def test_the_consumer_has_each_effect_once(dsn: str, sql: Sql, pq: PQ, start: Callable[[str], Program]) -> None:
    sql("create table booking (id serial primary key, payment text not null)")
    named = make_dsn(dsn, application_name="program")
    program = start("consumer")
    booked = []
    for number in count(1):
        payment = f"payment {number}"
        pq["payments"].put({"payment": payment})
        was_killed = killed_at(program, named, number)
        nobody_else(sql)
        booked.append(len(sql("select from booking where payment = %s", (payment,))))
        sql("update queue set due_at = now() where due_at is not null")  # the lease is over
        program.run(named)
        assert len(sql("select from booking where payment = %s", (payment,))) == 1
        assert "payments" not in pq
        if not was_killed:
            break
    assert set(booked) == {0, 1}
    assert booked == sorted(booked)
    ((bookings, different),) = sql("select count(*), count(distinct payment) from booking")
    assert bookings == different == number


def test_a_consumer_that_was_too_slow_has_no_effect(
    dsn: str, sql: Sql, pq: PQ, start: Callable[[str], Program]
) -> None:
    sql("create table booking (id serial primary key, payment text not null)")
    program = start("consumer")
    pq["payments"].put({"payment": "slow"})
    lost: list[Any] = []

    class Slow(Proxy):
        def message(self, client: socket.socket, server: socket.socket, message: bytes) -> bool:
            if b"set finished_at = statement_timestamp()" in message and not lost:
                sql("update queue set due_at = now() where due_at is not null")
                lost.append(pq["payments"].get(lease="5m"))
            return super().message(client, server, message)

    with Slow(dsn) as proxy:
        program.run(proxy.dsn)
    assert sql("select from booking") == []
    assert lost[0].attempts == 2
    lost[0].done()
