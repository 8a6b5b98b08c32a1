"""The soak finds what grows, what is lost, and what the server complains of; and a short one finds nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from soak import logs
from soak.samples import MB, Sample, grown, growth

ROOT = Path(__file__).parents[2]


def soak(code: int, *args: str) -> dict[str, Any]:
    """The figures of a run."""
    command = [sys.executable, "-m", "tests.soak", "--json", "--rate", "60", *args]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return json.loads(done.stdout)


def test_a_short_one():
    for minutes in ("0.3", "1", "2"):  # on a busy machine the processes take longer to begin
        figures = soak(0, "--minutes", minutes)
        kinds = {"asked", "blocks", "items", "leases", "keyed", "limited", "later", "order", "unique", "then"}
        if kinds <= figures["waited"].keys() and figures["events"] and figures["fired"] and figures["read"]:
            return
    pytest.fail(f"nothing much was done: {figures}")


def test_what_is_lost_and_what_grows_is_found():
    for minutes in ("0.3", "1"):
        found = soak(1, "--minutes", minutes, "--seeded", "ledger,memory")["wrong"]
        assert found.keys() <= {"jobs", "grown", "django"}
        if {"jobs", "grown"} <= found.keys():
            assert all(each.startswith(("memory of ", "blocks of ")) for each in found["grown"])
            return
    pytest.fail(f"not all was found: {found}")


def sample(at: float, **sizes: Any) -> Sample:
    empty: dict[str, Any] = {name: {} for name in ("memory", "blocks", "threads", "files", "relations", "dead_rows")}
    return Sample(at=at, sessions=3, server=sizes.pop("server", 0), **{**empty, **sizes})


def hour(size: Any) -> list[Sample]:
    """Samples of an hour, of a function of the minutes."""
    return [sample(60.0 * minute, **size(minute)) for minute in range(60)]


@pytest.mark.parametrize(
    "size, wrong",
    [
        (lambda m: {"memory": {"x": 50 * MB}}, []),
        (lambda m: {"memory": {"x": 50 * MB + min(m, 10) * MB}}, []),  # until it is warm
        (lambda m: {"memory": {"x": 50 * MB + m * MB // 20}}, ["memory of x"]),
        (lambda m: {"blocks": {"x": 200_000 + m % 7 * 1000}}, []),
        (lambda m: {"blocks": {"x": 200_000 + m * 100}}, ["blocks of x"]),
        (lambda m: {"relations": {"queue": (20 + m % 5) * MB}}, []),
        (lambda m: {"relations": {"queue": (20 + m // 4) * MB}}, ["relations of queue"]),
        (lambda m: {"relations": {"ledger_pkey": (20 + m) * MB}}, []),  # the soak's own
        (lambda m: {"threads": {"x": 5 + m % 2}}, []),
        (lambda m: {"threads": {"x": 5 + m // 10}}, ["threads of x"]),
        (lambda m: {"files": {"x": 5 + m // 10}}, ["files of x"]),
        (lambda m: {"server": (300 + m) * MB}, ["memory of the server's sessions"]),
    ],
)
def test_growth(size: Any, wrong: list[str]) -> None:
    assert [each.split(":")[0] for each in grown(hour(size))[1]] == wrong


def test_the_growth_of_an_hour() -> None:
    found = growth(hour(lambda m: {"server": 1000 + 10 * m}), lambda each: each.server)
    assert found is not None
    assert (round(found.hourly), found.usual) == (600, 1395)


LOG = """\
2026-11-28 14:32:26 UTC [1] worker pq FATAL:  the database system is starting up
2026-11-28 14:32:27 UTC [1] worker pq ERROR:  canceling statement due to lock timeout
2026-11-28 14:32:27 UTC [1] worker pq STATEMENT:  set local lock_timeout = '100ms';
\tlock table "queue_slot0_events" in access exclusive mode
2026-11-28 14:32:28 UTC [1] worker pq ERROR:  canceling statement due to lock timeout
2026-11-28 14:32:28 UTC [1] worker pq STATEMENT:  alter table queue
2026-11-28 14:32:28 UTC [1] worker pq ERROR:  deadlock detected
2026-11-28 14:32:28 UTC [1] worker pq DETAIL:  Process 1 waits
2026-11-28 14:32:28 UTC [1] worker pq STATEMENT:  select 1
2026-11-28 14:32:29 UTC [1] worker pq WARNING:  there is no transaction in progress
2026-11-28 14:32:30 UTC [1]   LOG:  checkpoint starting: time
"""


def test_the_log_of_the_server(tmp_path: Path) -> None:
    (tmp_path / "log").write_text(LOG)
    wrong, others = logs.of_server(tmp_path / "log")
    assert len(wrong) == 2
    assert "alter table" in wrong[0]
    assert "deadlock" in wrong[1] and "select 1" in wrong[1] and "checkpoint" not in wrong[1]
    assert others == Counter([*logs.EXPECTED, "there is no transaction in progress"])


def test_what_processes_say(tmp_path: Path) -> None:
    planned = {"task": "poison", "event": "dead"}
    lines = [json.dumps(planned), json.dumps({**planned, "task": "record"}), "Serving on http://x", "", "Traceback:"]
    (tmp_path / "worker.err").write_text("\n".join(lines))
    assert [each.split()[-1] for each in logs.of_processes(tmp_path)] == ['"dead"}', "Traceback:"]
