"""Parts of the tests that are run by themselves: ``-m fast`` and ``-m every_python``."""

from __future__ import annotations

from functools import cache
from pathlib import Path

TESTS = Path(__file__).parents[1]

#: In less than a minute, what most changes would break.
FAST = [
    "test_bad_input.py",
    "test_codec.py",
    "test_retry.py",
    "test_when.py",
    "sql",
    "queue/test_queue.py",
    "queue/test_dead.py",
    "jobs/test_failure.py",
    "project/test_layers.py",
    "project/test_public.py",
    "project/test_subclasses.py",
]

#: What depends on the Python: threads, forks, signals, the end of the interpreter, drivers. CI runs it on each one.
EVERY_PYTHON = [
    "worker/test_events.py",
    "worker/test_fences.py",
    "worker/test_settlement.py",
    "worker/test_stop.py",
    "worker/test_supervisor.py",
    "worker/test_worker.py",
    "wait/test_waiting.py",
    "wait/test_aside.py",
    "tasks/test_tasks.py",
    "tasks/test_found.py",
    "jobs/test_leases.py",
    "streams/test_stream_waiting.py",
    "schedules/test_schedule_rules.py",
    "db/test_exit.py",
    "db/test_fork.py",
    "db/test_psycopg3.py",
    "cli/test_parser.py",
    "db/test_transactions.py",
    "project/test_subclasses.py",
]

#: What runs for a minute or longer; a process has all tests of a file.
LONG = [
    "torture",
    "contrib/test_mq_beside.py",
    "db/test_interrupted.py",
    "django/test_django_app.py",
    "keys/test_mutants.py",
    "wait/test_waiting.py",
]

MARKERS = {
    "fast": "a minute's choice of the tests, see tests/support/subsets.py",
    "every_python": "what CI runs on every Python that it finds, see tests/support/subsets.py",
}


@cache  # a path is compared with thirty others, and thousands of tests are in two hundred files
def marks(path: Path) -> list[str]:
    """The marks of all tests of a file."""
    chosen = {"fast": FAST, "every_python": EVERY_PYTHON}
    return [mark for mark, parts in chosen.items() if any(path.is_relative_to(TESTS / part) for part in parts)]


@cache
def is_long(path: Path) -> bool:
    return any(path.is_relative_to(TESTS / part) for part in LONG)
