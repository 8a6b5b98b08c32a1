"""A web server that loads the program and then forks: each worker has connections of its own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support import wait_until

import pq as package
from pq import PQ

pytest.importorskip("gunicorn")

ROOT = Path(package.__file__).parents[1]

PROGRAM = """
import os
from pq import PQ

pq = PQ()
queue = pq["requests"]
queue.put("before the fork")  # a connection is open


def app(environ, start_response):
    queue.put({"pid": os.getpid(), "path": environ["PATH_INFO"]})
    job = queue.get(timeout=0, lease="1m")
    job.done()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(os.getpid()).encode()]
"""


@pytest.mark.parametrize("kind", ["sync", "gthread"])
def test_a_program_that_is_loaded_before_the_fork(pq: PQ, dsn: str, tmp_path: Path, kind: str) -> None:
    (tmp_path / "shop.py").write_text(PROGRAM)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["-m", "gunicorn", "shop:app", "--preload", "-w", "2", "-k", kind, "-b", f"127.0.0.1:{port}"]
    server = subprocess.Popen(
        [sys.executable, *command, "--threads", "4", "--no-control-socket"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(tmp_path)]), "PQ_DSN": dsn},
        stderr=subprocess.PIPE,
        text=True,
    )

    def ask(path: str) -> int:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}", timeout=30) as answer:
            return int(answer.read())

    def answers() -> bool:
        assert server.poll() is None, server.stderr and server.stderr.read()
        try:
            return ask("first") > 0
        except OSError:
            return False

    try:
        wait_until(answers, "an answer", 60)
        with ThreadPoolExecutor(8) as threads:
            pids = set(threads.map(ask, map(str, range(200))))
    finally:
        server.terminate()
        server.communicate(timeout=30)
    assert len(pids) == 2, "both workers have answered"
    assert len(pq["requests"]) == 1, "each request has put a job and done one"
    assert pq["requests"].counts()["finished"] >= 201
