"""Events that are set aside: by the consumer, or since they can't be decoded; and how they come back."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest
from support import execute

from pq import PQ, errors
from pq._streams import Stream, Subscription

Sql = Callable[..., list[tuple[Any, ...]]]
Take = Callable[..., list[Any]]


def subscribe(stream: Stream, **options: Any) -> Subscription:
    return stream.subscribe("billing", **{"retry_in": None, **options})


def due(sql: Sql) -> None:
    sql("update queue set due_at = statement_timestamp() where q_name = 'orders:billing' and due_at is not null")


def retry_odd(batch: Any) -> None:
    for event in batch:
        if event.data % 2:
            event.retry("1h")


def test_an_event_that_is_set_aside_comes_back_alone_and_the_others_are_done(
    stream: Stream, pq: PQ, take: Take, sql: Sql
) -> None:
    subscription = subscribe(stream)
    stream.publish_many(range(5), type="t", key="k", headers={"h": [1]})
    assert take(subscription, retry_odd) == [0, 1, 2, 3, 4]
    assert sql("select from queue_batches_orders") == []
    assert take(subscription) == []
    jobs = pq["orders:billing"].list()
    assert [(job.state, job.attempts, job.data["data"]) for job in jobs] == [("scheduled", 1, 1), ("scheduled", 1, 3)]
    due(sql)
    events: list[Any] = []
    assert take(subscription, events.extend) == [1]
    (event,) = events
    (original,) = stream.read(event.id - 1, 1)
    assert event.attempts == 2
    assert (event.id, event.at, event.type, event.key, event.headers) == (
        original.id, original.at, "t", "k", {"h": [1]},
    )  # fmt: skip
    assert take(subscription) == [3]
    assert take(subscription) == []
    assert pq["orders:billing"].count() == 0


def test_an_event_that_is_given_up_is_dead(stream: Stream, pq: PQ, take: Take, sql: Sql) -> None:
    def fail(batch: Any) -> None:
        batch[0].fail(ValueError("of no use"))
        batch[2].fail("in words")

    subscription = subscribe(stream)
    stream.publish_many(range(3))
    take(subscription, fail)
    assert take(subscription) == []
    first, second = pq["orders:billing"].dead
    assert (first.data["data"], first.error.type, first.error.message, first.attempts) == (
        0, "ValueError", "of no use", 1,
    )  # fmt: skip
    assert (second.data["data"], second.error.message) == (2, "in words")


def test_a_dead_event_that_is_retried_comes_back(stream: Stream, pq: PQ, take: Take) -> None:
    subscription = subscribe(stream)
    stream.publish_many(range(3))
    take(subscription, lambda batch: batch[1].fail("for now"))
    pq["orders:billing"].dead.retry(all=True)
    stream.publish(3)
    assert take(subscription) == [1]
    assert take(subscription) == [3]


def test_nothing_is_set_aside_when_the_batch_fails(stream: Stream, pq: PQ, take: Take) -> None:
    def fail(batch: Any) -> None:
        batch[0].retry("1h")
        batch[1].fail("no")
        raise ValueError

    subscription = subscribe(stream)
    stream.publish_many([0, 1])
    with pytest.raises(ValueError):  # noqa: PT011
        take(subscription, fail)
    assert pq["orders:billing"].count() == 0
    seen = [take(subscription), take(subscription)]
    assert [data for batch in seen for data in batch] == [0, 1]


def test_a_retried_event_can_be_set_aside_again_and_counts_its_attempts(
    stream: Stream, pq: PQ, take: Take, sql: Sql
) -> None:
    subscription = subscribe(stream)
    stream.publish(0)
    attempts = []
    for _ in range(6):
        take(subscription, lambda batch: (attempts.append(batch[0].attempts), batch[0].retry("1h")))
        assert take(subscription) == []
        assert pq["orders:billing"].count() == 1
        due(sql)
    assert attempts == [1, 2, 3, 4, 5, 6]
    take(subscription, lambda batch: batch[0].fail("enough"))
    (dead,) = pq["orders:billing"].dead
    assert (dead.attempts, dead.error.message, dead.data["data"]) == (7, "enough", 0)


@pytest.mark.parametrize("how", ["batch", "batches"])
def test_a_retried_event_that_fails_is_dead_after_max_retries(stream: Stream, pq: PQ, how: str, sql: Sql) -> None:
    subscription = subscribe(stream, max_retries=3)
    stream.publish_many([0, 1])
    with subscription.batch(timeout=0) as batch:
        batch[0].retry("0s")
    attempts = []
    for _ in range(3):
        block = subscription.batch(timeout=0) if how == "batch" else next(subscription.batches(timeout=0))
        with suppress(ValueError), block as batch:
            attempts.append(batch[0].attempts)
            raise ValueError("bad")
    assert attempts == [2, 3, 4]
    (dead,) = pq["orders:billing"].dead
    assert (dead.data["data"], dead.error.message) == (0, "bad")


def test_the_pause_of_a_retry_without_one_is_that_of_the_policy(stream: Stream, take: Take, sql: Sql) -> None:
    subscription = subscribe(stream, retry_in="2h")
    stream.publish(0)
    take(subscription, lambda batch: batch[0].retry())
    ((due_in,),) = sql("select due_at - statement_timestamp() from queue")
    assert timedelta(minutes=119) < due_in <= timedelta(hours=2)


def test_due_events_come_first_and_take_turns_with_new_ones(stream: Stream, take: Take) -> None:
    subscription = subscribe(stream)
    stream.publish_many(range(3))
    take(subscription, lambda batch: [event.retry("0s") for event in batch])
    stream.publish_many(range(10, 14))
    seen = [take(subscription, n=2) for _ in range(6)]
    assert seen == [[0], [10, 11], [1], [12, 13], [2], []]


def test_new_events_go_on_while_the_queue_of_retries_is_paused(stream: Stream, pq: PQ, take: Take) -> None:
    subscription = subscribe(stream)
    stream.publish(0)
    take(subscription, lambda batch: batch[0].retry("0s"))
    pq["orders:billing"].pause()
    stream.publish(1)
    assert take(subscription) == [1]
    assert take(subscription) == []
    pq["orders:billing"].resume()
    assert take(subscription) == [0]


def test_a_waiting_consumer_is_woken_by_an_event_that_is_due(stream: Stream) -> None:
    subscription = subscribe(stream)
    stream.publish(0)
    with subscription.batch() as batch:
        batch[0].retry("300ms")
    with subscription.batch(timeout=30) as batch:
        assert [event.data for event in batch] == [0]


def test_an_event_is_set_aside_once_and_only_while_its_batch_is_open(stream: Stream, pq: PQ, take: Take) -> None:
    def twice(batch: Any) -> None:
        batch[0].retry("1h")
        with pytest.raises(ValueError, match="event 1 was set aside before"):
            batch[0].fail("x")

    subscription = subscribe(stream)
    stream.publish(0)
    take(subscription, twice)
    assert pq["orders:billing"].counts()["scheduled"] == 1
    stream.publish(1)
    batch = next(subscription.batches(timeout=0))
    batch.done()
    with pytest.raises(ValueError, match="the batch of event 2 has ended"):
        batch[0].retry()
    with pytest.raises(ValueError, match="event 1 is not part of a batch"):
        stream.read()[0].fail("x")


@pytest.mark.parametrize(("pause", "kind"), [("soon", ValueError), (-1, ValueError), ([5], TypeError)])
def test_a_bad_pause_changes_nothing(stream: Stream, pause: Any, kind: type[Exception], statements: list[str]) -> None:
    subscription = subscribe(stream)
    stream.publish(0)
    batch = next(subscription.batches(timeout=0))
    statements.clear()
    with pytest.raises(kind):
        batch[0].retry(pause)
    with pytest.raises(kind):
        batch.failed("x", pause)
    assert statements == []
    batch.done()


def test_nothing_is_set_aside_by_a_delivery_that_has_lost_its_batch(stream: Stream, pq: PQ, sql: Sql) -> None:
    subscription = subscribe(stream)
    stream.publish_many([0, 1])
    late = next(subscription.batches(timeout=0))
    sql("update queue_batches_orders set due_at = statement_timestamp()")
    assert next(subscription.batches(timeout=0))
    late[0].retry("0s")
    late[1].fail("x")
    with pytest.raises(errors.BatchLost):
        late.done()
    assert pq["orders:billing"].count() == 0


def test_many_events_are_set_aside_by_one_statement(stream: Stream, pq: PQ, statements: list[str]) -> None:
    subscription = subscribe(stream)
    stream.publish_many(range(100))
    batch = next(subscription.batches(timeout=0))
    statements.clear()
    for event in batch:
        event.retry("1h", error="it's \"so\" \\ {},")
    batch.done()
    assert len(statements) == 1
    assert {job.error.message for job in pq["orders:billing"].list(limit=1000) if job.error} == {'it\'s "so" \\ {},'}
    assert pq["orders:billing"].counts()["scheduled"] == 100


# -- what can't be decoded


@pytest.fixture
def text(pq: PQ, stream: Stream) -> Stream:
    return pq.streams["orders/text"]


BROKEN = [("data", "'[1, 2]'"), ("data", "'7'"), ("headers", "'[1]'"), ("headers", "'\"h\"'")]


@pytest.mark.parametrize(("column", "value"), BROKEN)
def test_an_event_that_cannot_be_decoded_is_dead_with_its_text_and_the_others_are_read(
    text: Stream, pq: PQ, take: Take, sql: Sql, column: str, value: str, caplog: pytest.LogCaptureFixture
) -> None:
    subscription = subscribe(text)
    text.publish("a")
    columns = {"data": "'\"x\"'", "headers": "null", column: value}
    sql(f"insert into queue_stream_orders ({', '.join(columns)}) values ({', '.join(columns.values())})")
    text.publish("b")
    with caplog.at_level(logging.ERROR):
        assert take(subscription) == ["a", "b"]
    assert "event 2 cannot be decoded" in caplog.text
    (dead,) = pq["orders:billing"].dead
    assert dead.error.type == "pq.errors.DecodeError"
    assert value.strip("'") in dead.text
    assert dead.data["id"] == 2
    assert take(subscription) == []
    assert sql("select from queue_batches_orders") == []


def test_nothing_but_events_that_cannot_be_decoded(text: Stream, pq: PQ, take: Take, sql: Sql) -> None:
    subscription = subscribe(text)
    sql("insert into queue_stream_orders (data) values ('1'), ('2'), ('3')")
    assert take(subscription, n=2) == []
    text.publish("a")
    assert take(subscription) == ["a"]
    assert [job.data["data"] for job in pq["orders:billing"].dead] == [1, 2, 3]


def test_such_an_event_is_set_aside_once_though_its_batch_comes_again(text: Stream, pq: PQ, sql: Sql) -> None:
    subscription = subscribe(text)
    sql("insert into queue_stream_orders (data) values ('\"a\"'), ('2'), ('\"b\"')")
    for _ in range(3):
        assert [event.data for event in next(subscription.batches(timeout=0))] in (["a", "b"], ["a"], ["a"])
        assert pq["orders:billing"].count() == 0
        sql("update queue_batches_orders set due_at = statement_timestamp()")
    for batch in subscription.batches(timeout=0):
        if not batch:
            break
        batch.done()
    assert len(pq["orders:billing"].dead.list()) == 1


def test_such_an_event_stops_a_subscription_that_is_to_stop(text: Stream, pq: PQ, sql: Sql) -> None:
    subscription = subscribe(text, ordered="stop")
    sql("insert into queue_stream_orders (data) values ('\"a\"'), ('2'), ('\"b\"')")
    seen = []
    for _ in range(5):
        with subscription.batch(timeout=0) as batch:
            seen += [event.data for event in batch]
    assert seen == ["a"]
    assert pq["orders:billing"].count() == 0
    assert "DecodeError" in sql("select error from queue_batches_orders order by first limit 1")[0][0]
    with pq.using(None), pytest.raises(ValueError, match="needs a transaction"):
        subscription.take()


def test_read_says_which_event_cannot_be_decoded(text: Stream, sql: Sql) -> None:
    sql("insert into queue_stream_orders (data) values ('1')")
    with pytest.raises(errors.DecodeError, match=r"event 1 cannot be decoded \(TypeError"):
        text.read()


def test_a_time_that_python_cannot_hold_is_clamped(stream: Stream, take: Take, sql: Sql) -> None:
    subscription = subscribe(stream)
    sql("insert into queue_stream_orders (at, data) values ('infinity', '1'), ('-infinity', '2')")
    years: list[int] = []
    assert take(subscription, lambda batch: years.extend(event.at.year for event in batch)) == [1, 2]
    assert years == [9999, 1]


def test_subscriptions_of_two_streams_never_share_a_queue(pq: PQ) -> None:
    pairs = [("a", "b:c"), ("a:b", "c"), ("a", "b%3Ac"), ("a:b%3Ac", "d"), ("a", "b:c:d")]
    for number, (name, subscription) in enumerate(pairs):
        pq.streams[name].create()
        reader = pq.streams[name].subscribe(subscription)
        pq.streams[name].publish(number)
        with reader.batch(timeout=0) as batch:
            batch[0].retry("0s")
    assert len(pq.queues()) == len(pairs)
    for number, (name, subscription) in enumerate(pairs):
        with pq.streams[name].subscription(subscription).batch(timeout=0) as batch:
            assert batch[0].data == number


def test_a_name_with_a_codec_in_it_leads_to_the_same_queue(stream: Stream, dsn: str, take: Take) -> None:
    subscription = stream.subscribe("x/text", retry_in=None)
    stream.publish({"a": 1})
    take(subscription, lambda batch: batch[0].retry("0s"))
    assert execute(dsn, "select q_name from queue") == [("orders:x/text",)]
    assert take(subscription) == [{"a": 1}]


@pytest.mark.parametrize("error", [None, 1, b"no"])
def test_a_failure_has_a_reason(stream: Stream, error: Any) -> None:
    subscription = stream.subscribe("a")
    stream.publish(1)
    batch = next(subscription.batches(timeout=0))
    for call in (batch.failed, batch[0].fail):
        with pytest.raises(TypeError, match="error must be an exception, or a reason in words"):
            call(error)
    if error is not None:
        with pytest.raises(TypeError, match="error must be"):
            batch[0].retry(error=error)
    batch.done()
    assert subscription.lag().events == 0


def test_the_names_of_a_codec_are_none_in_the_queue_of_retries(stream: Stream) -> None:
    subscription = stream.subscribe("a/pickle")
    stream.publish(1)
    with subscription.batch(timeout=0) as batch:
        batch[0].retry("0s")
    with subscription.batch(timeout=0) as batch:
        assert [(event.data, event.attempts) for event in batch] == [(1, 2)]
