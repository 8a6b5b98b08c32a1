"""With a DSN that names both servers, consumers follow a synchronous standby that is promoted."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import PATIENCE, Background, wait_until
from torture.server import Server

import pq as package
from pq import Job
from pq.errors import PQError
from pq.tasks import PQ, Queue, Worker, current


@pytest.fixture(scope="module")
def servers(pg_bin: Path) -> Iterator[Server]:
    if not Server.has_standby(pg_bin):
        pytest.skip(f"there is no pg_basebackup in {pg_bin}")
    with Server(binaries=pg_bin) as made:
        yield made


@pytest.fixture
def dsn(servers: Server) -> str:
    """Of a primary with an empty queue table, and its standby."""
    if servers.standby is None:  # the first test, or the one before has promoted it
        servers.add_standby()
    with PQ(servers.dsn) as made:
        made.create()
    servers.execute("truncate queue")
    assert servers.standby is not None
    ports = f"{servers.primary.port},{servers.standby.port}"
    return f"host=127.0.0.1,127.0.0.1 port={ports} user=postgres dbname=postgres target_session_attrs=read-write"


@pytest.fixture
def pq(dsn: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[PQ]:
    monkeypatch.setattr(Queue, "handler_registry", {})
    with PQ(dsn) as made:
        yield made


def persistently(get: object, *args: object, **kwargs: object) -> object:
    """What an application does while there is no server: it calls again."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return get(*args, **kwargs)  # type: ignore[operator]
        except PQError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def test_a_worker_goes_on_with_what_was_put_before_and_after(servers: Server, pq: PQ) -> None:
    began, may_end = threading.Event(), threading.Event()
    done: list[tuple[str, int]] = []

    @pq["tasks"].task(name="task")
    def task(job_id: int, name: str) -> None:
        if name == "running":
            began.set()
            assert may_end.wait(PATIENCE)
        done.append((name, current().attempts))

    worker = Worker(pq)
    running = Background(worker.run)
    try:
        task("running")
        assert began.wait(PATIENCE)
        for number in range(20):
            task(f"before {number}")
        servers.promote()
        persistently(task, "after")
        may_end.set()
        wait_until(lambda: worker.status()["counts"].get("done") == 22, "the jobs")
        assert running.is_alive(), "the worker has ended by itself"
    finally:
        may_end.set()
        worker.stop()
        running.result()
    assert done == [("running", 1), *((f"before {number}", 1) for number in range(20)), ("after", 1)]
    assert servers.execute("select count(*) from queue where dequeued_at is null or due_at is not null") == [(0,)]


def test_a_get_that_waits_gets_what_is_put_afterwards(servers: Server, pq: PQ) -> None:
    queue = pq["a"]
    queue.put("before")
    held = queue.get(lease="5m")
    assert held is not None
    waiting = Background(persistently, queue.get, timeout=PATIENCE)
    line = "select from pg_locks where locktype = 'advisory' and mode = 'ShareLock'"
    wait_until(lambda: servers.execute(line), "a waiter")
    servers.promote()
    persistently(queue.put, "after")
    got = waiting.result()
    assert isinstance(got, Job)
    assert (held.data, got.data) == ("before", "after")
    held.done()  # its lease was there, too
    assert len(queue) == 0


def test_a_worker_process_does_not_end(servers: Server, dsn: str, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(
        f"from pq.tasks import PQ\n"
        f"pq = PQ({dsn!r})\n"
        f"@pq['tasks'].task(name='task')\n"
        f"def task(job_id): pass\n"
    )
    environment = {"PYTHONPATH": f"{tmp_path}:{Path(package.__file__).parents[1]}", "PATH": ""}
    command = [sys.executable, "-m", "pq", "work", "app:pq"]
    with PQ(dsn) as pq, subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as process:
        try:
            tasks = pq["tasks"]
            finished = "select from queue where id = %s and due_at is null and dequeued_at is not null"
            put = {"function": "task", "args": [], "kwargs": {}, "retried": 0, "retry_in": 30, "max_retries": 0}
            first = tasks.put(put)
            wait_until(lambda: servers.execute(finished, [first]), "the first job")
            servers.promote()
            second = persistently(tasks.put, put)
            wait_until(lambda: servers.execute(finished, [second]), "the second job")
            assert process.poll() is None
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE) == 0
        finally:
            process.kill()
