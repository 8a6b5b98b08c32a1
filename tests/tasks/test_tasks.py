"""Tasks in their 1.9.1 form: decorate, call, work, retry."""

from __future__ import annotations

import datetime as dt
import functools
import logging
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

import pq.tasks
from pq.tasks import PQ, Queue

Sql = Callable[..., list[tuple[Any, ...]]]
HOUR = dt.timedelta(hours=1)

#: What the tasks of this module were called with.
calls: list[Any] = []


@pytest.fixture
def queue(dsn: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Queue]:
    calls.clear()
    monkeypatch.setattr(Queue, "handler_registry", {})
    with PQ(dsn, timeout=0.01) as pq:
        made = pq["default"]
        assert isinstance(made, Queue)
        yield made


@pytest.fixture
def module() -> Iterator[types.ModuleType]:
    """A module that a worker can import."""
    made = types.ModuleType("orchard")
    sys.modules["orchard"] = made
    yield made
    del sys.modules["orchard"]


def call_of(function: str, **more: Any) -> dict[str, Any]:
    """The data of a job, as 1.9.1 or anybody else may put it."""
    return {"function": function, "args": [], "kwargs": {}, "retried": 0, "retry_in": None, "max_retries": 0, **more}


def record(job_id: int, *args: Any, **kwargs: Any) -> None:
    calls.append((job_id, args, kwargs))


# -- putting


def test_a_call_puts_a_job_and_does_nothing_else(queue: Queue, sql: Sql) -> None:
    task = queue.task(max_retries=2, retry_in="10s")(record)
    id = task(1, "zwei", x=None)
    assert calls == []
    expected = {
        "function": f"{__name__}.record",
        "args": [1, "zwei"],
        "kwargs": {"x": None},
        "retried": 0,
        "retry_in": "10s",
        "max_retries": 2,
    }
    assert sql("select id, data from queue") == [(id, expected)]


def test_a_decorated_function_keeps_its_name_and_docstring(queue: Queue) -> None:
    @queue.task()
    def documented(job_id: int) -> None:
        """What it does."""

    assert documented.__name__ == "documented"
    assert documented.__doc__ == "What it does."


@pytest.mark.parametrize(
    ("decorated", "called", "expected"),
    [
        ({}, {}, (None, None)),
        ({"schedule_at": "1h", "expected_at": "2h"}, {}, (HOUR, 2 * HOUR)),
        ({"schedule_at": "1h", "expected_at": "2h"}, {"_schedule_at": "3h"}, (3 * HOUR, 2 * HOUR)),
        ({"schedule_at": "1h", "expected_at": "2h"}, {"_expected_at": -HOUR}, (HOUR, -HOUR)),
        ({"schedule_at": "1h"}, {"_schedule_at": dt.timedelta()}, (dt.timedelta(), None)),
        ({}, {"_schedule_at": HOUR, "_expected_at": "1h"}, (HOUR, HOUR)),
    ],
)
def test_times_of_decorator_and_call(queue: Queue, sql: Sql, decorated: Any, called: Any, expected: Any) -> None:
    queue.task(**decorated)(record)(**called)
    assert sql("select schedule_at - enqueued_at, expected_at - enqueued_at, data->'kwargs' from queue") == [
        (*expected, {})
    ]


@pytest.mark.parametrize(
    ("retry_in", "stored"),
    [
        ("1h30m", "1h30m"),
        (None, None),
        (dt.timedelta(minutes=2), "120s"),
        (dt.timedelta(milliseconds=1), "1s"),
        (dt.timedelta(), "0s"),
    ],
    ids=str,
)
def test_retry_in_is_stored_as_1_9_1_reads_it(queue: Queue, sql: Sql, retry_in: Any, stored: Any) -> None:
    queue.task(retry_in=retry_in)(record)()
    assert sql("select data->'retry_in' from queue") == [(stored,)]


def test_by_default_there_is_no_retry_and_half_a_minute_between(queue: Queue, sql: Sql) -> None:
    queue.task()(record)()
    assert sql("select data->'max_retries', data->'retry_in' from queue") == [(0, "30s")]


def test_tasks_work_on_pickle_queues(queue: Queue, dsn: str) -> None:
    with PQ(dsn, timeout=0.01, pickle_key=b"key") as pq:
        pickles = pq["default/pickle"]
        assert isinstance(pickles, Queue)
        id = pickles.task(retry_in=HOUR)(record)({1, 2}, at=HOUR)
        pickles.work(burst=True)
    assert calls == [(id, ({1, 2},), {"at": HOUR})]


# -- performing


def test_work_performs_jobs_in_order(queue: Queue) -> None:
    task = queue.task()(record)
    last, first = task("last", x=1), task("first", _expected_at="1h")
    queue.work(burst=True)
    assert calls == [(first, ("first",), {}), (last, ("last",), {"x": 1})]
    assert len(queue) == 0


def test_perform_tells_whether_the_task_succeeded(queue: Queue) -> None:
    @queue.task()
    def maybe(job_id: int, error: bool) -> bool:
        if error:
            raise ZeroDivisionError
        return False  # what it returns is not looked at

    for error in (True, False):
        maybe(error)
        job = queue.get()
        assert job is not None
        assert queue.perform(job) is not error


def test_a_task_can_put_jobs_and_open_a_transaction(queue: Queue) -> None:
    again = queue.task()(record)

    @queue.task()
    def first(job_id: int) -> None:
        with queue:
            again("second")

    first()
    queue.work(burst=True)
    assert [args for _, args, _ in calls] == [("second",)]


@pytest.mark.parametrize("transactional", [False, True])
@pytest.mark.parametrize("instrumented", [False, True])
def test_the_traceback_of_a_failure_begins_in_the_task(queue: Queue, transactional: bool, instrumented: bool) -> None:
    class Around:
        @contextmanager
        def around(self, job: Any, task: str) -> Iterator[None]:
            yield

    @queue.task(transactional=transactional)
    def spoil(job_id: int) -> None:
        raise ValueError("rotten")

    if instrumented:
        queue._table.instruments.add(Around())
    spoil()
    queue.work(burst=True)
    (job,) = queue.dead
    head, first, *_ = job.error.traceback.splitlines()
    assert head.startswith("Traceback")
    assert first.endswith("in spoil"), job.error.traceback


class Stop(BaseException):
    """Like a KeyboardInterrupt: no error of the task's."""


@pytest.mark.parametrize("what", [Stop, SystemExit, KeyboardInterrupt, GeneratorExit])
def test_what_is_no_exception_is_a_failure_and_the_worker_goes_on(queue: Queue, what: type[BaseException]) -> None:
    @queue.task()
    def stop(job_id: int) -> None:
        raise what

    id = stop()
    after = queue.task()(record)()
    queue.work(burst=True)
    assert calls == [(after, (), {})]
    assert [job.id for job in queue.dead] == [id]


@pytest.mark.parametrize("what", [Stop, SystemExit, KeyboardInterrupt, GeneratorExit])
def test_perform_gives_a_leased_job_back_on_what_is_no_exception(queue: Queue, what: type[BaseException]) -> None:
    @queue.task()
    def stop(job_id: int) -> None:
        raise what

    id = stop()
    job = queue.get(lease="1h")
    assert job is not None
    with pytest.raises(what):
        queue.perform(job)
    again = queue.get(block=False, lease="1h")
    assert again is not None and (again.id, again.attempts) == (id, 1)  # type: ignore[union-attr]


# -- failing


@pytest.mark.parametrize("retry_in", [None, "0s", dt.timedelta()])
@pytest.mark.parametrize("max_retries", [0, 1, 3])
def test_a_failing_task_is_tried_so_many_times_more(queue: Queue, retry_in: Any, max_retries: int) -> None:
    @queue.task(max_retries=max_retries, retry_in=retry_in)
    def fails(job_id: int, arg: str) -> None:
        calls.append(arg)
        raise ZeroDivisionError

    fails("same")
    queue.work(burst=True)
    assert calls == ["same"] * (1 + max_retries)
    assert len(queue) == 0


@pytest.mark.parametrize(("retry_in", "seconds"), [("1s", 1), ("1h30m", 5400), (HOUR, 3600)], ids=str)
def test_the_next_attempt_comes_after_retry_in(queue: Queue, sql: Sql, retry_in: Any, seconds: int) -> None:
    @queue.task(max_retries=1, retry_in=retry_in)
    def fails(job_id: int) -> None:
        raise ZeroDivisionError

    fails()
    job = queue.get()
    assert job is not None
    assert queue.perform(job) is False
    pause = "extract(epoch from schedule_at - enqueued_at)::int"
    assert sql(f"select {pause}, data->'retried' from queue where id <> %s", (job.id,)) == [(seconds, 1)]


def test_the_next_attempt_has_the_same_priority_and_arguments(queue: Queue, sql: Sql) -> None:
    @queue.task(max_retries=1)
    def fails(job_id: int, *args: Any, **kwargs: Any) -> None:
        raise ZeroDivisionError

    fails(1, x=2, _expected_at="1h")
    before = sql("select id, expected_at, data::text from queue")
    queue.work(burst=True)
    assert sql("select id, expected_at, data::text from queue where due_at > now()") == before


def test_a_worker_survives_failing_tasks(queue: Queue, caplog: pytest.LogCaptureFixture) -> None:
    @queue.task()
    def fails(job_id: int) -> None:
        raise ZeroDivisionError("on purpose")

    task = queue.task()(record)
    fails()
    task("after it")
    queue.work(burst=True)
    assert [args for _, args, _ in calls] == [("after it",)]
    ((name, level, text),) = [entry for entry in caplog.record_tuples if entry[1] > logging.INFO]
    assert (name, level) == ("pq.tasks", logging.ERROR)
    assert ": failed after" in text
    assert "ZeroDivisionError: on purpose" in caplog.text


ROWS = [
    None,
    5,
    "text",
    [],
    {},
    {"function": "test_tasks.record"},
    {"function": "test_tasks.record", "args": []},
    call_of("test_tasks.record", args=None),
    call_of("test_tasks.record", kwargs=[1]),
    call_of("test_tasks.record", kwargs={"job_id": 1}),
    call_of("test_tasks.record", args=None, max_retries="many"),
    call_of("test_tasks.record", args=None, max_retries=None),
    call_of("test_tasks.record", args=None, max_retries=1, retried="x"),
    call_of("test_tasks.record", args=None, max_retries=1, retry_in="5months"),
    call_of("test_tasks.record", args=None, max_retries=1, retry_in=-5),
    call_of(""),
    call_of("."),
    call_of("nowhere.at.all"),
    call_of("test_tasks.nothing"),
    {**call_of("x"), "function": None},
    {**call_of("x"), "function": 5},
    {**call_of("x"), "function": ["a"]},
]


def test_a_worker_survives_rows_that_are_no_tasks(queue: Queue, caplog: pytest.LogCaptureFixture) -> None:
    queue.task()(record)
    ids = [queue.put(data) for data in ROWS]
    last = queue.put(call_of("test_tasks.record"))
    queue.work(burst=True)
    assert calls == [(last, (), {})]
    assert sorted(job.id for job in queue.dead) == ids
    assert len(queue) == 0


def test_a_task_that_spoils_its_arguments_is_tried_again_with_the_right_ones(queue: Queue) -> None:
    @queue.task(max_retries=2, retry_in=None)
    def spoils(job_id: int, arg: list[Any]) -> None:
        calls.append(arg.copy())
        arg.append({1, 2})  # no JSON
        raise ZeroDivisionError

    spoils([])
    queue.work(burst=True)
    assert calls == [[], [], []]


def test_a_worker_goes_on_after_a_row_that_cannot_be_decoded(queue: Queue, dsn: str) -> None:
    id = queue.put(5)
    with PQ(dsn, timeout=0.01) as pq:
        pickles = pq["default/pickle"]
        assert isinstance(pickles, Queue)
        after = pickles.task()(record)()
        pickles.work(burst=True)
        (dead,) = pickles.dead.list()
    assert calls == [(after, (), {})]
    assert (dead.id, dead.error.type) == (id, "pq.errors.DecodeError")


# -- where a task is found


def task_in(module: types.ModuleType, queue: Queue, name: str = "eat") -> tuple[Callable[..., Any], Any]:
    """A function defined in a module, and decorated there."""

    def eat(job_id: int, *args: Any) -> str:
        calls.append((job_id, *args))
        return "undecorated"

    eat.__module__, eat.__qualname__ = module.__name__, name
    decorated = queue.task()(eat)
    setattr(module, name, decorated)
    return eat, decorated


def test_a_task_is_found_by_its_import_path(queue: Queue, module: types.ModuleType) -> None:
    _, eat = task_in(module, queue)
    queue.handler_registry.clear()  # as in a worker's process
    id = eat("Cox")
    queue.work(burst=True)
    assert calls == [(id, "Cox")]  # decorated, it would have put a job instead
    assert len(queue) == 0
    assert list(queue.handler_registry) == ["orchard.eat"]


def test_the_registry_comes_before_the_import_path(queue: Queue, module: types.ModuleType) -> None:
    _, eat = task_in(module, queue)
    queue.handler_registry["orchard.eat"] = record
    id = eat("Cox")
    queue.work(burst=True)
    assert calls == [(id, ("Cox",), {})]


@pytest.mark.parametrize("other", ["default", "other"])
def test_a_name_is_that_of_one_task_only(queue: Queue, dsn: str, other: str) -> None:
    task = queue.task(name="eat")(record)
    with PQ(dsn) as pq, pytest.raises(ValueError, match=f"'eat': {__name__}.record and {__name__}.plain"):
        pq[other].task(name="eat")(plain)
    assert not hasattr(plain, "_task")
    id = task("Cox")
    queue.work(burst=True)
    assert calls == [(id, ("Cox",), {})]


def test_of_two_functions_of_one_name_and_path_a_worker_calls_the_last(queue: Queue) -> None:
    def define(word: str) -> Any:
        @queue.task(name="eat")
        def eat(job_id: int) -> None:
            calls.append(word)

        return eat

    define("old")
    with pytest.warns(UserWarning, match="two functions are the task 'eat'"):
        task = define("new")
    task()
    queue.work(burst=True)
    assert calls == ["new"]
    queue.task(name="part")(functools.partial(record, "part"))
    with pytest.raises(ValueError, match="'part'"):
        queue.task(name="part")(functools.partial(record, "another"))


def test_a_task_inside_a_class_is_found(queue: Queue) -> None:
    queue.task()(Orchard.eat)
    queue.handler_registry.clear()
    queue.put(call_of(f"{__name__}.Orchard.eat"))
    queue.work(burst=True)
    assert calls == ["eaten"]


class Orchard:
    @staticmethod
    def eat(job_id: int) -> None:
        calls.append("eaten")


def plain(job_id: int, *args: Any) -> None:
    calls.append("plain")


@pytest.mark.parametrize("path", [f"{__name__}.plain", "os.system", "builtins.print", "os", "orchard.alias"])
def test_what_is_not_decorated_is_not_called(
    queue: Queue, module: types.ModuleType, capfd: pytest.CaptureFixture[str], path: str
) -> None:
    """Whoever can insert a row can not call just anything."""
    task_in(module, queue)
    module.alias = module.eat  # a task, but under another name
    queue.handler_registry.clear()
    queue.put(call_of(path, args=["echo called"]))
    job = queue.get()
    assert job is not None
    assert queue.perform(job) is False
    assert calls == []
    assert "called" not in capfd.readouterr().out
    assert queue.handler_registry == {}


def test_an_import_that_fails_is_a_failure_of_the_job(
    queue: Queue, tmp_path: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "broken_orchard.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(str(tmp_path))
    queue.put(call_of("broken_orchard.eat"))
    queue.work(burst=True)
    assert "`broken_orchard.eat` cannot be imported" in caplog.text
    assert "ZeroDivisionError" in caplog.text


def test_a_subclass_may_have_a_registry_of_its_own(dsn: str) -> None:
    class Own(Queue):
        handler_registry = {}

    with PQ(dsn, queue_class=Own) as own:
        own["a"].task()(record)  # type: ignore[attr-defined]
    assert list(Own.handler_registry) == [f"{__name__}.record"]
    assert Own.handler_registry is not pq.tasks.Queue.handler_registry
