"""`Stream.on`: a worker performs events as it performs jobs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from support import wait_until

from pq import PQ, NewEvent, Worker
from pq._streams import Event, upkeep
from pq.tasks import current


@pytest.fixture
def stream(pq: PQ) -> Any:
    stream = pq.streams["orders"]
    stream.create()
    return stream


@contextmanager
def working(pq: PQ, threads: int = 2) -> Iterator[None]:
    """A worker that runs in a thread."""
    worker = Worker(pq, threads=threads, capture_signals=False)
    thread = threading.Thread(target=worker.run)
    thread.start()
    try:
        yield
    finally:
        worker.stop()
        thread.join(30)


def test_a_worker_calls_the_functions_of_each_type(pq: PQ, stream: Any) -> None:
    seen: list[tuple[str, Event]] = []

    @stream.on("created", "changed", subscription="first", start="beginning")
    def made(event: Event) -> None:
        seen.append(("made", event))

    @stream.on(subscription="first")
    def other(event: Event) -> None:
        seen.append(("other", event))

    id = stream.publish({"n": 1}, "created", "7", {"by": "ada"})
    stream.publish({"n": 2}, "changed")
    stream.publish({"n": 3}, "paid")
    with working(pq):
        wait_until(lambda: len(seen) == 3, "the events")
    assert sorted((how, event.data["n"]) for how, event in seen) == [("made", 1), ("made", 2), ("other", 3)]
    (first,) = (event for _, event in seen if event.data["n"] == 1)
    assert (first.id, first.type, first.key, first.headers) == (id, "created", "7", {"by": "ada"})
    assert first.at.tzinfo is not None


def test_an_event_is_done_once_with_what_its_function_writes(pq: PQ, stream: Any, sql: Callable[..., Any]) -> None:
    sql("create table seen (n int)")
    failures = [ValueError("the first time")]

    @stream.on(subscription="second", start="beginning", transactional=True, max_retries=1, retry_in="0s")
    def note(event: Event) -> None:
        current().cursor.execute("insert into seen values (%s)", (event.data,))
        if event.data == 3 and failures:
            raise failures.pop()

    stream.publish_many(range(10))
    with working(pq), working(pq):
        wait_until(lambda: sql("select count(*) from seen") == [(10,)], "the events")
        stream.publish(10)
        wait_until(lambda: sql("select count(*) from seen") == [(11,)], "the last event")
    assert sql("select n from seen order by n") == [(n,) for n in range(11)]


def test_events_of_one_key_come_in_order(pq: PQ, stream: Any) -> None:
    seen: list[int] = []
    attempts: list[int] = []

    @stream.on(subscription="third", start="beginning", max_retries=1, retry_in="0s")
    def note(event: Event) -> None:
        seen.append(event.data)
        attempts.append(event.attempts)
        if event.data == 2 and seen.count(2) == 1:
            raise ValueError

    stream.publish_many(range(5), key="7" * 600)
    with working(pq, threads=4):
        wait_until(lambda: len(seen) == 6, "the events")
    assert seen == [0, 1, 2, 2, 3, 4]
    assert attempts == [1, 1, 1, 2, 1, 1]


def test_one_function_for_a_type(stream: Any) -> None:
    stream.on("a", subscription="fourth")(print)
    with pytest.raises(ValueError, match="'a'"):
        stream.on("a", subscription="fourth")
    with pytest.raises(TypeError):
        stream.on(1, subscription="fourth")
    with pytest.raises(ValueError, match="yesterday"):
        stream.on("b", subscription="fourth", start="yesterday")


def test_a_worker_removes_old_events_as_other_consumers_do(
    pq: PQ, stream: Any, sql: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("BEGIN", "PAUSE"):
        monkeypatch.setattr(upkeep, name, 0.0)
    stream.create(retain="1s")
    stream.on(subscription="sixth", start="beginning")(str)
    stream.publish_many(range(3))
    queue: Any = pq["orders:sixth:jobs"]
    with working(pq):
        wait_until(lambda: queue.counts()["finished"] == 3, "the events")
        sql("update queue_stream_orders set at = at - interval '1 hour'")
        wait_until(  # which slot comes next depends on the clock
            lambda: sql("update queue_stream_orders set slot = (slot + 1) % 3 returning 1") == [], "the removal"
        )


def test_a_worker_does_not_start_with_a_subscription_of_another_kind(pq: PQ, stream: Any) -> None:
    stream.subscribe("parted", partitions=2)

    @stream.on(subscription="parted")
    def perform(event: Event) -> None: ...

    with pytest.raises(ValueError, match="its partitions is 2, not 1"):
        Worker(pq, capture_signals=False).run()


def test_a_worker_waits_for_a_stream(pq: PQ) -> None:
    stream: Any = pq.streams["later"]
    seen: list[int] = []

    @stream.on(subscription="a", start="beginning")
    def perform(event: Event) -> None:
        seen.append(event.data)

    with working(pq):
        stream.create()
        stream.publish(1)
        wait_until(lambda: seen == [1], "the event")


class Tenant:
    """An instrument."""

    def headers(self, queue: str) -> dict[str, str]:
        assert queue == "orders"
        return {"tenant": "acme", "both": "instrument"}


HEADERS: dict[str, tuple[Any, Any]] = {
    "none": (None, None),
    "text": ({"by": "ada"}, {"by": "ada"}),
    "what is no text": ({"by": "ada", "n": 1}, {"by": "ada"}),
    "too long": ({"by": "a" * 16_384}, None),
}


@pytest.mark.parametrize("key", [None, "7"])
@pytest.mark.parametrize("case", HEADERS)
def test_headers_go_on_to_the_job(pq: PQ, stream: Any, case: str, key: str | None) -> None:
    given, expected = HEADERS[case]
    seen: list[Any] = []

    @stream.on(subscription="first", start="beginning")
    def note(event: Event) -> None:
        seen.append((event.headers, current().headers))

    stream.publish(1, key=key, headers=given)
    stream.publish_many([2], key=key, headers=given)
    with working(pq):
        wait_until(lambda: len(seen) == 2, "the events")
    assert seen == [(given, expected)] * 2


@pytest.mark.parametrize("given", [None, {"both": "mine", "n": 1}])
def test_headers_of_instruments_stand_beside(pq: PQ, stream: Any, given: Any) -> None:
    pq.instrument(Tenant())
    stream.publish(1, headers=given)
    stream.publish_many([2], headers=given)
    stream.load([NewEvent(3, headers=given)])
    expected = {"tenant": "acme", "both": "instrument"} | (given or {})
    assert [event.headers for event in stream.read()] == [expected] * 3
    for bad in ("a", [1]):
        with pytest.raises(TypeError, match="headers must be a dict"):
            stream.publish(1, headers=bad)
    assert len(stream.read()) == 3


def test_an_event_that_is_set_aside_keeps_them(pq: PQ, stream: Any) -> None:
    """Also one that is so for the second time, and one that is given up."""
    given = [({"by": "ada"}, {"by": "ada"}), (None, None), ({"by": "a" * 16_384}, None)]
    subscription = stream.subscribe("first", "beginning")
    for headers, _ in given:
        stream.publish(1, headers=headers)
    aside = pq["orders:first"]
    with subscription.batch() as batch:
        for event in batch:
            event.retry("0s")
    for _ in given:
        with subscription.batch() as batch:
            for event in batch:
                event.retry("1h")
    assert [job.headers for job in aside.list("scheduled")] == [expected for _, expected in given]
    for job in aside.list("scheduled"):
        aside.reschedule(job.id, None)
    for _ in given:
        with subscription.batch() as batch:
            for event in batch:
                event.fail("no")
    assert sorted(str(job.headers) for job in aside.dead.list()) == sorted(str(expected) for _, expected in given)
