"""How a worker finds the function of a job: names, imports, the main module, and tasks that are not there yet."""

from __future__ import annotations

import importlib
import json
import logging
import os
import subprocess
import sys
import textwrap
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support import PATIENCE

import pq as package
from pq.errors import TaskNotFound
from pq.tasks import PQ, Queue, Worker

Sql = Callable[..., list[tuple[Any, ...]]]
ROOT = str(Path(package.__file__).parents[1])


@pytest.fixture
def pq(dsn: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[PQ]:
    monkeypatch.setattr(Queue, "handler_registry", {})
    with PQ(dsn, timeout=0.01) as made:
        yield made


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder that modules are imported from; what was imported is forgotten at the end."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    yield tmp_path
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) and str(tmp_path) in str(sys.modules[name].__file__):
            del sys.modules[name]


def write(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(textwrap.dedent(text))


def row(function: str, **more: Any) -> dict[str, Any]:
    return {"function": function, "args": [], "kwargs": {}, "retried": 0, "retry_in": None, "max_retries": 0, **more}


# -- two functions of one path


def test_two_functions_that_a_factory_made_are_warned_of(pq: PQ) -> None:
    def make(factor: int, **options: Any) -> Any:
        @pq["q"].task(**options)
        def scale(job_id: int) -> int:
            return factor

        return scale

    for options in ({}, {"name": "scale"}):
        make(2, **options)
        with pytest.warns(UserWarning, match="two functions are the task .*scale"):
            make(3, **options)


def test_lambdas_of_one_path_are_warned_of(pq: PQ) -> None:
    pq["q"].task()(lambda job_id: 1)
    with pytest.warns(UserWarning, match="two functions are the task .*<lambda>"):
        pq["q"].task()(lambda job_id: 2)


TWICE = """
    from pq.tasks import PQ
    pq = PQ("dbname=nowhere")
    @pq["a"].task()
    def process(job_id): pass
    {between}
    @pq["b"].task
    def process(job_id): return "another one"
"""


@pytest.mark.parametrize("between", ["", "first = process"])
def test_a_function_that_is_defined_twice_in_a_module_is_warned_of(pq: PQ, folder: Path, between: str) -> None:
    write(folder / "orchard_twice.py", TWICE.format(between=between))
    with pytest.warns(UserWarning, match="two functions are the task 'orchard_twice.process'"):
        importlib.import_module("orchard_twice")


def test_a_module_of_the_same_name_in_another_file_is_warned_of(pq: PQ, folder: Path) -> None:
    once = "from pq.tasks import PQ\n@PQ('dbname=nowhere')['a'].task()\ndef process(job_id): pass\n"
    write(folder / "orchard_one.py", once)
    importlib.import_module("orchard_one")
    del sys.modules["orchard_one"]
    (folder / "orchard_one.py").unlink()
    write(folder / "other" / "orchard_one.py", once)
    sys.path.insert(0, str(folder / "other"))
    importlib.invalidate_caches()
    try:
        with pytest.warns(UserWarning, match="two functions are the task"):
            importlib.import_module("orchard_one")
    finally:
        sys.path.remove(str(folder / "other"))


RELOADED = """
    import functools
    from pq.tasks import PQ
    pq = PQ("dbname=nowhere")
    queue = pq["a"]

    def logged(function):
        @functools.wraps(function)
        def call(*args): return function(*args)
        return call

    @queue.task
    def plain(job_id): return {word!r}

    @queue.task(name="named")
    @logged
    def named(job_id): return {word!r}

    class Inner:
        @queue.task()
        @staticmethod
        def method(job_id): return {word!r}

    if True:
        def made():
            @queue.task()
            def local(job_id): return {word!r}
            return local
        local = made()
"""


def test_a_reload_takes_the_place_of_what_was_there_without_a_word(pq: PQ, folder: Path) -> None:
    write(folder / "orchard_again.py", RELOADED.format(word="old"))
    module = importlib.import_module("orchard_again")
    stat = os.stat(folder / "orchard_again.py")
    write(folder / "orchard_again.py", "    # a line more\n" + RELOADED.format(word="new"))
    os.utime(folder / "orchard_again.py", (stat.st_atime, stat.st_mtime + 10))  # bytecode goes by the time
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        importlib.reload(module)
        del sys.modules["orchard_again"]
        importlib.import_module("orchard_again")  # as a reloader does that forgets the module
    found = {name: task._handler(None) for name, task in Queue.handler_registry.items()}
    assert found == dict.fromkeys(found, "new")
    assert len(found) == 4


# -- the main module

PROGRAM = """
    import sys
    from pq.tasks import PQ

    pq = PQ()

    @pq["q"].task
    def eat(job_id, kind):
        print("ate", kind, __name__, flush=True)

    if __name__ == "__main__":
        eat("Cox")
        eat("Cox")
        if "work" in sys.argv:
            pq["q"].timeout = 0.05
            pq["q"].work(burst=True)
"""


def python(folder: Path, dsn: str, *args: str, **options: Any) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PQ_DSN": dsn, "PYTHONPATH": ROOT, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, *args], cwd=folder, env=env, capture_output=True, text=True, timeout=PATIENCE, **options
    )
    assert done.returncode == options.pop("code", 0), done.stderr
    return done


def names(sql: Sql) -> list[str]:
    return [name for (name,) in sql("select distinct data->>'function' from queue")]


@pytest.mark.parametrize("command", [["chores.py"], ["-m", "chores"]], ids=["script", "module"])
def test_another_process_finds_the_tasks_of_a_program(tmp_path: Path, dsn: str, sql: Sql, command: list[str]) -> None:
    write(tmp_path / "chores.py", PROGRAM)
    done = python(tmp_path, dsn, "-W", "error", *command)
    assert done.stderr == ""
    assert names(sql) == ["chores.eat"]
    worked = python(tmp_path, dsn, "-m", "pq", "work", "chores:pq", "--burst", "-q")
    assert worked.stdout.splitlines() == ["ate Cox chores"] * 2


def test_a_program_finds_its_own_tasks_and_those_that_an_older_pq_has_put(tmp_path: Path, dsn: str, sql: Sql) -> None:
    write(tmp_path / "chores.py", PROGRAM)
    sql(
        "insert into queue (q_name, data) values ('q', %s)",
        ('{"function": "__main__.eat", "args": ["old"], "kwargs": {}}',),
    )
    done = python(tmp_path, dsn, "-W", "error", "chores.py", "work")
    assert sorted(done.stdout.splitlines()) == ["ate Cox __main__", "ate Cox __main__", "ate old __main__"]


def test_the_main_module_of_a_package_is_found(tmp_path: Path, dsn: str, sql: Sql) -> None:
    write(tmp_path / "garden" / "__init__.py", "")
    write(tmp_path / "garden" / "__main__.py", PROGRAM)
    python(tmp_path, dsn, "-W", "error", "-m", "garden")
    assert names(sql) == ["garden.__main__.eat"]
    worked = python(tmp_path, dsn, "-m", "pq", "work", "garden.__main__:pq", "--burst")
    assert worked.stdout.splitlines() == ["ate Cox garden.__main__"] * 2


@pytest.mark.parametrize("how", ["stdin", "odd name", "inside of a package", "-c", "shadowed"])
def test_a_program_that_cannot_be_imported_is_told_what_to_do(tmp_path: Path, dsn: str, sql: Sql, how: str) -> None:
    program = textwrap.dedent(PROGRAM)
    if how == "stdin":
        done = python(tmp_path, dsn, "-", input=program)
    elif how == "-c":
        done = python(tmp_path, dsn, "-c", program)
    else:
        path = {"odd name": "some-chores.py", "inside of a package": "garden/chores.py", "shadowed": "sys.py"}[how]
        write(tmp_path / path, PROGRAM)
        if how == "inside of a package":
            write(tmp_path / "garden" / "__init__.py", "")
        done = python(tmp_path, dsn, path)
    assert names(sql) == ["__main__.eat"]
    assert done.stderr.count("UserWarning") == 1
    assert "task `__main__.eat`" in done.stderr
    assert "move it into a module, or give it a name=" in done.stderr


# -- what may be imported


def test_a_worker_of_the_command_imports_only_from_the_package_of_the_app(tmp_path: Path, dsn: str, sql: Sql) -> None:
    write(tmp_path / "garden" / "__init__.py", "")
    write(tmp_path / "garden" / "app.py", "from pq.tasks import PQ\npq = PQ()\nqueue = pq['q']\n")
    tasks = "from garden.app import queue\n@queue.task()\ndef eat(job_id): print('ate', __name__, flush=True)\n"
    write(tmp_path / "garden" / "late.py", tasks)
    write(tmp_path / "shed" / "__init__.py", "print('imported shed', flush=True)")
    write(tmp_path / "shed" / "tools.py", tasks)
    write(tmp_path / "script.py", "print('imported script', flush=True)")
    for function in ("garden.late.eat", "script.eat", "shed.tools.eat", "antigravity.fly", "this.s"):
        sql("insert into queue (q_name, data) values ('q', %s)", (json.dumps(row(function)),))
    command = ["-m", "pq", "work", "garden.app:pq", "-Q", "q", "--burst"]
    done = python(tmp_path, dsn, *command)
    assert done.stdout.splitlines() == ["ate garden.late"]
    assert "this worker imports only modules of garden, and not script; see --allow" in done.stderr
    assert sql("select count(*) from queue where due_at > now()") == [(4,)]  # these wait
    sql("update queue set due_at = now() where due_at is not null")
    done = python(tmp_path, dsn, *command, "--allow", "garden", "--allow", "shed.tools")
    assert done.stdout.splitlines() == ["imported shed", "ate shed.tools"]
    assert sql("select count(*) from queue where due_at > now()") == [(3,)]


def test_what_is_imported_already_is_found_wherever_it_is(pq: PQ, folder: Path) -> None:
    write(folder / "orchard_loose.py", "from pq.tasks import PQ\n@PQ('dbname=x')['a'].task\ndef eat(job_id): pass\n")
    importlib.import_module("orchard_loose")
    Queue.handler_registry.clear()
    queue = pq["a"]
    queue._packages = ["nothing"]
    assert queue._call(row("orchard_loose.eat")).name == "orchard_loose.eat"
    for missing in ("orchard_loose.drink", "orchard_other.eat", "x" * 100_000, "a\0b", "a..b", ".", "é.é", "os.system"):
        with pytest.raises(TaskNotFound):
            queue._call(row(missing))


@pytest.mark.parametrize("text", ["1 / 0", "import nowhere_at_all", "raise SystemExit(3)", "def broken(:"])
def test_a_module_whose_import_fails_is_a_task_that_is_missing(pq: PQ, folder: Path, text: str) -> None:
    write(folder / "orchard_broken.py", text)
    with pytest.raises(TaskNotFound, match=r"`orchard_broken\.eat` cannot be imported: its import failed") as caught:
        pq["a"]._call(row("orchard_broken.eat"))
    assert caught.value.task == "orchard_broken.eat"
    assert caught.value.__cause__ is not None


def test_an_attribute_that_raises_is_a_task_that_is_missing(pq: PQ, folder: Path) -> None:
    text = "def __getattr__(name): raise (AttributeError if name[:2] == '__' else RuntimeError)(name)"
    write(folder / "orchard_odd.py", text)
    with pytest.raises(TaskNotFound, match="not found"):
        pq["a"]._call(row("orchard_odd.eat"))


# -- a task that is not there yet


@pytest.mark.parametrize("policy", [{}, {"max_retries": 2, "retry_in": "0s"}, {"max_retries": 1, "retry_in": "1h"}])
def test_an_unknown_task_waits_for_a_deployment(pq: PQ, sql: Sql, policy: dict[str, Any]) -> None:
    queue = pq["a"]
    id = queue.put(row("not_yet", **policy))
    pause = "extract(epoch from due_at - now())"
    for _ in range(5):
        Worker(queue, burst=True).run()
        ((seconds, attempts),) = sql(f"select {pause}, attempts from queue where dequeued_at is null")
        assert attempts == 0
        assert seconds > (3590 if policy.get("retry_in") == "1h" else 29)
        sql("update queue set due_at = now()")
    error = queue[id].error
    assert error is not None and error.type == "pq.errors.TaskNotFound"
    done: list[int] = []
    queue.task(name="not_yet")(done.append)
    Worker(queue, burst=True).run()
    assert done == [id]


def test_after_an_hour_the_policy_counts_but_not_its_pause(pq: PQ, sql: Sql) -> None:
    queue = pq["a"]
    none, some = queue.put(row("gone")), queue.put(row("gone", max_retries=1, retry_in="0s"))
    Worker(queue, burst=True).run()
    assert len(queue.dead) == 0
    sql("update queue set due_at = now(), failed_at = failed_at - interval '1 hour'")
    Worker(queue, burst=True).run()
    assert [job.id for job in queue.dead] == [none]
    later = "due_at > now() + interval '29 seconds'"
    assert sql(f"select attempts, {later} from queue where id = %s", (some,)) == [(1, True)]
    sql("update queue set due_at = now() where due_at is not null")
    Worker(queue, burst=True).run()
    assert [job.id for job in queue.dead] == [none, some]


def test_the_clock_of_the_worker_does_not_count(pq: PQ, sql: Sql, monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    queue = pq["a"]
    queue.put(row("not_yet"))
    Worker(queue, burst=True).run()
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 100_000)
    sql("update queue set due_at = now()")
    Worker(queue, burst=True).run()
    assert sql("select attempts from queue where due_at > now()") == [(0,)]


def test_what_is_no_call_of_a_task_does_not_wait(pq: PQ) -> None:
    queue = pq["a"]
    ids = [queue.put(data) for data in (5, {}, {"function": 5}, {"function": "x"}, {"function": "x", "args": []})]
    Worker(queue, burst=True).run()
    assert [job.id for job in queue.dead] == ids


def test_work_does_as_1_9_1(pq: PQ, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)
    queue = pq["a"]
    ids = [queue.put(row("gone")), queue.put(row("gone", max_retries=3))]
    queue.work(burst=True)
    assert [job.id for job in queue.dead] == ids
    id = queue.put(row("gone"))
    Worker(queue, burst=True).run()
    assert queue[id].state == "scheduled"  # a worker that is made later waits for a deployment again
