"""Steps: a retry, or the delivery after a crash, goes on behind those that are done."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import nullcontext
from decimal import Decimal
from typing import Any

import pytest
from support import Background, take
from support.kinds import ALL, make_pq

from pq import PQ, LeasedJob, LeaseLost, Worker
from pq._jobs import steps as steps_module
from pq._table import Table
from pq.tasks import current

Sql = Callable[..., list[tuple[Any, ...]]]


class Step:
    """A function that counts its calls, and returns a value or raises."""

    def __init__(self, value: Any = None) -> None:
        self.value = value
        self.calls = 0

    def __call__(self) -> Any:
        self.calls += 1
        if isinstance(self.value, BaseException):
            raise self.value
        return self.value


@pytest.fixture
def job(pq: PQ) -> LeasedJob:
    pq["a"].put(1)
    return take(pq["a"])


def again(job: LeasedJob) -> LeasedJob:
    """The next delivery."""
    job.retry("0s")
    return take(job.queue)


def test_a_step_that_is_done_is_not_called_again(job: LeasedJob) -> None:
    charge, mail = Step({"id": 7, "sum": 1.5}), Step()
    assert job.step("charge", charge) == {"id": 7, "sum": 1.5}
    assert job.step("mail", mail) is None
    job = again(job)
    assert job.step("charge", charge) == {"id": 7, "sum": 1.5}
    assert job.step("mail", mail) is None
    assert (charge.calls, mail.calls) == (1, 1)


def test_the_first_result_is_like_the_later_ones(job: LeasedJob) -> None:
    """What JSON makes of it, also of characters that jsonb refuses."""
    value = ("a", {1: "\x00\ud800\u2028\"\\"}, None, 10**30, "ü")
    first = job.step("ü '\"{}, %s", Step(value))
    assert first == ["a", {"1": "\x00\ud800\u2028\"\\"}, None, 10**30, "ü"]
    assert again(job).step("ü '\"{}, %s", Step()) == first


@pytest.mark.parametrize(
    "suffix, value", [("pickle", {1: {2, 3}}), ("pickle", None), ("text", "an apple"), ("text", None)]
)
def test_results_are_encoded_as_the_queue_does(pq: PQ, suffix: str, value: Any) -> None:
    queue = pq[f"a/{suffix}"]
    queue.put("x")
    job = take(queue)
    assert job.step("a", Step(value)) == value
    assert again(job).step("a", Step("another")) == value


def test_a_codec_of_ones_own_gets_back_the_text_that_it_made(dsn: str) -> None:
    with PQ(dsn, encode=lambda data: str(data), decode=lambda text: Decimal(text)) as pq:
        pq["a"].put(Decimal(1))
        job = take(pq["a"])
        assert str(job.step("sum", Step(Decimal("1.10")))) == "1.10"
        assert str(again(job).step("sum", Step())) == "1.10"


def test_a_step_that_fails_keeps_nothing_and_may_be_called_again(job: LeasedJob) -> None:
    step = Step(OSError("no network"))
    for _ in range(2):
        with pytest.raises(OSError, match="no network"):
            job.step("fetch", step)
    step.value = 7
    assert job.step("fetch", step) == 7 == again(job).step("fetch", step)
    assert step.calls == 3


def test_a_step_in_a_step(job: LeasedJob) -> None:
    assert job.step("outer", lambda: [job.step("inner", Step(1))]) == [1]
    with pytest.raises(ValueError, match="step 'same' was called before in this attempt"):
        job.step("same", lambda: job.step("same", Step(1)))
    job = again(job)
    assert (job.step("inner", Step(2)), job.step("outer", Step(2)), job.step("same", Step(2))) == (1, [1], 2)


def test_a_name_is_called_once_in_a_delivery(job: LeasedJob) -> None:
    step = Step(1)
    for _ in range(2):
        job.step("a", step)
        with pytest.raises(ValueError, match="step 'a' was called before in this attempt"):
            job.step("a", step)
        job = again(job)
    assert step.calls == 1


def test_there_are_at_most_so_many_and_so_long(job: LeasedJob, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps_module, "MAX_STEPS", 3)
    monkeypatch.setattr(steps_module, "MAX_BYTES", 100)
    for name in "ab":
        job.step(name, Step(1))
    with pytest.raises(ValueError, match=r"what step .c. returned .* 100 bytes, .* these 91 .* have 107"):
        job.step("c", Step("x" * 80))
    job = again(job)
    for name in "abc":
        job.step(name, Step(1))
    step = Step()
    with pytest.raises(ValueError, match="step 'd' is one too many: a job can have 3 steps"):
        job.step("d", step)
    assert step.calls == 0
    with pytest.raises(ValueError, match="one too many"):
        again(job).step("d", step)


@pytest.mark.parametrize(
    "name, function, error, text",
    [
        (7, id, TypeError, "the name of a step must be a str, not int: 7"),
        ("", id, ValueError, "the name of a step must not be empty"),
        ("a\0", id, ValueError, "NUL"),
        ("\ud800", id, ValueError, "surrogate"),
        ("a", 7, TypeError, "the function of step 'a' must be a function, not int"),
        ("a", "async", TypeError, "the function of step 'a' must not be async"),
        ("a", lambda: (yield), TypeError, "the function of step 'a' must not be a generator function"),
        ("a", lambda: iter_lazily(), TypeError, "step 'a' returned a generator"),
        ("a", lambda: object(), TypeError, "not JSON serializable"),
        ("a", lambda: float("nan"), ValueError, "NaN"),
    ],
)
def test_bad_input(job: LeasedJob, sql: Sql, name: Any, function: Any, error: type[Exception], text: str) -> None:
    async def asynchronous() -> None: ...

    with pytest.raises(error, match=text):
        job.step(name, asynchronous if function == "async" else function)
    assert sql("select steps from queue") == [(None,)]
    assert job.step("a", Step(1)) == 1


def iter_lazily() -> Any:
    yield 1


# -- the end of the job, and what comes after it


@pytest.mark.parametrize("how", ["retry", "release", "expired", "dead", "broken off"])
def test_steps_stay_whatever_becomes_of_the_job(pq: PQ, job: LeasedJob, sql: Sql, how: str) -> None:
    queue, step = pq["a"], Step(1)
    job.step("a", step)
    if how == "expired":
        sql("update queue set due_at = now()")
    elif how == "dead":
        job.fail("no")
        queue.dead.retry(all=True)
    elif how == "release":
        job.release()
    else:
        job.retry("0s", OSError())
    job = take(queue)
    assert (job.step("a", step), step.calls) == (1, 1)
    job.done()
    assert sql("select steps->>'a' from queue") == [("1",)]


def test_a_delivery_that_is_lost_keeps_nothing(pq: PQ, job: LeasedJob, sql: Sql) -> None:
    sql("update queue set due_at = now()")
    other = take(pq["a"])
    step = Step(1)
    with pytest.raises(LeaseLost):  # at the look, before the function is called
        job.step("a", step)
    assert step.calls == 0

    def lose() -> int:
        sql("update queue set due_at = now()")
        take(pq["a"])
        return 1

    with pytest.raises(LeaseLost):
        other.step("a", lose)
    assert sql("select steps from queue") == [(None,)]


def test_a_cancelled_job_learns_it(pq: PQ, job: LeasedJob) -> None:
    pq["a"].cancel(job.id)
    with pytest.raises(LeaseLost):
        job.step("a", Step())
    assert job.cancelled


def test_without_steps_nothing_is_read(pq: PQ, statements: list[str]) -> None:
    pq["a"].put(1)
    job = take(pq["a"])
    job.done()
    assert statements
    assert not [sql for sql in statements if "steps" in sql]


# -- transactions


@pytest.mark.parametrize("how", ["with queue", "conn", "using"])
def test_in_a_transaction_a_step_is_kept_with_what_it_wrote(
    pq: PQ, job: LeasedJob, sql: Sql, connect: Callable[..., Any], how: str
) -> None:
    sql("create table effects (name text)")
    conn = connect()

    def run(name: str, fail: bool) -> None:
        with pq["a"] if how == "with queue" else pq.using(conn) if how == "using" else nullcontext() as cursor:
            cursor = cursor or conn.cursor()
            kwargs = {"conn": conn} if how == "conn" else {}
            job.step(name, lambda: cursor.execute("insert into effects values (%s)", (name,)) and None, **kwargs)
            if fail:
                raise OSError("undo it")
        conn.commit()

    run("a", False)
    with pytest.raises(OSError, match="undo it"):
        run("b", True)
    conn.rollback()
    run("c", False)
    assert sql("select name from effects order by 1") == [("a",), ("c",)]
    assert sql("select array(select json_object_keys(steps)) from queue") == [(["a", "c"],)]


def test_in_an_item_steps_are_undone_with_the_rest(pq: PQ, sql: Sql) -> None:
    pq["a"].put(1)
    steps = [Step(1), Step(2)]
    with pytest.raises(OSError, match="undo it"), pq["a"].item() as job:
        assert job is not None
        job.step("a", steps[0])
        raise OSError("undo it")
    pq["a"].reschedule(1, None)
    assert sql("select steps, attempts from queue") == [(None, 1)]
    with pq["a"].item() as job:
        assert job is not None
        assert [job.step(name, step) for name, step in zip("ab", steps, strict=True)] == [1, 2]
    assert [step.calls for step in steps] == [2, 1]
    assert sql("select steps::text from queue") == [('{"a": "1", "b": "2"}',)]


@pytest.mark.parametrize("kind", ALL)
def test_with_any_connection(dsn: str, kind: str) -> None:
    with make_pq(kind, dsn) as pq:
        pq["a"].put(1)
        job = take(pq["a"])
        assert [job.step(name, Step(name)) for name in "ab"] == ["a", "b"]
        job = again(job)
        assert [job.step(name, Step()) for name in "ab"] == ["a", "b"]


def test_two_threads_of_a_handler(job: LeasedJob) -> None:
    names = [str(number) for number in range(20)]
    threads = [Background(job.step, name, Step(name)) for name in names]
    assert [thread.result() for thread in threads] == names
    job = again(job)
    assert [job.step(name, Step()) for name in names] == names


# -- kills

STEPS = "abc"


def charge(job_id: int) -> None:
    """Each step in a transaction of its own, which is that of a transactional task if there is one."""
    job = current()
    for name in STEPS:
        with job.queue as cursor:
            job.step(name, lambda name=name, cursor=cursor: write(cursor, name))


def write(cursor: Any, name: str) -> str:
    cursor.execute("insert into effects values (%s)", (name,))
    return name


class Killer:
    """Kills this process at a moment: before or after a statement, or before or after a commit.

    :param moment: a number, from 0 on.
    """

    def __init__(self, moment: int) -> None:
        self.left = moment

    def __call__(self) -> None:
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        self.left -= 1

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            self()
            result = function(*args, **kwargs)
            self()
            return result

        return call


def work(dsn: str, transactional: bool, moment: int) -> None:
    """In a process of its own: perform what there is, as far as it comes."""
    killer = Killer(moment)
    Table.execute = killer.around(Table.execute)  # type: ignore[method-assign]
    globals()["write"] = killer.around(write)
    with PQ(dsn) as pq:
        queue = pq["a"]
        queue._transaction = with_ends(killer, queue._transaction)  # type: ignore[method-assign]
        queue.task(name="charge", max_retries=3, transactional=transactional)(charge)
        Worker(queue, lease="100ms", capture_signals=False, name="killed").run_once()


def with_ends(killer: Killer, transaction: Callable[..., Any]) -> Callable[..., Any]:
    def begin(*args: Any) -> Any:
        block = transaction(*args)
        block.end = killer.around(block.end)
        return block

    return begin


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded, use of fork")
@pytest.mark.parametrize("transactional", [True, False])
def test_wherever_the_process_is_killed_each_step_takes_effect_once(
    dsn: str, sql: Sql, transactional: bool
) -> None:
    sql("create table effects (name text)")
    call = '{"function": "charge", "args": [], "kwargs": {}, "max_retries": 3, "retried": 0, "retry_in": "0s"}'
    killed, moment = 0, 0
    while True:
        sql("truncate effects, queue")
        sql("insert into queue (q_name, data) values ('a', %s)", (call,))
        status = in_child(dsn, transactional, moment)
        if os.WIFSIGNALED(status):
            killed += 1
            # its session ends first, and with that its transaction; then its lease
            sql("update queue set due_at = now() where due_at is not null")
            assert in_child(dsn, transactional, 1_000_000) == 0
        else:
            assert status == 0
        assert sql("select name from effects order by 1") == [(name,) for name in STEPS], f"killed at {moment}"
        assert sql("select error, due_at, dequeued_at is null from queue") == [(None, None, False)]
        if not os.WIFSIGNALED(status):
            break
        moment += 1
    assert killed > 20


def in_child(dsn: str, transactional: bool, moment: int) -> int:
    """The status with which the process has ended."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work(dsn, transactional, moment)
            code = 0
        finally:
            os._exit(code)
    return os.waitpid(child, 0)[1]
