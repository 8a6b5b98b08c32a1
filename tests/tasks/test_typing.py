"""What type checkers make of tasks: they see wrong calls, and know what `call` returns."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from support import PATIENCE

import pq as package

ROOT = Path(package.__file__).parents[1]

#: The lines that end in "# E" are errors, the others are not.
PROGRAM = """
from datetime import timedelta
from typing import Any, Optional

from pq import NewJob
from pq.tasks import PQ, Task, current

pq = PQ("dbname=nowhere")
queue = pq["a"]

@queue.task(max_retries=2, retry_in="10s")
def eat(job_id: int, kind: str, *, times: int = 1) -> list[str]:
    return [kind] * times

@queue.task
def plain(job_id: Optional[int]) -> None:
    current().progress(1)

@queue.task()
def untyped(job_id, kind): ...

id: int = eat("Cox")
id = eat("Cox", times=2)
id = eat(kind="Cox")
eat()  # E
eat(5)  # E
eat("Cox", 2)  # E
eat("Cox", time=2)  # E
eat("Cox", times="two")  # E
id = eat("Cox", _schedule_at="1h")
id = eat("Cox", times=2, _expected_at=timedelta(hours=1), _conn=None)
id = eat("Cox", _conn=object())
eat("Cox", _schedule_at=[5])  # E
id = plain()
plain(1)  # E
id = untyped("Cox")
kinds: list[str] = eat.call("Cox")
number: int = eat.call("Cox")  # E
eat.call()  # E
job: NewJob = eat.new_job("Cox")
eat.new_job(5)  # E
job = eat.new_job("Cox", _schedule_at="1h")
ids: list[int] = eat.put_many([("Cox",), {"kind": "Gala"}, job], conn=None)
count: int = eat.load([("Cox",)])
name: str = eat.name
task: Task[[], None] = plain

@queue.task  # E
def none() -> None: ...

@queue.task()  # E
def text(job_id: str) -> None: ...

@queue.task("1h", max_retries="2")  # E
def options(job_id: int) -> None: ...
"""


def errors(output: str) -> set[int]:
    return {int(number) for number in re.findall(r"program\.py:(\d+):(?:\d+)? (?:- )?error", output)}


@pytest.mark.parametrize("checker", ["mypy", "pyright"])
def test_wrong_calls_are_errors_and_right_ones_are_not(checker: str, tmp_path: Path) -> None:
    pytest.importorskip(checker)
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    options = {
        "mypy": [
            "--strict",
            "--no-incremental",
            "--allow-untyped-defs",
            "--allow-untyped-calls",
            "--disable-error-code=untyped-decorator",
        ],
        "pyright": ["--pythonpath", sys.executable],
    }
    command = [sys.executable, "-m", checker, *options[checker], str(program)]
    if checker == "mypy":
        (tmp_path / "pq").symlink_to(ROOT / "pq")
    done = subprocess.run(
        command, cwd=tmp_path if checker == "mypy" else ROOT, capture_output=True, text=True, timeout=10 * PATIENCE
    )
    if "could not" in done.stderr.lower() and not done.stdout:
        pytest.skip(f"{checker} can't run here: {done.stderr.strip()}")
    expected = {number for number, line in enumerate(PROGRAM.splitlines(), 1) if line.endswith("# E")}
    assert errors(done.stdout) == expected, done.stdout + done.stderr
