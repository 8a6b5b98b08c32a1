"""Progress: a loop that tells how far it is, and what others read of it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
from psycopg2.pool import PoolError
from support import PATIENCE, Background, wait_until

from pq import PQ, ConnectionLost, LeasedJob, LeaseLost, Worker
from pq._jobs import track as track_module
from pq.tasks import current


class Clock:
    """Stands still, unless it is set."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(track_module, "time", made)
    return made


@pytest.fixture
def job(pq: PQ) -> LeasedJob:
    pq["a"].put(1)
    taken = pq["a"].get(timeout=PATIENCE, lease="1h")
    assert isinstance(taken, LeasedJob)
    return taken


def loop(items: Iterator[Any], clock: Clock, seconds: float, read: Any) -> list[Any]:
    """What is read after each item, whose handling takes so many seconds."""
    found = []
    for _ in items:
        found.append(read())
        clock.now += seconds
    return found


def test_progress_with_words(pq: PQ, job: LeasedJob) -> None:
    job.progress(0.3, "peeled")
    assert pq["a"].progress(job.id) == {"done": 0.3, "text": "peeled"}
    job.progress(0.3)
    assert pq["a"].progress(job.id) == 0.3


def test_a_loop_tells_how_far_it_is(pq: PQ, job: LeasedJob, clock: Clock) -> None:
    items = ["a", "b", "c", "d"]
    told = loop(job.track(items), clock, 1.0, lambda: pq["a"].progress(job.id))
    assert told == [None] + [{"done": n / 4, "text": f"{n} of 4"} for n in (1, 2, 3)]
    assert list(job.track(items)) == items


def test_it_tells_at_most_once_a_second(job: LeasedJob, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[float, Any]] = []
    monkeypatch.setattr(LeasedJob, "progress", lambda self, data: told.append((clock.now, data["done"])))
    loop(job.track(range(100)), clock, 0.3, lambda: None)
    times = [at for at, _ in told]
    assert all(after - before >= 1 for before, after in pairwise(times))
    assert len(told) == 24  # each fourth of the items from the first, in 30 seconds
    assert [done for _, done in told] == [n / 100 for n in range(4, 100, 4)]


@pytest.mark.parametrize(
    ("total", "first"),
    [
        (None, {"text": "1"}),
        (0, {"text": "1"}),
        (1, {"done": 1.0, "text": "1 of 1"}),
        (10, {"done": 0.1, "text": "1 of 10"}),
    ],
)
def test_of_how_many_items(pq: PQ, job: LeasedJob, clock: Clock, total: int | None, first: Any) -> None:
    told = loop(job.track(iter("abc"), total), clock, 1.0, lambda: pq["a"].progress(job.id))
    assert told[1] == first
    assert len(told) == 3


def test_nothing_is_told_of_a_quick_loop(job: LeasedJob, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(LeasedJob, "progress")
    assert list(job.track(range(10))) == list(range(10))


def test_the_loop_of_a_cancelled_job_ends(pq: PQ, job: LeasedJob, clock: Clock) -> None:
    seen = []
    with pytest.raises(LeaseLost):
        for item in job.track("abc"):
            seen.append(item)
            pq["a"].cancel(job.id)
            clock.now += 1
    assert seen == ["a"]
    assert job.cancelled


def test_in_a_transaction_nothing_is_written(pq: PQ, job: LeasedJob, clock: Clock) -> None:
    with pq["a"]:
        assert loop(job.track("abc"), clock, 1.0, lambda: pq["a"].progress(job.id)) == [None] * 3


@pytest.mark.parametrize("error", [ConnectionLost, PoolError])
def test_the_loop_goes_on_while_the_database_is_away(
    job: LeasedJob,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: type[Exception],
) -> None:
    def lose(self: LeasedJob, data: Any) -> None:
        raise error

    monkeypatch.setattr(LeasedJob, "progress", lose)
    assert len(loop(job.track("abc"), clock, 1.0, lambda: None)) == 3
    assert caplog.text.count(f"the progress of job {job.id} was not noted ({error.__name__})") == 2


@pytest.mark.parametrize(
    ("arguments", "error"),
    [((1,), TypeError), (("abc", 1.5), TypeError), (("abc", True), TypeError), (("abc", -1), ValueError)],
)
def test_a_bad_argument_is_an_error_at_once(job: LeasedJob, arguments: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        job.track(*arguments)


def test_a_task_tracks_itself(pq: PQ, clock: Clock) -> None:
    told, go_on = threading.Event(), threading.Event()

    @pq["a"].task(name="peel", result=True)
    def peel(job_id: int, kinds: list[str]) -> int:
        for n, _ in enumerate(current().track(kinds)):
            if n == 1:
                told.set()
                go_on.wait(PATIENCE)
            clock.now += 1
        return len(kinds)

    worker = Worker(pq["a"])
    thread = Background(worker.run)
    try:
        id = peel(["Cox", "Gala"])
        assert told.wait(PATIENCE)
        assert wait_until(lambda: pq["a"].progress(id)) == {"done": 0.5, "text": "1 of 2"}
        go_on.set()
        assert pq["a"].result(id, timeout=PATIENCE) == 2
        assert pq["a"].progress(id) is None
    finally:
        go_on.set()
        worker.stop()
        thread.result()
