"""The commands for the tasks of an application: work and call."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support import PATIENCE, wait_until

import pq as package

ROOT = str(Path(package.__file__).parents[1])
Sql = Callable[..., list[tuple[Any, ...]]]

APP = """
import subprocess, sys
from pq.tasks import PQ

pq = PQ()
queue = pq["jobs"]
text = "no task"

@queue.task
def eat(job_id, kind, times=1):
    print("ate", kind, times, flush=True)

@queue.task
def fail(job_id):
    raise ValueError("rotten\\n2026-01-01 00:00:00,000 INFO 1 forged")

@queue.task
def look(job_id):
    code = "import os; print(sorted(n for n in os.environ if n.startswith('PQ_S')), len(os.listdir('/proc/self/fd')))"
    print(subprocess.run([sys.executable, "-S", "-c", code], stdout=subprocess.PIPE, text=True).stdout, flush=True)
"""

ENGINE = """
from sqlalchemy import create_engine
from pq.tasks import PQ
queue = PQ(create_engine("postgresql+{driver}://x@127.0.0.1:1/nowhere"))["jobs"]

@queue.task
def eat(job_id): pass
"""


@pytest.fixture
def run(tmp_path: Path, dsn: str) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run ``python -m pq`` in a folder with an application in it; the code that it must end with is `code`."""
    (tmp_path / "garden.py").write_text(APP)

    def call(*args: str, code: int = 0, **options: Any) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "pq", *args]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment(dsn), capture_output=True, text=True, timeout=PATIENCE, **options
        )
        assert done.returncode == code, done.stderr
        assert "Traceback (most recent call last)" not in done.stderr or args[0] == "work"
        return done

    return call


def environment(dsn: str) -> dict[str, str]:
    return {**os.environ, "PQ_DSN": dsn, "PYTHONPATH": ROOT}


Run = Callable[..., subprocess.CompletedProcess[str]]


# -- call


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (['["Cox"]'], ["Cox", 1]),
        (['["Cox", 2]'], ["Cox", 2]),
        (['{"kind": "Cox", "times": 3}'], ["Cox", 3]),
        (["-"], ["from stdin", 1]),
    ],
)
def test_call_puts_the_job_of_a_call(run: Run, sql: Sql, arguments: list[str], expected: list[Any]) -> None:
    done = run("call", "garden.eat", *arguments, input='["from stdin"]')
    assert sql("select id, q_name, data->>'function' from queue") == [(int(done.stdout), "jobs", "garden.eat")]
    worked = run("work", "garden:queue", "--burst", "-q")
    assert worked.stdout.split() == ["ate", *map(str, " ".join(map(str, expected)).split())]
    assert worked.stderr == ""


def test_call_keeps_the_digits_of_numbers(run: Run, sql: Sql) -> None:
    run("call", "garden.eat", "[12345678901234567.89, 1.10]")
    run("call", "garden.eat", '{"kind": 12345678901234567.89}')
    assert [text for (text,) in sql("select (data->'args')::text from queue order by id")][0] == (
        "[12345678901234567.89, 1.10]"
    )
    assert [text for (text,) in sql("select (data->'kwargs')::text from queue order by id")][1] == (
        '{"kind": 12345678901234567.89}'
    )


def test_call_takes_times(run: Run, sql: Sql) -> None:
    run("call", "garden.eat", '["Cox"]', "--at", "1h", "--expected", "2h")
    seconds = "extract(epoch from {} - enqueued_at)::int"
    assert sql(f"select {seconds.format('schedule_at')}, {seconds.format('expected_at')} from queue") == [(3600, 7200)]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["garden.eat"], "task garden.eat: missing a required argument: 'kind'"),
        (["garden.eat", '["Cox", 1, 2]'], "too many positional arguments"),
        (["garden.eat", '{"sort": 1}'], "missing a required argument|unexpected keyword argument"),
        (["garden.eat", "Cox"], "the arguments must be JSON"),
        (["garden.eat", '"Cox"'], "the arguments must be a JSON array or object"),
        (["garden.drink"], "task garden.drink not found: garden has nothing of that name"),
        (["garden.text"], "garden.text is not a task, but a str"),
        (["garden:eat"], r"task garden:eat: its path has dots alone, as in garden\.eat"),
        (["nowhere.eat"], "task nowhere.eat not found: there is no such module"),
    ],
)
def test_a_call_that_cannot_be_is_wrong_usage(run: Run, sql: Sql, arguments: list[str], text: str) -> None:
    done = run("call", *arguments, code=2)
    assert re.search(text, done.stderr), done.stderr
    assert done.stderr.count("\n") == 1
    assert sql("select count(*) from queue") == [(0,)]


@pytest.mark.parametrize("driver", ["psycopg2", "psycopg"])
@pytest.mark.parametrize("command", [["work", "{}:queue"], ["call", "{}.eat"]], ids=["work", "call"])
def test_an_engine_without_a_server_is_one_line(run: Run, tmp_path: Path, driver: str, command: list[str]) -> None:
    pytest.importorskip("sqlalchemy")
    pytest.importorskip(driver)
    (tmp_path / "farm.py").write_text(ENGINE.format(driver=driver))
    done = run(*[each.format("farm") for each in command], code=3)
    assert done.stderr.startswith("pq: no connection: ")
    assert done.stderr.count("\n") == 1


# -- the log of work


@pytest.mark.parametrize(
    ("options", "info", "debug", "warning"),
    [
        ([], True, False, True),
        (["-q"], False, False, True),
        (["--quiet"], False, False, True),
        (["-v"], True, True, True),
        (["--log-level", "debug"], True, True, True),
        (["--log-level", "error"], False, False, True),
    ],
    ids=str,
)
def test_how_much_is_logged(run: Run, options: list[str], info: bool, debug: bool, warning: bool) -> None:
    run("call", "garden.eat", '["Cox"]')
    run("call", "garden.fail")
    done = run("work", "garden:queue", "--burst", *options)
    assert ("garden.eat, attempt 1: done after" in done.stderr) is info
    assert ("garden.eat, attempt 1: start" in done.stderr) is debug
    assert ("garden.fail, attempt 1: failed after" in done.stderr) is warning
    assert not any(line.startswith("2026-01-01") for line in done.stderr.splitlines())
    assert done.stderr.count("garden.eat") == info + debug


def test_no_field_is_repeated_in_lines_of_json(run: Run) -> None:
    for task, arguments in (("eat", '["Cox"]'), ("fail", "[]")):
        run("call", f"garden.{task}", arguments)
    done = run("work", "garden:queue", "--burst", "--log-json", "-v")
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    told = [line for line in lines if "job_id" in line]
    assert sorted((line["message"], line["task"]) for line in told) == [
        ("dead", "garden.fail"),
        ("done", "garden.eat"),
        ("start", "garden.eat"),
        ("start", "garden.fail"),
    ]
    assert all(line["event"] == line["message"] for line in told)
    assert [("rotten" in line["traceback"]) for line in told if "traceback" in line] == [True]
    assert all("thread" not in line for line in told)


# -- several processes


@pytest.fixture
def supervised(run: Run, tmp_path: Path, dsn: str) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    output = tmp_path / "output"
    with open(output, "w") as file:
        command = [
            sys.executable,
            "-m",
            "pq",
            "work",
            "garden:queue",
            "-p",
            "2",
            "--shutdown-timeout",
            "0",
            "--log-json",
        ]
        process = subprocess.Popen(command, cwd=tmp_path, env=environment(dsn), stdout=file, stderr=file)
    yield process, output
    if process.poll() is None:
        process.terminate()
    assert process.wait(PATIENCE) == 0


def test_what_tasks_start_inherits_nothing_of_the_supervisor(run: Run, supervised: Any) -> None:
    _, output = supervised
    run("call", "garden.look")
    found = wait_until(
        lambda: [line for line in output.read_text().splitlines() if line.startswith("[]")], "the answer"
    )
    assert found == ["[] 4"]  # 0 to 2, and the folder that is listed


def test_each_process_prints_its_status(supervised: Any) -> None:
    process, output = supervised

    def statuses() -> list[Any]:
        lines = [json.loads(line) for line in output.read_text().splitlines() if '"counts"' in line]
        return [line["pid"] for line in lines]

    wait_until(lambda: output.read_text().count("working on") == 2, "both processes")
    process.send_signal(signal.SIGUSR1)
    wait_until(lambda: len(set(statuses())) == 2, "both answers")


def test_a_status_early_in_the_start_ends_no_process(run: Run, tmp_path: Path, dsn: str, sql: Sql) -> None:
    (tmp_path / "slow.py").write_text("import time\ntime.sleep(1)\nfrom garden import queue\n")
    command = [sys.executable, "-m", "pq", "work", "slow:queue", "-p", "2", "--max-jobs", "1"]
    process = subprocess.Popen(command, cwd=tmp_path, env=environment(dsn), stderr=subprocess.PIPE, text=True)
    try:
        sessions = "select count(*) from pg_stat_activity where datname = current_database()"
        wait_until(lambda: os.listdir(f"/proc/{process.pid}/task") and children(process.pid), "the processes")
        for _ in range(3):
            process.send_signal(signal.SIGUSR1)
        wait_until(lambda: sql(sessions)[0][0] > 2, "both workers")
        for _ in range(2):
            run("call", "garden.eat", '["Cox"]')
        _, errors = process.communicate(timeout=PATIENCE)
    finally:
        if process.poll() is None:
            process.terminate()
            process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    assert "another one starts" not in errors


def children(pid: int) -> list[str]:
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return file.read().split()


@pytest.mark.parametrize("code", ["import sys; sys.exit(0)", "import asyncio; raise asyncio.CancelledError"])
@pytest.mark.parametrize("command", [["work", "leaves:pq"], ["call", "leaves.eat"]], ids=["work", "call"])
def test_a_module_that_exits_when_it_is_imported_is_wrong_usage(
    run: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path, command: list[str], code: str
) -> None:
    (tmp_path / "leaves.py").write_text(code)
    done = run(*command, code=2)
    assert len(done.stderr.splitlines()) == 1 and "import" in done.stderr
