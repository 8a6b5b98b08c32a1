"""Messages that tell a beginner what the mistake was."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pq import PQ, Queue, TaskNotFound, Worker

PROGRAM = """
from pq import PQ
pq = PQ()
@pq["a"].task
def eat(job_id): pass
"""


@pytest.fixture
def queue(dsn: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(Queue, "handler_registry", {})
    with PQ(dsn) as pq:
        yield pq["a"]


def test_a_name_in_the_place_of_schedule_at(queue: Queue) -> None:
    with pytest.raises(ValueError, match="name='mail'"):
        queue.task("mail")


@pytest.mark.parametrize("transactional", [False, True])
def test_a_result_that_cannot_be_stored(queue: Queue, transactional: bool) -> None:
    queue.task(name="t", transactional=transactional, result=True)(lambda job_id: {1, 2})()
    Worker(queue, burst=True).run()
    (dead,) = queue.dead.list()
    assert dead.error is not None
    assert f"the result of job {dead.id} can't be stored" in dead.error.message


def test_a_task_of_a_script(queue: Queue) -> None:
    with pytest.raises(TaskNotFound, match="ran as a script"):
        queue._find("__main__.not_here")


@pytest.mark.parametrize("options", [{"tabel": "x"}, {"statement_timout": 5}])
def test_a_misspelt_option(dsn: str, options: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match=f"no option '{next(iter(options))}'"):
        PQ(dsn, **options)


class Django:
    __hash__ = None  # type: ignore[assignment]

    def ensure_connection(self) -> None: ...


def test_what_is_no_source(dsn: str) -> None:
    sqlalchemy = pytest.importorskip("sqlalchemy")
    session = pytest.importorskip("sqlalchemy.orm").Session()
    url = sqlalchemy.make_url("postgresql://x")
    for given, hint in ((Django(), "Django project"), (session, "bind"), (url, "as text")):
        with pytest.raises(TypeError, match=rf"a DSN, an Engine of SQLAlchemy or pool= is needed.*{hint}"):
            PQ(given)


@pytest.mark.parametrize("given", ["x", None, 5])
def test_a_worker_on_something_else(given: Any) -> None:
    with pytest.raises(TypeError, match="a worker needs a PQ or one of its queues"):
        Worker(given)


@pytest.mark.parametrize("outcome", [False, True, "not today"])
def test_an_outcome_that_is_none(queue: Queue, outcome: Any) -> None:
    queue.put(1)
    job = queue.get(lease="1m")
    with pytest.raises(TypeError, match=r"must be None .* or an exception"):
        queue.settle([(job, outcome)])  # type: ignore[list-item]
    assert not job.settled  # type: ignore[union-attr]


@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_worker_without_a_table_ends_for_good(empty_dsn: str, tmp_path: Path, processes: str) -> None:
    (tmp_path / "farm.py").write_text(PROGRAM)
    path = os.pathsep.join([str(Path(__file__).parents[2]), str(tmp_path)])
    done = subprocess.run(
        [sys.executable, "-m", "pq", "work", "farm:pq", "-q", "-p", processes],
        env={**os.environ, "PQ_DSN": empty_dsn, "PYTHONPATH": path},
        capture_output=True, text=True, timeout=60, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 2
    assert "call create()" in done.stderr
    assert "Traceback" not in done.stderr
