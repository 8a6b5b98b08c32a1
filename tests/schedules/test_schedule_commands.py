"""``pq schedules``."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import PATIENCE, wait_until

import pq as package
from pq import PQ, Schedule, Unique
from pq._cli.main import main

ROOT = Path(package.__file__).parents[1]


@pytest.fixture
def call(dsn: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    monkeypatch.setenv("PQ_DSN", dsn)

    def run(*arguments: str, code: int = 0) -> str:
        assert main(["schedules", *arguments]) == code
        captured = capsys.readouterr()
        return captured.err if code else captured.out

    return run


def test_list(pq: PQ, call: Callable[..., str]) -> None:
    unique = Unique("t", until="done")
    pq.schedules["a"] = Schedule("q", {"a": 1}, cron="0 3 * * *", zone="Europe/Berlin", jitter="1m", unique=unique)
    pq.schedules["b\x1b[2J"] = Schedule("q", 2, every="1h")
    pq.schedules["a"].pause()
    lines = [re.split(" {2,}", line) for line in call("list").splitlines()]
    assert lines[0][:6] == ["name", "queue", "rule", "zone", "paused", "declared"]
    assert lines[0][6:] == ["next at", "last at", "last job", "error"]
    assert lines[1][:6] == ["a", "q", "cron 0 3 * * *", "Europe/Berlin", "yes", "-"]
    assert lines[1][6].endswith(":00Z") and lines[1][7:] == ["-", "-", "-"]
    assert lines[2][:5] == ["b\\x1b[2J", "q", "every 1h", "-", "no"]
    first, second = json.loads(call("list", "--json"))
    assert first.pop("next_at").endswith("00.000000Z")
    assert first == {
        "name": "a", "queue": "q", "rule": "cron 0 3 * * *", "zone": "Europe/Berlin", "paused": True, "declared": None,
        "last_at": None, "last_job": None, "error": None, "missed": "once", "key": None, "jitter": 60.0,
        "unique": {"token": "t", "until": "done"}, "data": {"a": 1},
    }  # fmt: skip
    assert (second["unique"], second["jitter"], second["data"]) == (None, None, 2)


def test_what_can_be_done_with_one(pq: PQ, call: Callable[..., str]) -> None:
    pq.schedules["x"] = Schedule("q", 1, every="1h", unique="t")
    assert call("pause", "x") == "schedule 'x' paused\n"
    assert pq.schedules["x"].paused
    assert call("resume", "x") == "schedule 'x' resumed\n"
    assert not pq.schedules["x"].paused
    id = int(call("fire", "x"))
    assert [job.id for job in pq["q"].list()] == [id]
    assert call("fire", "x") == "nothing was put: a job with its token waits already\n"
    assert call("remove", "x") == "schedule 'x' removed\n"
    assert list(pq.schedules) == []
    for action in ("pause", "resume", "fire", "remove"):
        assert call(action, "x", code=1) == "pq: There is no schedule 'x'.\n"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_run(pq: PQ, dsn: str, number: int, code: int) -> None:
    pq.schedules["x"] = Schedule("q", 1, every="100ms")
    process = subprocess.Popen(
        [sys.executable, "-m", "pq", "schedules", "run"],
        env={**os.environ, "PQ_DSN": dsn, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
    )
    try:
        wait_until(lambda: len(pq["q"]) >= 3, "jobs")
        process.send_signal(number)
        _, errors = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
        process.wait()
    assert (process.returncode, errors) == (code, b"")


def test_run_without_a_table(empty_dsn: str, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setenv("PQ_DSN", empty_dsn)
    before = signal.getsignal(signal.SIGTERM)
    try:
        assert main(["schedules", "run"]) == 1
    finally:
        signal.signal(signal.SIGTERM, before)
    assert "call create()" in capsys.readouterr().err
