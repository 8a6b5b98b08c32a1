"""The longest names that a queue can have: each state of a job is in an index, whose entries are limited."""

from __future__ import annotations

import base64
import random
from collections.abc import Callable
from operator import setitem
from typing import Any

import pytest
from support import Background, wait_until

from pq import PQ, Limit, NewJob, Schedule, Unique
from pq._args import QUEUE_NAME_BYTES
from pq._unique import MOST_BYTES, MOST_TOGETHER

#: PostgreSQL compresses long values of an index: these characters leave it nothing to compress.
LONGEST = base64.b64encode(random.Random(1).randbytes(QUEUE_NAME_BYTES)).decode()[:QUEUE_NAME_BYTES]


@pytest.mark.parametrize("suffix", ["", "/text"])
def test_a_job_of_a_queue_with_the_longest_name_in_each_state(pq: PQ, suffix: str) -> None:
    queue = pq[LONGEST + suffix]
    for times in ({}, {"expected_at": "1h"}, {"schedule_at": "1ms", "expected_at": "1h"}):
        queue.put("data", **times)
        job: Any = queue.get(lease="1h", timeout=5)
        assert job.data == "data"
        job.fail("broken")
        assert queue.dead.retry(job.id) == 1
        assert queue.get().data == "data"  # type: ignore[union-attr]
    queue.pause()
    assert queue.paused
    queue.resume()
    other = pq["short"].put("data")
    assert pq["short"].move(other, LONGEST + suffix)
    assert LONGEST + suffix in pq
    assert len(queue) == 1


def test_a_put_to_a_queue_with_the_longest_name_wakes(dsn: str) -> None:
    with PQ(dsn, poll_interval=3600.0) as pq:
        waiter = Background(pq[LONGEST].get, timeout=3600.0)
        wait_until(lambda: getattr(pq._table._room.queues.get(LONGEST), "sure", False), "the sleep of the waiter")
        pq[LONGEST].put(1)
        assert waiter.result().data == 1


def test_longer_names_are_refused(pq: PQ) -> None:
    with pytest.raises(ValueError, match="too long"):
        pq["short"].move(pq["short"].put(1), LONGEST + "x")
    assert LONGEST + "x" not in pq


#: A name beside which an index holds the longest key, and not a byte more.
LONG = LONGEST[: MOST_TOGETHER - MOST_BYTES]
TAG = LONGEST[-MOST_BYTES:]

#: What writes a key or a token: of a PQ, the name of a queue, the tag, and a job.
WRITES: dict[str, Callable[[PQ, str, str, int], Any]] = {
    "put a key": lambda pq, name, tag, job: pq[name].put(1, key=tag),
    "put a key at a time": lambda pq, name, tag, job: pq[name].put(1, "1h", "2h", key=tag),
    "put a key after": lambda pq, name, tag, job: pq[name].put(1, key=tag, after=job),
    "put a token": lambda pq, name, tag, job: pq[name].put(1, unique=tag),
    "put a window": lambda pq, name, tag, job: pq[name].put(1, unique=Unique(tag, window="1h")),
    "put both": lambda pq, name, tag, job: pq[name].put(1, key=tag, unique=tag),
    "put many keys": lambda pq, name, tag, job: pq[name].put_many([NewJob(1), NewJob(1, key=tag)]),
    "put many tokens": lambda pq, name, tag, job: pq[name].put_many([NewJob(1, unique=tag)]),
    "load": lambda pq, name, tag, job: pq[name].load([NewJob(1, expected_at="1h", key=tag)]),
    "end a group": lambda pq, name, tag, job: end_a_group(pq[name], NewJob(1, key=tag)),
    "key_state": lambda pq, name, tag, job: pq.key_state(name, tag, {"a": 1}),
    "schedule a key": lambda pq, name, tag, job: setitem(pq.schedules, "s", Schedule(name, 1, every="1h", key=tag)),
    "schedule token": lambda pq, name, tag, job: setitem(pq.schedules, "s", Schedule(name, 1, every="1h", unique=tag)),
    "task with a key": lambda pq, name, tag, job: pq[name].task(key=lambda value: tag)(nothing)(1),
    "task with a token": lambda pq, name, tag, job: pq[name].task(unique=lambda value: tag)(nothing)(1),
}


def end_a_group(queue: Any, last: NewJob) -> None:
    with queue.group(then=(queue, last)):
        pass


def nothing(id: int | None, value: int) -> None:
    pass


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_a_key_or_token_beside_a_name_is_as_long_as_indexes_hold_or_refused(
    pq: PQ, statements: list[str], write: Callable[[PQ, str, str, int], Any]
) -> None:
    job = pq["short"].put(1)
    write(pq, LONG, TAG, job)
    for name, tag in ((LONG + "x", TAG), (LONGEST, "t" * 100)):
        with pq["short"] as cursor:
            del statements[:]
            with pytest.raises(ValueError, match=f"together, not {len(tag)} and {len(name)}: queue"):
                write(pq, name, tag, job)
            assert not [sql for sql in statements if sql != pq["short"]._sql["now"]]  # load needs that
            cursor.execute("select 1")  # the transaction goes on
        assert name not in pq


def test_a_digest_is_a_token_too(pq: PQ) -> None:
    assert pq[LONGEST[:2586]].put(1, unique=True).created
    with pytest.raises(ValueError, match="not 64 and 2587"):
        pq[LONGEST[:2587]].put(1, unique=True)


@pytest.mark.parametrize("tag", ["key", "unique"])
def test_a_job_with_the_longest_key_or_token_in_each_state(pq: PQ, tag: str) -> None:
    queue: Any = pq[LONG]
    for number in range(2):
        queue.put(number, expected_at="1h", **{tag: TAG[:-1] + str(number) if tag == "unique" else TAG})
    for _ in range(2):
        job = queue.get(lease="1h", timeout=5)
        job.retry("1ms", error="once")
        job = queue.get(lease="1h", timeout=5)
        job.fail("broken")
        assert queue.dead.retry(job.id) == 1
        queue.get(lease="1h", timeout=5).done()


@pytest.mark.parametrize("tag", ["key", "unique"])
def test_a_move_to_a_queue_whose_name_leaves_too_little_room(pq: PQ, tag: str) -> None:
    short: Any = pq["short"]
    job = short.put(1, **{tag: TAG})
    with pytest.raises(ValueError, match=f"the job .* not 500 and {len(LONG) + 1}"):
        short.move(job, LONG + "x")
    assert short.move(job, LONG)
    assert pq[LONG].get().id == job  # type: ignore[union-attr]
    assert not short.move(job, LONG + "x")  # it is no longer there


def test_limits_of_the_longest_name(pq: PQ) -> None:
    pq.limits[LONGEST] = Limit(running=3, rate="100/s", per_key=2)
    queue: Any = pq[LONGEST]
    queue.put(1)
    assert queue.get(lease="1m", timeout=0).data == 1
