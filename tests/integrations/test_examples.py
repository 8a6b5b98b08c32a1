"""The programs of examples/ that bring their own PostgreSQL; test_recipes.py runs those that use SQLAlchemy."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import pq as package

ROOT = Path(package.__file__).parents[1]
EXAMPLES = ROOT / "examples"

#: Seconds that an example may take: only one that hangs takes so long.
PATIENCE = 120

Run = Callable[..., str]


@pytest.fixture
def run() -> Iterator[Run]:
    """Run a Python command in a folder that any user may enter: where the tests run as root, the server does not."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        os.chmod(folder, 0o755)

        def run_python(*arguments: str) -> str:
            done = subprocess.run(
                [sys.executable, *arguments],
                cwd=folder,
                env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(EXAMPLES)]), "PRESS_DATA": "data"},
                capture_output=True,
                encoding="utf-8",
                timeout=PATIENCE,
            )
            assert done.returncode == 0, done.stderr
            return done.stdout

        yield run_python


def test_each_order_is_invoiced_once_though_the_program_fails_halfway(run: Run) -> None:
    assert run(str(EXAMPLES / "orders.py"), "data").splitlines() == [
        "the power fails: 2 orders left, 1 mail to send",
        "3 invoices for 3 customers, 3 mails to send",
    ]


def test_the_press_retries_gives_up_and_bottles_each_kind_once(run: Run) -> None:
    assert run(str(EXAMPLES / "press.py")).splitlines() == [
        "bottled: Cox, Fuji, Gala",
        "dead: ['stone'], not a fruit",
    ]


def test_the_worker_command_finds_the_tasks_of_the_example(run: Run) -> None:
    run("-c", "import press; press.press('Cox')")
    run("-m", "pq", "work", "press:pq", "--burst")
    # the task that presses has put the one that bottles: it failed, since there is no table yet, and is kept
    assert run("-c", "import press; print(len(press.queue), len(press.queue.dead))") == "0 1\n"


def test_the_readme_names_all_examples() -> None:
    text = (EXAMPLES / "README.rst").read_text("utf-8")
    assert [path.name for path in sorted(EXAMPLES.glob("*.py")) if f"``{path.name}``" not in text] == []
