"""Calls of tasks: checked against the signature, many at once, and what a job holds."""

from __future__ import annotations

import asyncio
import datetime as dt
import functools
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from pq import NewJob
from pq.tasks import PQ, Queue, Worker, current

Sql = Callable[..., list[tuple[Any, ...]]]


@pytest.fixture
def queue(dsn: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Queue]:
    monkeypatch.setattr(Queue, "handler_registry", {})
    with PQ(dsn, timeout=0.01) as pq:
        yield pq["default"]


@pytest.mark.parametrize(("given", "retries"), [({"max_attempts": 3}, 2), ({"max_attempts": 1, "max_retries": 5}, 0)])
def test_attempts_can_be_counted_in_all(queue: Queue, given: dict[str, int], retries: int) -> None:
    task = queue.task(**given)(plain)
    task(1)
    job = queue.get(block=False)
    assert job is not None
    assert (task.options.max_retries, job.data["max_retries"]) == (retries, retries)


# -- arguments


def plain(job_id: int, a: int, b: int = 2, *, c: int = 3) -> None: ...
def needs_keyword(job_id: int, *, c: int) -> None: ...
def variable(*args: Any, **kwargs: Any) -> None: ...
def positional_only(job_id: int, a: int, /) -> None: ...


class Method:
    def eat(self, job_id: int, kind: str) -> None: ...
    def __call__(self, job_id: int, kind: str) -> None: ...


CALLS = [
    (plain, ((), {}), "missing a required argument: 'a'"),
    (plain, ((1, 2, 3), {}), "too many positional arguments"),
    (plain, ((1,), {"d": 1}), "unexpected keyword argument 'd'"),
    (plain, ((1,), {"a": 1}), "multiple values for argument 'a'"),
    (plain, ((1,), {"job_id": 1}), "multiple values for argument 'job_id'"),
    (plain, ((1,), {}), None),
    (plain, ((1, 2), {}), None),
    (plain, ((), {"a": 1, "c": 1}), None),
    (needs_keyword, ((), {}), "missing a required.*argument: 'c'"),
    (needs_keyword, ((1,), {"c": 1}), "too many positional arguments"),
    (needs_keyword, ((), {"c": 1}), None),
    (variable, ((1, 2, 3), {"x": 1}), None),
    (positional_only, ((), {"a": 1}), "a"),
    (positional_only, ((1,), {}), None),
    (Method().eat, ((), {}), "missing a required argument: 'kind'"),
    (Method().eat, (("Cox",), {}), None),
    (Method(), (("Cox",), {"x": 1}), "unexpected keyword argument 'x'"),
    (functools.partial(plain, c=5), ((1,), {}), None),
    (functools.partial(plain, c=5), ((), {}), "missing a required argument: 'a'"),
    ([].append, ((), {}), None),
]


@pytest.mark.parametrize(("function", "call", "error"), CALLS)
def test_arguments_are_checked_at_the_call(queue: Queue, function: Any, call: Any, error: str | None) -> None:
    task = queue.task(name="eat")(function)
    args, kwargs = call
    many = [task.new_job(*args, **kwargs)] if error is None else [args or kwargs]
    if error is None:
        task(*args, **kwargs)
        task.put_many(many)
        assert len(queue) == 2
        return
    with pytest.raises(TypeError, match=f"task eat: .*{error}"):
        task(*args, **kwargs)
    with pytest.raises(TypeError, match=f"task eat: .*{error}"):
        task.new_job(*args, **kwargs)
    assert len(queue) == 0


def no_arguments() -> None: ...
def only_keywords(*, job_id: int) -> None: ...
def own_name(job_id: int, _schedule_at: str) -> None: ...


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (no_arguments, "must take the job's id"),
        (only_keywords, "must take the job's id"),
        (own_name, "must not have a parameter _schedule_at"),
        (5, "must be a function, not int"),
    ],
)
def test_a_function_that_cannot_be_called_is_refused(queue: Queue, function: Any, text: str) -> None:
    with pytest.raises(TypeError, match=text):
        queue.task(name="eat")(function)
    assert queue.handler_registry == {}


def test_a_partial_without_a_name_is_refused(queue: Queue) -> None:
    with pytest.raises(TypeError, match="give the task a name="):
        queue.task()(functools.partial(plain, c=5))  # type: ignore[arg-type]


def test_the_decorator_needs_no_parentheses(queue: Queue) -> None:
    done: list[Any] = []

    @queue.task
    def eat(job_id: int, kind: str) -> str:
        done.append((job_id, kind))
        return "core"

    id = eat("Cox")
    assert eat.call("Cox") == "core"
    queue.work(burst=True)
    assert done == [(None, "Cox"), (id, "Cox")]


class Custom:
    pass


@pytest.mark.parametrize(
    ("call", "name", "error"),
    [
        (((dt.date(2030, 1, 1),), {}), "a", TypeError),
        (((1, {1, 2}), {}), "b", TypeError),
        (((1,), {"c": Custom()}), "c", TypeError),
        (((float("nan"),), {}), "a", ValueError),
        ((([[[float("inf")]]],), {}), "a", ValueError),
    ],
)
def test_an_argument_that_json_refuses_is_named(queue: Queue, call: Any, name: str, error: type[Exception]) -> None:
    task = queue.task(name="eat")(plain)
    args, kwargs = call
    text = f"argument {name} of task eat can't be stored: .*encode="
    for put in (
        lambda: task(*args, **kwargs),
        lambda: task.put_many([task.new_job(1), task.new_job(*args, **kwargs)]),
        lambda: task.load([task.new_job(1), task.new_job(*args, **kwargs)]),
    ):
        with pytest.raises(error, match=text):
            put()
    assert len(queue) == 0


def test_another_error_is_not_blamed_on_an_argument(queue: Queue, dsn: str) -> None:
    task = queue.task(name="eat")(plain)
    with pytest.raises(TypeError, match="schedule_at must be"):
        task(1, _schedule_at=[5])  # type: ignore[list-item]
    with PQ(dsn, max_size=100) as small:
        long = small["a"].task(name="long")(lambda job_id, text: None)
        with pytest.raises(ValueError, match="longer than the queue's max_size") as caught:
            long("x" * 200)
    assert "argument" not in str(caught.value)


def test_a_job_holds_what_is_documented(queue: Queue) -> None:
    task = queue.task(name="eat", max_retries=2, retry_in="10s")(variable)
    envelope = {"function": "eat", "args": [1], "kwargs": {"x": 2}, "retried": 0, "retry_in": "10s", "max_retries": 2}
    task(1, x=2)
    task.put_many([task.new_job(1, x=2)])
    task.load([task.new_job(1, x=2)])
    assert [job.data for job in queue.get_many(3)] == [envelope] * 3  # type: ignore[union-attr]


def test_many_calls(queue: Queue, sql: Sql) -> None:
    task = queue.task(name="eat", schedule_at="1h")(variable)
    calls = [("a",), ["b"], {"kind": "c"}, task.new_job("d", _schedule_at="2h", _expected_at="3h"), ()]
    ids = task.put_many(calls)
    assert task.load(iter(calls)) == len(calls)
    rows = sql(
        "select id, data->'args', data->'kwargs', extract(epoch from schedule_at - enqueued_at)::int,"
        " expected_at is not null from queue order by id"
    )
    expected = [
        (["a"], {}, 3600, False),
        (["b"], {}, 3600, False),
        ([], {"kind": "c"}, 3600, False),
        (["d"], {}, 7200, True),
        ([], {}, 3600, False),
    ]
    assert [row[0] for row in rows[:5]] == ids
    assert [row[1:] for row in rows] == expected * 2
    assert queue.put_many([task.new_job(1), NewJob({"x": 1})])


@pytest.mark.parametrize("bad", ["Cox", 5, None])
def test_what_is_no_call_is_refused(queue: Queue, bad: Any) -> None:
    task = queue.task(name="eat")(variable)
    for put in (task.put_many, task.load):
        with pytest.raises(TypeError, match="a call of task eat must be"):
            put([("Cox",), bad])
    assert len(queue) == 0


def test_many_calls_are_part_of_your_transaction(queue: Queue, connect: Callable[..., Any]) -> None:
    task = queue.task(name="eat")(variable)
    conn = connect()
    task.put_many([(1,), (2,)], conn=conn)
    task(3, _conn=conn)
    assert len(queue) == 0
    conn.commit()
    assert len(queue) == 3


# -- functions whose lines would not run


async def coroutine(job_id: int) -> None: ...


def generator(job_id: int) -> Iterator[int]:
    yield 1


async def async_generator(job_id: int) -> AsyncIterator[int]:
    yield 1


class AsyncCall:
    async def __call__(self, job_id: int) -> None: ...

    async def method(self, job_id: int) -> None: ...

    @staticmethod
    async def static(job_id: int) -> None: ...


class Deep:
    __call__ = staticmethod(coroutine)


REFUSED = [
    coroutine,
    generator,
    async_generator,
    functools.partial(coroutine),
    functools.partial(functools.partial(generator)),
    AsyncCall(),
    AsyncCall().method,
    AsyncCall.__dict__["static"],
    functools.partial(AsyncCall()),
    lambda job_id: (yield),
    Deep(),
]


@pytest.mark.parametrize("function", REFUSED)
@pytest.mark.parametrize("options", [{"name": "eat"}, {"name": "eat", "transactional": True}])
def test_a_function_whose_lines_would_not_run_is_refused(queue: Queue, function: Any, options: Any) -> None:
    with pytest.raises(TypeError, match=r"asyncio\.run|yield"):
        queue.task(**options)(function)
    assert queue.handler_registry == {}


def awaited(function: Any) -> Any:
    """The recipe: a plain function that runs it. Its wrapper must not be taken for what it wraps."""

    @functools.wraps(function)
    def run(*args: Any) -> Any:
        return asyncio.run(function(*args))

    return run


def test_a_plain_function_may_run_a_coroutine(queue: Queue) -> None:
    done: list[int] = []

    async def eat(job_id: int) -> None:
        await asyncio.sleep(0)
        done.append(job_id)

    id = queue.task(name="eat")(awaited(eat))()
    queue.work(burst=True)
    assert done == [id]


class Awaitable:
    def __await__(self) -> Any:
        yield


def passed_on(function: Any) -> Any:
    @functools.wraps(function)
    def call(*args: Any) -> Any:
        return function(*args)

    return call


async def coroutine_of(function: Any) -> None: ...


RETURNED = [
    lambda job_id: coroutine(job_id),
    lambda job_id: generator(job_id),
    lambda job_id: async_generator(job_id),
    lambda job_id: Awaitable(),
    passed_on(coroutine),
    passed_on(generator),
    functools.lru_cache(coroutine),
    functools.partial(passed_on(coroutine)),
]


@pytest.mark.parametrize("function", RETURNED)
@pytest.mark.parametrize("transactional", [False, True])
def test_what_returns_unfinished_work_has_failed(
    queue: Queue, function: Any, transactional: bool, sql: Sql, recwarn: pytest.WarningsRecorder
) -> None:
    id = queue.task(name="eat", transactional=transactional, result=True)(function)()
    worker = Worker(queue, burst=True)
    worker.run()
    (dead,) = queue.dead.list()
    assert (dead.id, dead.error.type) == (id, "TypeError")
    assert dead.error.message.startswith("task `eat` returned a")
    assert worker.status()["counts"]["done"] == 0
    assert not [warning for warning in recwarn if "never awaited" in str(warning.message)]


@pytest.mark.parametrize("function", RETURNED[:3])
def test_perform_does_not_take_unfinished_work_for_success(queue: Queue, function: Any) -> None:
    queue.task(name="eat")(function)()
    job = queue.get()
    assert job is not None
    assert queue.perform(job) is False


@pytest.mark.parametrize("result", [None, 0, "text", [1], {"a": 1}, iter([1]), range(3)])
def test_other_results_are_results(queue: Queue, result: Any) -> None:
    queue.task(name="eat")(lambda job_id: result)()
    worker = Worker(queue, burst=True)
    worker.run()
    assert worker.status()["counts"]["done"] == 1


# -- one function, two tasks


def test_one_function_under_two_names_has_the_options_of_each(queue: Queue) -> None:
    how: dict[str, bool] = {}

    def eat(job_id: int, name: str) -> str:
        how[name] = current().cursor is not None
        return "kept"

    careful = queue.task(name="careful", transactional=True, result=True)(eat)
    quick = queue.task(name="quick")(eat)
    stacked = queue.task(name="stacked", result=True)(quick)
    ids = {name: task(name) for name, task in {"careful": careful, "quick": quick, "stacked": stacked}.items()}
    Worker(queue, burst=True).run()
    assert how == {"careful": True, "quick": False, "stacked": False}
    assert {name: queue.result(id) for name, id in ids.items()} == {"careful": "kept", "quick": None, "stacked": "kept"}


def test_no_row_is_too_odd_to_be_a_failure(queue: Queue, dsn: str, caplog: pytest.LogCaptureFixture) -> None:
    """Data is what `decode` returns: objects of any class."""
    caplog.set_level(logging.CRITICAL)

    class Odd(dict):  # type: ignore[type-arg]
        def get(self, *args: Any) -> Any:
            raise RuntimeError("get")

        __getitem__ = __iter__ = keys = get  # type: ignore[assignment]

    class Class:
        @property
        def __class__(self) -> Any:  # type: ignore[override]
            raise RuntimeError("class")

        def __repr__(self) -> str:
            raise RuntimeError("repr")

    for make in (lambda: Odd(function="x"), lambda: Class(), lambda: {"function": Class()}, lambda: "x" * 10_000_000):
        with PQ(dsn, decode=lambda text, make=make: make(), timeout=0.01) as pq:
            pq["odd"].put(1)
            worker = Worker(pq["odd"], burst=True)
            worker.run()
            assert worker.status()["counts"]["dead"] == 1


def test_a_parameter_may_have_the_name_self(pq: PQ) -> None:
    @pq["a"].task(name="selfish")
    def selfish(job_id: int, self: int) -> int:
        return self

    assert pq["a"].get(timeout=0) is None
    selfish(self=1)
    assert selfish.new_job(self=1).data["kwargs"] == {"self": 1}
    assert selfish.call(self=1) == 1
