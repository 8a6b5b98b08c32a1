"""`Queue.try_` and ``pq try``: a job's task runs, and nothing is left of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from support import PATIENCE, Background

import pq as package
from pq import PQ, JobNotFound, PQError, Queue, Retry, TaskNotFound
from pq.tasks import current
from pq.worker import TriedWrites, Worker

ROOT = str(Path(package.__file__).parents[1])
Sql = Callable[..., list[tuple[Any, ...]]]


@pytest.fixture
def queue(pq: PQ, sql: Sql) -> Any:
    sql("create table tree (id bigserial primary key, name text unique deferrable initially deferred)")
    sql("insert into tree (name) values ('old')")
    return pq["a"]


def rows(sql: Sql) -> list[tuple[Any, ...]]:
    return [*sql("select * from queue order by id"), *sql("select * from tree order by id")]


def test_what_it_would_write_and_put_is_told_and_rolled_back(pq: PQ, queue: Any, sql: Sql) -> None:
    seen = []

    @queue.task(transactional=True, result=True)
    def plant(job_id: int, name: str) -> dict[str, Any]:
        job = current()
        seen.append((job_id, job.attempts, job.id))
        for each in (name, "pear"):
            job.cursor.execute("insert into tree (name) values (%s)", (each,))
        job.cursor.execute("update tree set name = 'older' where name = 'old'")
        with pq["b"]:  # a savepoint
            pq["b"].put({"kind": "crab"}, key="k", schedule_at="1h")
        pq["c"].put(2)
        job.progress(0.5)
        assert list(job.track([1, 2])) == [1, 2]
        assert job.step("one", lambda: 1) == 1
        job.extend("1h")
        return {"n": 2}

    pq["other"].put("committed")
    id = plant("apple")
    before = rows(sql)
    trial = queue.try_(id)
    assert rows(sql) == before
    assert seen == [(id, 1, id)]
    assert (trial.task, trial.outcome, trial.result) == (plant.name, "done", {"n": 2})
    assert trial.error is trial.delay is None
    assert trial.seconds > 0
    assert {each.table: each for each in trial.writes}["tree"] == TriedWrites("tree", 2, 1, 0)
    assert "queue" not in {each.table for each in trial.writes}  # its jobs are told once
    (crab, two) = trial.puts
    assert (crab.queue, json.loads(crab.text), crab.key, two.queue, two.text) == ("b", {"kind": "crab"}, "k", "c", "2")
    assert crab.due_at is not None and two.due_at is None
    assert Worker(queue).run_once()
    assert sql("select name from tree order by id") == [("older",), ("apple",), ("pear",)]


def test_what_others_put_meanwhile_is_not_told(pq: PQ, queue: Any, dsn: str) -> None:
    with PQ(dsn) as other:

        @queue.task(transactional=True)
        def look(job_id: int) -> None:
            pq["b"].put(1)
            other["b"].put(2)
            with other["b"]:
                other["b"].put(3)
            pq["b"].put(4)

        trial = queue.try_(look())
        assert [put.text for put in trial.puts] == ["1", "4"]
        assert sorted(job.data for job in other["b"].list()) == [2, 3]


@pytest.mark.parametrize("retries", [0, 2])
def test_a_task_that_fails(queue: Any, sql: Sql, retries: int) -> None:
    @queue.task(transactional=True, max_retries=retries, retry_in="7s", name=f"fail {retries}")
    def fail(job_id: int) -> None:
        current().cursor.execute("delete from tree")
        raise ValueError("rotten")

    id = fail()
    before = rows(sql)
    trial = queue.try_(id)
    assert rows(sql) == before
    assert (trial.outcome, trial.delay) == (("retry", timedelta(seconds=7)) if retries else ("dead", None))
    assert (trial.error.type, trial.error.message) == ("ValueError", "rotten")
    assert trial.error.traceback.splitlines()[1].endswith("in fail"), "it begins in the task"
    assert trial.writes == (TriedWrites("tree", 0, 0, 1),)
    assert trial.result is None


@pytest.mark.parametrize(
    ("statement", "kind"),
    [("select 1 / 0", "DivisionByZero"), ("insert into tree (name) values ('old')", "UniqueViolation")],
    ids=["aborts", "deferred"],
)
def test_a_statement_that_fails(queue: Any, sql: Sql, statement: str, kind: str) -> None:
    @queue.task(transactional=True, name=kind)
    def run(job_id: int) -> None:
        current().cursor.execute(statement)

    id = run()
    before = rows(sql)
    trial = queue.try_(id)
    assert (trial.outcome, trial.writes) == ("dead", ())
    assert kind in trial.error.type
    assert rows(sql) == before
    assert queue.put(1)  # the connection is usable


@pytest.mark.parametrize("how", ["exit", "retry", "done", "result"])
def test_other_ends(queue: Any, how: str) -> None:
    @queue.task(transactional=True, result=True, name=how)
    def end(job_id: int) -> Any:
        if how == "exit":
            sys.exit(3)
        if how == "retry":
            raise Retry("5m")
        if how == "done":
            current().done()
        return object() if how == "result" else None

    trial = queue.try_(end())
    assert trial.outcome == {"retry": "retry", "done": "done"}.get(how, "dead")
    assert trial.delay == (timedelta(minutes=5) if how == "retry" else None)
    if how == "result":
        assert "can't be stored" in trial.error.message


def test_a_task_that_is_not_transactional_is_tried_only_by_force(pq: PQ, queue: Any, sql: Sql) -> None:
    calls = []

    @queue.task
    def mail(job_id: int) -> None:
        calls.append(job_id)
        pq["b"].put(1)

    id = mail()
    before = rows(sql)
    with pytest.raises(ValueError, match=r"not transactional.*force=True"):
        queue.try_(id)
    assert calls == []
    trial = queue.try_(id, force=True)
    assert calls == [id]
    assert (trial.outcome, [put.queue for put in trial.puts]) == ("done", ["b"])
    assert rows(sql) == before


def test_a_worker_does_not_wait_for_it_and_it_takes_no_job_away(queue: Any, sql: Sql, dsn: str) -> None:
    begun, go = threading.Event(), threading.Event()
    calls = []

    @queue.task(transactional=True)
    def eat(job_id: int) -> None:
        calls.append(job_id)
        if len(calls) == 1:
            begun.set()
            assert go.wait(PATIENCE)

    id = eat()
    trying = Background(queue.try_, id)
    assert begun.wait(PATIENCE)
    assert Worker(queue).run_once()
    assert queue[id].state == "finished"
    go.set()
    assert trying.result().outcome == "done"
    assert calls == [id, id]


@pytest.mark.parametrize("state", ["scheduled", "running", "dead", "finished"])
def test_the_state_of_the_job_does_not_matter_and_does_not_change(queue: Any, sql: Sql, state: str) -> None:
    @queue.task(transactional=True, name=state)
    def eat(job_id: int) -> int:
        return current().attempts

    id = eat(_schedule_at="1h" if state == "scheduled" else None)
    if state != "scheduled":
        job = queue.get(lease="1m")
        if state == "dead":
            job.fail("no")
        elif state == "finished":
            job.done()
    before = rows(sql)
    assert queue.try_(id).result == 1, "the attempt that runs, or the next one: what has ended would begin anew"
    assert rows(sql) == before


def test_a_job_knows_what_its_steps_and_its_key_have_kept(queue: Any) -> None:
    @queue.task(transactional=True, max_retries=1, retry_in="0s")
    def walk(job_id: int) -> Any:
        job = current()
        job.step("one", lambda: "first")
        job.key_state["n"] = job.key_state.get("n", 0) + 1
        if job.attempts == 1:
            raise Retry("0s", save_state=True)
        return job.step("two", lambda: "second"), job.key_state["n"]

    id = walk(_key="k")
    assert queue.try_(id).outcome == "retry"
    with queue.get(lease="1m") as job:
        job.step("one", lambda: "kept")
        job.key_state["n"] = 5
        job.retry("1h")
    assert queue.try_(id).result[0] == "second"


def test_a_task_that_ends_the_transaction_itself_is_told_so(queue: Any) -> None:
    @queue.task(transactional=True)
    def commit(job_id: int) -> None:
        current().cursor.execute("commit")

    with pytest.raises(PQError, match="ended the transaction itself"):
        queue.try_(commit())
    assert queue.put(1)


@pytest.mark.parametrize("begins", [True, False])
def test_also_if_a_statement_has_failed_after_that(queue: Any, sql: Any, begins: bool) -> None:
    """What a transaction that refuses all statements can't tell, its savepoint does."""
    sql("create table t (x int)")

    @queue.task(transactional=True)
    def commit(job_id: int) -> None:
        for statement in ("insert into t values (1)", "commit", *(["begin"] if begins else []), "selct"):
            current().cursor.execute(statement)

    with pytest.raises(PQError, match="ended the transaction itself"):
        queue.try_(commit())
    assert sql("select x from t") == [(1,)]
    assert queue.put(1)


def test_what_can_not_be_tried(queue: Any) -> None:
    with pytest.raises(JobNotFound):
        queue.try_(99)
    with pytest.raises(TypeError):
        queue.try_("1")
    with pytest.raises(TaskNotFound):
        queue.try_(queue.put({"kind": "crab"}))
    with pytest.raises(TaskNotFound):
        queue.try_(queue.put({"function": "no.such", "args": [], "kwargs": {}}))


# -- the command

APP = """
from pq import PQ
from pq.tasks import current

pq = PQ()
queue = pq["jobs"]

@queue.task(transactional=True, result=True)
def eat(job_id, kind):
    pq["mails"].put({"to": kind})
    return {"ate": kind}

@queue.task
def mail(job_id): print("sent")

@queue.task(transactional=True, name="short")
def named(job_id): raise ValueError("rotten")
"""


@pytest.fixture
def run(tmp_path: Path, dsn: str) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run ``python -m pq`` in a folder with an application in it; the code that it must end with is `code`."""
    (tmp_path / "garden.py").write_text(APP)

    def call(*args: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "pq", *args]
        env = {**os.environ, "PQ_DSN": dsn, "PYTHONPATH": ROOT}
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=PATIENCE)
        assert done.returncode == code, done.stderr
        return done

    return call


def test_the_command(run: Callable[..., Any], pq: PQ, sql: Sql) -> None:
    jobs: Queue = pq["jobs"]
    eat = jobs.put({"function": "garden.eat", "args": ["crab"], "kwargs": {}})
    mail = jobs.put({"function": "garden.mail", "args": [], "kwargs": {}})
    named = jobs.put({"function": "short", "args": [], "kwargs": {}})
    before = sql("select * from queue order by id")
    text = run("try", "jobs", str(eat)).stdout
    assert "done" in text and '{"ate": "crab"}' in text and '{"to": "crab"}' in text and "mails" in text
    document = json.loads(run("try", "jobs", str(eat), "--json").stdout)
    assert document["puts"] == [{"queue": "mails", "data": {"to": "crab"}, "key": None, "due_at": None}]
    assert document["writes"] == [] and "rows that it has written" not in text
    assert (document["outcome"], document["result"]) == ("done", {"ate": "crab"})
    refused = run("try", "jobs", str(mail), code=2).stderr
    assert "--yes tries it nevertheless" in refused and "force" not in refused
    assert "sent" in run("try", "jobs", str(mail), "--yes").stdout
    assert "short" in run("try", "jobs", str(named), code=2).stderr  # no path
    failed = run("try", "jobs", str(named), "--app", "garden:pq", code=1)
    assert "rotten" in failed.stdout and "dead" in failed.stdout
    assert "in queue 'other'" in run("try", "other", str(pq["other"].put({"function": "garden.eat"})), code=2).stderr
    run("try", "jobs", "99", code=1)
    sql("delete from queue where q_name = 'other'")
    assert sql("select * from queue order by id") == before


def test_the_command_never_tries_the_job_of_another_table(
    run: Callable[..., Any], pq: PQ, dsn: str, sql: Sql
) -> None:
    """The task runs with the PQ of its module, where the same id is another job."""
    with PQ(dsn, table="other") as other:
        other.create()
        id = other["jobs"].put({"function": "garden.eat", "args": ["Cox"], "kwargs": {}})
        assert "another table" in run("try", "jobs", str(id), "--table", "other", code=2).stderr
        assert pq["jobs"].put({"function": "garden.eat", "args": ["crab"], "kwargs": {}}) == id
        refused = run("try", "jobs", str(id), "--table", "other", code=2)
        assert "another table" in refused.stderr and refused.stdout == ""
        other.drop(force=True)
