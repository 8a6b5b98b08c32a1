"""Workers fire schedules, and store those of their tasks."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from support import wait_until
from support.tasks import working

from pq import Schedule, Unique, Worker
from pq._schedules import ticker
from pq.tasks import PQ

Sql = Callable[..., list[tuple[Any, ...]]]


@pytest.fixture
def pq(dsn: str) -> Iterator[PQ]:
    with PQ(dsn) as made:
        yield made


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Looks come soon after another."""
    monkeypatch.setattr(ticker, "PAUSE", 0.05)
    monkeypatch.setattr(ticker, "AGAIN", 0.05)
    yield


def test_a_worker_fires(pq: PQ) -> None:
    """Whatever queue the schedule is for."""
    done: list[int] = []
    task = pq["work"].task(name="task")(lambda job_id: done.append(job_id))
    pq.schedules["mine"] = Schedule("work", task.new_job().data, every="100ms")
    pq.schedules["another"] = Schedule("other", "data", every="100ms")
    with working(Worker(pq, ["work"])):
        wait_until(lambda: len(done) >= 2 and pq["other"].count() >= 2, "jobs")


def test_a_task_by_the_clock(pq: PQ, sql: Sql) -> None:
    done: list[str] = []

    @pq["q"].task(name="tick", every="100ms")
    def tick(job_id: int, kind: str = "Cox") -> None:
        done.append(kind)

    clock = {"cron": "0 3 * * *", "zone": "Europe/Berlin", "missed": "skip", "jitter": "10m"}

    @pq["q"].task(name="nightly", key="k", unique=True, max_retries=3, **clock)
    def nightly(job_id: int) -> None:
        done.append("nightly")

    pq["q"].task(name="monthly", rrule="FREQ=MONTHLY")(lambda job_id: None)
    pq["q"].task(name="never")(lambda job_id: None)
    assert list(pq.schedules) == []
    with working(Worker(pq)):
        wait_until(lambda: len(done) >= 2, "two calls")
        assert list(pq.schedules) == ["monthly", "nightly", "tick"]
        found = pq.schedules["nightly"]
        assert (found.rule, found.zone, found.key, found.declared) == ("cron 0 3 * * *", "Europe/Berlin", "k", True)
        assert (found.missed, found.jitter) == ("skip", timedelta(minutes=10))
        assert isinstance(found.unique, Unique)
        assert found.data["function"] == "nightly" and found.data["max_retries"] == 3
        found.fire()
        wait_until(lambda: "nightly" in done, "the call by hand")
        del pq.schedules["monthly"]
        count = len(done)
        wait_until(lambda: len(done) > count + 2, "further calls")
        assert "monthly" not in pq.schedules  # what is removed comes back with the next worker, and not before
    assert set(done) == {"Cox", "nightly"}
    before = pq.schedules["nightly"].next_at
    with working(Worker(pq)):  # stored again
        count = len(done)
        wait_until(lambda: len(done) > count, "a call")
    assert pq.schedules["nightly"].next_at == before


def test_what_no_task_has_any_more_is_told(pq: PQ, caplog: pytest.LogCaptureFixture) -> None:
    task = pq["q"].task(name="task", cron="0 3 * * *")(lambda job_id: None)
    pq.schedules["by hand"] = Schedule("q", 1, every="1h")
    with working(Worker(pq)):
        wait_until(lambda: "task" in pq.schedules, "the schedule")
    pq["q"]._declared = {}
    pq["other"].task(name="other", every="1h")(lambda job_id: None)
    with working(Worker(pq, ["other"])):  # knows nothing of the tasks of q
        wait_until(lambda: "other" in pq.schedules, "the schedule")
    assert pq.schedules["task"].declared is True
    for _ in range(2):
        caplog.clear()
        with working(Worker(pq)):
            wait_until(lambda: "no task here has the schedule 'task' any more" in caplog.text, "the warning")
    assert "by hand" not in caplog.text and "'other'" not in caplog.text
    assert {schedule.name: schedule.declared for schedule in pq.schedules.list()} == {
        "task": False, "other": True, "by hand": None,
    }  # fmt: skip
    assert not pq.schedules["task"].paused  # it is for a person to decide
    pq["q"].task(name="task", cron="0 3 * * *")(task)
    with working(Worker(pq)):
        wait_until(lambda: pq.schedules["task"].declared, "the schedule")


@pytest.mark.parametrize(
    ("given", "kind", "message"),
    [
        ({"cron": "61 * * * *"}, ValueError, "Bad minute"),
        ({"cron": "0 3 * * *", "zone": "Nowhere"}, ValueError, "is unknown"),
        ({"zone": "UTC"}, TypeError, "none of them"),
        ({"every": "1h", "cron": "0 3 * * *"}, TypeError, "not cron and every"),
        ({"every": "1h", "unique": Unique(True, window="1h")}, ValueError, "has until="),
    ],
)
def test_wrong_rules_are_told_where_they_are_declared(
    pq: PQ, given: dict[str, Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        pq["q"].task(name="wrong", **given)(lambda job_id: None)
    assert "wrong" not in pq["q"].handler_registry and not pq["q"]._declared


def test_a_task_that_needs_arguments_has_no_schedule(pq: PQ) -> None:
    def needs(job_id: int, kind: str) -> None: ...

    with pytest.raises(TypeError, match="kind"):
        pq["q"].task(name="needs", every="1h")(needs)
    assert "needs" not in pq["q"].handler_registry and not pq["q"]._declared


def test_one_schedule_that_cant_be_stored_stops_neither_worker_nor_others(
    pq: PQ, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pq["q"].task(name="a", cron="0 3 * * *")(lambda job_id: None)
    pq["q"].task(name="b", every="1h")(lambda job_id: None)
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "cronsim":
            raise ImportError("No module named 'cronsim'")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with working(Worker(pq)):
        wait_until(lambda: "b" in pq.schedules, "the other one")
    assert "a" not in pq.schedules
    assert "pip install '.[schedules]' in pq's checkout" in caplog.text


def test_a_worker_goes_on_without_the_table_of_schedules(
    pq: PQ, sql: Sql, caplog: pytest.LogCaptureFixture
) -> None:
    """And stores what its tasks have as soon as it can."""
    done: list[int] = []
    task = pq["q"].task(name="task", every="1h")(lambda job_id: done.append(job_id))
    sql("alter table queue_schedules rename to hidden")
    with working(Worker(pq)):
        task()
        wait_until(lambda: done, "the job")
        wait_until(lambda: "schedules can't be looked at" in caplog.text, "the warning")
        sql("alter table hidden rename to queue_schedules")
        wait_until(lambda: "task" in pq.schedules, "the schedule")
