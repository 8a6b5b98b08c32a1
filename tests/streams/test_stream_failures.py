"""Events that fail: delivered again by halves, then alone, then dead; or they stop their partition."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from support import execute, wait_until

from pq import PQ, errors
from pq._streams import Stream, Subscription

Sql = Callable[..., list[tuple[Any, ...]]]


def subscribe(stream: Stream, **options: Any) -> Subscription:
    return stream.subscribe("billing", **{"retry_in": None, **options})


def batch_of(subscription: Subscription, n: int, how: str) -> Any:
    if how == "batch":
        return subscription.batch(n, timeout=0)
    return next(subscription.batches(n, timeout=0))


def deliver(subscription: Subscription, bad: set[Any], how: str = "batch", most: int = 50) -> list[list[Any]]:
    """Take batches until there are none; those with a bad event fail. Return the data of all that were delivered."""
    seen: list[list[Any]] = []
    for _ in range(most):
        try:
            with batch_of(subscription, 1000, how) as batch:
                if not batch:
                    return seen
                seen.append([event.data for event in batch])
                if bad.intersection(seen[-1]):
                    raise ValueError("bad")
        except ValueError:
            pass
    return seen


def expire(sql: Sql) -> None:
    sql("update queue_batches_orders set due_at = statement_timestamp()")


HOWS = pytest.mark.parametrize("how", ["batch", "batches"])


@HOWS
def test_a_batch_that_fails_comes_again_by_halves_until_the_event_that_fails_is_alone(
    stream: Stream, pq: PQ, how: str, sql: Sql
) -> None:
    subscription = subscribe(stream, max_retries=2)
    stream.publish_many(range(8), type="created", key="k", headers={"h": 1})
    seen = deliver(subscription, {5}, how)
    assert seen == [[0, 1, 2, 3, 4, 5, 6, 7], [0, 1, 2, 3], [4, 5, 6, 7], [4, 5], [4], [5], [5], [5], [6, 7]]
    (dead,) = pq["orders:billing"].dead
    assert (dead.error.type, dead.error.message, dead.attempts) == ("ValueError", "bad", 3)
    (event,) = stream.read(limit=1, after=dead.data["id"] - 1)
    assert dead.data == {
        "id": 6, "at": event.at.isoformat(), "type": "created", "key": "k", "data": 5, "headers": {"h": 1},
    }  # fmt: skip
    assert sql("select from queue_batches_orders") == []


@HOWS
def test_each_event_that_fails_is_set_aside_alone_and_all_others_are_read_once(
    stream: Stream, pq: PQ, how: str
) -> None:
    subscription = subscribe(stream, max_retries=0)
    stream.publish_many(range(20))
    bad = {0, 7, 8, 19}
    seen = deliver(subscription, bad, how)
    done = [data for batch in seen if not bad.intersection(batch) for data in batch]
    assert done == [data for data in range(20) if data not in bad]
    assert [job.data["data"] for job in pq["orders:billing"].dead] == sorted(bad)


@HOWS
def test_one_event_is_tried_again_after_the_pause_of_the_policy(stream: Stream, how: str, sql: Sql) -> None:
    subscription = subscribe(stream, retry_in=["10m", "20m"])
    stream.publish(0)
    for pause in (timedelta(minutes=10), timedelta(minutes=20), timedelta(minutes=20)):
        assert deliver(subscription, {0}, how) == [[0]]
        ((due_in, error),) = sql("select due_at - statement_timestamp(), error from queue_batches_orders")
        assert pause - timedelta(minutes=1) < due_in <= pause
        assert "bad" in error
        assert deliver(subscription, {0}, how) == []
        expire(sql)


def test_a_killed_process_has_failed_and_its_event_is_dead_after_as_many_attempts(
    dsn: str, stream: Stream, pq: PQ, sql: Sql
) -> None:
    subscription = subscribe(stream, max_retries=1)
    stream.publish_many([0, 1])
    sizes = []
    for _ in range(3):
        sizes.append(kill_in_the_middle(dsn))
        expire(sql)
    assert sizes == ["2", "1", "1"]
    assert deliver(subscription, set()) == [[1]]
    (dead,) = pq["orders:billing"].dead
    assert dead.data["data"] == 0
    assert dead.error.type == "pq.errors.LeaseExpired"
    assert dead.attempts == 2


def kill_in_the_middle(dsn: str) -> str:
    """Kill a process inside of its block; return how many events it had."""
    program = (
        "import sys, time\nfrom pq import PQ\n"
        "with PQ(sys.argv[1]).streams['orders'].subscription('billing').batch(timeout=5) as batch:\n"
        "    print(len(batch), flush=True)\n    time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program, dsn], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    size = process.stdout.readline().strip()
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    query = "select from pg_stat_activity where state = 'idle in transaction' and datname = current_database()"
    wait_until(lambda: not execute(dsn, query), "the end of its session")
    return size


@HOWS
def test_an_event_that_stops_its_partition_is_tried_again_for_ever(stream: Stream, pq: PQ, how: str, sql: Sql) -> None:
    subscription = subscribe(stream, max_retries=1, ordered="stop")
    stream.publish_many(range(3))
    seen = []
    for _ in range(6):
        seen += deliver(subscription, {1}, how, most=10)
        expire(sql)
    assert seen == [[0, 1, 2], [0, 1], [0], [1], [1], [1], [1], [1], [1]]
    assert pq["orders:billing"].count() == 0
    assert deliver(subscription, set(), how) == [[1], [2]]


@HOWS
def test_an_event_that_stops_its_partition_is_not_tried_in_a_hot_loop(stream: Stream, how: str, sql: Sql) -> None:
    subscription = subscribe(stream, max_retries=0, ordered="stop", retry_in=lambda attempt, error: None)
    stream.publish(0)
    assert deliver(subscription, {0}, how) == [[0]]
    ((due_in,),) = sql("select due_at - statement_timestamp() from queue_batches_orders")
    assert due_in > timedelta(seconds=30)


def test_a_policy_that_fails_gives_up(stream: Stream, pq: PQ) -> None:
    def choose(attempt: int, error: BaseException) -> str:
        raise RuntimeError("no idea")

    subscription = subscribe(stream, retry_in=choose)
    stream.publish(0)
    assert deliver(subscription, {0}) == [[0]]
    assert [job.error.message for job in pq["orders:billing"].dead] == ["bad"]


@HOWS
def test_an_interrupt_gives_the_batch_back_and_does_not_count(stream: Stream, how: str, sql: Sql) -> None:
    subscription = subscribe(stream)
    stream.publish_many(range(3))
    with pytest.raises(KeyboardInterrupt), batch_of(subscription, 1000, how):
        raise KeyboardInterrupt
    assert sql("select attempts, error from queue_batches_orders") == [(0, None)]
    assert deliver(subscription, set(), how) == [[0, 1, 2]]


def test_an_error_of_the_commit_is_a_failure(stream: Stream, pq: PQ, sql: Sql) -> None:
    sql("create table effects (n int unique deferrable initially deferred)")
    subscription = subscribe(stream, max_retries=0)
    stream.publish_many([1, 2])
    for size in (2, 1, 1):
        with pytest.raises(Exception, match="duplicate key"), subscription.batch(timeout=0) as batch:
            assert len(batch) == size
            batch.cursor.execute("insert into effects values (1), (1)")
    assert [job.data["data"] for job in pq["orders:billing"].dead] == [1, 2]
    assert "effects" in next(iter(pq["orders:billing"].dead)).error.message


def test_what_a_block_has_written_before_it_failed_is_undone(stream: Stream, sql: Sql) -> None:
    sql("create table effects (n int)")
    subscription = subscribe(stream, max_retries=0)
    stream.publish_many([1, 2])
    for _ in range(4):
        try:
            with subscription.batch(timeout=0) as batch:
                for event in batch:
                    batch.cursor.execute("insert into effects values (%s)", (event.data,))
                    assert event.data != 2
        except AssertionError:
            pass
    assert sql("select n from effects") == [(1,)]


def test_a_batch_is_never_larger_than_asked_for_when_it_comes_again(stream: Stream) -> None:
    subscription = subscribe(stream)
    stream.publish_many(range(10))
    next(subscription.batches(10, timeout=0)).release()
    sizes = []
    while batch := next(subscription.batches(4, timeout=0)):
        sizes.append(len(batch))
        batch.done()
    assert sizes == [4, 4, 2]


def test_the_options_of_failures_are_stored_and_can_be_changed(stream: Stream) -> None:
    subscription = stream.subscribe("billing")
    assert (subscription.info().max_retries, subscription.info().ordered) == (3, "aside")
    stream.subscribe("billing", max_retries=7)
    stream.subscribe("billing", ordered="stop")
    stream.subscribe("billing")
    assert (subscription.info().max_retries, subscription.info().ordered) == (7, "stop")


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ({"max_retries": -1}, ValueError, "max_retries must not be negative"),
        ({"max_retries": True}, TypeError, "max_retries must be an int"),
        ({"ordered": "yes"}, ValueError, "ordered must be one of 'aside', 'stop'"),
        ({"ordered": None}, TypeError, "ordered must be a str"),
        ({"ordered": "stop", "shared": True}, ValueError, "ordered can't be 'stop'"),
        ({"retry_in": -1}, ValueError, "retry_in must not be negative"),
        ({"retry_in": "soon"}, ValueError, "retry_in must be of the form"),
    ],
)
def test_a_bad_option_is_refused_before_any_statement(
    stream: Stream, options: dict[str, Any], kind: type[Exception], words: str, statements: list[str]
) -> None:
    with pytest.raises(kind, match=words):
        stream.subscribe("billing", **options)
    assert statements == []


@pytest.mark.parametrize(
    ("name", "kind"),
    [("", ValueError), ("a\0", ValueError), ("x" * 2700, ValueError), (1, TypeError)],
)
def test_a_bad_name_of_a_subscription(stream: Stream, name: Any, kind: type[Exception], statements: list[str]) -> None:
    with pytest.raises(kind, match="name"):
        stream.subscribe(name)
    assert statements == []


def test_a_queue_of_other_jobs_is_not_taken_for_the_retries(stream: Stream, pq: PQ) -> None:
    pq["orders:billing"].put({"id": 1})
    with pytest.raises(ValueError, match=r"queue 'orders:billing', .* has other jobs"):
        stream.subscribe("billing")
    with pytest.raises(errors.SubscriptionNotFound):
        stream.subscription("billing").info()
    assert pq["orders:billing"].count() == 1
    pq["orders:billing"].clear()
    stream.subscribe("billing")


@pytest.mark.parametrize("state", ["scheduled", "running", "dead"])
def test_such_a_queue_is_refused_whatever_the_state_of_its_job(stream: Stream, pq: PQ, state: str) -> None:
    queue = pq["orders:billing"]
    queue.put(1, schedule_at="1h" if state == "scheduled" else None)
    if state != "scheduled":
        job: Any = queue.get(lease="1h")
        if state == "dead":
            job.fail("it")
    with pytest.raises(ValueError, match="has other jobs"):
        stream.subscribe("billing")


def test_the_events_that_an_earlier_subscription_has_set_aside_are_no_other_jobs(stream: Stream, pq: PQ) -> None:
    subscription = subscribe(stream, max_retries=0)
    stream.publish_many([0, 1])
    assert deliver(subscription, {0, 1})
    subscription.drop(force=True)
    pq["orders:billing"].pause()
    subscribe(stream)
    assert pq["orders:billing"].dead.list()


def test_a_job_that_is_no_event_is_dead_and_the_events_go_on(stream: Stream, pq: PQ) -> None:
    subscription = subscribe(stream)
    pq["orders:billing"].put([1])
    stream.publish(5)
    assert deliver(subscription, set()) == [[5]]
    (dead,) = pq["orders:billing"].dead
    assert "no event" in dead.error.message
