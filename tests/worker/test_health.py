"""The probes of a worker: what is wedged is found, and an outage of the database is not a wedge."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError

import pytest
from support import PATIENCE, Background, wait_until
from support.proxy import Proxy, swallow

import pq as package
from pq import PQError
from pq._loop import Loop
from pq.tasks import PQ
from pq.worker import Worker
from pq.worker import health as _health
from pq.worker.completer import Completer
from pq.worker.endpoint import Endpoint
from pq.worker.fetcher import Fetcher
from pq.worker.health import Health, waits_for_database
from pq.worker.heartbeat import Heartbeat
from pq.worker.stop import Stop

ROOT = str(Path(package.__file__).parents[1])

#: So a beat takes 0.5 s, and three of them 1.5 s.
LEASE = "1500ms"


@contextmanager
def running(worker: Worker, **options: Any) -> Iterator[Health]:
    """The health of a worker that runs inside, and is ready."""
    with Health(worker, **options) as health:
        run = Background(worker.run)
        try:
            wait_until(lambda: health.ready, "the first claim")
            yield health
        finally:
            worker.stop()
            run.result()


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """What waits for it goes on at the end, whatever happens."""
    made = threading.Event()
    yield made
    made.set()


wedge = gate


# -- loops


def test_a_loop_is_behind_while_it_is_not_where_it_should_be() -> None:
    gate, begun = threading.Event(), threading.Event()
    pauses = iter([None, 0.0, 100.0])

    def run_once() -> float | None:
        begun.set()
        assert gate.wait(PATIENCE)
        return next(pauses)

    loop = Loop(run_once, "it")
    assert loop.behind == 0.0
    loop.start()
    assert begun.wait(PATIENCE)
    wait_until(lambda: loop.behind > 0.05)
    gate.set()
    wait_until(lambda: loop.behind == 0.0, "its sleep")
    gate.clear()
    begun.clear()
    loop.wake()
    assert begun.wait(PATIENCE)
    wait_until(lambda: loop.behind > 0.05)
    gate.set()
    wait_until(lambda: loop.behind == 0.0, "its sleep")
    with loop._changed:  # which the thread needs to go on
        loop._wakes, loop._woken_at = 0.0, time.monotonic() - 3.0  # as if it had been woken then
        assert 3.0 <= loop.behind < 60.0
    loop.stop()
    assert loop.behind == 0.0


def test_a_loop_whose_thread_is_gone_is_behind_for_ever() -> None:
    loop = Loop(lambda: None, "it")
    loop._thread = threading.Thread(target=id, args=(1,))
    loop._thread.start()
    loop._thread.join()
    assert loop.behind == float("inf")


# -- live, and ready


def test_a_worker_that_works(pq: PQ, gate: threading.Event) -> None:
    queue = pq["a"]

    @queue.task
    def eat(job_id: int) -> None:
        gate.wait(PATIENCE)

    worker = Worker(queue, lease=LEASE)
    health = Health(worker)
    assert (health.problems(), health.ready) == ([], False)
    with running(worker) as health:
        eat()
        wait_until(lambda: worker.status()["running"], "the job")
        until = time.monotonic() + 2
        while time.monotonic() < until:  # longer than a part may stand still
            assert health.problems() == []
            time.sleep(0.02)
        status = health.status()
        assert (status["live"], status["ready"], status["problems"]) == (True, True, [])
        assert status["running"][0]["task"] == eat.name
        gate.set()
    assert (health.problems(), health.ready) == ([], False)


@pytest.mark.parametrize("part", ["heartbeat", "settlement", "run()"])
def test_a_part_that_stands_still_is_found_within_three_beats(
    pq: PQ, monkeypatch: pytest.MonkeyPatch, wedge: threading.Event, part: str
) -> None:
    where: tuple[type, str] = {
        "heartbeat": (Heartbeat, "run_once"),
        "settlement": (Completer, "run_once"),
        "run()": (Stop, "take_status_request"),
    }[part]
    original = getattr(*where)
    wedged = threading.Event()

    def stand_still(self: Any) -> Any:
        if wedged.is_set() and not wedge.is_set():
            wedge.wait(PATIENCE)
        return original(self)

    monkeypatch.setattr(*where, stand_still)
    queue = pq["a"]

    @queue.task
    def eat(job_id: int) -> None:
        wait_until(lambda: wedge.is_set() if part == "heartbeat" else True, "the end")

    worker = Worker(queue, lease=LEASE)
    with running(worker) as health:
        assert health.problems() == []
        wedged.set()
        began = time.monotonic()
        eat()
        (problem,) = wait_until(health.problems, "the problem")
        assert part in problem
        assert 1.0 < time.monotonic() - began < 1.5 + 2.5  # the job has to come, and the loop to be called
        assert health.ready
        wedge.set()
        wait_until(lambda: health.problems() == [], "the end of the problem")


def test_a_hook_that_hangs_is_found(pq: PQ, wedge: threading.Event) -> None:
    queue = pq["a"]

    @queue.task
    def eat(job_id: int) -> None:
        pass

    worker = Worker(queue, lease=LEASE)
    worker.on("done", lambda event: wedge.wait(PATIENCE))
    with running(worker) as health:
        eat()
        (problem,) = wait_until(health.problems, "the problem")
        assert "settlement" in problem
        wedge.set()


def test_an_outage_of_the_database_is_no_reason_to_restart(dsn: str, gate: threading.Event) -> None:
    """The server falls silent while the heartbeat waits for it, longer than a part may stand still; then it goes."""
    proxy = Proxy(dsn)
    network = ExitStack()
    network.enter_context(proxy)
    with network, PQ(proxy.dsn, timeout=0.05, statement_timeout=4.0) as through:
        queue = through["a"]

        @queue.task
        def eat(job_id: int) -> None:
            gate.wait(PATIENCE)

        worker = Worker(queue, lease=LEASE)
        with running(worker) as health:
            eat()
            wait_until(lambda: worker.status()["running"], "the job")
            assert proxy.on("pq_extended", swallow).wait(PATIENCE)
            loop = worker._services.heartbeat.loop
            wait_until(lambda: loop.behind > 2.0, "a heartbeat that waits for longer than three beats")
            assert health.problems() == []
            network.close()
            wait_until(lambda: not health.ready, "the end of the connections")
            until = time.monotonic() + 2.0
            while time.monotonic() < until:
                assert health.problems() == []
                time.sleep(0.02)
            assert not health.ready
            gate.set()


def test_settlement_that_waits_for_a_thread_that_waits_for_the_database(
    dsn: str, pq: PQ, connect: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With ``batch=1`` the threads settle themselves, one at a time."""
    monkeypatch.setattr("pq.worker.completer.LOCK_TIMEOUT", 10.0)
    queue = pq["a"]

    @queue.task
    def eat(job_id: int) -> None:
        locker = connect()
        locker.cursor().execute("select from queue for update")
        lockers.append(locker)

    lockers: list[Any] = []
    worker = Worker(queue, lease="1h", batch=1)
    with running(worker) as health:
        monkeypatch.setattr(health, "_limit", 0.2)
        eat()
        wait_until(lambda: lockers, "the lock")
        loop = worker._services.completer.loop
        wait_until(lambda: loop.wake() or loop.behind > 0.5, "the completer's thread")
        assert not waits_for_database(loop.ident)
        assert health.problems() == []
        lockers[0].rollback()
        wait_until(lambda: not worker.status()["unsettled"], "the settlement")


def test_code_that_waits_for_the_database_is_known(pq: PQ) -> None:
    assert not waits_for_database(0)
    assert not waits_for_database(threading.get_ident())
    waiting = Background(pq._db.execute, "select pg_sleep(1)")
    thread = wait_until(lambda: next((each for each in threading.enumerate() if waits_for_database(each.ident)), None))
    assert thread is not threading.current_thread()
    assert waits_for_database() and waits_for_database(inside=Background.__module__)
    assert not waits_for_database(inside=__name__)
    waiting.result()


# -- jobs that nobody takes


@pytest.fixture
def starving(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker whose claims find nothing; what takes 10 seconds takes one."""
    monkeypatch.setattr(_health, "STARVED", 0.0)
    monkeypatch.setattr(_health, "BEAT", 0.05)

    def claim(self: Any, *args: Any, **options: Any) -> None:
        self._backoff.over()

    monkeypatch.setattr(Fetcher, "_claim", claim)


def test_jobs_that_wait_while_threads_are_idle(pq: PQ, starving: None) -> None:
    queue = pq["a"]
    worker = Worker(queue, lease="100ms")
    with running(worker) as health:
        for _ in range(3):
            health.run_once()
        assert health.problems() == []
        queue.put(1)
        (problem,) = wait_until(health.problems, "the problem")
        assert "jobs wait" in problem
        worker._held.busy_at = time.monotonic()  # one was taken
        assert health.problems() == []
        (problem,) = wait_until(health.problems, "the problem")
        queue.clear()
        wait_until(lambda: health.problems() == [], "the end of the problem")


@pytest.mark.parametrize("why", ["", "paused", "limited", "scheduled", "key", "locked", "another queue"])
def test_jobs_that_wait_for_another_reason(
    pq: PQ,
    starving: None,
    why: str,
    sql: Callable[..., Any],
    connect: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without any, it is found."""
    monkeypatch.setattr(_health, "waits_for_database", lambda *args, **options: False)
    queue = pq["a"]
    worker = Worker(queue, lease="100ms")
    if why == "paused":
        queue.pause()
    elif why == "limited":
        pq.limits["a"] = package.Limit(running=1)
    (pq["b"] if why == "another queue" else queue).put(
        1, "1h" if why == "scheduled" else None, key="k" if why == "key" else None
    )
    sql("update queue set enqueued_at = enqueued_at - interval '1 minute'")
    if why == "locked":
        connect().cursor().execute("select from queue for update")
    with running(worker) as health:
        worker._held.busy_at -= 60.0
        for _ in range(4):
            health.run_once()
            assert health._seen[0] == worker._held.busy_at  # it has looked
        assert bool(health.problems()) is (why == "")


def test_jobs_that_wait_since_no_connection_is_free(
    pq: PQ, starving: None, sql: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    pq["a"].put(1)
    sql("update queue set enqueued_at = enqueued_at - interval '1 minute'")
    with running(Worker(pq["a"], lease="100ms")) as health:
        health._worker._held.busy_at -= 60.0
        monkeypatch.setattr(_health, "waits_for_database", lambda *args, **options: True)
        for _ in range(4):
            health.run_once()
            assert health.problems() == []


def test_a_look_at_the_queues_that_fails_is_no_problem(
    pq: PQ, starving: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    pq["a"].put(1)
    with running(Worker(pq["a"], lease="100ms")) as health:
        wait_until(health.problems, "the problem")
        monkeypatch.setattr(health._worker._services.completer.table, "execute", lambda *args, **options: 1 / 0)
        health.run_once()
        assert health.problems() == []


# -- the file, and systemd


def test_the_file_is_touched_while_the_worker_is_live(
    pq: PQ, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "alive"
    problems: list[str] = []
    health = Health(Worker(pq["a"], lease=LEASE), file)
    monkeypatch.setattr(health, "problems", lambda: problems)
    assert health.run_once() == 0.5
    os.utime(file, (1, 1))
    problems.append("it hangs")
    health.run_once()
    assert file.stat().st_mtime == 1
    problems.clear()
    health.run_once()
    assert file.stat().st_mtime > 1
    assert Health(Worker(pq["a"], lease="1h")).run_once() == 10.0


def test_a_file_that_can_not_be_touched_is_told_once(
    pq: PQ, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    health = Health(Worker(pq["a"]), tmp_path / "nowhere" / "alive")
    for _ in range(2):
        health.run_once()
    assert caplog.text.count("can't be touched") == 1


@pytest.mark.parametrize("abstract", [False, True])
def test_systemd_is_told(
    pq: PQ, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, abstract: bool
) -> None:
    path = str(tmp_path_factory.mktemp("s") / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(f"\0{path}" if abstract else path)
        sock.settimeout(PATIENCE)
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{path}" if abstract else path)
        with running(Worker(pq["a"], lease=LEASE)):
            said = [sock.recv(100)]
            while said[-1] != b"READY=1":
                said.append(sock.recv(100))
            assert set(said[:-1]) == {b"WATCHDOG=1"}
            assert sock.recv(100) == b"WATCHDOG=1"


# -- by HTTP


def get(port: int, path: str, method: str = "GET") -> tuple[int, str]:
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", method=method)
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return answer.status, answer.read().decode()
    except HTTPError as error:
        return error.code, error.read().decode()


def test_the_endpoint(pq: PQ, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    worker = Worker(pq["a"], lease=LEASE)
    with running(worker) as health, Endpoint(health, "127.0.0.1", 0) as endpoint:
        port = endpoint.port
        assert get(port, "/live") == (200, "live\n")
        assert get(port, "/ready?x=1") == (200, "ready\n")
        assert get(port, "/live", "HEAD") == (200, "")
        assert get(port, "/")[0] == 404
        assert get(port, "/live", "POST")[0] == 501
        code, text = get(port, "/status")
        assert code == 200 and json.loads(text)["queues"] == ["a"] and json.loads(text)["live"] is True
        monkeypatch.setitem(sys.modules, "prometheus_client", None)
        assert get(port, "/metrics")[0] == 404
        monkeypatch.setattr(health, "problems", lambda: ["it hangs", "and more"])
        assert get(port, "/live") == (503, "it hangs\nand more\n")
        monkeypatch.setattr(health, "problems", lambda: 1 / 0)
        assert get(port, "/live")[0] == 500
        worker.stop()
        assert get(port, "/ready") == (503, "not ready\n")
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""
    with pytest.raises(URLError):
        get(port, "/live")


def test_metrics(pq: PQ) -> None:
    pytest.importorskip("prometheus_client")
    with Endpoint(Health(Worker(pq["a"])), "127.0.0.1", 0) as endpoint:
        code, text = get(endpoint.port, "/metrics")
        assert code == 200 and "python_info" in text


def test_a_client_that_says_nothing_keeps_nobody_waiting(pq: PQ) -> None:
    health = Health(Worker(pq["a"]))
    with Endpoint(health, "127.0.0.1", 0) as endpoint, socket.create_connection(("127.0.0.1", endpoint.port)):
        assert get(endpoint.port, "/live")[0] == 200


def test_a_port_that_is_taken(pq: PQ) -> None:
    health = Health(Worker(pq["a"]))
    with Endpoint(health, "127.0.0.1", 0) as endpoint, pytest.raises(PQError, match=f"the port {endpoint.port}"):
        Endpoint(health, "127.0.0.1", endpoint.port)


# -- the command

APP = """
from pq.tasks import PQ

pq = PQ()

@pq["jobs"].task
def eat(job_id): pass
"""


def free_ports(count: int) -> int:
    """The first of so many free ports in a row."""
    while True:
        with socket.socket() as first:
            first.bind(("127.0.0.1", 0))
            port: int = first.getsockname()[1]
        with suppress(OSError):
            for number in range(port, port + count):
                with socket.socket() as each:
                    each.bind(("127.0.0.1", number))
            return port


@pytest.mark.parametrize("processes", [1, 2])
def test_the_command(dsn: str, tmp_path: Path, processes: int) -> None:
    (tmp_path / "garden.py").write_text(APP)
    port = free_ports(processes)
    command = [sys.executable, "-m", "pq", "work", "garden:pq", "--health", f"127.0.0.1:{port}"]
    command += ["--health-file", str(tmp_path / "alive"), "-p", str(processes)]
    environment = {**os.environ, "PQ_DSN": dsn, "PYTHONPATH": ROOT}
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE) as process:
        try:
            for number in range(processes):

                def ready(port: int = port + number) -> bool:
                    with suppress(OSError):
                        return get(port, "/ready")[0] == 200
                    return False

                wait_until(ready, "the worker")
                assert get(port + number, "/live")[0] == 200
                wait_until((tmp_path / (f"alive.{number}" if processes > 1 else "alive")).exists, "the file")
        finally:
            process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0


@pytest.mark.parametrize("given", ["", "x", "0", "65536", "host:", "1.5"])
def test_a_port_that_is_none(given: str, capsys: pytest.CaptureFixture[str]) -> None:
    from pq._cli.main import main

    with pytest.raises(SystemExit) as raised:
        main(["work", "garden:pq", "--health", given])
    assert raised.value.code == 2
    assert "a port from 1 to 65535" in capsys.readouterr().err
