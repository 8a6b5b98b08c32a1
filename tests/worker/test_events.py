"""What a worker tells: hooks, and a log that no row can forge and that can't end the worker."""

from __future__ import annotations

import functools
import io
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.tasks import Sql

from pq.tasks import PQ, Worker
from pq.worker import Event

FORGED = "2026-01-01 00:00:00,000 INFO 1 MainThread: payments: job 7, pay, attempt 1: done after 0.010 s"
#: What ends a line somewhere, and what commands a terminal.
BREAKS = ["\n", "\r\n", "\r", "\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\x1b[2J\x1b[1;1H", "\u202e"]


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """What a handler of an application's writes, at all levels."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(process)s %(threadName)s: %(message)s"))
    loggers = [logging.getLogger("pq"), logging.getLogger("pq.tasks")]
    levels = [logger.level for logger in loggers]
    loggers[0].addHandler(handler)
    for logger in loggers:
        logger.setLevel(logging.DEBUG)
    yield stream
    loggers[0].removeHandler(handler)
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


def is_clean(text: str) -> bool:
    lines = text.splitlines()
    assert lines
    return not any(line.startswith("2026-01-01") for line in lines) and all(line.isprintable() for line in lines)


@pytest.mark.parametrize("how", BREAKS, ids=ascii)
def test_no_row_forges_a_line(pq: PQ, log: io.StringIO, how: str) -> None:
    evil = f"x{how}{FORGED}"
    queue = pq[evil]

    @queue.task(name="fail", max_retries=1, retry_in=None)
    def fail(job_id: int, text: str) -> None:
        raise ValueError(text)

    queue.put({"function": evil, "args": [], "kwargs": {}})
    queue.put({"function": {evil: evil}, "args": [], "kwargs": {}})
    queue.put([evil])
    fail(evil)
    queue.task(name=evil)(lambda job_id: None)()
    Worker(queue, burst=True).run()
    assert FORGED in log.getvalue()
    assert is_clean(log.getvalue())


def test_what_a_queue_logs_is_clean_too(pq: PQ, log: io.StringIO, sql: Sql) -> None:
    def decode(text: str) -> Any:
        raise ValueError(f"x\n{FORGED}")

    with PQ((sql("select current_database()") and pq["a"].conn) or pq._db.conn, decode=decode) as other:
        queue = other["a\n" + FORGED]
        for _ in range(2):
            queue.put(1)
        with pytest.raises(ValueError, match="cannot be decoded") as caught:
            queue.get_many(2, lease="1h")
        assert "\n" not in str(caught.value)
        job: Any = pq["b"].put(1) and pq["b"].get(lease="1h")
        with pytest.raises(ValueError, match="x"), job:
            sql("drop table queue cascade")
            raise ValueError(f"x\n{FORGED}")
    assert "could not settle" in log.getvalue()
    assert is_clean(log.getvalue())


class Broken(logging.Handler):
    def handle(self, record: logging.LogRecord) -> bool:  # type: ignore[override]
        raise RuntimeError("in a handler")


def broken_filter(record: logging.LogRecord) -> bool:
    raise RuntimeError("in a filter")


def broken_factory(*args: Any, **kwargs: Any) -> logging.LogRecord:
    raise RuntimeError("in a record factory")


@pytest.mark.parametrize("what", ["handler", "filter", "factory"])
def test_logging_that_fails_ends_no_worker(pq: PQ, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    logger = logging.getLogger("pq.tasks")
    handler = Broken()
    monkeypatch.setattr(logger, "level", logging.DEBUG)
    logger.manager._clear_cache()  # type: ignore[attr-defined]
    if what == "handler":
        monkeypatch.setattr(logger, "handlers", [handler])
    elif what == "filter":
        monkeypatch.setattr(logger, "filters", [*logger.filters, broken_filter])
    else:
        before = logging.getLogRecordFactory()
        logging.setLogRecordFactory(broken_factory)
    try:
        done: list[int] = []
        task = pq["a"].task(name="a")(lambda job_id: done.append(job_id))
        fail = pq["a"].task(name="fail")(lambda job_id: 1 / 0)
        ids = [task(), task()]
        fail()
        worker = Worker(pq, burst=True)
        worker.run()
    finally:
        if what == "factory":
            logging.setLogRecordFactory(before)
        monkeypatch.undo()
        logger.manager._clear_cache()  # type: ignore[attr-defined]
    assert done == ids
    assert (worker.status()["counts"]["done"], worker.status()["counts"]["dead"]) == (2, 1)


def test_a_job_has_one_line_at_info(pq: PQ, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "pq.tasks")
    task = pq["a"].task(name="a")(lambda job_id: None)
    for _ in range(3):
        task()
    Worker(pq, burst=True).run()
    lines = [record for record in caplog.records if hasattr(record, "job_id")]
    assert [record.event for record in lines] == ["done"] * 3  # type: ignore[attr-defined]


# -- hooks


async def async_hook(event: Event) -> None:
    pass


def generator_hook(event: Event) -> Any:
    yield


class AsyncCall:
    async def __call__(self, *args: Any) -> None:
        pass


@pytest.mark.parametrize(
    "hook",
    [async_hook, generator_hook, functools.partial(async_hook), AsyncCall(), functools.partial(AsyncCall()), 5],
)
def test_a_hook_whose_lines_would_not_run_is_refused(pq: PQ, hook: Any) -> None:
    with pytest.raises(TypeError, match="the function for 'done' must"):
        Worker(pq, ["a"]).on("done", hook)


def test_a_hook_that_returns_an_awaitable_is_an_error_in_the_log(pq: PQ, caplog: pytest.LogCaptureFixture) -> None:
    worker = Worker(pq, ["a"], burst=True)
    worker.on("done", lambda event: async_hook(event))
    pq["a"].task(name="a")(lambda job_id: None)()
    worker.run()
    assert "the function returned an awaitable" in caplog.text
    assert worker.status()["counts"]["done"] == 1


@pytest.mark.parametrize("name", ["start", "done", "retry", "dead"])
@pytest.mark.parametrize("error", [RuntimeError, GeneratorExit])
def test_a_hook_that_raises_ends_no_worker(pq: PQ, name: str, error: type[BaseException]) -> None:
    def hook(event: Event) -> None:
        raise error

    worker = Worker(pq, ["a"], burst=True)
    worker.on(name, hook)
    pq["a"].task(name="a")(lambda job_id: None)()
    pq["a"].task(name="fail", max_retries=1, retry_in=None)(lambda job_id: 1 / 0)()
    worker.run()
    assert worker.status()["counts"] == {"start": 3, "done": 1, "retry": 1, "dead": 1, "lost": 0, "cancelled": 0}


@pytest.mark.parametrize("name", ["start", "done", "dead"])
@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()], ids=["exit", "interrupt"])
def test_a_hook_that_exits_stops_the_worker_which_raises_that(
    pq: PQ, name: str, error: BaseException, sql: Callable[..., Any]
) -> None:
    def hook(event: Event) -> None:
        raise error

    worker = Worker(pq, ["a"])
    worker.on(name, hook)
    pq["a"].task(name="a")(lambda job_id: 1 / (name != "dead"))()
    with pytest.raises(type(error)) as raised:
        worker.run()
    assert raised.value is error
    assert sql("select due_at is null and dequeued_at is not null from queue") == [(True,)]  # it is settled
