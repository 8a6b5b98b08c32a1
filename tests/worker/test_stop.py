"""A worker always stops, whatever the server does."""

from __future__ import annotations

import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import PATIENCE, Background, wait_until
from support.frozen import frozen
from support.tasks import Gate, fill

from pq.embedded import Embedded
from pq.tasks import PQ, Worker
from pq.worker.signals import StopSignals
from pq.worker.stop import HURRY_TIMEOUT, Stop

pytestmark = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc")


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A server's. With a short name, since the server's socket is in it."""
    made = Path(tempfile.mkdtemp(prefix="pq-"))
    with Embedded(made):
        yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.mark.parametrize(("handler", "signals"), [("ends", 1), ("ends", 2), ("hangs", 1), ("waits", 1)])
def test_it_stops_in_time_though_the_server_is_frozen(folder: Path, handler: str, signals: int) -> None:
    gate = Gate()
    with Embedded(folder) as server, PQ(server.dsn, table=f"{handler}_{signals}") as pq:
        pq.create()
        pq["a"].task(name=f"{handler} {signals}", transactional=handler == "hangs")(gate)
        if handler != "waits":
            fill(pq["a"], 2, f"{handler} {signals}")
        worker = Worker(pq, ["a"], threads=2, shutdown_timeout="1s")
        thread = Background(worker.run)
        if handler != "waits":
            wait_until(lambda: len(gate.came) == 2, "the start")
        with frozen(folder):
            if handler == "ends":
                gate.open()
            began = time.monotonic()
            ask = StopSignals(worker._stop)
            for _ in range(signals):
                ask(signal.SIGTERM)
            thread.result(PATIENCE)
            took = time.monotonic() - began
        gate.open()
        assert took < {1: 1 + 5, 2: HURRY_TIMEOUT + 1}[signals]
        wait_until(lambda: not any(each.name.startswith("pq ") for each in threading.enumerate()), "the threads", 60)


def test_what_a_stop_may_take() -> None:
    stop = Stop("name")
    signals = StopSignals(stop)
    until = time.monotonic() + 60
    assert 59 < stop.left(until) <= 60
    signals(signal.SIGTERM)
    assert stop.left(until) > 59
    signals(signal.SIGTERM)
    assert HURRY_TIMEOUT - 1 < stop.left(until) <= HURRY_TIMEOUT
    signals(signal.SIGTERM)
    assert stop.left(until) == 0
